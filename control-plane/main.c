// SPDX-License-Identifier: Apache-2.0
// remora-control serve | check | compile | token
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control-plane/ca.h"
#include "control-plane/server.h"
#include "lib/base/json.h"
#include "lib/base/log.h"
#include "proto/pb_json.h"
#include "proto/pb_util.h"
#include "proto/types.h"

static const char help[] =
    "remora-control: the embedded control plane of remora\n\n"
    "  remora-control serve --config DIR [flags]     serve the folder's Istio YAML to proxies\n"
    "  remora-control check --config DIR             load the folder, say what is wrong, exit\n"
    "  remora-control compile --config DIR --address IP [--namespace NS] [--labels K=V,…] [--locality R/Z/S]\n"
    "                                                print what the proxy there would get, as JSON; takes the flags of serve\n"
    "  remora-control token --namespace NS --service-account SA [--state DIR] [--ttl SECONDS]\n"
    "                                                print a bearer token for a proxy\n\n"
    "Flags of serve:\n"
    "  --config DIR          folder with *.yaml (ServiceEntry, WorkloadEntry, VirtualService, DestinationRule, PeerAuthentication,\n"
    "                        AuthorizationPolicy, RequestAuthentication, ConfigMap istio)\n"
    "  --state DIR           CA key and root-cert.pem, token key (default ./remora-state)\n"
    "  --grpc-addr A:P       plaintext xDS, loopback only (default 127.0.0.1:15010; \"off\")\n"
    "  --secure-addr A:P     xDS and certificates over TLS (default 0.0.0.0:15012; \"off\")\n"
    "  --http-addr A:P       /metrics, /ready, /debug/syncz (default 127.0.0.1:15014; \"off\")\n"
    "  --san NAME            further DNS name or address of this server in its certificate; may repeat\n"
    "  --trust-domain NAME   (default cluster.local)\n"
    "  --registry-only       refuse traffic to unknown destinations (default: pass it through)\n"
    "  --access-log          proxies write access logs to their standard output\n"
    "  --sniff-timeout T     longest wait for a client's first bytes on undeclared ports (default 5s)\n"
    "  --log-level LEVEL     trace, debug, info, warning, error, off (default info)\n";

enum { LABELS_MAX = 64 };

struct args {
    struct cp_server_opts serve;
    const char *ns, *service_account;
    uint64_t ttl_s;
    struct cp_node node; // compile
    struct cp_label labels[LABELS_MAX];
};

static int usage(const char *what, const char *arg)
{
    fprintf(stderr, "remora-control: %s%s; see --help\n", what, arg);
    return -1;
}

static const char *address_or_off(const char *v)
{
    return strcmp(v, "off") ? v : NULL;
}

