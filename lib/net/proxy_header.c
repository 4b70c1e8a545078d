// SPDX-License-Identifier: Apache-2.0
#include "lib/net/proxy_header.h"

#include <stdio.h>
#include <string.h>

static const char signature[] = "\r\n\r\n\0\r\nQUIT\n"; // 12 bytes of version 2; no other protocol begins so
enum {
    SIGNATURE_BYTES = 12,
    V2_LOCAL = 0x20,
    V2_PROXY = 0x21,
    V2_UNSPEC = 0x00,
    V2_TCP4 = 0x11,
    V2_TCP6 = 0x21,
    V2_UNIX_STREAM = 0x31,
    ADDR4_BYTES = 12,
    ADDR6_BYTES = 36,
    UNIX_BYTES = 216,
    TLV_HEADER = 3,
};

// ---- version 1 ----

// A port as the standard wants it: decimal, no sign, no leading zero.
static bool parse_port(struct str s, uint16_t *ret)
{
    uint64_t v;
    if (!str_to_u64(s, 65535, &v) || (s.n > 1 && s.p[0] == '0')) {
        return false;
    }
    *ret = (uint16_t)v;
    return true;
}

static bool parse_ip(struct str s, uint16_t family, struct addr *ret)
{
    struct addr a;
    // The port parser's brackets and scopes have no place here.
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '[' || s.p[i] == '%') {
            return false;
        }
    }
    if (!addr_parse_ip(s, 0, &a) || a.family != family) {
        return false;
    }
    *ret = a;
    return true;
}

static bool parse_v1_line(struct str line, struct proxy_header *h)
{
    struct str rest = line, family = str_split(&rest, ' ');
    if (str_is(family, "UNKNOWN")) {
        h->local = true; // whatever follows is to be ignored
        return true;
    }
    uint16_t f = str_is(family, "TCP4") ? AF_INET : str_is(family, "TCP6") ? AF_INET6 : 0;
    struct str source = str_split(&rest, ' '), destination = str_split(&rest, ' '), source_port = str_split(&rest, ' ');
    return f && parse_ip(source, f, &h->source) && parse_ip(destination, f, &h->destination) && parse_port(source_port, &h->source.port) &&
           parse_port(rest, &h->destination.port);
}

static enum proxy_header_result parse_v1(struct str bytes, struct proxy_header *ret)
{
    struct proxy_header h = { .version = 1 };
    struct str head = { bytes.p, bytes.n < PROXY_V1_BYTES_MAX ? bytes.n : PROXY_V1_BYTES_MAX };
    ptrdiff_t cr = str_find(head, '\r');
    if (cr < 0 || (size_t)cr + 1 == head.n) {
        return head.n < PROXY_V1_BYTES_MAX ? PROXY_HEADER_MORE : PROXY_HEADER_BAD;
    }
    struct str line = str_n(bytes.p + 6, (size_t)cr - 6);
    if (bytes.p[cr + 1] != '\n' || !parse_v1_line(line, &h)) {
        return PROXY_HEADER_BAD;
    }
    h.length = (size_t)cr + 2;
    *ret = h;
    return PROXY_HEADER_FOUND;
}

// ---- version 2 ----

static struct addr binary_addr(uint16_t family, const char *ip, const char *port)
{
    struct addr a = { .family = family, .port = (uint16_t)((unsigned char)port[0] << 8 | (unsigned char)port[1]) };
    memcpy(a.ip, ip, family == AF_INET ? 4 : 16);
    return a;
}

// Bytes that the address block of this family has; -1: not one of the standard's.
static int address_bytes(unsigned char family)
{
    switch (family) {
    case V2_UNSPEC:
        return 0;
    case V2_TCP4:
        return ADDR4_BYTES;
    case V2_TCP6:
        return ADDR6_BYTES;
    case V2_UNIX_STREAM:
        return UNIX_BYTES;
    default: // datagrams do not come over a stream
        return -1;
    }
}

