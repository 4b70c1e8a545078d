// SPDX-License-Identifier: Apache-2.0
// Routing, rules and the removal of what is stale are several system calls. Who ends the program between two of them must
// find the state before or the whole new one.
#ifndef INIT_NET_SIGNALS_H
#define INIT_NET_SIGNALS_H

#include <signal.h>

// Holds the signals that ask a program to end (TERM, INT, HUP, QUIT, ALRM, PIPE) until signals_release; the time between
// is bounded by --timeout. *ret_before must be given back.
void signals_hold(sigset_t *ret_before);
// Lets them come; one that came meanwhile ends the program here.
void signals_release(const sigset_t *before);

#endif
