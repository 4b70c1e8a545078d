// SPDX-License-Identifier: Apache-2.0
// Certificates and keys as PEM: making (development CA, CSR) and reading (expiry, names, for admin and rotation). Cold code.
#ifndef LIB_TLS_CERT_H
#define LIB_TLS_CERT_H

#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/tls/verify.h"

enum key_type { KEY_ECDSA_P256, KEY_ECDSA_P384, KEY_RSA_2048, KEY_RSA_3072, KEY_RSA_4096 };

// Facts of one certificate.
struct cert_info {
    struct str serial_hex, subject, issuer;
    int64_t not_before_s, not_after_s; // since 1970
    bool is_ca;
    struct san *sans;
    size_t san_count;
};
// Every certificate of a PEM bundle, in order. *ret in the arena.
int cert_parse_bundle(struct str pem, struct arena *a, struct cert_info **ret, size_t *ret_count, struct err *err);

// One bundle with each certificate of the given ones once, in order of first appearance. Empty texts are skipped. -EINVAL when one
// does not parse.
int cert_merge_bundles(const struct str *pems, size_t count, struct arena *a, struct str *ret_pem, struct err *err);

// New private key as PKCS#8 PEM in the arena (the caller keeps it secret).
int cert_new_key(enum key_type t, struct arena *a, struct str *ret_pem, struct err *err);
// Certificate request with an empty subject and one critical URI SAN (what Istio's agent sends).
int cert_new_csr(struct str key_pem, struct str uri_san, struct arena *a, struct str *ret_pem, struct err *err);
// Self-signed root: subject O=org, CA:TRUE, key usage certSign+cRLSign.
int cert_new_ca(struct str key_pem, struct str org, int64_t ttl_s, struct arena *a, struct str *ret_pem, struct err *err);
struct cert_sign_opts {
    struct str uri_san;      // may be empty
    const struct str *dns;   // DNS SANs (IP addresses become IP SANs)
    size_t dns_count;
    int64_t ttl_s;           // notBefore is two minutes in the past, as istiod's
};
// Signs the public key of a CSR (its signature is checked; names inside are ignored). Empty subject, EKU server+client.
int cert_sign_csr(struct str csr_pem, struct str ca_cert_pem, struct str ca_key_pem, const struct cert_sign_opts *o, struct arena *a,
                  struct str *ret_pem, struct err *err);
// True when key and the first certificate belong together.
bool cert_key_matches(struct str cert_pem, struct str key_pem);

#endif
