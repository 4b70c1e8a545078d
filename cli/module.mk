# SPDX-License-Identifier: Apache-2.0
$(call module,cli,control-plane lib/http lib/tls lib/net lib/event lib/base,)
$(call program,remoractl,cli/main.c,cli)
