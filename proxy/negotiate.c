// SPDX-License-Identifier: MIT
#include "negotiate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "nbd_handshake.h"
#include "tls_stream.h"

/* A connection whose negotiation is under way. */
struct talk {
	const struct gk_dial_call *dial;
	int fd;
	struct gk_nbd_handshake *h;
	struct gk_tls *tls; /* all bytes go through it; NULL: in the clear */
};

static int stalled(const struct talk *t, int error)
{
	const struct gk_dial_call *d = t->dial;
	bool securing = t->tls && !t->tls->up;

	if (error == -ECANCELED)
		return gk_dial_call_fail(d, error, "given up, because it was told to");
	if (error != -ETIMEDOUT)
		return gk_dial_call_fail(d, error, "%s", gk_strerror(error));
	return gk_dial_call_fail(d, error,
		    "the server took the connection but did not send %s within %g s "
		    "(connect_timeout): is it an NBD server, and is it alive?",
		    securing ? "its part of the TLS handshake" : gk_nbd_handshake_awaited(t->h),
		    d->opt->connect_timeout_s);
}

/* The server is gone: what that means depends on where the handshake was. */
static int hung_up(const struct talk *t)
{
	int r;

	if (t->tls && (!t->tls->up || !t->tls->ended)) {
		r = gk_tls_eof(t->tls);
		/* In TLS 1.3 a client is done before the server has looked at its certificate. */
		return gk_dial_call_fail(t->dial, r, "%s%s", t->tls->why,
			    t->tls->up ? "; does the server want a client certificate (tls.cert, "
					 "tls.key), or another one?"
				       : "");
	}
	r = gk_nbd_handshake_eof(t->h);
	return gk_dial_call_fail(t->dial, r, "%s", t->h->why);
}

static int send_bytes(const struct talk *t, const void *bytes, size_t len)
{
	size_t sent = 0;

	while (sent < len) {
		ssize_t n = send(t->fd, (const char *)bytes + sent, len - sent, MSG_NOSIGNAL);
		int r;

		if (n >= 0) {
			sent += (size_t)n;
			continue;
		}
		if (errno == EPIPE || errno == ECONNRESET)
			return hung_up(t);
		if (errno != EAGAIN && errno != EINTR)
			return stalled(t, -errno);
		r = gk_dial_call_wait(t->dial, t->fd, POLLOUT, t->dial->deadline_ms);
		if (r < 0)
			return stalled(t, r);
	}
	return 0;
}

static int send_encrypted(const struct talk *t)
{
	size_t len = t->tls->out_len;

	t->tls->out_len = 0;
	return send_bytes(t, t->tls->out, len);
}

static int send_out(const struct talk *t)
{
	size_t len = t->h->out_len;

	t->h->out_len = 0;
	if (!t->tls)
		return send_bytes(t, t->h->out, len);
	if (gk_tls_write(t->tls, t->h->out, len) < 0)
		return gk_dial_call_fail(t->dial, -EPROTO, "%s", t->tls->why);
	return send_encrypted(t);
}

