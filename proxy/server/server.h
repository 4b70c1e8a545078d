// SPDX-License-Identifier: Apache-2.0
// The process: control thread, workers, start order, drain, exit.
#ifndef PROXY_SERVER_SERVER_H
#define PROXY_SERVER_SERVER_H

#include "proxy/server/options.h"

// Runs until told to stop. Returns the exit status: 0 after an orderly end, 1 when it could not start (the reason is on stderr).
int server_run(const struct options *o);

#endif
