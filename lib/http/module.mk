# SPDX-License-Identifier: Apache-2.0
$(call module,lib/http,lib/net lib/event lib/base,-lnghttp2)
