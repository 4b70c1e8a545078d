// SPDX-License-Identifier: Apache-2.0
// Where the workload's certificate comes from: files in a folder, or a certificate authority that signs a key made here. Each new
// set is checked (key and certificate belong together, roots parse) and then reported. Control thread only.
#ifndef PROXY_IDENTITY_PROVIDER_H
#define PROXY_IDENTITY_PROVIDER_H

#include "lib/base/err.h"
#include "lib/base/str.h"
#include "lib/event/loop.h"
#include "lib/tls/cert.h"

// One complete set. All views are borrowed during the callback. The key must not be logged or kept longer than needed.
struct identity_set {
    struct str cert_chain_pem, key_pem, root_pem;
    struct str uri;       // first URI SAN of the certificate, may be empty
    int64_t not_after_s;  // of the certificate, since 1970
};

struct identity_ops {
    // A new set; never from inside identity_*_new. May not free the identity.
    void (*on_set)(void *owner, const struct identity_set *s);
    // An attempt failed; the set reported before stays in use and the next attempt is already planned. Unset = ignored.
    void (*on_failure)(void *owner, const struct err *err);
};

// For admin and readiness.
struct identity_status {
    uint64_t sets, failures;
    int64_t not_after_s;    // of the set in use, 0 = none yet
    uint64_t next_ms;       // loop time of the next planned attempt or rotation, 0 = none
    char last_error[256];   // of the latest attempt, empty when it succeeded
};

struct identity;

struct identity_files_opts {
    const char *dir; // holds cert-chain.pem, key.pem, root-cert.pem; may appear later
};
// Watches the folder, Kubernetes' symlink swaps included; a set that is half-written is looked at again. NULL + err on failure.
struct identity *identity_files_new(struct loop *l, const struct identity_files_opts *o, const struct identity_ops *ops, void *owner,
                                    struct err *err);

// istio.v1.auth.IstioCertificateService/CreateCertificate. All is copied.
struct identity_ca_opts {
    const char *target;      // "istiod.istio-system.svc:15012"
    bool tls;
    const char *server_name; // name to check in place of the target's host; NULL = target's
    const char *root_file;   // trusted for the CA's own certificate, read for every call; NULL = the system's roots
    const char *token_file;  // bearer token, read for every call; NULL, a missing file or no TLS = none is sent
    const char *cert_file, *key_file; // client certificate for the call; NULL = none
    const struct str (*headers)[2];   // further metadata, lower-case keys
    size_t header_count;
    struct str uri;          // asked for in the request: "spiffe://td/ns/NS/sa/SA"
    const char *cert_signer; // IstioCertificateRequest.metadata CertSigner; NULL = none
    enum key_type key_type;
    int64_t ttl_s;           // 0 = 86400
    double grace_ratio;      // rotate when this share of the life-time is left; 0 = 0.5 (Istio's SECRET_GRACE_PERIOD_RATIO)
    double grace_jitter;     // ± around it; 0 = 0.01
    uint64_t retry_ms;       // first back-off, doubled up to IDENTITY_RETRY_MAX_MS; 0 = 100
};
enum { IDENTITY_RETRY_MAX_MS = 30000 };
struct identity *identity_ca_new(struct loop *l, const struct identity_ca_opts *o, const struct identity_ops *ops, void *owner,
                                 struct err *err);

// Asks anew right away (a new token or root, an operator's wish).
void identity_refresh(struct identity *i);
const struct identity_status *identity_status(const struct identity *i);
void identity_free(struct identity *i); // no callback follows; NULL is fine

#endif
