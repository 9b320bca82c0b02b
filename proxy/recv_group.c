// SPDX-License-Identifier: MIT
/*
 * Receiving: while a session is up at least one operation is in flight, so that the end of a
 * connection is noticed at once. Replies land in one large staging buffer, many at a time. The
 * payload of a large READ that is still to come goes straight to the request: on the copy path to
 * its buffer, with what follows going to staging in the same operation; otherwise into its kernel
 * buffer, with the receive of the next header linked behind it.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "datapath.h"

/*
 * Payload of which at least the first is to come is awaited in stretches of up to the second. Less
 * would not pay for the two setsockopts (128K: up to 14 % more CPU), more lets the server wait.
 */
#define LOW_WATER_MIN (256 * 1024)
#define LOW_WATER_MAX (512 * 1024)

/* The payload that is awaited goes into the request's own pages. */
static bool into_kernel_buffer(const struct gk_session *session)
{
	return session->rx_tag && session->rx_tag->direct && !session->rx_tag->no_kernel_buffer;
}

/* ... into the tag's buffer; otherwise it is copied out of staging. */
static bool into_tag_buffer(const struct gk_session *session)
{
	return session->rx_tag && !session->queue->path->kernel_buffers;
}

/*
 * How many bytes to take into staging. Payload that lands there is copied once more: with only
 * large READs in flight, ask for no more than the next header; among others, for a few of them.
 */
static size_t staging_wanted(const struct gk_session *session)
{
	bool staged_payload = session->rx_tag && !into_kernel_buffer(session) &&
			      !into_tag_buffer(session);
	size_t wanted = 4096;

	if (!session->large_reads || session->state == GK_SESSION_FENCING)
		return GK_STAGING_BYTES;
	if (session->large_reads == session->in_flight)
		wanted = session->structured ? sizeof(struct nbd_structured_reply) + 8
					     : sizeof(struct nbd_simple_reply);
	return staged_payload ? session->rx_left + wanted : wanted;
}

/* Leaves room behind what is staged; what is there is less than a header and an error chunk. */
static struct iovec staging_room(struct gk_session *session)
{
	size_t staged = session->wr - session->rd;
	size_t wanted = staging_wanted(session);
	size_t room = GK_STAGING_BYTES - staged;

	memmove(session->staging, session->staging + session->rd, staged);
	session->rd = 0;
	session->wr = staged;
	assert(room > 0);
	if (wanted > staged)
		wanted -= staged;
	if (room > wanted)
		room = wanted;
	return (struct iovec){.iov_base = session->staging + staged, .iov_len = room};
}

/*
 * Sets how many bytes must have come before the socket is readable: never more than are certain to
 * come. The kernel wakes us earlier when its buffers are full, and at the end of the connection.
 */
static void set_low_water(struct gk_session *session, uint32_t bytes)
{
	int value = (int)bytes;

	if (session->low_water == bytes)
		return;
	(void)setsockopt(session->fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value));
	session->low_water = bytes;
}

/*
 * Each piece that the server sends of a large payload would wake us and be a receive of its own.
 * Returns whether the receive is to begin with waiting, as the little that is there would end it.
 */
static bool await_payload(struct gk_session *session)
{
	bool wait = session->plain_tcp && session->rx_left >= LOW_WATER_MIN;

	if (!wait)
		set_low_water(session, 1);
	else if (session->rx_left < LOW_WATER_MAX)
		set_low_water(session, session->rx_left);
	else
		set_low_water(session, LOW_WATER_MAX);
	return wait;
}

static void receive_staged(struct gk_session *session)
{
	struct iovec room = staging_room(session);
	struct io_uring_sqe *sqe =
		gk_queue_sqe(session->queue, gk_cqe_key(GK_CQE_RECV, (uint16_t)session->slot));

	set_low_water(session, 1);
	sqe->opcode = IORING_OP_RECV;
	sqe->fd = session->fd;
	sqe->addr = (uintptr_t)room.iov_base;
	sqe->len = (uint32_t)room.iov_len;
	session->recv_busy = true;
}

static void receive_encrypted(struct gk_session *session)
{
	struct io_uring_sqe *sqe =
		gk_queue_sqe(session->queue, gk_cqe_key(GK_CQE_RECV, (uint16_t)session->slot));

	sqe->opcode = IORING_OP_RECV;
	sqe->fd = session->fd;
	sqe->addr = (uintptr_t)session->tls->in;
	sqe->len = sizeof(session->tls->in);
	session->recv_busy = true;
}

