// SPDX-License-Identifier: Apache-2.0
// What a control plane may cost us. Beyond a limit the resource or the response is refused by name, never cut.
#ifndef XDS_CLIENT_LIMITS_H
#define XDS_CLIENT_LIMITS_H

enum {
    XDS_RESOURCES_MAX = 100000,                // resources of one response, and of one type in the store
    XDS_RESOURCE_MAX_BYTES = 16 * 1024 * 1024, // one resource, serialized
    XDS_NAME_MAX_BYTES = 4096,                 // one resource name
    XDS_VERSION_MAX_BYTES = 1024,              // version and nonce texts
    XDS_NAMES_MAX = 100000,                    // names subscribed per type
    XDS_REFUSED_MAX = 1024,                    // refused resources without an accepted version kept per type for config_dump
    XDS_REASON_MAX_BYTES = 1024,               // one reason
    XDS_NACK_MAX_BYTES = 8192,                 // text of one NACK
    XDS_FILE_MAX_BYTES = 64 * 1024 * 1024,     // one file of resources
    XDS_TOKEN_MAX_BYTES = 64 * 1024,           // bearer token file
    XDS_PEM_MAX_BYTES = 1024 * 1024,           // root, certificate and key files
};

#endif