static enum proxy_header_result parse_v2(struct str bytes, struct proxy_header *ret)
{
    if (bytes.n < PROXY_V2_FIXED) {
        return PROXY_HEADER_MORE;
    }
    const unsigned char *p = (const unsigned char *)bytes.p;
    struct proxy_header h = { .version = 2, .length = PROXY_V2_FIXED + ((size_t)p[14] << 8 | p[15]) };
    if (p[12] != V2_LOCAL && p[12] != V2_PROXY) {
        return PROXY_HEADER_BAD;
    }
    size_t body = h.length - PROXY_V2_FIXED;
    int addresses = address_bytes(p[13]);
    h.local = p[12] == V2_LOCAL || p[13] == V2_UNSPEC || p[13] == V2_UNIX_STREAM;
    if (p[12] == V2_PROXY && (addresses < 0 || (size_t)addresses > body)) {
        return PROXY_HEADER_BAD;
    }
    if (bytes.n < h.length) {
        return PROXY_HEADER_MORE;
    }
    const char *a = bytes.p + PROXY_V2_FIXED;
    if (!h.local && p[13] == V2_TCP4) {
        h.source = binary_addr(AF_INET, a, a + 8);
        h.destination = binary_addr(AF_INET, a + 4, a + 10);
    } else if (!h.local) {
        h.source = binary_addr(AF_INET6, a, a + 32);
        h.destination = binary_addr(AF_INET6, a + 16, a + 34);
    }
    if (addresses >= 0 && (size_t)addresses <= body) { // LOCAL may hold anything, which is skipped
        h.tlvs = str_n(a + addresses, body - (size_t)addresses);
    }
    *ret = h;
    return PROXY_HEADER_FOUND;
}

enum proxy_header_result proxy_header_parse(struct str bytes, struct proxy_header *ret)
{
    size_t n = bytes.n < SIGNATURE_BYTES ? bytes.n : SIGNATURE_BYTES;
    if (n == 0) {
        return PROXY_HEADER_MORE;
    }
    if (memcmp(bytes.p, signature, n) == 0) {
        return n < SIGNATURE_BYTES ? PROXY_HEADER_MORE : parse_v2(bytes, ret);
    }
    n = bytes.n < 6 ? bytes.n : 6;
    if (memcmp(bytes.p, "PROXY ", n) != 0) {
        return PROXY_HEADER_NONE;
    }
    return n < 6 ? PROXY_HEADER_MORE : parse_v1(bytes, ret);
}

bool proxy_tlv_next(struct str *rest, uint8_t *ret_type, struct str *ret_value)
{
    if (rest->n < TLV_HEADER) {
        return false;
    }
    const unsigned char *p = (const unsigned char *)rest->p;
    size_t n = (size_t)p[1] << 8 | p[2];
    if (n > rest->n - TLV_HEADER) {
        return false;
    }
    *ret_type = p[0];
    *ret_value = str_n(rest->p + TLV_HEADER, n);
    *rest = str_skip(*rest, TLV_HEADER + n);
    return true;
}

// ---- writing ----

static void write_v1(const struct addr *s, const struct addr *d, bool known, struct buf *out)
{
    char from[ADDR_TEXT_MAX], to[ADDR_TEXT_MAX];
    if (!known) {
        buf_append(out, "PROXY UNKNOWN\r\n", 15);
        return;
    }
    buf_printf(out, "PROXY TCP%c %s %s %u %u\r\n", s->family == AF_INET ? '4' : '6', addr_ip_text(s, from), addr_ip_text(d, to), s->port,
               d->port);
}

static void put_port(uint8_t *p, uint16_t port)
{
    p[0] = (uint8_t)(port >> 8);
    p[1] = (uint8_t)port;
}

static void write_v2(const struct addr *s, const struct addr *d, bool known, struct str tlvs, struct buf *out)
{
    uint8_t h[PROXY_V2_FIXED + ADDR6_BYTES];
    size_t ip = !known ? 0 : s->family == AF_INET ? 4 : 16, body = known ? 2 * ip + 4 : 0;
    tlvs.n = PROXY_V2_FIXED + body + tlvs.n > PROXY_HEADER_WRITE_MAX ? 0 : tlvs.n;
    memcpy(h, signature, SIGNATURE_BYTES);
    h[12] = known ? V2_PROXY : V2_LOCAL;
    h[13] = !known ? V2_UNSPEC : ip == 4 ? V2_TCP4 : V2_TCP6;
    put_port(h + 14, (uint16_t)(body + tlvs.n));
    if (known) {
        memcpy(h + 16, s->ip, ip);
        memcpy(h + 16 + ip, d->ip, ip);
        put_port(h + 16 + 2 * ip, s->port);
        put_port(h + 18 + 2 * ip, d->port);
    }
    buf_append(out, h, PROXY_V2_FIXED + body);
    buf_append(out, tlvs.p, tlvs.n);
}

void proxy_header_write(int version, const struct addr *source, const struct addr *destination, struct str tlvs, struct buf *out)
{
    bool known = source->family == destination->family && (source->family == AF_INET || source->family == AF_INET6);
    if (version == 1) {
        write_v1(source, destination, known, out);
    } else {
        write_v2(source, destination, known, tlvs, out);
    }
}
