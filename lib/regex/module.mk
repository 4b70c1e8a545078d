# SPDX-License-Identifier: Apache-2.0
$(call module,lib/regex,lib/base,-lre2)
