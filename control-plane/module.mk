# SPDX-License-Identifier: Apache-2.0
$(call module,control-plane,lib/grpc lib/jose lib/regex lib/http lib/tls proto lib/net lib/event lib/base,)
$(call program,remora-control,control-plane/main.c,control-plane)
