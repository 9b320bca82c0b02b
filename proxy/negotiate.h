/* SPDX-License-Identifier: MIT */
/*
 * What dial.c does once a socket is connected: NBD's handshake, and TLS in it. Blocks on the
 * dialling thread, within the time of the call it belongs to.
 */
#ifndef GK_NEGOTIATE_H
#define GK_NEGOTIATE_H

#include <stddef.h>
#include <stdint.h>

#include "dial.h"

#define GK_DIAL_NEVER INT64_MAX

/* One call of gk_dial(), or one of the parallel ones. */
struct gk_dial_call {
	const struct gk_nbd_uri *uri;
	const struct gk_dial_options *opt;
	int64_t deadline_ms;	    /* CLOCK_MONOTONIC; GK_DIAL_NEVER */
	struct gk_tls_context *tls; /* NULL: the URI is one without */
	int stop_fd;		    /* like opt->cancel_fd, for a sister that failed; -1 */
	char *why;
	size_t why_size;
};

/* Returns error; the reason starts with what was tried: "cannot connect to URI: ". */
int gk_dial_call_fail(const struct gk_dial_call *d, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Waits for events on fd. 0, -ETIMEDOUT after until_ms, -ECANCELED, -errno; says nothing. */
int gk_dial_call_wait(const struct gk_dial_call *d, int fd, short events, int64_t until_ms);

/*
 * Negotiates over dialled->fd, which is connected and not blocking, and fills in what it learns;
 * in mode GO the fd is blocking then, in others closed. 0, or -errno with the reason; dialled is to
 * be ended by gk_dial_done() in either case.
 */
int gk_negotiate(const struct gk_dial_call *call, struct gk_dialled *dialled);

#endif
