// SPDX-License-Identifier: Apache-2.0
// Where the facts come from: a saved file, standard input, or an HTTP port (the proxy's admin, remora-control's).
#ifndef CLI_SOURCE_H
#define CLI_SOURCE_H

#include "cli/cli.h"
#include "lib/base/json.h"

// JSON of the file given by --file (also YAML; of a `remoractl dump` the page of that path), or of GET path at --address. Errors say what to do. 0 or negative.
int source_admin(struct cli *c, const char *path, struct json **ret, struct err *err);
// Text of GET path at --address.
int source_text(struct cli *c, const char *path, struct str *ret, struct err *err);
// GET path at --control.
int source_control(struct cli *c, const char *path, struct json **ret, struct err *err);
// POST path at --address; *ret is the answer's text.
int source_post(struct cli *c, const char *path, struct str *ret, struct err *err);

#endif
