// SPDX-License-Identifier: Apache-2.0
#include "control-plane/ca.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/file.h"
#include "lib/base/rand.h"
#include "lib/tls/cert.h"

enum { CA_ROOT_TTL_S = 10 * 365 * 24 * 3600, SERVING_TTL_S = 365 * 24 * 3600, CA_FILE_MAX = 64 * 1024 };

static const char *in_folder(struct arena *a, const char *folder, const char *name)
{
    return arena_printf(a, "%s/%s", folder, name).p;
}

static int make_root(struct ca *c, const char *folder, struct err *err)
{
    struct str org = c->trust_domain;
    int rc = cert_new_key(KEY_ECDSA_P256, &c->arena, &c->key_pem, err);
    rc = rc ? rc : cert_new_ca(c->key_pem, org, CA_ROOT_TTL_S, &c->arena, &c->root_pem, err);
    rc = rc ? rc : file_write_atomic(in_folder(&c->arena, folder, "ca-key.pem"), c->key_pem, 0600, err);
    return rc ? rc : file_write_atomic(in_folder(&c->arena, folder, "root-cert.pem"), c->root_pem, 0644, err);
}

// Who reads the key signs for the whole mesh.
static int check_private(const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st)) {
        return err_errno(err, errno, path);
    }
    return st.st_mode & 07 ? err_set(err, -EACCES, "%s: mode %04o lets everybody in; chmod 600", path, (unsigned)st.st_mode & 0777) : 0;
}

static int open_token_key(struct ca *c, const char *folder, struct err *err)
{
    const char *path = in_folder(&c->arena, folder, "token-key");
    struct str s;
    if (access(path, F_OK) == 0) { // a new one would make every token that was handed out worthless
        if (file_read(path, CA_FILE_MAX, &c->arena, &s, err)) {
            return err->code;
        }
        if (s.n != TOKEN_KEY_BYTES) {
            return err_set(err, -EINVAL, "%s: has %zu bytes in place of %d; remove it to make a new one (tokens become invalid)", path, s.n,
                           TOKEN_KEY_BYTES);
        }
        memcpy(c->token_key, s.p, TOKEN_KEY_BYTES);
        return check_private(path, err);
    }
    rand_bytes(c->token_key, TOKEN_KEY_BYTES);
    return file_write_atomic(path, str_n(c->token_key, TOKEN_KEY_BYTES), 0600, err);
}

int ca_open(struct ca *c, const char *folder, struct str trust_domain, struct err *err)
{
    memset(c, 0, sizeof(*c));
    c->trust_domain = arena_str(&c->arena, trust_domain);
    if (mkdir(folder, 0755) && errno != EEXIST) {
        return err_errno(err, errno, folder);
    }
    struct err e = { 0 };
    int have_key = file_read(in_folder(&c->arena, folder, "ca-key.pem"), CA_FILE_MAX, &c->arena, &c->key_pem, &e) == 0;
    int have_root = file_read(in_folder(&c->arena, folder, "root-cert.pem"), CA_FILE_MAX, &c->arena, &c->root_pem, &e) == 0;
    if (have_key != have_root) { // making a new one would quietly cut off every proxy that trusts the old root
        return err_set(err, -EINVAL, "%s: ca-key.pem and root-cert.pem belong together, but one is missing", folder);
    }
    if (have_key && !cert_key_matches(c->root_pem, c->key_pem)) {
        return err_set(err, -EINVAL, "%s: ca-key.pem is not the key of root-cert.pem", folder);
    }
    int rc = have_key ? check_private(in_folder(&c->arena, folder, "ca-key.pem"), err) : make_root(c, folder, err);
    return rc ? rc : open_token_key(c, folder, err);
}

void ca_close(struct ca *c)
{
    if (c->key_pem.n) {
        explicit_bzero((char *)c->key_pem.p, c->key_pem.n);
    }
    explicit_bzero(c->token_key, sizeof(c->token_key));
    arena_fini(&c->arena);
}

int ca_sign_workload(const struct ca *c, struct str csr_pem, const struct token_identity *who, int64_t ttl_s, struct arena *a, struct str *ret_pem,
                     struct err *err)
{
    if (ttl_s < 0 || ttl_s > CA_WORKLOAD_TTL_MAX_S) {
        return err_set(err, -EINVAL, "validity_duration: %lld s is above the limit of %d s", (long long)ttl_s, CA_WORKLOAD_TTL_MAX_S);
    }
    struct cert_sign_opts o = {
        .uri_san = arena_printf(a, "spiffe://%.*s/ns/%.*s/sa/%.*s", STR_FMT(c->trust_domain), STR_FMT(who->ns), STR_FMT(who->service_account)),
        .ttl_s = ttl_s ? ttl_s : CA_WORKLOAD_TTL_S,
    };
    return cert_sign_csr(csr_pem, c->root_pem, c->key_pem, &o, a, ret_pem, err);
}

int ca_serving_cert(const struct ca *c, const struct str *sans, size_t n, struct arena *a, struct str *ret_cert, struct str *ret_key,
                    struct err *err)
{
    struct str csr;
    struct cert_sign_opts o = { .dns = sans, .dns_count = n, .ttl_s = SERVING_TTL_S };
    int rc = cert_new_key(KEY_ECDSA_P256, a, ret_key, err);
    rc = rc ? rc : cert_new_csr(*ret_key, STR("spiffe://serving"), a, &csr, err);
    return rc ? rc : cert_sign_csr(csr, c->root_pem, c->key_pem, &o, a, ret_cert, err);
}
