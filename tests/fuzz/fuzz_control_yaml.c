// SPDX-License-Identifier: Apache-2.0
// fuzz-modules: control-plane
// The YAML path of the control plane: any text is loaded or refused; what loads compiles for a proxy or is refused, and what compiles is answered on a stream.
#include <stdint.h>
#include <stdlib.h>

#include "control-plane/analyze.h"
#include "control-plane/compile.h"
#include "lib/base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Any text can be analyzed, also one that does not load.
static void analyze(const uint8_t *data, size_t size)
{
    struct arena a = { 0 };
    struct cp_finding *v = NULL;
    const struct cp_source source = { .name = "input.yaml", .text = str_n(data, size) };
    size_t n = cp_analyze(&source, 1, &a, &v);
    for (size_t i = 0; i < n; i++) {
        if (!v[i].text.n) {
            abort();
        }
    }
    arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cp_options o = { .trust_domain = STR_INIT("cluster.local"), .sniff_timeout = STR_INIT("5s") };
    struct cp_config *c = NULL;
    struct err err = { 0 };
    log_set_level(-1, LOG_OFF);
    analyze(data, size);
    if (cp_load_text(str_n(data, size), "input.yaml", &c, &err)) {
        if (!err.msg[0]) {
            abort(); // a refusal without a reason
        }
        return 0;
    }
    struct cp_node n = { .id = STR_INIT("sidecar~10.7.0.11~p.default~x"), .ns = STR_INIT("default"), .name = STR_INIT("p") };
    struct cp_set *s = NULL;
    addr_parse_ip(STR("10.7.0.11"), 0, &n.ip);
    if (cp_compile(c, &n, &o, &s, &err) == 0) {
        cp_set_unref(s);
    } else if (!err.msg[0]) {
        abort();
    }
    cp_config_free(c);
    return 0;
}
