// SPDX-License-Identifier: Apache-2.0
// The commands of Istio's image beside the sidecar itself: what manifests, hooks and tools call in its containers.
#ifndef PROXY_SERVER_AGENT_COMMANDS_H
#define PROXY_SERVER_AGENT_COMMANDS_H

#include <stdbool.h>

// Runs `istio-iptables …` (remora-init, which takes this process's place), `wait [flags]` and `request [flags] METHOD PATH [BODY]` as pilot-agent does.
// false: argv is none of them. *ret_status: the exit status, 1 when it failed; what went wrong is on standard error. Blocks.
bool agent_command(int argc, char **argv, int *ret_status);

// The number behind "--NAME=" or "--NAME VALUE" at argv[*i], which moves on to the value. 1: taken; 0: another flag; -1: no number from 0 to max.
int agent_flag_number(int argc, char **argv, int *i, const char *name, unsigned long max, unsigned long *ret);

#endif
