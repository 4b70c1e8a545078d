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

enum { CLI_HEADERS_MAX = 32 };
enum cli_format { FORMAT_TABLE, FORMAT_JSON, FORMAT_YAML };

// Values of the options, named as on the command line. Empty views and 0 mean: not given.
struct cli_options {
    struct str address, control, file, output, color;
    struct str fqdn, subset, direction, name, type, status, cluster;
    struct str listen_address, endpoint_address, level;
    struct str route, steps, max_failed, threshold;
    struct str dst, source, listener;
    struct str headers[CLI_HEADERS_MAX]; // "name: value", in the order given
    size_t header_count;
    uint32_t port, timeout_ms, interval_ms, min_requests;
    bool verbose, with_headers, no_headers, reset, help;
    enum cli_format format; // from output
};

enum { CLI_WORDS_MAX = 1000 };

struct cli {
    struct arena *arena; // borrowed; dies after the command
    struct cli_options o;
    struct buf out;   // standard output
    struct buf notes; // standard error: remarks that are no part of the result
    int64_t now_s;    // seconds since 1970, for validity of certificates
    bool color;       // may standard output have colours?
    const char **words; // what is no option, for commands that take such; borrowed from argv
    size_t word_count;
    int code;           // exit code of a command that could do its work; 0 unless it sets another
    // For commands that go on for long; NULL in tests, where output gathers and time does not pass.
    void (*flush)(struct cli *c);       // writes out and notes now
    void (*wait_ms)(unsigned ms);
    bool kinds;       // tables get a NAME column with "cluster/", "listener/", … (`pc all`)
};

// Adds "note: …\n" to the remarks.
__attribute__((format(printf, 2, 3))) void cli_note(struct cli *c, const char *fmt, ...);

#endif
