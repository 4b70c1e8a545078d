# SPDX-License-Identifier: Apache-2.0
$(call module,lib/event,lib/base,)
