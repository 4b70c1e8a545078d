// SPDX-License-Identifier: Apache-2.0
// A signed token (RFC 7519) in compact serialization (RFC 7515 §3.1): taken apart and its times looked at. Whether its signature is good is
// lib/jose/verify.h. Pure; any thread.
#ifndef LIB_JOSE_JWT_H
#define LIB_JOSE_JWT_H

#include "lib/base/json.h"
#include "lib/jose/alg.h"

enum jwt_status {
#define JWT_STATUS(id, code, text) JWT_##id = (code),
#include "lib/jose/status.def"
#undef JWT_STATUS
};
// Static text for people.
const char *jwt_status_text(enum jwt_status s);

enum { JWT_TOKEN_BYTES_MAX = 64 * 1024 }; // a longer token is of no known form

struct jwt { // views into the token and the arena of jwt_parse
    struct str header_b64, payload_b64;
    struct str signing_input;   // header "." payload: what the signature covers
    struct str signature;       // decoded
    struct json *header, *payload; // objects
    enum jose_alg alg;
    struct str kid;             // empty = none
    struct str iss, sub;        // empty = none
    bool has_exp;
    uint64_t iat, nbf, exp;     // seconds since 1970; 0 = none
    struct str *aud;
    size_t aud_count;
};

// Base64 for URLs without padding (RFC 7515 §2), strictly: one text for the same bytes. False otherwise. Result in the arena.
bool jose_b64url_decode(struct arena *a, struct str s, struct str *ret);

// JWT_OK, or what is wrong with the form of token; *ret is undefined then. token must outlive *ret. Checked: three parts, strict base64url, JSON
// objects without duplicate names, a known "alg" (never "none"), the types of registered claims (RFC 7519 §4.1), no "crit" (RFC 7515 §4.1.11: no
// extension is understood here). Nothing of it may be believed before jwks_verify.
enum jwt_status jwt_parse(struct str token, struct arena *a, struct jwt *ret);
// "nbf" and "exp" against now, both in seconds since 1970 and with so much tolerance (RFC 7519 §4.1.4, §4.1.5).
enum jwt_status jwt_check_time(const struct jwt *t, uint64_t now_s, uint64_t skew_s);
// A JSON number as a double. False: n is none.
bool json_double(const struct json *n, double *ret);

#endif
