// SPDX-License-Identifier: Apache-2.0
#include "lib/jose/jwt.h"

#include <stdlib.h>

#include "lib/base/base64.h"

const char *jwt_status_text(enum jwt_status s)
{
    switch (s) {
#define JWT_STATUS(id, code, text)                                                                                     \
    case JWT_##id:                                                                                                     \
        return text;
#include "lib/jose/status.def"
#undef JWT_STATUS
    }
    return "";
}

bool jose_b64url_decode(struct arena *a, struct str s, struct str *ret)
{
    for (size_t i = 0; i < s.n; i++) { // the decoder takes both alphabets and padding
        if (s.p[i] == '+' || s.p[i] == '/' || s.p[i] == '=') {
            return false;
        }
    }
    return base64_decode(a, s, ret);
}

bool json_double(const struct json *n, double *ret)
{
    char text[64], *end;
    if (!n || n->type != JSON_NUMBER || n->text.n >= sizeof(text)) { // more digits say nothing
        return false;
    }
    memcpy(text, n->text.p, n->text.n);
    text[n->text.n] = '\0';
    *ret = strtod(text, &end);
    return *end == '\0';
}

static bool object_of(struct str b64, struct arena *a, struct json **ret, bool *ret_base64)
{
    struct str text;
    *ret_base64 = jose_b64url_decode(a, b64, &text);
    return *ret_base64 && json_parse(text, a, ret, NULL) == 0 && (*ret)->type == JSON_OBJECT;
}

static enum jwt_status read_header(struct jwt *t, struct arena *a)
{
    bool base64;
    if (!object_of(t->header_b64, a, &t->header, &base64)) {
        return base64 ? JWT_HEADER_JSON : JWT_HEADER_BASE64;
    }
    const struct json *alg = json_get(t->header, "alg"), *kid = json_get(t->header, "kid");
    if (!alg || alg->type != JSON_STRING) {
        return JWT_HEADER_ALG;
    }
    if (!jose_alg_find(alg->text, &t->alg)) {
        return JWT_ALG_UNKNOWN;
    }
    if (kid && kid->type != JSON_STRING) {
        return JWT_HEADER_KID;
    }
    t->kid = kid ? kid->text : str_n(NULL, 0);
    return JWT_OK;
}

static bool claim_text(const struct json *payload, const char *name, struct str *ret)
{
    const struct json *n = json_get(payload, name);
    *ret = n ? n->text : str_n(NULL, 0);
    return !n || n->type == JSON_STRING;
}

// JWT_OK, or one of the two.
static enum jwt_status claim_time(const struct json *payload, const char *name, enum jwt_status type, enum jwt_status range, uint64_t *ret)
{
    const struct json *n = json_get(payload, name);
    double d;
    *ret = 0;
    if (!n) {
        return JWT_OK;
    }
    if (n->type != JSON_NUMBER) {
        return type;
    }
    if (!json_double(n, &d) || !(d >= 0 && d < 18446744073709551616.0)) {
        return range;
    }
    *ret = (uint64_t)d;
    return JWT_OK;
}

static bool claim_audiences(struct jwt *t, struct arena *a)
{
    struct json *n = json_get(t->payload, "aud");
    if (!n) {
        return true;
    }
    t->aud = arena_array(a, struct str, n->count + 1);
    if (n->type == JSON_STRING) {
        t->aud[t->aud_count++] = n->text;
        return true;
    }
    for (const struct json *x = n->type == JSON_ARRAY ? n->first : NULL; x; x = x->next) {
        if (x->type != JSON_STRING) {
            return false;
        }
        t->aud[t->aud_count++] = x->text;
    }
    return n->type == JSON_ARRAY;
}

static enum jwt_status read_payload(struct jwt *t, struct arena *a)
{
    bool base64;
    struct str jti;
    if (!object_of(t->payload_b64, a, &t->payload, &base64)) {
        return base64 ? JWT_PAYLOAD_JSON : JWT_PAYLOAD_BASE64;
    }
    if (!claim_text(t->payload, "iss", &t->iss)) {
        return JWT_ISS_TYPE;
    }
    if (!claim_text(t->payload, "sub", &t->sub)) {
        return JWT_SUB_TYPE;
    }
    enum jwt_status st = claim_time(t->payload, "iat", JWT_IAT_TYPE, JWT_IAT_RANGE, &t->iat);
    st = st ? st : claim_time(t->payload, "nbf", JWT_NBF_TYPE, JWT_NBF_RANGE, &t->nbf);
    st = st ? st : claim_time(t->payload, "exp", JWT_EXP_TYPE, JWT_EXP_RANGE, &t->exp);
    if (st) {
        return st;
    }
    t->has_exp = json_get(t->payload, "exp") != NULL;
    if (!claim_text(t->payload, "jti", &jti)) {
        return JWT_JTI_TYPE;
    }
    return claim_audiences(t, a) ? JWT_OK : JWT_AUD_TYPE;
}

enum jwt_status jwt_parse(struct str token, struct arena *a, struct jwt *ret)
{
    struct jwt t = { .alg = JOSE_RS256 };
    if (token.n > JWT_TOKEN_BYTES_MAX) {
        return JWT_BAD_FORMAT;
    }
    struct str rest = token;
    t.header_b64 = str_split(&rest, '.');
    t.payload_b64 = str_split(&rest, '.');
    if (!t.header_b64.n || !t.payload_b64.n || !rest.n || str_find(rest, '.') >= 0) {
        return JWT_BAD_FORMAT;
    }
    t.signing_input = str_n(token.p, t.header_b64.n + 1 + t.payload_b64.n);
    enum jwt_status st = read_header(&t, a);
    st = st ? st : read_payload(&t, a);
    if (st) {
        return st;
    }
    if (!jose_b64url_decode(a, rest, &t.signature)) {
        return JWT_SIGNATURE_BASE64;
    }
    if (json_get(t.header, "crit")) {
        return JWT_VERIFICATION;
    }
    *ret = t;
    return JWT_OK;
}

enum jwt_status jwt_check_time(const struct jwt *t, uint64_t now_s, uint64_t skew_s)
{
    if (t->nbf > now_s && t->nbf - now_s > skew_s) {
        return JWT_NOT_YET_VALID;
    }
    return t->has_exp && now_s > t->exp && now_s - t->exp > skew_s ? JWT_EXPIRED : JWT_OK;
}
