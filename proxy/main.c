// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>

#include "proxy/server/agent_commands.h"
#include "proxy/server/options.h"
#include "proxy/server/server.h"

int main(int argc, char **argv)
{
    struct options o;
    struct err err = { 0 };
    int status;
    if (agent_command(argc, argv, &status)) {
        return status;
    }
    if (options_parse(argc, argv, &o, &err)) {
        fprintf(stderr, "remora-proxy: %s\n", err.msg);
        return 1;
    }
    switch (o.mode) {
    case RUN_HELP:
        fputs(options_help(), stdout);
        return 0;
    case RUN_VERSION:
        printf("remora-proxy %s\n", REMORA_VERSION);
        return 0;
    default:
        return server_run(&o);
    }
}
