# SPDX-License-Identifier: Apache-2.0
$(call module,lib/net,lib/event lib/base,-lcares)
