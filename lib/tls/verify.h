// SPDX-License-Identifier: Apache-2.0
// Expected names of a peer certificate (tls.v3.CertificateValidationContext match_typed_subject_alt_names and the deprecated
// match_subject_alt_names). The chain itself is checked by the context.
#ifndef LIB_TLS_VERIFY_H
#define LIB_TLS_VERIFY_H

#include "lib/base/str.h"

enum san_type { SAN_ANY, SAN_DNS, SAN_URI, SAN_EMAIL, SAN_IP };
enum san_match { SAN_EXACT, SAN_PREFIX, SAN_SUFFIX, SAN_CONTAINS };

struct san_matcher {
    enum san_type type;
    enum san_match match;
    bool ignore_case;
    struct str value; // borrowed from whoever made the list
};

struct san { // one name of a certificate
    enum san_type type;
    struct str value;
};

// True when at least one name satisfies at least one matcher (no matchers: true). DNS exact matches honour a leading "*." in
// the certificate's name (RFC 6125 §6.4.3).
bool san_match_any(const struct san *names, size_t n, const struct san_matcher *m, size_t count);

#endif
