// SPDX-License-Identifier: Apache-2.0
// TLS 1.3 after the handshake: data, close_notify, alerts, KeyUpdate and session tickets (RFC 8446 §4.6, §6), on record13.c.
#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/tls/tls_int.h"

enum {
    QUIET_MAX = 32,            // records without data in a row: more is a peer that only wants us to work
    MESSAGE_MAX = 64 * 1024,   // a session ticket with its extensions
    MSG_TICKET = 4, MSG_KEY_UPDATE = 24,
    ALERT_CLOSE_NOTIFY = 0, ALERT_USER_CANCELED = 90, ALERT_ILLEGAL_PARAMETER = 47, ALERT_DECODE_ERROR = 50,
    LEVEL_WARNING = 1, LEVEL_FATAL = 2,
};

void tls_take_over(struct tls_conn *t)
{
    struct tls_handshake *h = t->hs;
    const struct record13_suite *suite = NULL;
    if (SSL_version(t->ssl) == TLS1_3_VERSION && h->have[0] && h->have[1]) {
        suite = record13_suite_of(SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(t->ssl)));
    }
    int mine = t->ctx->server ? 1 : 0;
    // A record that OpenSSL has begun to read would be lost.
    if (suite && !SSL_has_pending(t->ssl) && record13_init(&t->rec, suite, h->secret[!mine], 0, h->secret[mine], h->sent)) {
        t->own = true;
        if (!t->slot) {
            tls_drop_ssl(t);
        }
    }
}

// ---- sending ----

static bool send_record(struct tls_conn *t, enum record13_type type, const struct iovec *iov, int n, size_t len)
{
    char *out = tls_batch_room(t, len + RECORD13_OVERHEAD);
    size_t size = record13_seal(&t->rec, type, iov, n, len, out);
    if (size == 0) {
        t->raw_err = t->raw_err ? t->raw_err : -EIO;
        return false;
    }
    tls_batch_put(size);
    return true;
}

static void send_alert(struct tls_conn *t, uint8_t level, uint8_t description)
{
    if (!t->sent_close) {
        t->sent_close = true; // also for fatal ones: nothing may follow
        uint8_t text[2] = { level, description };
        struct iovec iov = { text, sizeof(text) };
        (void)send_record(t, RECORD13_ALERT, &iov, 1, sizeof(text));
    }
}

static bool send_key_update(struct tls_conn *t)
{
    uint8_t text[5] = { MSG_KEY_UPDATE, 0, 0, 1, 0 /* update_not_requested */ };
    struct iovec iov = { text, sizeof(text) };
    bool ok = send_record(t, RECORD13_HANDSHAKE, &iov, 1, sizeof(text)) && record13_rekey_out(&t->rec);
    t->raw_err = ok || t->raw_err ? t->raw_err : -EIO;
    return ok;
}

enum io tls_own_write(struct tls_conn *t, struct buf *out)
{
    if (t->owe_update && out->len && t->left.len == 0 && t->raw_err == 0 && !t->sent_close) {
        t->owe_update = false;
        (void)send_key_update(t);
    }
    while (out->len && t->left.len == 0 && t->raw_err == 0 && !t->sent_close) {
        struct iovec iov[BUF_IOV_MAX];
        int n = buf_iov(out, iov, BUF_IOV_MAX);
        size_t len = 0;
        for (int i = 0; i < n; i++) {
            len += iov[i].iov_len;
        }
        len = len < RECORD13_PLAIN_MAX ? len : RECORD13_PLAIN_MAX;
        if (!send_record(t, RECORD13_DATA, iov, n, len)) {
            break;
        }
        buf_drain(out, len);
        if (t->rec.out.seq >= RECORD13_REKEY_AFTER && !send_key_update(t)) {
            break;
        }
    }
    return t->raw_err ? IO_ERROR : IO_OK;
}

void tls_own_close(struct tls_conn *t)
{
    send_alert(t, LEVEL_WARNING, ALERT_CLOSE_NOTIFY);
}

// ---- receiving ----

