# SPDX-License-Identifier: Apache-2.0
$(call module,init-net,lib/base,-lnftnl -lmnl,rules)
$(call program,remora-init,init-net/main.c,init-net lib/base)
