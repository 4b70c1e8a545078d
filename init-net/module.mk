# SPDX-License-Identifier: Apache-2.0
$(call module,init-net,lib/base,-lnftnl -lnetfilter_conntrack -lmnl,rules)
$(call program,remora-init,init-net/main.c,init-net lib/base)
