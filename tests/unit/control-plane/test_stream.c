// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/control-plane/common.h"

#include "control-plane/stream.h"
#include "envoy/service/discovery/v3/discovery.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "proto/pb_util.h"

typedef Envoy__Service__Discovery__V3__DeltaDiscoveryRequest delta_request;
typedef Envoy__Service__Discovery__V3__DeltaDiscoveryResponse delta_response;

static const char node_id[] = "sidecar~10.7.0.99~p.default~default.svc.cluster.local";

struct fixture {
    struct cp_config *c;
    struct cp_set *set;
    struct cp_stream s;
    struct arena a;
};

static struct cp_set *compile(const struct cp_config *c)
{
    struct cp_node n = mesh_node("10.7.0.99");
    struct cp_set *s = NULL;
    struct err err = { 0 };
    assert_int_equal(cp_compile(c, &n, &mesh_options, &s, &err), 0);
    return s;
}

static void setup(struct fixture *f, bool delta)
{
    memset(f, 0, sizeof(*f));
    f->c = load_mesh("");
    f->set = compile(f->c);
    cp_stream_init(&f->s, delta);
}

static void teardown(struct fixture *f)
{
    cp_stream_fini(&f->s);
    cp_set_unref(f->set);
    cp_config_free(f->c);
    arena_fini(&f->a);
}

static int ask(struct fixture *f, enum cp_type t, const char *nonce, const char *error, const char *name, bool with_node)
{
    delta_request m = ENVOY__SERVICE__DISCOVERY__V3__DELTA_DISCOVERY_REQUEST__INIT;
    Envoy__Config__Core__V3__Node n = ENVOY__CONFIG__CORE__V3__NODE__INIT;
    Google__Rpc__Status st = GOOGLE__RPC__STATUS__INIT;
    char *names[] = { (char *)name };
    const char *nack;
    struct err err = { 0 };
    n.id = (char *)node_id;
    st.message = (char *)error;
    m.node = with_node ? &n : NULL;
    m.type_url = (char *)cp_type_url(t).p;
    m.response_nonce = (char *)nonce;
    m.error_detail = error ? &st : NULL;
    m.resource_names_subscribe = names;
    m.n_resource_names_subscribe = name ? 1 : 0;
    return cp_stream_request(&f->s, pb_pack(&m.base, &f->a), &nack, &err);
}

static delta_response *next(struct fixture *f, uint64_t version)
{
    struct str bytes;
    enum cp_type t;
    delta_response *m = NULL;
    if (!cp_stream_next(&f->s, f->set, version, &f->a, &bytes, &t)) {
        return NULL;
    }
    assert_int_equal(pb_unpack_as(delta_response, envoy__service__discovery__v3__delta_discovery_response, bytes, &f->a, &m, NULL), 0);
    return m;
}

static void first_answer_is_full_then_silence_after_the_ack(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, true);
    assert_int_equal(ask(&f, CP_CDS, "", NULL, NULL, true), 0);
    delta_response *m = next(&f, 1);
    assert_non_null(m);
    assert_int_equal(m->n_resources, f.set->n[CP_CDS]);
    assert_int_equal(ask(&f, CP_CDS, m->nonce, NULL, NULL, false), 0);
    assert_null(next(&f, 1));
    assert_int_equal(f.s.w[CP_CDS].acked, 1);
    assert_int_equal(f.s.w[CP_CDS].acked_version, 1);
    teardown(&f);
}

static void a_change_sends_only_what_changed_and_what_is_gone(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, true);
    ask(&f, CP_CDS, "", NULL, NULL, true);
    delta_response *m = next(&f, 1);
    ask(&f, CP_CDS, m->nonce, NULL, NULL, false);
    cp_set_unref(f.set);
    cp_config_free(f.c);
    f.c = load_mesh("---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: n}\n"
                    "spec: {hosts: [new.x], resolution: STATIC, ports: [{number: 7000, name: tcp, protocol: TCP}]}\n");
    f.set = compile(f.c);
    m = next(&f, 2);
    assert_non_null(m);
    assert_int_equal(m->n_resources, 1);
    assert_string_equal(m->resources[0]->name, "outbound|7000||new.x");
    assert_int_equal(m->n_removed_resources, 0);
    ask(&f, CP_CDS, m->nonce, NULL, NULL, false);
    cp_set_unref(f.set);
    cp_config_free(f.c);
    f.c = load_mesh("");
    f.set = compile(f.c);
    m = next(&f, 3);
    assert_int_equal(m->n_resources, 0);
    assert_int_equal(m->n_removed_resources, 1);
    teardown(&f);
}

