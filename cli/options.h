// SPDX-License-Identifier: Apache-2.0
// Options of the command line: one table of all, and a mask per command of those it takes, so that an option is either used
// or refused by name.
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "cli/cli.h"

enum option_id {
    OPT_ADDRESS,
    OPT_CONTROL,
    OPT_FILE,
    OPT_OUTPUT,
    OPT_COLOR,
    OPT_TIMEOUT,
    OPT_FQDN,
    OPT_PORT,
    OPT_SUBSET,
    OPT_DIRECTION,
    OPT_LISTEN_ADDRESS,
    OPT_ENDPOINT_ADDRESS,
    OPT_TYPE,
    OPT_NAME,
    OPT_STATUS,
    OPT_CLUSTER,
    OPT_VERBOSE,
    OPT_WITH_HEADERS,
    OPT_NO_HEADERS,
    OPT_LEVEL,
    OPT_RESET,
    OPT_ROUTE,
    OPT_STEPS,
    OPT_INTERVAL,
    OPT_MIN_REQUESTS,
    OPT_MAX_FAILED,
    OPT_THRESHOLD,
    OPT_HEADER,
    OPT_DST,
    OPT_SOURCE,
    OPT_LISTENER,
    OPT_HELP,
    OPT_COUNT
};
#define OPT(id) (UINT64_C(1) << OPT_##id)

// Defaults: admin 127.0.0.1:15000, control 127.0.0.1:15014, table, 10 s, verbose.
void options_init(struct cli_options *o);
// Takes one option of argv at *i (which is moved behind it and its value). takes: mask of what the command knows; command: its
// name for messages. Forms: --name value, --name=value, -n value, -nvalue; a switch takes =true or =false.
// 0, or -EINVAL with what is wrong.
int options_take(struct cli_options *o, uint64_t takes, const char *command, int argc, char **argv, int *i, struct err *err);
// The mask bit of the option that a word of the command line names, 0 when none.
uint64_t options_bit(const char *word);
// What only makes sense together: format from --output, --file or --address. given: mask of
// the options that were on the command line. 0 or -EINVAL.
int options_finish(struct cli_options *o, uint64_t given, struct err *err);
// One help line per option of the mask.
void options_help(uint64_t takes, struct buf *out);

#endif
