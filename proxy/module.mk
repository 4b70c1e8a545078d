# SPDX-License-Identifier: Apache-2.0
# The data plane, lowest layer first. What a folder may use is checked by tools/check-layers.
LIBS_LOW := lib/http lib/tls lib/net lib/event lib/base
$(call module,proxy/core,lib/http lib/net lib/event lib/base,)
$(call module,proxy/stats,proxy/core lib/event lib/base,)
$(call module,proxy/model,proxy/core lib/http lib/tls lib/net lib/regex lib/base,)
$(call module,proxy/identity,proxy/stats lib/grpc lib/tls proto lib/net lib/event lib/base,)
$(call module,proxy/authz,proxy/model lib/regex proxy/stats proxy/core proto lib/http lib/net lib/base,)
$(call module,proxy/access_log,proxy/model proxy/stats proxy/core proto lib/http lib/net lib/event lib/base,)
$(call module,proxy/upstream,proxy/model proxy/stats proxy/core proto $(LIBS_LOW),,lb)
$(call module,proxy/listener,proxy/access_log proxy/model proxy/stats proxy/core $(LIBS_LOW),)
$(call module,proxy/http,proxy/listener proxy/access_log proxy/model proxy/stats proxy/core $(LIBS_LOW),)
$(call module,proxy/router,proxy/upstream proxy/model proxy/stats proxy/core $(LIBS_LOW),)
FILTER_USES := lib/jose proxy/router proxy/http proxy/listener proxy/upstream proxy/authz proxy/access_log proxy/model proxy/stats proxy/core proto $(LIBS_LOW)
$(call module,proxy/filters/listener,$(FILTER_USES),)
$(call module,proxy/filters/network,$(FILTER_USES),)
$(call module,proxy/filters/http,$(FILTER_USES),)
$(call module,proxy/config,proxy/filters/listener proxy/filters/network proxy/filters/http proxy/upstream proxy/access_log proxy/authz \
	proxy/model proxy/stats proxy/core xds-client proto lib/regex $(LIBS_LOW),)
$(call module,proxy/admin,proxy/access_log proxy/upstream proxy/listener proxy/model proxy/stats proxy/core xds-client proto lib/regex $(LIBS_LOW),)
$(call module,proxy/server,proxy/admin proxy/config proxy/identity,)
$(call program,remora-proxy,proxy/main.c,proxy/server)
