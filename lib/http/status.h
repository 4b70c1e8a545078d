// SPDX-License-Identifier: Apache-2.0
// Reason phrases of status codes (RFC 9110 §15 and the IANA registry).
#ifndef LIB_HTTP_STATUS_H
#define LIB_HTTP_STATUS_H

// Static text, "Unknown" for codes without a registered phrase. Any thread.
const char *http_reason(int status);

#endif
