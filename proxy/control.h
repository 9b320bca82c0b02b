/* SPDX-License-Identifier: MIT */
/*
 * The control socket: one JSON object a line in, one JSON object a line out. Control thread only;
 * the sockets of clients never block it.
 *
 *   request  {"command": "status"}
 *   answer   {"ok": true, "result": ...} or {"ok": false, "error": "..."}
 */
#ifndef GK_CONTROL_H
#define GK_CONTROL_H

#include <jansson.h>
#include <stddef.h>

/*
 * Carries out one request: a new reference to the result, or NULL with a sentence in why (size
 * bytes).
 */
typedef json_t *gk_control_handler(void *arg, const json_t *request, char *why, size_t why_size);

/*
 * Listens on a Unix socket at path, mode 0600; a socket file that nobody answers on is replaced.
 * The listening fd, or -errno after a log line (-EADDRINUSE: another gkproxy answers there).
 */
int gk_control_listen(const char *path);

/*
 * Serves clients until signal_fd is readable. 0, or -errno of poll. Closes the clients, not
 * listen_fd, before it returns.
 */
int gk_control_serve(int listen_fd, int signal_fd, gk_control_handler *handler, void *arg);

/*
 * The other end: sends one request, waits for the answer. A new reference to its result, or NULL
 * with a sentence in why. Blocks; for the sub-commands of gkproxy.
 */
json_t *gk_control_ask(const char *path, json_t *request, char *why, size_t why_size);

#endif
