// SPDX-License-Identifier: MIT
#include "tls_stream.h"

#include <errno.h>
#include <linux/tls.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "session.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

struct gk_tls_stream *gk_tls_stream_new(struct gk_tls *tls, unsigned int ktls)
{
	struct gk_tls_stream *stream = malloc(sizeof(*stream));

	if (!stream) {
		gk_tls_free(tls);
		return NULL;
	}
	stream->tls = tls;
	stream->sends = !(ktls & GK_TLS_SEND);
	stream->receives = !(ktls & GK_TLS_RECV);
	stream->sent = 0;
	stream->covers = 0;
	return stream;
}

void gk_tls_stream_free(struct gk_tls_stream *stream)
{
	if (!stream)
		return;
	gk_tls_free(stream->tls);
	OPENSSL_cleanse(stream->record, sizeof(stream->record));
	free(stream);
}

const char *gk_tls_stream_mode(const char *version, unsigned int ktls)
{
	if (!version)
		return "off";
	switch (ktls) {
	case GK_TLS_SEND | GK_TLS_RECV:
		return "ktls-both";
	case GK_TLS_SEND:
		return "ktls-send";
	default:
		return "user";
	}
}

/* Each record costs an authentication and some 22 bytes: headers share one, payload fills its own.
 */
int gk_tls_stream_encrypt(struct gk_tls_stream *stream, const struct iovec *iov, size_t n)
{
	size_t gathered = 0, room = GK_TLS_WRITE_BYTES - stream->covers;
	int r = 0;

	for (size_t i = 0; i < n && room && !r; i++) {
		const uint8_t *from = iov[i].iov_base;
		size_t left = iov[i].iov_len < room ? iov[i].iov_len : room;

		room -= left;
		stream->covers += left;
		while (left && !r) {
			size_t take = sizeof(stream->record) - gathered;

			if (!gathered && left >= sizeof(stream->record)) {
				take = left - left % sizeof(stream->record);
				r = gk_tls_write(stream->tls, from, take);
			} else {
				if (take > left)
					take = left;
				memcpy(stream->record + gathered, from, take);
				gathered += take;
			}
			if (!r && gathered == sizeof(stream->record)) {
				r = gk_tls_write(stream->tls, stream->record, gathered);
				gathered = 0;
			}
			from += take;
			left -= take;
		}
	}
	if (!r && gathered)
		r = gk_tls_write(stream->tls, stream->record, gathered);
	return r;
}

/* Messages of the handshake that may come at any time. */
static int handshake_messages(const uint8_t *bytes, size_t len, const char **ret_why)
{
	while (len >= 4) {
		size_t n = 4 + ((size_t)bytes[1] << 16 | (size_t)bytes[2] << 8 | bytes[3]);

		if (bytes[0] == GK_TLS_MESSAGE_KEY_UPDATE) {
			*ret_why = GK_TLS_REKEYED;
			return -EAGAIN;
		}
		if (bytes[0] != GK_TLS_MESSAGE_TICKET || n > len)
			break;
		bytes += n;
		len -= n;
	}
	if (!len)
		return 0;
	*ret_why = "the server sends a TLS handshake message that does not belong here";
	return -EPROTO;
}

int gk_tls_stream_control(int fd, char *buf, size_t size, const char **ret_why)
{
	union {
		char space[CMSG_SPACE(sizeof(unsigned char))];
		struct cmsghdr align;
	} control = {0};
	uint8_t bytes[GK_TLS_PLAIN_BYTES];
	struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT);
	const struct cmsghdr *cmsg = n >= 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	*ret_why = "receiving failed";
	if (n < 0)
		return errno == EAGAIN ? -EIO : -errno;
	if (!cmsg || cmsg->cmsg_level != SOL_TLS || cmsg->cmsg_type != TLS_GET_RECORD_TYPE)
		return -EIO;
	switch (*CMSG_DATA(cmsg)) {
	case GK_TLS_RECORD_HANDSHAKE:
		return handshake_messages(bytes, (size_t)n, ret_why);
	case GK_TLS_RECORD_ALERT:
		if (n == 2 && bytes[1] == GK_TLS_ALERT_CLOSE_NOTIFY)
			return 1;
		snprintf(buf, size, "the server ended TLS with the alert \"%s\"",
			 n == 2 ? gk_tls_alert_name(bytes[1]) : "of the wrong length");
		*ret_why = buf;
		return -ECONNRESET;
	default:
		*ret_why = "the server sends a TLS record that does not belong here";
		return -EPROTO;
	}
}

static void send_now(int fd, const void *bytes, size_t len)
{
	(void)!send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* kTLS: a record that is no data is one with a control message about its type. */
static void send_close_notify(int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(unsigned char))];
		struct cmsghdr align;
	} control = {0};
	uint8_t alert[2] = {GK_TLS_ALERT_WARNING, GK_TLS_ALERT_CLOSE_NOTIFY};
	struct iovec iov = {.iov_base = alert, .iov_len = sizeof(alert)};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.space,
		.msg_controllen = sizeof(control.space),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_TLS;
	cmsg->cmsg_type = TLS_SET_RECORD_TYPE;
	cmsg->cmsg_len = CMSG_LEN(sizeof(unsigned char));
	*CMSG_DATA(cmsg) = GK_TLS_RECORD_ALERT;
	(void)!sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void gk_tls_stream_goodbye(struct gk_session *session, const void *disc, size_t len)
{
	struct gk_tls_stream *stream = session->tls;

	if (!stream || !stream->sends) {
		send_now(session->fd, disc, len);
		send_close_notify(session->fd);
		return;
	}
	if (gk_tls_write(stream->tls, disc, len) == 0)
		gk_tls_close(stream->tls);
	send_now(session->fd, stream->tls->out + stream->sent, stream->tls->out_len - stream->sent);
}
