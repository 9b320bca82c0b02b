/* SPDX-License-Identifier: MIT */
/* The other end of control.h, for the sub-commands of gkproxy. Blocks. */
#ifndef GK_CONTROL_ASK_H
#define GK_CONTROL_ASK_H

#include <jansson.h>
#include <stddef.h>

#define GK_DEFAULT_SOCKET "/run/gkproxy/control.sock"

/*
 * Sends one request to the daemon at path (a Unix socket), waits for the answer however long it
 * takes. A new reference to its result, or NULL with a sentence in why (size bytes).
 */
json_t *gk_control_ask(const char *path, const json_t *request, char *why, size_t why_size);

#endif
