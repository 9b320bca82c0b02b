/* SPDX-License-Identifier: MIT */
/*
 * The control socket: one JSON object a line in, one JSON object a line out, in the same order.
 * Control thread only; whatever a client does or leaves undone, it is never waited for.
 *
 *   request  {"command": "status", ...}
 *   answer   {"protocol": 1, "ok": true, "result": ...}
 *            {"protocol": 1, "ok": false, "error": {"code": "...", "message": "..."}}
 *
 * The requests and their results are described in deploy/doc/control-socket.md.
 */
#ifndef GK_CONTROL_H
#define GK_CONTROL_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define GK_CONTROL_PROTOCOL      1
#define GK_CONTROL_CLIENTS       128     /* at a time; who comes then waits for a place */
#define GK_CONTROL_REQUEST_BYTES 65536   /* of one line */
#define GK_CONTROL_PATIENCE_MS   10000   /* for the rest of a line, and for an answer to be read */

struct gk_control;

/*
 * Carries out one request. A new reference to its answer, made by gk_control_ok() or
 * gk_control_error(); or NULL: gk_control_answer() follows, with this ticket.
 */
typedef json_t *gk_control_handler(void *arg, uint64_t ticket, const json_t *request);

/*
 * A text that may come from anywhere: as it is when it is UTF-8, else (cut in the middle of a
 * character, say) with a ? for each byte beyond ASCII. A new reference, or NULL: no memory.
 */
json_t *gk_control_text(const char *text);

/*
 * An answer: around a result, whose reference it takes; or around an error. Never NULL. When there
 * is no memory for it, or on this thread was none for some of the result, the client is told that.
 */
json_t *gk_control_ok(json_t *result);
json_t *gk_control_error(const char *code, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * Listens on a Unix socket at path, mode 0600; a socket file that nobody answers on is replaced.
 * The listening fd, or -errno after a log line (-EADDRINUSE: another gkproxy answers there).
 */
int gk_control_listen(const char *path);

/* Serves listen_fd, which stays the caller's. 0 or -errno. */
int gk_control_new(int listen_fd, gk_control_handler *handler, void *arg,
		   struct gk_control **ret_control);

/* Readable when there is something for gk_control_step() to do. */
int gk_control_fd(const struct gk_control *control);

/* Does what can be done without waiting. May call the handler. */
void gk_control_step(struct gk_control *control);

/* To be called about once a second: ends clients that are silent in the middle of something. */
void gk_control_tick(struct gk_control *control);

/* The answer to a request that the handler left open; takes the reference. The client may be gone. */
void gk_control_answer(struct gk_control *control, uint64_t ticket, json_t *answer);

/* Closes all clients. Takes NULL. */
void gk_control_free(struct gk_control *control);

#endif
