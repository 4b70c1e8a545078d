// SPDX-License-Identifier: Apache-2.0
// Command line of remora-proxy: Envoy's usual flags with a bootstrap file, or pilot-agent's `[proxy] sidecar …`.
#ifndef PROXY_SERVER_OPTIONS_H
#define PROXY_SERVER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/log.h"

enum { OPTIONS_DRAIN_MS = 5000 };

enum run_mode { RUN_FILE, RUN_SIDECAR, RUN_VALIDATE, RUN_HELP, RUN_VERSION };

struct options {
    enum run_mode mode;
    const char *config_path;  // -c; borrowed from argv
    const char *config_yaml;  // --config-yaml: text in place of the file
    const char *service_node, *service_cluster; // over the bootstrap's node
    int concurrency;          // 0 = all usable CPUs
    enum log_level log_level; // of all components
    const char *component_log_level; // "upstream:debug,http:trace"
    bool log_json;
    uint64_t drain_time_ms;   // --drain-time-s, default 5 s: longest time for connections to finish after SIGTERM; in a sidecar
                              // that does not set it, ProxyConfig.termination_drain_duration
};

// argv as main got it. -EINVAL + err that names the flag. Flags of Envoy that have no meaning here are taken with a warning on stderr.
int options_parse(int argc, char **argv, struct options *ret, struct err *err);
// Help text for stdout.
const char *options_help(void);

#endif
