// SPDX-License-Identifier: Apache-2.0
// Decisions that Envoy made (tests/golden/authz/matrix.txt, recorded by tests/parity/authz_matrix.py) against ours: equal, every one of them, and
// never "allow" where Envoy denied. Lines of the file:
//   dynamic NAMESPACE STRUCT    dynamic metadata of all requests; route NAMESPACE STRUCT: that of the route
//   request                     begins one; its lines follow: method, path, scheme, authority, header NAME VALUE, local, direct, remote, source (addresses),
//                               tls, sni, subject, uri, dns
//   rbac MESSAGE                a config.rbac.v3.RBAC
//   decided …                   of it, one character a request: "+" allowed and "-" denied without a policy, else the policy's letter, upper case = allowed
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "envoy/config/core/v3/base.pb-c.h"
#include "envoy/config/rbac/v3/rbac.pb-c.h"
#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proxy/authz/authz.h"
#include "proxy/core/stream_info.h"
#include "proxy/model/matcher.h"

enum { FILE_MAX = 16 * 1024 * 1024, REQUESTS_MAX = 200, NAMES_MAX = 8 };

struct one {
    struct authz_subject subject;
    struct match_request request;
    struct headers headers;
    struct addr local, direct, remote, source;
    struct str uris[NAMES_MAX], dns[NAMES_MAX];
};

static struct arena arena;
static struct stream_info info;
static struct str route_metadata;
static struct one *all;
static size_t count;

static struct addr address(struct str s)
{
    struct addr a;
    if (!addr_parse(s, &a) && !addr_parse_ip(s, 0, &a)) {
        fail_msg("\"%.*s\" is no address", STR_FMT(s));
    }
    return a;
}

static ProtobufCMessage *message(struct str json, const ProtobufCMessageDescriptor *d, struct arena *a)
{
    ProtobufCMessage *m = NULL;
    struct err err = { 0 };
    if (pb_json_parse(json, d, 0, a, &m, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    return m;
}

static void begin_request(void)
{
    assert_true(count < REQUESTS_MAX);
    struct one *o = &all[count++];
    headers_init(&o->headers, &arena);
    o->request.headers = &o->headers;
    o->request.arena = &arena;
    o->subject = (struct authz_subject){ .request = &o->request, .local = &o->local, .direct_remote = &o->direct, .source = &o->source, .remote = &o->remote,
                                         .uris = o->uris, .dns_names = o->dns, .info = &info, .route_metadata = &route_metadata };
}

static void take_request_line(struct str key, struct str v)
{
    struct one *o = &all[count - 1];
    struct str value = v, name = str_split(&value, ' ');
    if (str_is(key, "header")) {
        headers_add(&o->headers, name, value);
    } else if (str_is(key, "uri")) {
        o->uris[o->subject.uri_count++] = v;
    } else if (str_is(key, "dns")) {
        o->dns[o->subject.dns_count++] = v;
    } else if (str_is(key, "tls")) {
        o->subject.tls = true;
    } else {
        const struct { const char *key; struct str *text; struct addr *addr; } fields[] = {
            { "method", &o->request.method, NULL }, { "path", &o->request.path, NULL }, { "scheme", &o->request.scheme, NULL },
            { "authority", &o->request.authority, NULL }, { "sni", &o->subject.server_name, NULL }, { "subject", &o->subject.certificate_subject, NULL },
            { "local", NULL, &o->local }, { "direct", NULL, &o->direct }, { "remote", NULL, &o->remote }, { "source", NULL, &o->source },
        };
        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
            if (str_is(key, fields[i].key)) {
                if (fields[i].text) {
                    *fields[i].text = v;
                } else {
                    *fields[i].addr = address(v);
                }
                return;
            }
        }
        fail_msg("a line begins with \"%.*s\"", STR_FMT(key));
    }
}

static void take_metadata(struct str key, struct str v)
{
    struct str json = v, space = str_split(&json, ' ');
    if (str_is(key, "dynamic")) {
        ProtobufCMessage *m = message(json, &google__protobuf__struct__descriptor, &arena);
        stream_info_metadata_merge(&info, &arena, space, pb_pack_stable(m, &arena));
    } else {
        struct str whole = arena_printf(&arena, "{\"filterMetadata\":{\"%.*s\":%.*s}}", STR_FMT(space), STR_FMT(json));
        route_metadata = pb_pack_stable(message(whole, &envoy__config__core__v3__metadata__descriptor, &arena), &arena);
    }
}

static char say(const struct authz_decision *d)
{
    if (!d->matched) {
        return d->allowed ? '+' : '-';
    }
    return (char)(d->allowed ? toupper(d->policy.p[0]) : d->policy.p[0]);
}

// How many decisions of one RBAC are not as they should be.
static size_t replay(struct str json, struct str decided)
{
    struct arena a = { 0 };
    struct authz *z = NULL;
    struct err err = { 0 };
    size_t wrong = 0;
    if (authz_parse(message(json, &envoy__config__rbac__v3__rbac__descriptor, &a), AUTHZ_OF_REQUEST, &a, &z, &err) < 0) {
        fail_msg("%s\n%.*s", err.msg, STR_FMT(json));
    }
    assert_int_equal(decided.n, count);
    for (size_t i = 0; i < count; i++) {
        struct authz_decision d = authz_decide(z, &all[i].subject);
        if (say(&d) != decided.p[i]) {
            print_error("Envoy: %c, here: %c%s; request %zu: %.*s %.*s\n%.*s\n", decided.p[i], say(&d),
                        d.allowed && (decided.p[i] == '-' || islower(decided.p[i])) ? " (a hole)" : "", i, STR_FMT(all[i].request.method),
                        STR_FMT(all[i].request.path), STR_FMT(json));
            wrong++;
        }
    }
    arena_fini(&a);
    return wrong;
}

static void decisions_are_envoys(void **state)
{
    (void)state;
    struct str text, rbac = { 0 };
    struct err err = { 0 };
    size_t decisions = 0, wrong = 0;
    all = calloc(REQUESTS_MAX, sizeof(*all));
    if (file_read("tests/golden/authz/matrix.txt", FILE_MAX, &arena, &text, &err) < 0) {
        fail_msg("%s", err.msg);
    }
    while (text.n) {
        struct str line = str_split(&text, '\n'), value = line, key = str_split(&value, ' ');
        if (!line.n || line.p[0] == '#') {
            continue;
        }
        if (str_is(key, "request")) {
            begin_request();
        } else if (str_is(key, "rbac")) {
            rbac = value;
        } else if (str_is(key, "decided")) {
            wrong += replay(rbac, value);
            decisions += count;
        } else if (str_is(key, "dynamic") || str_is(key, "route")) {
            take_metadata(key, value);
        } else {
            take_request_line(key, value);
        }
    }
    free(all);
    arena_fini(&arena);
    assert_true(decisions >= 5000);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(decisions_are_envoys) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
