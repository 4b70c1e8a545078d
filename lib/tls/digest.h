// SPDX-License-Identifier: Apache-2.0
// Message digests for protocols that ask for one. Any thread.
#ifndef LIB_TLS_DIGEST_H
#define LIB_TLS_DIGEST_H

#include "lib/base/str.h"

enum { SHA1_BYTES = 20 };

// Not for security any more; the WebSocket handshake wants it (RFC 6455 §4.2.2). False when the library refuses it.
bool digest_sha1(struct str s, uint8_t ret[SHA1_BYTES]);

#endif
