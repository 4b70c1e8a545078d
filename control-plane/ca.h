// SPDX-License-Identifier: Apache-2.0
// The development CA: a root key and certificate in a state folder, made on first use; signs workload certificates and the control
// plane's own serving certificate. For one machine and tests: there is no HSM, no intermediate, no revocation.
#ifndef CONTROL_PLANE_CA_H
#define CONTROL_PLANE_CA_H

#include "control-plane/token.h"

enum { CA_WORKLOAD_TTL_MAX_S = 90 * 24 * 3600, CA_WORKLOAD_TTL_S = 24 * 3600 };

struct ca {
    struct arena arena;
    struct str root_pem, key_pem, trust_domain;
    uint8_t token_key[TOKEN_KEY_BYTES];
};
// Reads or makes root-cert.pem (0644), ca-key.pem and token-key (0600) in folder, which is made when absent.
int ca_open(struct ca *c, const char *folder, struct str trust_domain, struct err *err);
void ca_close(struct ca *c);
// Certificate for spiffe://TD/ns/NS/sa/SA from a CSR whose own names are ignored. ttl_s: 0 = a day; above 90 days is an error.
int ca_sign_workload(const struct ca *c, struct str csr_pem, const struct token_identity *who, int64_t ttl_s, struct arena *a, struct str *ret_pem,
                     struct err *err);
// Key and certificate for this server, with the names and addresses in sans.
int ca_serving_cert(const struct ca *c, const struct str *sans, size_t n, struct arena *a, struct str *ret_cert, struct str *ret_key,
                    struct err *err);

#endif
