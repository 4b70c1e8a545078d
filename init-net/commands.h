// SPDX-License-Identifier: Apache-2.0
// The commands, one function each. They report for themselves and return the exit code of the process.
#ifndef INIT_NET_COMMANDS_H
#define INIT_NET_COMMANDS_H

#include "init-net/facts.h"
#include "init-net/options.h"

int cmd_apply(struct options *o, const struct facts *facts);   // also --dry-run, --cleanup-only, --run-validation
int cmd_check(struct options *o, const struct facts *facts);   // would the kernel take it?
int cmd_cleanup(struct options *o, const struct facts *facts); // all traces of ours
int cmd_explain(struct options *o, const struct facts *facts); // one packet's way, by the evaluator
int cmd_verify(struct options *o, const struct facts *facts);  // rules as planned? do connections get there?
int cmd_stats(struct options *o, const struct facts *facts);   // counters
int cmd_doctor(struct options *o, const struct facts *facts);  // what the kernel and the container lack
int cmd_wait(struct options *o, const struct facts *facts);    // until the proxy is ready


struct json_writer;
struct verify_result;
// Validates and, unless the result is to be JSON, tells. EXIT_OK or EXIT_VALIDATION.
int cmd_verify_run(struct options *o, struct verify_result *ret);
// Adds "probed" and "checks" to an open JSON object.
void cmd_verify_put(struct json_writer *w, const struct verify_result *v);

#endif