static enum io refuse(struct tls_conn *t, uint8_t alert, const char *why)
{
    tls_say(t, "TLS read: %s", why);
    send_alert(t, LEVEL_FATAL, alert);
    return IO_ERROR;
}

static const char *result_text(enum record13_result r)
{
    switch (r) {
    case RECORD13_OK:
        break;
    case RECORD13_UNEXPECTED_MESSAGE:
        return "peer sent something that is no TLS 1.3 record";
    case RECORD13_BAD_MAC:
        return "a record was changed on its way (bad record mac)";
    case RECORD13_OVERFLOW:
        return "peer sent a record that is too long";
    case RECORD13_INTERNAL:
        return "decryption failed";
    }
    return "";
}

static enum io take_alert(struct tls_conn *t, const uint8_t *p, size_t n)
{
    if (n != 2) {
        return refuse(t, ALERT_DECODE_ERROR, "peer sent a broken alert");
    }
    if (p[1] == ALERT_CLOSE_NOTIFY) {
        t->got_close = true;
        return IO_EOF;
    }
    if (p[1] == ALERT_USER_CANCELED) {
        return IO_OK; // §6.1: a close_notify follows
    }
    tls_say(t, "TLS read: peer sent the alert \"%s\"", tls_alert_name(p[1]));
    return IO_ERROR;
}

static enum io take_key_update(struct tls_conn *t, uint8_t wanted, bool last)
{
    if (!last) {
        return refuse(t, RECORD13_UNEXPECTED_MESSAGE, "peer went on under an old key"); // §5.1
    }
    if (wanted > 1) {
        return refuse(t, ALERT_ILLEGAL_PARAMETER, "peer sent a broken key update");
    }
    // One answer is enough for all that ask before our next data (§4.6.3). A peer that asks and never reads must not make us queue them.
    bool blocked = t->left.len > 0;
    t->owe_update |= wanted && blocked;
    if (!record13_rekey_in(&t->rec) || (wanted && !blocked && !t->sent_close && !send_key_update(t))) {
        return refuse(t, RECORD13_INTERNAL, "changing keys failed");
    }
    return IO_OK;
}

// The four bytes of a message's head are there: what may it be?
static enum io take_head(struct tls_conn *t)
{
    const uint8_t *h = t->msg_head;
    t->msg_left = (uint32_t)h[1] << 16 | (uint32_t)h[2] << 8 | h[3];
    bool fine = (h[0] == MSG_KEY_UPDATE && t->msg_left == 1) ||
                (h[0] == MSG_TICKET && !t->ctx->server && t->msg_left > 0 && t->msg_left <= MESSAGE_MAX);
    return fine ? IO_OK : refuse(t, RECORD13_UNEXPECTED_MESSAGE, "peer sent a handshake message that does not belong here");
}

// Messages may be split over records and share them (§5.1).
static enum io take_messages(struct tls_conn *t, const uint8_t *p, size_t n)
{
    enum io io = IO_OK;
    while (n && io == IO_OK) {
        if (t->msg_have < sizeof(t->msg_head)) {
            t->msg_head[t->msg_have++] = *p++;
            n--;
            io = t->msg_have == sizeof(t->msg_head) ? take_head(t) : IO_OK;
            continue;
        }
        size_t k = n < t->msg_left ? n : t->msg_left;
        if (t->msg_head[0] == MSG_KEY_UPDATE) {
            io = take_key_update(t, *p, n == 1);
        }
        p += k;
        n -= k;
        t->msg_left -= (uint32_t)k;
        t->msg_have = t->msg_left ? t->msg_have : 0;
    }
    return io;
}

// A client's OpenSSL object still waits for a ticket: show it the record, which was the next one in its count too.
static void show_openssl(struct tls_conn *t, const char *record, size_t len)
{
    char none[64];
    size_t n;
    t->got_ticket = false;
    t->feed = str_n(record, len);
    (void)SSL_read_ex(t->ssl, none, sizeof(none), &n); // ends with "want read", the ticket went to the session hook
    ERR_clear_error();
    t->feed = str_n(NULL, 0);
    if (t->got_ticket) {
        tls_drop_ssl(t);
    }
}

