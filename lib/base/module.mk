# SPDX-License-Identifier: Apache-2.0
$(call module,lib/base,,-lyaml -lxxhash)

