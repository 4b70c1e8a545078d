// SPDX-License-Identifier: Apache-2.0
#include "control-plane/token.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "lib/base/base64.h"
#include "lib/base/json.h"

static const char header_json[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
static const char audience[] = "istio-ca";
static const char subject_prefix[] = "system:serviceaccount:";

// RFC 7515 §2: base64url without padding.
static struct str b64url(struct arena *a, struct str s)
{
    struct str e = base64_encode(a, s);
    char *p = (char *)e.p;
    for (size_t i = 0; i < e.n; i++) {
        p[i] = p[i] == '+' ? '-' : p[i] == '/' ? '_' : p[i];
    }
    while (e.n && e.p[e.n - 1] == '=') {
        e.n--;
    }
    return e;
}

static void mac(const uint8_t *key, struct str text, uint8_t out[32])
{
    unsigned n = 32;
    HMAC(EVP_sha256(), key, TOKEN_KEY_BYTES, (const uint8_t *)text.p, text.n, out, &n);
}

struct str token_sign(const uint8_t key[TOKEN_KEY_BYTES], struct str ns, struct str service_account, int64_t expires_s, struct arena *a)
{
    struct str payload = arena_printf(a, "{\"aud\":\"%s\",\"exp\":%lld,\"sub\":\"%s%.*s:%.*s\"}", audience, (long long)expires_s, subject_prefix,
                                      STR_FMT(ns), STR_FMT(service_account));
    struct str h = b64url(a, str_c(header_json)), p = b64url(a, payload);
    struct str signing = arena_printf(a, "%.*s.%.*s", STR_FMT(h), STR_FMT(p));
    uint8_t m[32];
    mac(key, signing, m);
    struct str s = b64url(a, str_n(m, sizeof(m)));
    return arena_printf(a, "%.*s.%.*s", STR_FMT(signing), STR_FMT(s));
}

static bool read_claims(struct str payload, int64_t now_s, struct arena *a, struct token_identity *ret)
{
    struct json *j = NULL;
    uint64_t exp = 0;
    if (json_parse(payload, a, &j, NULL) || !str_is(json_str(j, "aud"), audience)) {
        return false;
    }
    const struct json *e = json_get(j, "exp");
    struct str sub = json_str(j, "sub");
    if (!e || e->type != JSON_NUMBER || !str_to_u64(e->text, INT64_MAX, &exp) || (int64_t)exp <= now_s ||
        !str_starts(sub, str_c(subject_prefix))) {
        return false;
    }
    struct str rest = str_skip(sub, sizeof(subject_prefix) - 1);
    struct str ns = str_split(&rest, ':');
    if (!ns.n || !rest.n || str_find(rest, ':') >= 0) {
        return false;
    }
    *ret = (struct token_identity){ .ns = ns, .service_account = rest, .expires_s = (int64_t)exp };
    return true;
}

bool token_verify(const uint8_t key[TOKEN_KEY_BYTES], struct str token, int64_t now_s, struct arena *a, struct token_identity *ret)
{
    struct str rest = token, header, payload, given;
    uint8_t m[32];
    if (token.n > TOKEN_BYTES_MAX) {
        return false;
    }
    struct str h = str_split(&rest, '.');
    struct str p = str_split(&rest, '.');
    if (!h.n || !p.n || !rest.n || !base64_decode(a, h, &header) || !str_is(header, header_json) || !base64_decode(a, rest, &given) ||
        given.n != sizeof(m)) {
        return false;
    }
    mac(key, str_n(token.p, (size_t)(rest.p - token.p) - 1), m);
    if (CRYPTO_memcmp(m, given.p, sizeof(m)) != 0 || !base64_decode(a, p, &payload)) {
        return false;
    }
    return read_claims(payload, now_s, a, ret);
}