// As the loader's names: what goes into SPIFFE ids.
static bool is_name(const char *v)
{
    size_t n = strspn(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    return n > 0 && n <= 253 && !v[n];
}

// google.protobuf.Duration in JSON, below a day.
static bool is_seconds(const char *v)
{
    size_t whole = strspn(v, "0123456789");
    size_t part = v[whole] == '.' ? 1 + strspn(v + whole + 1, "0123456789") : 0;
    return whole > 0 && whole <= 5 && part != 1 && part <= 10 && !strcmp(v + whole + part, "s");
}

static int take_labels(const char *v, struct args *a)
{
    for (struct str rest = str_c(v); rest.n;) {
        struct str value = str_split(&rest, ','), key = str_split(&value, '=');
        if (a->node.labels.n == LABELS_MAX || !key.n || !value.p) {
            return usage("--labels is no list of at most 64 NAME=VALUE: ", v);
        }
        a->labels[a->node.labels.n++] = (struct cp_label){ key, value };
    }
    return 0;
}

static int take(const char *flag, const char *v, struct args *a)
{
    struct cp_server_opts *s = &a->serve;
    int level;
    if (!strcmp(flag, "--config")) {
        s->folder = v;
    } else if (!strcmp(flag, "--state")) {
        s->state = v;
    } else if (!strcmp(flag, "--grpc-addr")) {
        s->grpc_addr = address_or_off(v);
    } else if (!strcmp(flag, "--secure-addr")) {
        s->secure_addr = address_or_off(v);
    } else if (!strcmp(flag, "--http-addr")) {
        s->http_addr = address_or_off(v);
    } else if (!strcmp(flag, "--trust-domain")) {
        if (!is_name(v)) {
            return usage("--trust-domain is not a name: ", v);
        }
        s->compile.trust_domain = str_c(v);
    } else if (!strcmp(flag, "--sniff-timeout")) {
        if (!is_seconds(v)) {
            return usage("--sniff-timeout is not a number of seconds such as 5s or 0.5s: ", v);
        }
        s->compile.sniff_timeout = str_c(v);
    } else if (!strcmp(flag, "--namespace")) {
        a->ns = v;
    } else if (!strcmp(flag, "--address")) {
        return addr_parse_ip(str_c(v), 0, &a->node.ip) ? 0 : usage("--address is no IP address: ", v);
    } else if (!strcmp(flag, "--labels")) {
        return take_labels(v, a);
    } else if (!strcmp(flag, "--locality")) {
        a->node.locality = str_c(v);
    } else if (!strcmp(flag, "--service-account")) {
        a->service_account = v;
    } else if (!strcmp(flag, "--san")) {
        if (s->san_count == CP_SANS_MAX) {
            return usage("too many --san", "");
        }
        s->sans[s->san_count++] = str_c(v);
    } else if (!strcmp(flag, "--ttl")) {
        return str_to_u64(str_c(v), 10ull * 365 * 86400, &a->ttl_s) ? 0 : usage("--ttl is not a number of seconds: ", v);
    } else if (!strcmp(flag, "--log-level")) {
        level = log_level_parse(v);
        if (level < 0) {
            return usage("unknown log level ", v);
        }
        log_set_level(-1, (enum log_level)level);
    } else {
        return usage("unknown flag ", flag);
    }
    return 0;
}

static int parse(int argc, char **argv, struct args *a)
{
    for (int i = 2; i < argc; i++) {
        char flag[64];
        const char *eq = strchr(argv[i], '=');
        snprintf(flag, sizeof(flag), "%.*s", (int)(eq ? eq - argv[i] : (ptrdiff_t)strlen(argv[i])), argv[i]);
        if (!strcmp(flag, "--registry-only")) {
            a->serve.compile.registry_only = true;
        } else if (!strcmp(flag, "--access-log")) {
            a->serve.compile.access_log = true;
        } else if (!eq && i + 1 == argc) {
            return usage("value missing for ", argv[i]);
        } else if (take(flag, eq ? eq + 1 : argv[++i], a)) {
            return -1;
        }
    }
    return 0;
}

static int cmd_serve(struct args *a)
{
    if (!a->serve.folder) {
        usage("serve needs ", "--config DIR");
        return 1;
    }
    static const char *const names[] = { "remora-control", "istiod.istio-system.svc", "localhost", "127.0.0.1", "::1" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && a->serve.san_count < CP_SANS_MAX; i++) {
        a->serve.sans[a->serve.san_count++] = str_c(names[i]);
    }
    return cp_server_run(&a->serve);
}

static int cmd_check(const struct args *a)
{
    struct cp_config *c = NULL;
    struct err err = { 0 };
    if (!a->serve.folder) {
        usage("check needs ", "--config DIR");
        return 1;
    }
    if (cp_load(a->serve.folder, &c, &err) || cp_check_mesh(c, &a->serve.compile, &err)) {
        fprintf(stderr, "remora-control: %s\n", err.msg);
        cp_config_free(c);
        return 1;
    }
    printf("%s: OK (%zu services, %zu workloads, %zu virtual services, %zu destination rules, %zu peer authentications, "
           "%zu authorization policies, %zu request authentications)\n",
           a->serve.folder, c->service_count, c->workload_count, c->virtual_service_count, c->destination_rule_count, c->peer_authentication_count,
           c->authz_count, c->request_authentication_count);
    cp_config_free(c);
    return 0;
}

static int write_set(const struct cp_set *s, struct err *err)
{
    struct buf b = { 0 };
    struct arena a = { 0 };
    struct json_writer w;
    int rc = 0;
    jw_init(&w, &b, 1);
    jw_object(&w);
    for (int t = 0; t < CP_TYPE_COUNT; t++) {
        jw_key(&w, str_c(cp_type_short((enum cp_type)t)));
        jw_array(&w);
        for (size_t i = 0; i < s->n[t] && !rc; i++) {
            ProtobufCMessage *m = NULL;
            rc = pb_unpack(types_find(cp_type_url((enum cp_type)t)), s->v[t][i].bytes, &a, &m, err);
            if (!rc) {
                pb_json_write(&w, m, 0);
            }
        }
        jw_array_end(&w);
    }
    jw_object_end(&w);
    buf_append(&b, "\n", 1);
    fwrite(buf_pullup(&b, buf_len(&b)).p, 1, rc ? 0 : buf_len(&b), stdout);
    buf_clear(&b);
    arena_fini(&a);
    return rc;
}

static int cmd_compile(struct args *a)
{
    struct cp_config *c = NULL;
    struct cp_set *s = NULL;
    struct err err = { 0 };
    if (!a->serve.folder || !a->node.ip.family) {
        usage("compile needs ", "--config DIR and --address IP");
        return 1;
    }
    a->node.id = STR("sidecar~compile~compile~compile");
    a->node.name = STR("compile");
    a->node.ns = a->ns ? str_c(a->ns) : STR("default");
    a->node.service_account = a->service_account ? str_c(a->service_account) : STR("default");
    a->node.cluster_id = STR("Kubernetes");
    a->node.labels.v = a->labels;
    if (cp_load(a->serve.folder, &c, &err) || cp_check_mesh(c, &a->serve.compile, &err) || cp_compile(c, &a->node, &a->serve.compile, &s, &err) || write_set(s, &err)) {
        fprintf(stderr, "remora-control: %s\n", err.msg);
    }
    if (s) {
        cp_set_unref(s);
    }
    cp_config_free(c);
    return err.code ? 1 : 0;
}

static int cmd_token(const struct args *a)
{
    struct ca ca;
    struct err err = { 0 };
    struct arena arena = { 0 };
    if (!a->ns || !a->service_account || !is_name(a->ns) || !is_name(a->service_account)) {
        usage("token needs ", "--namespace and --service-account");
        return 1;
    }
    if (ca_open(&ca, a->serve.state, a->serve.compile.trust_domain, &err)) {
        fprintf(stderr, "remora-control: %s\n", err.msg);
        return 1;
    }
    struct str t = token_sign(ca.token_key, str_c(a->ns), str_c(a->service_account), (int64_t)time(NULL) + (int64_t)a->ttl_s, &arena);
    printf("%.*s\n", STR_FMT(t));
    arena_fini(&arena);
    ca_close(&ca);
    return 0;
}

int main(int argc, char **argv)
{
    struct args a = {
        .serve = { .state = "remora-state", .grpc_addr = "127.0.0.1:15010", .secure_addr = "0.0.0.0:15012", .http_addr = "127.0.0.1:15014",
                   .compile = { .trust_domain = STR_INIT("cluster.local"), .sniff_timeout = STR_INIT("5s") } },
        .ttl_s = 365 * 86400,
    };
    const char *cmd = argc > 1 ? argv[1] : "--help";
    if (!strcmp(cmd, "--help") || !strcmp(cmd, "-h") || !strcmp(cmd, "help")) {
        fputs(help, stdout);
        return argc > 1 ? 0 : 1;
    }
    if (!strcmp(cmd, "--version") || !strcmp(cmd, "version")) {
        printf("remora-control %s\n", REMORA_VERSION);
        return 0;
    }
    if (parse(argc, argv, &a)) {
        return 1;
    }
    if (!strcmp(cmd, "serve")) {
        return cmd_serve(&a);
    }
    if (!strcmp(cmd, "check")) {
        return cmd_check(&a);
    }
    if (!strcmp(cmd, "compile")) {
        return cmd_compile(&a);
    }
    if (!strcmp(cmd, "token")) {
        return cmd_token(&a);
    }
    usage("unknown command ", cmd);
    return 1;
}
