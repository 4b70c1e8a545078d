# SPDX-License-Identifier: Apache-2.0
"""Compares what remora-control compiles (CDS.json … beside this file) with what a real istiod sent for the same folder, config/.

istiod.json holds istiod's answer (Istio of 2026-08-27, node sidecar~10.7.0.9~client.default, label app=client) without what remora-control
does not make: telemetry, tracing, access logs, metadata exchange. DIFFERENCES lists the rest that is not the same, with the reason."""

import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
TYPES = ("CDS", "EDS", "LDS", "RDS")
NOT_COMPARED = {"virtualInbound", "virtualOutbound"}  # tests/integration/test_mesh.py sees what these do
TELEMETRY = {"istio.metadata_exchange", "istio.stats", "envoy.filters.http.grpc_stats"}
LEFT_OUT = {"@type", "tracing", "request_id_extension", "access_log", "dns_jitter", "typed_dns_resolver_config", "cleanup_interval",
            "transport_socket_connect_timeout", "max_connections_to_accept_per_socket_event", "track_remaining"}
KEPT_EMPTY = {"healthy_panic_threshold", "ads"}

# (type, resource or *, end of the path) → why
DIFFERENCES = {
    ("CDS", "BlackHoleCluster", ".load_assignment"): "an empty assignment is written out",
    ("CDS", "InboundPassthroughCluster", ".alt_stat_name"): "the cluster's own name",
    ("RDS", "80", "decorator.operation"): "see the cluster",
    ("RDS", "80", "route.cluster"): "a host without port 80 leads to its only port, where istiod names a cluster that does not exist",
    ("LDS", "*", "listener_filters[0].typed_config"): "the first read's size is the proxy's own business",
    ("LDS", "*", ".listener_filters_timeout"): "--sniff-timeout; istiod's default waits for ever",
    ("LDS", "*", ".continue_on_listener_filters_timeout"): "not where there is no listener filter",
    ("LDS", "*", ".merge_slashes"): "pathNormalization MERGE_SLASHES in place of BASE",
    ("LDS", "10.96.0.15_6379", ".default_filter_chain"): "a last chain without a match, in place of the default chain",
    ("LDS", "10.96.0.15_6379", ".filter_chains[len]"): "the same",
}


def by_name(resources):
    found = {}
    for r in resources if isinstance(resources, list) else resources.get("resources", resources.values()):
        r = r.get("resource", r)
        found[r.get("name") or r.get("cluster_name")] = r
    return found


def fraction(x):
    """FractionalPercent in one form: parts of a million."""
    parts = {"HUNDRED": 10000, "TEN_THOUSAND": 100, "MILLION": 1}[x.get("denominator", "HUNDRED")]
    return {"numerator": x["numerator"] * parts, "denominator": "MILLION"} if x.get("numerator") else {}


def order(x, path):
    """Lists whose order means nothing, or comes from Go's maps."""
    if path.endswith(".virtual_hosts"):
        return sorted(x, key=lambda v: v["name"])
    if path.endswith((".domains", ".server_names")):
        return sorted(x)
    if path.endswith((".query_parameters", ".match_subject_alt_names")):
        return sorted(x, key=json.dumps)
    if path.endswith(".filter_chains") and all("server_names" in c.get("filter_chain_match", {}) for c in x):
        return sorted(x, key=lambda c: json.dumps(c["filter_chain_match"], sort_keys=True))
    return x


def normal(x, path=""):
    """x without what is not compared, empty members and order that means nothing; numbers and durations in one form."""
    if isinstance(x, dict) and set(x) <= {"numerator", "denominator"} and path.endswith(("percentage", "default_value")):
        return fraction(x)
    if isinstance(x, dict):
        members = {k: normal(v, f"{path}.{k}") for k, v in x.items() if k not in LEFT_OUT}
        return {k: v for k, v in members.items() if k in KEPT_EMPTY or v not in ({}, [], None, "", False)}
    if isinstance(x, list):
        return [normal(v, path) for v in order(x, path) if not (isinstance(v, dict) and v.get("name") in TELEMETRY)]
    if isinstance(x, str) and path.endswith(".retry_on"):
        return x.replace(",retriable-status-codes", "")  # without codes it says nothing
    if isinstance(x, str) and x.isdigit():
        return int(x)
    if isinstance(x, str) and x.endswith("s") and x[:-1].replace(".", "", 1).isdigit():
        return f"{float(x[:-1]):g}s"
    return x


def differences(a, b, path=""):
    """(path, istiod's, ours) of each place that is not the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        for k in sorted(set(a) | set(b)):
            yield from differences(a.get(k), b.get(k), f"{path}.{k}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            yield from differences(x, y, f"{path}[{i}]")
    elif a != b:
        yield path + ("[len]" if isinstance(a, list) and isinstance(b, list) else ""), a, b


def expected(kind, name, path):
    return any(kind == k and n in ("*", name) and path.endswith(end) for k, n, end in DIFFERENCES)


def compare():
    """Lines about what is not as in istiod and not listed; and the listed ones that were met."""
    istiod = json.loads((HERE / "istiod.json").read_text())
    bad, met = [], set()
    for kind in TYPES:
        ours = {n: normal(r) for n, r in by_name(json.loads((HERE / f"{kind}.json").read_text())).items() if n not in NOT_COMPARED}
        for name in sorted(set(ours) ^ set(istiod[kind])):
            bad.append(f"{kind} {name}: only {'ours' if name in ours else 'istiod'}")
        for name in sorted(set(ours) & set(istiod[kind])):
            for path, a, b in differences(istiod[kind][name], ours[name]):
                if expected(kind, name, path):
                    met |= {d for d in DIFFERENCES if d[0] == kind and d[1] in ("*", name) and path.endswith(d[2])}
                else:
                    bad.append(f"{kind} {name} {path}: istiod {json.dumps(a)[:300]}, ours {json.dumps(b)[:300]}")
    return bad, met


if __name__ == "__main__":
    print("\n".join(compare()[0]))
