# SPDX-License-Identifier: Apache-2.0
$(call module,lib/tls,lib/net lib/event lib/base,-lssl -lcrypto)