/* Waits for bytes: how many, 0: none this time, or -errno with the reason. */
static ssize_t receive(const struct talk *t, void *bytes, size_t room)
{
	ssize_t n;
	int r;

	r = gk_dial_call_wait(t->dial, t->fd, POLLIN, t->dial->deadline_ms);
	if (r < 0)
		return stalled(t, r);
	n = recv(t->fd, bytes, room, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return hung_up(t);
	return n < 0 ? stalled(t, -errno) : n;
}

/* Never more than the record that is due: what comes after it may be the kernel's to decrypt. */
static ssize_t receive_record(const struct talk *t, unsigned char *bytes, size_t room)
{
	size_t missing = gk_tls_missing(t->tls);

	return receive(t, bytes, missing < room ? missing : room);
}

static int feed_plain(const struct talk *t, const unsigned char *bytes, size_t n)
{
	size_t used;
	int r = gk_nbd_handshake_step(t->h, bytes, n, &used);

	if (r == 0 && used < n)
		return gk_dial_call_fail(t->dial, -EPROTO, "the server sends data before the first request");
	if (r < 0 && r != -EAGAIN)
		return gk_dial_call_fail(t->dial, r, "%s", t->h->why);
	return r;
}

/* A record that was received: what is in it, if it is whole. */
static int feed_record(const struct talk *t, const unsigned char *bytes, size_t n)
{
	unsigned char plain[4096];
	size_t used;
	ssize_t got;
	int r = gk_tls_collect(t->tls, bytes, n, &used);

	if (r == -EPROTO)
		return gk_dial_call_fail(t->dial, r, "%s", t->tls->why);
	while (r != -EAGAIN && (got = gk_tls_read(t->tls, plain, sizeof(plain))) != -EAGAIN) {
		if (got == 0)
			return hung_up(t);
		if (got < 0)
			return gk_dial_call_fail(t->dial, (int)got, "%s", t->tls->why);
		r = feed_plain(t, plain, (size_t)got);
		if (r < 0 && r != -EAGAIN)
			return r;
		if (r == 0)
			return gk_tls_pending(t->tls) ? gk_dial_call_fail(t->dial, -EPROTO,
							     "the server sends data before the "
							     "first request")
						      : 0;
		/* Answers to what the option said are sent by the caller. */
		r = 1;
	}
	return -EAGAIN;
}

/* One turn: waits for bytes and feeds them. The result of the step, or -errno with the reason. */
static int feed(const struct talk *t)
{
	unsigned char bytes[4096];
	ssize_t n = t->tls ? receive_record(t, bytes, sizeof(bytes))
			   : receive(t, bytes, sizeof(bytes));

	if (n <= 0)
		return n < 0 ? (int)n : -EAGAIN;
	return t->tls ? feed_record(t, bytes, (size_t)n) : feed_plain(t, bytes, (size_t)n);
}

/* The TLS handshake, in the place that STARTTLS gave it. -EAGAIN: done, NBD goes on. */
static int secure(struct talk *t)
{
	unsigned char bytes[4096];
	ssize_t n = 0;
	size_t used;
	int r, sent;

	t->tls = gk_tls_new(t->dial->tls);
	if (!t->tls)
		return gk_dial_call_fail(t->dial, -ENOMEM, "out of memory");
	do {
		r = gk_tls_handshake(t->tls, bytes, (size_t)n, &used);
		if (r < 0 && r != -EAGAIN) {
			/* Tells the server why, if it still listens. */
			(void)!send(t->fd, t->tls->out, t->tls->out_len, MSG_NOSIGNAL);
			return gk_dial_call_fail(t->dial, r, "%s", t->tls->why);
		}
		sent = send_encrypted(t);
		if (sent < 0)
			return sent;
		for (n = 0; r == -EAGAIN && n == 0;) {
			n = receive_record(t, bytes, sizeof(bytes));
			if (n < 0)
				return (int)n;
		}
	} while (r == -EAGAIN);
	gk_nbd_handshake_secured(t->h);
	return -EAGAIN;
}

static int talk_through(struct talk *t)
{
	struct gk_nbd_handshake_plan plan = {
		.mode = t->dial->opt->mode,
		.tls = t->dial->tls,
		.structured = t->dial->opt->structured,
		.export_name = t->dial->uri->export_name,
	};
	int r = gk_nbd_handshake_init(t->h, &plan);

	if (r < 0)
		return gk_dial_call_fail(t->dial, r, "%s", t->h->why);
	do {
		r = send_out(t);
		if (r == 0)
			r = feed(t);
		if (r == GK_NBD_HANDSHAKE_STARTTLS)
			r = secure(t);
	} while (r == -EAGAIN);
	return r;
}

/* A probe says good-bye; whether the server still hears it does not matter. */
static void leave(struct talk *t)
{
	if (!t->tls) {
		(void)!send(t->fd, t->h->out, t->h->out_len, MSG_NOSIGNAL);
		return;
	}
	(void)gk_tls_write(t->tls, t->h->out, t->h->out_len);
	gk_tls_close(t->tls);
	(void)!send(t->fd, t->tls->out, t->tls->out_len, MSG_NOSIGNAL);
}

/* Gives to the kernel what it can do of TLS, and keeps the rest for the session. */
static int hand_over_tls(struct talk *t, struct gk_dialled *ret)
{
	const struct gk_tls_config *config = t->dial->opt->tls;
	enum gk_ktls ktls = config ? config->ktls : GK_KTLS_AUTO;
	unsigned int wanted = ktls == GK_KTLS_AUTO   ? GK_TLS_SEND | GK_TLS_RECV
			      : ktls == GK_KTLS_SEND ? GK_TLS_SEND
						     : 0;
	int r = send_encrypted(t); /* an answer to KeyUpdate, perhaps */

	if (r < 0)
		return r;
	if (t->dial->uri->transport != GK_TRANSPORT_TCP)
		wanted = 0;
	ret->tls_version = gk_tls_version(t->tls);
	ret->tls_cipher = gk_tls_cipher(t->tls);
	snprintf(ret->tls_warning, sizeof(ret->tls_warning), "%s",
		 gk_tls_context_warning(t->dial->tls));
	if (t->dial->opt->mode != GK_NBD_HANDSHAKE_GO)
		return 0;
	ret->ktls = gk_tls_offload(t->tls, t->fd, wanted);
	if (ret->ktls == (GK_TLS_SEND | GK_TLS_RECV))
		return 0;
	ret->tls = gk_tls_stream_new(t->tls, ret->ktls);
	t->tls = NULL;
	return ret->tls ? 0 : gk_dial_call_fail(t->dial, -ENOMEM, "out of memory");
}

static int set_blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

int gk_negotiate(const struct gk_dial_call *call, struct gk_dialled *dialled)
{
	struct talk t = {.dial = call, .fd = dialled->fd, .h = malloc(sizeof(*t.h))};
	int r;

	r = t.h ? talk_through(&t) : gk_dial_call_fail(call, -ENOMEM, "out of memory");
	if (r == 0 && t.tls)
		r = hand_over_tls(&t, dialled);
	if (r == 0 && call->opt->mode != GK_NBD_HANDSHAKE_GO) {
		leave(&t);
		close(dialled->fd);
		dialled->fd = -1;
	} else if (r == 0) {
		r = set_blocking(t.fd);
		if (r < 0)
			gk_dial_call_fail(call, r, "%s", gk_strerror(r));
	}
	if (r == 0) {
		dialled->facts = t.h->facts;
		dialled->list = t.h->list;
		t.h->list = (struct gk_nbd_export_list){0};
	}
	gk_tls_free(t.tls);
	if (t.h)
		gk_nbd_handshake_done(t.h);
	free(t.h);
	return r;
}