static void receive_to_tag_buffer(struct gk_session *session)
{
	struct io_uring_sqe *sqe =
		gk_queue_sqe(session->queue, gk_cqe_key(GK_CQE_RECV, (uint16_t)session->slot));

	session->recv_iov[0].iov_base = session->rx_tag->buf + session->rx_offset;
	session->recv_iov[0].iov_len = session->rx_left;
	session->recv_iov[1] = staging_room(session);
	session->recv_msg.msg_iov = session->recv_iov;
	session->recv_msg.msg_iovlen = 2;
	sqe->opcode = IORING_OP_RECVMSG;
	sqe->fd = session->fd;
	sqe->addr = (uintptr_t)&session->recv_msg;
	sqe->len = 1;
	if (await_payload(session))
		sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
	session->recv_busy = true;
	session->recv_direct = true;
}

static void receive_to_kernel_buffer(struct gk_session *session)
{
	struct gk_queue *queue = session->queue;
	bool wait = await_payload(session);
	/*
	 * A short receive counts as success without MSG_WAITALL, and must not start a link. And with
	 * SO_RCVLOWAT neither is allowed: the kernel would await as much again for what is left, and
	 * for the header behind it.
	 */
	bool link = !session->no_wait_all && !wait;
	struct gk_transfer transfer = {
		.fd = session->fd,
		.offset = session->rx_offset,
		.len = session->rx_left,
		.msg_flags = link ? MSG_WAITALL : 0,
		.poll_first = wait,
		.link = link,
		.key = gk_cqe_key(GK_CQE_RECV_PAYLOAD, (uint16_t)session->slot),
		.leader_key = gk_cqe_key(GK_CQE_RECV_LEADER, (uint16_t)session->slot),
	};

	gk_queue_reserve(queue, queue->path->transfer_cqes + 1);
	session->payload_owed = queue->path->transfer_cqes;
	session->payload_result = -ECANCELED;
	session->payload_leader_result = 0;
	queue->path->transfer(queue, session->rx_tag, &transfer);
	gk_count(&queue->counters.direct_receives, 1);
	session->recv_linked = link;
	if (link)
		receive_staged(session);
}

void gk_recv_pump(struct gk_session *session)
{
	bool fencing = session->state == GK_SESSION_FENCING;

	if (session->recv_busy || session->payload_owed ||
	    (session->state != GK_SESSION_UP && !fencing) || (fencing && session->blind))
		return;
	session->recv_direct = false;
	session->recv_linked = false;
	if (fencing) {
		/* What the server still says is thrown away: only the end of it counts. */
		session->rd = 0;
		session->wr = 0;
		receive_staged(session);
	} else if (gk_session_decrypts(session))
		receive_encrypted(session);
	else if (into_kernel_buffer(session))
		receive_to_kernel_buffer(session);
	else if (into_tag_buffer(session))
		receive_to_tag_buffer(session);
	else
		receive_staged(session);
	gk_count(&session->queue->counters.receives, 1);
}

static void server_ended(struct gk_session *session, int res)
{
	if (!res)
		session->end = GK_SESSION_END_CLOSED;
	gk_session_fail(session, res ? res : -ECONNRESET,
			res		       ? "receiving failed"
			: session->tls_version ? "the connection was cut: it ended without TLS's "
						 "close_notify"
					       : "the server closed the connection");
}

/* The server has said, and proved, that this is the end. */
static void server_closed(struct gk_session *session)
{
	session->end = GK_SESSION_END_CLOSED;
	gk_session_fail(session, -ECONNRESET, "the server closed the connection");
}

/* The socket of a session with kTLS has something that is no data. */
static bool is_control(const struct gk_session *session, int res)
{
	return res == -EIO && session->ktls & GK_TLS_RECV;
}

static void take_control(struct gk_session *session)
{
	const char *why;
	char buf[128];
	int r = gk_tls_stream_control(session->fd, buf, sizeof(buf), &why);

	if (r == 1)
		server_closed(session);
	else if (r < 0)
		gk_session_fail(session, r, why);
}

/* A receive of a session that is not UP any more ended. */
static void dying_received(struct gk_session *session, int res)
{
	const char *unused;
	char buf[128];
	bool go_on = res > 0 || res == -EINTR || res == -EAGAIN || res == -ECANCELED ||
		     res == -EFAULT || res == -EINVAL || res == -ENOMEM;

	/* Only the end of the connection counts, not that it was announced. */
	if (is_control(session, res) && session->state == GK_SESSION_FENCING)
		go_on = gk_tls_stream_control(session->fd, buf, sizeof(buf), &unused) != -EIO;
	if (session->state == GK_SESSION_FENCING && !go_on)
		gk_session_fence_read(session, res);
	else
		gk_session_drained(session);
}

/* Payload bytes went to their place without passing through staging. */
static void took_payload(struct gk_session *session, uint32_t len)
{
	session->rx_offset += len;
	session->rx_left -= len;
	if (session->rx_left)
		gk_count(&session->queue->counters.partial_receives, 1);
}