static void a_nack_is_booked_and_not_answered(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, true);
    ask(&f, CP_LDS, "", NULL, NULL, true);
    delta_response *m = next(&f, 1);
    assert_int_equal(ask(&f, CP_LDS, m->nonce, "listener x: no", NULL, false), 0);
    assert_null(next(&f, 1));
    assert_int_equal(f.s.w[CP_LDS].nacked, 1);
    assert_string_equal(f.s.w[CP_LDS].last_error, "listener x: no");
    assert_int_equal(f.s.w[CP_LDS].acked_version, 0);
    teardown(&f);
}

static void unknown_endpoints_get_an_empty_assignment(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, true);
    ask(&f, CP_EDS, "", NULL, "outbound|1||gone", true);
    delta_response *m = next(&f, 1);
    assert_non_null(m);
    assert_int_equal(m->n_resources, 1);
    assert_string_equal(m->resources[0]->name, "outbound|1||gone");
    teardown(&f);
}

static void without_a_node_the_stream_ends(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, true);
    assert_int_not_equal(ask(&f, CP_CDS, "", NULL, NULL, false), 0);
    struct err err = { 0 };
    const char *nack;
    assert_int_not_equal(cp_stream_request(&f.s, STR("\xff\xff\xff"), &nack, &err), 0);
    teardown(&f);
}

static void sotw_repeats_the_whole_set_on_change(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, false);
    Envoy__Service__Discovery__V3__DiscoveryRequest q = ENVOY__SERVICE__DISCOVERY__V3__DISCOVERY_REQUEST__INIT;
    Envoy__Config__Core__V3__Node n = ENVOY__CONFIG__CORE__V3__NODE__INIT;
    const char *nack;
    struct err err = { 0 };
    struct str bytes;
    enum cp_type t;
    n.id = (char *)node_id;
    q.node = &n;
    q.type_url = (char *)cp_type_url(CP_CDS).p;
    assert_int_equal(cp_stream_request(&f.s, pb_pack(&q.base, &f.a), &nack, &err), 0);
    assert_true(cp_stream_next(&f.s, f.set, 1, &f.a, &bytes, &t));
    assert_false(cp_stream_next(&f.s, f.set, 1, &f.a, &bytes, &t));
    assert_false(cp_stream_next(&f.s, f.set, 2, &f.a, &bytes, &t)); // same content
    cp_set_unref(f.set);
    cp_config_free(f.c);
    f.c = load_mesh("---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {name: n}\n"
                    "spec: {hosts: [new.x], resolution: STATIC, ports: [{number: 7000, name: tcp, protocol: TCP}]}\n");
    f.set = compile(f.c);
    assert_true(cp_stream_next(&f.s, f.set, 3, &f.a, &bytes, &t));
    Envoy__Service__Discovery__V3__DiscoveryResponse *m = NULL;
    assert_int_equal(
        pb_unpack_as(Envoy__Service__Discovery__V3__DiscoveryResponse, envoy__service__discovery__v3__discovery_response, bytes, &f.a, &m, NULL), 0);
    assert_int_equal(m->n_resources, f.set->n[CP_CDS]);
    teardown(&f);
}

static void what_never_was_is_said_to_be_gone(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, true);
    assert_int_equal(ask(&f, CP_RDS, "", NULL, "9999", true), 0);
    delta_response *m = next(&f, 1);
    assert_non_null(m);
    assert_int_equal(m->n_resources, 0);
    assert_int_equal(m->n_removed_resources, 1);
    assert_string_equal(m->removed_resources[0], "9999");
    assert_null(next(&f, 2)); // once is enough
    teardown(&f);
}

