// SPDX-License-Identifier: Apache-2.0
// The table of subcommands and what runs them. A new subcommand is one file cmd_NAME.c and one line in commands.c.
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "cli/cli.h"
#include "lib/base/json.h"

// A command puts its result into c->out and returns 0, or a negative code with the reason in err.
typedef int cli_run_fn(struct cli *c, struct err *err);

struct command {
    const char *name;
    const char *aliases[2]; // unused ones NULL
    const char *summary;    // one line
    uint64_t options;       // bits of enum option_id that it takes
    cli_run_fn *run;
    const struct command *sub; // a group instead of a command: ends with an entry without name
    const char *words;         // what help calls the words that are no options ("FILE…"); NULL: it takes none
};

extern const struct command cli_commands[];

// Runs a whole command line (argv[0] is the program). c: arena, now_s and color set by the caller; output is left in c->out
// and c->notes. Returns the exit code.
int cli_main(int argc, char **argv, struct cli *c);

cli_run_fn cmd_pc_cluster, cmd_pc_listener, cmd_pc_route, cmd_pc_endpoint, cmd_pc_eds, cmd_pc_secret, cmd_pc_bootstrap;
cli_run_fn cmd_pc_log, cmd_pc_all, cmd_ps, cmd_dump, cmd_version;
cli_run_fn cmd_explain, cmd_rollout, cmd_analyze, cmd_authz_check;

// The tables of one whole config dump, for `pc all`. Same results as the commands.
int table_clusters(struct cli *c, const struct json *dump, struct err *err);
int table_listeners(struct cli *c, const struct json *dump, struct err *err);
int table_routes(struct cli *c, const struct json *dump, struct err *err);
int table_secrets(struct cli *c, const struct json *dump, struct err *err);
int table_eds(struct cli *c, const struct json *dump, struct err *err);
int table_bootstrap(struct cli *c, const struct json *dump, struct err *err);

#endif