static enum io take_control(struct tls_conn *t, enum record13_type type, const struct iovec *iov, int n, size_t len,
                            const char *record, size_t record_len)
{
    uint8_t text[RECORD13_PLAIN_MAX];
    size_t at = 0;
    for (int i = 0; i < n && at < len; i++) {
        size_t k = iov[i].iov_len < len - at ? iov[i].iov_len : len - at;
        memcpy(text + at, iov[i].iov_base, k);
        at += k;
    }
    if (type == RECORD13_ALERT) {
        return take_alert(t, text, len);
    }
    // Also the further records of a ticket that is split.
    if (t->ssl && (t->msg_have ? t->msg_head[0] : text[0]) == MSG_TICKET) {
        show_openssl(t, record, record_len);
    } else {
        tls_drop_ssl(t); // its keys and count are no longer ours
    }
    return take_messages(t, text, len);
}

static enum io take_record(struct tls_conn *t, struct buf *in, const char *record, size_t len)
{
    struct iovec iov[4];
    int n = buf_reserve_iov(in, record13_open_room(len), iov, (int)array_len(iov));
    enum record13_type type;
    size_t content = 0;
    enum record13_result r = record13_open(&t->rec, record, len, iov, n, &type, &content);
    enum io io = IO_OK;
    if (r != RECORD13_OK) {
        io = refuse(t, (uint8_t)r, result_text(r));
    } else if (type != RECORD13_DATA) {
        io = take_control(t, type, iov, n, content, record, len);
    } else if (t->msg_have) {
        io = refuse(t, RECORD13_UNEXPECTED_MESSAGE, "peer sent data inside a handshake message"); // §5.1
    } else {
        buf_commit_iov(in, content);
        tls_drop_ssl(t); // no ticket before the first data: none needed
    }
    if (r != RECORD13_OK || type != RECORD13_DATA || io != IO_OK || content == 0) {
        buf_commit_iov(in, 0);
        t->quiet++;
    } else {
        t->quiet = 0;
    }
    if (io == IO_OK && t->quiet > QUIET_MAX) {
        io = refuse(t, RECORD13_UNEXPECTED_MESSAGE, "peer sends records without data again and again");
    }
    return io;
}

// Opens the whole records in received[0…*n); what is left moves to the front.
static enum io take_records(struct tls_conn *t, struct buf *in, char *received, size_t *n)
{
    enum io io = IO_OK;
    size_t at = 0;
    while (io == IO_OK) {
        enum record13_result bad;
        size_t len = record13_length(received + at, *n - at, &bad);
        if (bad != RECORD13_OK) {
            io = refuse(t, (uint8_t)bad, result_text(bad));
        } else if (len == 0 || len > *n - at) {
            break;
        } else {
            io = take_record(t, in, received + at, len);
            at += len;
        }
    }
    *n -= at;
    memmove(received, received + at, *n);
    return io;
}

enum io tls_own_read(struct tls_conn *t, struct buf *in, size_t want)
{
    char *received = tls_scratch_get()->received;
    const size_t room = sizeof(((struct tls_scratch *)0)->received);
    size_t before = in->len;
    size_t n = buf_peek(&t->raw, 0, received, room);
    CHECK(n == t->raw.len); // at most one slice from the handshake, or the beginning of a record
    buf_clear(&t->raw);
    enum io io = t->got_close ? IO_EOF : IO_OK;
    while (io == IO_OK) {
        io = take_records(t, in, received, &n);
        if (io != IO_OK || in->len - before >= want) {
            break;
        }
        ssize_t k = conn_raw_read(t->t.conn, received + n, room - n);
        if (k > 0) {
            n += (size_t)k;
        } else if (k == -EAGAIN) {
            io = IO_AGAIN;
        } else if (k == 0) {
            io = IO_EOF; // without close_notify: the layer above knows from its framing whether bytes are missing
        } else {
            t->raw_err = (int)k;
            io = IO_ERROR;
        }
    }
    if (io == IO_OK || io == IO_AGAIN) {
        buf_append(&t->raw, received, n);
    }
    t->more = io == IO_OK;
    return io;
}