/* What TLS in user space makes of the bytes that arrived: to their place, or to staging. */
static void decrypt(struct gk_session *session, size_t len)
{
	struct gk_tls *tls = session->tls->tls;

	gk_tls_lend(tls, session->tls->in, len);
	while (session->state == GK_SESSION_UP) {
		bool direct = into_tag_buffer(session);
		struct iovec to = {NULL, session->rx_left};
		ssize_t n;

		if (direct)
			to.iov_base = session->rx_tag->buf + session->rx_offset;
		else
			to = staging_room(session);
		n = gk_tls_read(tls, to.iov_base, to.iov_len);
		/* OpenSSL would follow, but not the kernel, which sends. */
		if (tls->rekeyed && !session->tls->sends) {
			gk_session_fail(session, -EAGAIN, GK_TLS_REKEYED);
			return;
		}
		if (n == -EAGAIN)
			return;
		if (n == 0) {
			server_closed(session);
		} else if (n < 0) {
			gk_session_fail(session, (int)n, tls->why);
		} else if (direct) {
			session->rx_offset += (uint32_t)n;
			session->rx_left -= (uint32_t)n;
			gk_reply_consume(session);
		} else {
			session->wr += (size_t)n;
			gk_reply_consume(session);
		}
	}
}

void gk_recv_done(struct gk_session *session, int res)
{
	session->recv_busy = false;
	if (session->state != GK_SESSION_UP) {
		dying_received(session, res);
		return;
	}
	/* The payload before it came short or not at all: it is taken up again from there. */
	if (res == -EINTR || res == -EAGAIN || (res == -ECANCELED && session->recv_linked))
		return;
	if (is_control(session, res)) {
		take_control(session);
		return;
	}
	if (res <= 0) {
		server_ended(session, res);
		return;
	}
	if (gk_session_decrypts(session)) {
		decrypt(session, (size_t)res);
		return;
	}
	if (session->recv_direct) {
		uint32_t direct = (uint32_t)res < session->rx_left ? (uint32_t)res
								   : session->rx_left;

		took_payload(session, direct);
		res -= (int)direct;
	}
	session->wr += (size_t)res;
	gk_reply_consume(session);
}

static void payload_ended(struct gk_session *session)
{
	struct gk_queue *queue = session->queue;
	int res = session->payload_result;

	if (session->state != GK_SESSION_UP) {
		dying_received(session, res);
		return;
	}
	if (res <= 0 && gk_lending_failed(session->payload_leader_result, res)) {
		session->rx_tag->no_kernel_buffer = true;
		gk_count(&queue->counters.fallbacks, 1);
	} else if (res > 0) {
		gk_count(&queue->counters.bytes_direct, (uint64_t)res);
		took_payload(session, (uint32_t)res);
		gk_reply_consume(session);
	} else if (is_control(session, res)) {
		take_control(session);
	} else if (res != -EINTR && res != -EAGAIN) {
		server_ended(session, res);
	}
}

void gk_recv_payload_done(struct gk_session *session, int res)
{
	session->payload_result = res;
	if (!--session->payload_owed)
		payload_ended(session);
}

void gk_recv_leader_done(struct gk_session *session, int res)
{
	session->payload_leader_result = res;
	if (!--session->payload_owed)
		payload_ended(session);
}

void gk_recv_expect(struct gk_session *session, struct gk_tag *tag, uint32_t offset, uint32_t len,
		    bool last)
{
	session->rx_tag = tag;
	session->rx_offset = tag->done + offset;
	session->rx_left = len;
	session->rx_last = last;
}

/* A request whose data cannot be put in place fails; the stream stays in step. */
static void put(struct gk_session *session, struct gk_tag *tag, const void *from, uint32_t offset,
		uint32_t len)
{
	struct gk_queue *queue = session->queue;
	int r = queue->path->copy_out(queue, tag, from, offset, len);

	if (r && !tag->error)
		tag->error = r;
}

void gk_recv_from_staging(struct gk_session *session)
{
	size_t staged = session->wr - session->rd;
	uint32_t len = staged < session->rx_left ? (uint32_t)staged : session->rx_left;

	if (!len)
		return;
	put(session, session->rx_tag, session->staging + session->rd, session->rx_offset, len);
	session->rd += len;
	session->rx_offset += len;
	session->rx_left -= len;
	gk_count(&session->queue->counters.staged_bytes, len);
}

void gk_recv_zeroes(struct gk_session *session, struct gk_tag *tag, uint32_t offset, uint32_t len)
{
	static const uint8_t zeroes[65536];

	while (len) {
		uint32_t n = len < sizeof(zeroes) ? len : (uint32_t)sizeof(zeroes);

		put(session, tag, zeroes, tag->done + offset, n);
		offset += n;
		len -= n;
	}
}
