// SPDX-License-Identifier: Apache-2.0
// jwt_authn.v3.JwtProvider → struct jwt_provider. Control thread.
#ifndef PROXY_FILTERS_HTTP_JWT_PROVIDER_H
#define PROXY_FILTERS_HTTP_JWT_PROVIDER_H

#include "envoy/extensions/filters/http/jwt_authn/v3/config.pb-c.h"
#include "proxy/filters/http/jwt_int.h"

// 0, or negative with "field: reason". Reads the file that local_jwks may name.
int jwt_provider_build(struct config_ctx *ctx, const char *name, const Envoy__Extensions__Filters__Http__JwtAuthn__V3__JwtProvider *m, struct arena *a,
                       struct jwt_provider *p, struct err *err);
// As both sides of a comparison have them.
struct str *jwt_audiences(size_t n, char *const *v, struct arena *a);
// The places of all these providers, each once, with the issuers that name it.
void jwt_locations_merge(const struct jwt_provider *v, size_t n, struct arena *a, struct jwt_locations *ret);

#endif
