// SPDX-License-Identifier: Apache-2.0
#include "init-net/rules/registry.h"

#include "lib/base/check.h"

const struct rules_emitter rules_registry[] = {
    { "ipv6", rules_ipv6 },
    { "interfaces", rules_interfaces },
    { "ipv6-drop", rules_ipv6_drop },
    { "guard", rules_guard },
    { "established", rules_established },
    { "drop-invalid", rules_drop_invalid },
    { "exclude-ports", rules_exclude_ports },
    { "passthrough", rules_passthrough },
    { "owner", rules_owner },
    { "groups", rules_groups },
    { "dns", rules_dns },
    { "capture", rules_capture },
    { "inbound-redirect", rules_inbound_redirect },
    { "inbound-tproxy", rules_inbound_tproxy },
};
const size_t rules_registry_count = array_len(rules_registry);
