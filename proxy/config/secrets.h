// SPDX-License-Identifier: Apache-2.0
// Secrets by name, and the TLS slots that are made from them. A slot is one (certificate, roots, parameters); it is refilled whenever one of
// its secrets changes. Control thread only.
#ifndef PROXY_CONFIG_SECRETS_H
#define PROXY_CONFIG_SECRETS_H

#include "lib/base/list.h"
#include "lib/base/map.h"
#include "proxy/config/config_ctx.h"
#include "proxy/config/config.h"

struct secret {
    struct str name, chain, key, ca, crl, version; // owned PEM texts; chain+key or ca
    bool is_root, is_static, present;
    bool from_xds;        // comes over SDS from a source of the xDS client; otherwise this process resolves it
    bool from_file;       // its name is a path: read when it was first named
    bool used;            // scratch of secret_store_gc
    uint64_t updated_ms;
};

struct secret_store {
    struct map secrets;   // name → struct secret *
    struct map slots;     // parameter text → struct tls_slot *; one reference each
    struct tls_ctx **garbage; // replaced contexts, until the next snapshot is published
    size_t garbage_count, garbage_cap;
    bool changed;         // a slot was refilled since the last publish
    bool wanted_changed;  // the set of names wanted from xDS changed
    bool gc_due;          // a slot went, or a name came: secrets that nobody uses may be there
    bool validate_only;
};

void secret_store_init(struct secret_store *s);
void secret_store_fini(struct secret_store *s);

// What a TLS context is made of. Names of secrets (empty = none) or inline PEM.
struct slot_params {
    bool server, verify_peer, require_peer_cert;
    struct str cert_name, ca_name;              // secrets
    struct str cert_pem, key_pem, ca_pem, crl_pem; // inline
    enum tls_version min_version, max_version;
    struct str ciphers, curves;                 // ':' between
    const struct str *alpn;                     // server's list
    size_t alpn_count;
    struct tls_policy policy;
};
// The slot for these parameters (shared by all who ask for the same), a new reference. Inline PEM that does not parse is an error, and so are ciphers,
// curves, versions and ALPN names that cannot be had; missing secrets
// are not: the slot stays empty until they come. from_xds: the secret's names are to be fetched over SDS; otherwise resolved here.
int secret_slot_get(struct secret_store *s, const struct slot_params *p, bool cert_from_xds, bool ca_from_xds, struct tls_slot **ret,
                    struct err *err);
// Stores a secret and refills the slots that use it. All or nothing: texts that do not make a context are refused and the old secret stays.
int secret_put(struct secret_store *s, struct str name, struct str chain, struct str key, struct str ca, struct str crl, struct str version,
               bool is_static, struct err *err);
// Whether there is a secret of the name, or it names files ("file-cert:", "file-root:").
bool secret_known(const struct secret_store *s, struct str name);
void secret_del(struct secret_store *s, struct str name);
// Names that slots want from xDS, into a heap array (caller frees); borrowed views.
struct str *secret_wanted(const struct secret_store *s, size_t *ret_n);
// Drops slots that nobody else refers to, and then secrets that were only wanted for them (names over SDS, paths).
void secret_store_gc(struct secret_store *s);
// The contexts replaced since the last call, handed to arena cleanups: they die with that arena (the retired snapshot's garbage).
void secret_take_garbage(struct secret_store *s, struct arena *garbage);

#endif
