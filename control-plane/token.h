// SPDX-License-Identifier: Apache-2.0
// Bearer tokens of the development control plane: JSON Web Tokens (RFC 7519) signed with HMAC-SHA256 by a key in the state folder. They
// say which namespace and service account the holder is, as Kubernetes' projected tokens do in production.
#ifndef CONTROL_PLANE_TOKEN_H
#define CONTROL_PLANE_TOKEN_H

#include "lib/base/arena.h"
#include "lib/base/err.h"

enum { TOKEN_KEY_BYTES = 32, TOKEN_BYTES_MAX = 4096 };

struct token_identity {
    struct str ns, service_account; // arena
    int64_t expires_s;              // since 1970
};
// key: TOKEN_KEY_BYTES. Token text in the arena.
struct str token_sign(const uint8_t key[TOKEN_KEY_BYTES], struct str ns, struct str service_account, int64_t expires_s, struct arena *a);
// false: malformed, wrong signature, other algorithm, expired, or another audience. Constant-time comparison of the signature.
bool token_verify(const uint8_t key[TOKEN_KEY_BYTES], struct str token, int64_t now_s, struct arena *a, struct token_identity *ret);

#endif
