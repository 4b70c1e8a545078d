# SPDX-License-Identifier: Apache-2.0
$(call module,xds-client,lib/grpc proto lib/event lib/base,)
