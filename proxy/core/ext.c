// SPDX-License-Identifier: Apache-2.0
#include "proxy/core/ext.h"

bool (*config_runtime_number)(const struct config_ctx *ctx, const char *key, uint64_t max, uint64_t *ret);
bool (*config_runtime_fraction)(const struct config_ctx *ctx, const char *key, uint32_t *ret_numerator, uint32_t *ret_denominator);
int (*config_runtime_bool)(const struct config_ctx *ctx, const char *key, bool *ret, struct err *err);
const char *(*config_node_cluster)(const struct config_ctx *ctx);
void (*config_uses_cluster)(struct config_ctx *ctx, struct str name);
