# SPDX-License-Identifier: Apache-2.0
$(call module,cli,lib/http lib/tls lib/net lib/event lib/base,)
$(call program,remoractl,cli/main.c,cli)
