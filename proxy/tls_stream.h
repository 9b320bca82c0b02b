/* SPDX-License-Identifier: MIT */
/*
 * TLS of a session that is UP. Where the kernel does a direction (kTLS) the socket is a plain one
 * but for records that are no data; what it does not do is done here, between the session's
 * buffers and the socket. Queue thread, but for gk_tls_stream_new() and _free().
 */
#ifndef GK_TLS_STREAM_H
#define GK_TLS_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "tls.h"

struct gk_session;

#define GK_TLS_IN_BYTES (128 * 1024)

struct gk_tls_stream {
	struct gk_tls *tls;
	bool sends;     /* this stream encrypts; else the kernel */
	bool receives;  /* ... decrypts */
	size_t sent;    /* bytes of tls->out that have left */
	size_t covers;  /* bytes of the session's that tls->out stands for */
	uint8_t in[GK_TLS_IN_BYTES];
	uint8_t record[GK_TLS_PLAIN_BYTES]; /* where pieces are gathered to whole records */
};

/*
 * Takes over a connection whose directions in ktls (GK_TLS_SEND, GK_TLS_RECV) the kernel does. NULL
 * when out of memory; tls is freed then too. Any thread.
 */
struct gk_tls_stream *gk_tls_stream_new(struct gk_tls *tls, unsigned int ktls);

/* Wipes and frees. Takes NULL. Any thread, once nothing is in flight. */
void gk_tls_stream_free(struct gk_tls_stream *stream);

/*
 * Encrypts the first bytes of these iovecs, GK_TLS_WRITE_BYTES at most, behind what waits in
 * tls->out; `covers` says how many. Nothing may be unsent of an earlier call. 0, or -errno with
 * tls->why.
 */
int gk_tls_stream_encrypt(struct gk_tls_stream *stream, const struct iovec *iov, size_t n);

/*
 * The server has taken new keys (KeyUpdate), and a direction that the kernel does cannot follow: its
 * keys are forgotten, and kernels before 6.14 take no others. Text for gk_session_fail().
 */
#define GK_TLS_REKEYED                                                                             \
	"the server changes its keys (KeyUpdate), which a connection in the kernel cannot follow: " \
	"a new one will"

/* "ktls-both", "ktls-send", "user" or "off". */
const char *gk_tls_stream_mode(const char *version, unsigned int ktls);

/*
 * kTLS: a receive ended with -EIO, which is what a record that is no data looks like. Takes the
 * record: 0 it meant nothing to us (a session ticket), 1 the server said close_notify, or -errno
 * with *ret_why (static text, or in buf): an alert, new keys, or no such record.
 */
int gk_tls_stream_control(int fd, char *buf, size_t size, const char **ret_why);

/* Tells the server NBD_CMD_DISC (len bytes) and close_notify, as far as the socket takes it. */
void gk_tls_stream_goodbye(struct gk_session *session, const void *disc, size_t len);

#endif
