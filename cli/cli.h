// SPDX-License-Identifier: Apache-2.0
// What every subcommand gets: its options and where its output goes. Nothing here is written to a descriptor before the
// command is done, so tests run commands in-process. One thread.
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "lib/base/arena.h"
#include "lib/base/buf.h"
#include "lib/base/err.h"

// Exit codes of remoractl.
enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

enum cli_format { FORMAT_TABLE, FORMAT_JSON, FORMAT_YAML };

// Values of the options, named as on the command line. Empty views and 0 mean: not given.
struct cli_options {
    struct str address, control, file, output, color;
    struct str fqdn, subset, direction, name, type, status, cluster;
    struct str listen_address, endpoint_address, level;
    uint32_t port, timeout_ms;
    bool verbose, with_headers, no_headers, reset, help;
    enum cli_format format; // from output
};

struct cli {
    struct arena *arena; // borrowed; dies after the command
    struct cli_options o;
    struct buf out;   // standard output
    struct buf notes; // standard error: remarks that are no part of the result
    int64_t now_s;    // seconds since 1970, for validity of certificates
    bool color;       // may standard output have colours?
    bool kinds;       // tables get a NAME column with "cluster/", "listener/", … (`pc all`)
};

// Adds "note: …\n" to the remarks.
__attribute__((format(printf, 2, 3))) void cli_note(struct cli *c, const char *fmt, ...);

#endif
