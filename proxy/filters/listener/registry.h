// SPDX-License-Identifier: Apache-2.0
// The listener filters that exist: one plain array in registry.c.
#ifndef PROXY_FILTERS_LISTENER_REGISTRY_H
#define PROXY_FILTERS_LISTENER_REGISTRY_H

#include "lib/base/str.h"

struct listener_filter_ops;

// By configuration type (full name, without "type.googleapis.com/") when given, else by filter name. NULL: not there, the configuration is
// refused by name. Static, any thread.
const struct listener_filter_ops *listener_filter_find(struct str name, struct str type_name);

#endif
