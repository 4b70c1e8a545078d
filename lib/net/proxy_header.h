// SPDX-License-Identifier: Apache-2.0
// The PROXY protocol header, versions 1 and 2 (HAProxy's proxy-protocol.txt): who the client of a forwarded connection is. Pure; hostile input is
// the normal case.
#ifndef LIB_NET_PROXY_HEADER_H
#define LIB_NET_PROXY_HEADER_H

#include "lib/base/buf.h"
#include "lib/net/addr.h"

enum {
    PROXY_V1_BYTES_MAX = 107, // with CRLF, by the standard
    PROXY_V2_FIXED = 16,
    PROXY_V2_BYTES_MAX = PROXY_V2_FIXED + 65535,
    PROXY_HEADER_WRITE_MAX = 4096, // with TLVs; see proxy_header_write
};

enum proxy_header_result {
    PROXY_HEADER_MORE, // a beginning
    PROXY_HEADER_NONE, // something else
    PROXY_HEADER_BAD,  // begins as one, and breaks the rules
    PROXY_HEADER_FOUND,
};

struct proxy_header {
    int version;                     // 1, 2
    bool local;                      // no addresses: LOCAL, UNKNOWN, UNSPEC or Unix sockets; the connection's own hold
    struct addr source, destination; // TCP over IPv4 or IPv6
    size_t length;                   // of the whole header, TLVs included
    struct str tlvs;                 // version 2: borrowed from the input, not checked; see proxy_tlv_next
};

// bytes: all that came, from the start. ret is written when FOUND.
enum proxy_header_result proxy_header_parse(struct str bytes, struct proxy_header *ret);

// Takes the next TLV off *rest. false at the end, and where the rest is no whole TLV (*rest is then not empty).
bool proxy_tlv_next(struct str *rest, uint8_t *ret_type, struct str *ret_value);

// Appends a header to out. Addresses of different or other families than IP give "UNKNOWN" or LOCAL. tlvs: version 2 only, whole TLVs, left out
// when the header would pass PROXY_HEADER_WRITE_MAX.
void proxy_header_write(int version, const struct addr *source, const struct addr *destination, struct str tlvs, struct buf *out);

#endif