static void odd_types_are_bounded(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, true);
    int rc = 0, n = 0;
    for (; n < 1000 && !rc; n++) {
        delta_request m = ENVOY__SERVICE__DISCOVERY__V3__DELTA_DISCOVERY_REQUEST__INIT;
        Envoy__Config__Core__V3__Node node = ENVOY__CONFIG__CORE__V3__NODE__INIT;
        char url[32];
        const char *nack;
        struct err err = { 0 };
        snprintf(url, sizeof(url), "type.example/T%d", n);
        node.id = (char *)node_id;
        m.node = &node;
        m.type_url = url;
        rc = cp_stream_request(&f.s, pb_pack(&m.base, &f.a), &nack, &err);
    }
    assert_int_equal(n, CP_OTHER_TYPES_MAX + 1);
    teardown(&f);
}

// A client that comes back says what it holds; only what differs from that is sent.
static void a_reconnect_gets_only_what_it_does_not_hold(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, true);
    ask(&f, CP_CDS, "", NULL, NULL, true);
    delta_response *m = next(&f, 1);
    cp_stream_fini(&f.s);
    cp_stream_init(&f.s, true);

    delta_request again = ENVOY__SERVICE__DISCOVERY__V3__DELTA_DISCOVERY_REQUEST__INIT;
    Envoy__Config__Core__V3__Node n = ENVOY__CONFIG__CORE__V3__NODE__INIT;
    typedef Envoy__Service__Discovery__V3__DeltaDiscoveryRequest__InitialResourceVersionsEntry entry;
    entry *v[64];
    assert_true(m->n_resources > 3 && m->n_resources < 63);
    for (size_t i = 0; i < m->n_resources; i++) {
        v[i] = arena_new(&f.a, entry);
        envoy__service__discovery__v3__delta_discovery_request__initial_resource_versions_entry__init(v[i]);
        v[i]->key = m->resources[i]->name;
        v[i]->value = m->resources[i]->version;
        assert_int_equal(strlen(v[i]->value), 32);
    }
    v[m->n_resources] = arena_new(&f.a, entry);
    envoy__service__discovery__v3__delta_discovery_request__initial_resource_versions_entry__init(v[m->n_resources]);
    v[m->n_resources]->key = "outbound|1||gone.example";
    v[m->n_resources]->value = "7";
    v[1]->value = ""; // as istiod writes it: unknown content
    char *other = arena_strdup(&f.a, v[2]->value);
    other[31] = other[31] == '0' ? '1' : '0';
    v[2]->value = other;
    n.id = (char *)node_id;
    again.node = &n;
    again.type_url = (char *)cp_type_url(CP_CDS).p;
    again.initial_resource_versions = v;
    again.n_initial_resource_versions = m->n_resources + 1;
    const char *nack;
    struct err err = { 0 };
    assert_int_equal(cp_stream_request(&f.s, pb_pack(&again.base, &f.a), &nack, &err), 0);

    delta_response *r = next(&f, 2);
    assert_non_null(r); // an answer, even if all were the same: the client waits for it
    assert_int_equal(r->n_resources, 2);
    assert_string_equal(r->resources[0]->name, v[1]->key);
    assert_string_equal(r->resources[1]->name, v[2]->key);
    assert_int_equal(r->n_removed_resources, 1);
    assert_string_equal(r->removed_resources[0], "outbound|1||gone.example");
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reconnect_gets_only_what_it_does_not_hold),
        cmocka_unit_test(first_answer_is_full_then_silence_after_the_ack),
        cmocka_unit_test(a_change_sends_only_what_changed_and_what_is_gone),
        cmocka_unit_test(a_nack_is_booked_and_not_answered),
        cmocka_unit_test(unknown_endpoints_get_an_empty_assignment),
        cmocka_unit_test(without_a_node_the_stream_ends),
        cmocka_unit_test(sotw_repeats_the_whole_set_on_change),
        cmocka_unit_test(what_never_was_is_said_to_be_gone),
        cmocka_unit_test(odd_types_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
