// SPDX-License-Identifier: Apache-2.0
// What pilot-agent does around Envoy, in the same process: bootstrap from the environment, workload identity, readiness and metrics ports.
#ifndef PROXY_SERVER_SIDECAR_H
#define PROXY_SERVER_SIDECAR_H

#include "lib/event/loop.h"
#include "proxy/admin/admin.h"
#include "proxy/config/bootstrap.h"
#include "proxy/config/config.h"

struct sidecar;

// Reads the environment (ISTIO_META_*, PROXY_CONFIG, POD_NAME, …) and fills *ret_boot as a file would have.
int sidecar_bootstrap(struct sidecar **ret, struct bootstrap *ret_boot, struct err *err);
// SECRET_TTL: "24h", "1h30m", "90s" as Go writes durations (whole units), or seconds. Empty gives 0, the default. -EINVAL otherwise, or above 90 days.
int sidecar_parse_ttl(struct str text, uint64_t *ret_s);
// Whether dir holds a workload's certificate, key and root, which then stand in place of the authority's. Istio's injector mounts the folder in
// every pod, empty unless something writes there.
bool sidecar_has_credentials(const char *dir);
// Worker count: ProxyConfig.concurrency, else ISTIO_CPU_LIMIT, else 2 as Istio's default; 0 there = all usable CPUs.
int sidecar_concurrency(const struct sidecar *s);
// ProxyConfig.termination_drain_duration in milliseconds, dflt without one.
uint64_t sidecar_drain_ms(const struct sidecar *s, uint64_t dflt);
// Starts the identity provider (secrets "default" and "ROOTCA" into config), and the ports 15020 (health, metrics, quit), 15021 (health) and
// 15090 (metrics).
int sidecar_start(struct sidecar *s, struct loop *l, struct config *c, struct admin *a, struct stats_store *st, struct err *err);
void sidecar_free(struct sidecar *s);

#endif
