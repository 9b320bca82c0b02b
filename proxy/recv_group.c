// SPDX-License-Identifier: MIT
/*
 * Receiving: exactly one operation per session is in flight while it is up, so that the end of a
 * connection is noticed at once. Replies land in one large staging buffer, many at a time; the
 * payload of a READ that is still to come goes straight to the request's buffer, and what follows
 * it to staging in the same operation.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "datapath.h"

/*
 * How many bytes to take into staging. Payload that lands there is copied once more: with only
 * large READs in flight, ask for no more than the next header; among others, for a few of them.
 */
static size_t staging_wanted(const struct gk_session *session)
{
	if (!session->large_reads)
		return GK_STAGING_BYTES;
	if (session->large_reads < session->in_flight)
		return 4096;
	return session->structured ? sizeof(struct nbd_structured_reply) + 8
				   : sizeof(struct nbd_simple_reply);
}

/* Leaves room behind what is staged; what is there is less than a header and an error chunk. */
static struct iovec staging_room(struct gk_session *session)
{
	size_t staged = session->wr - session->rd;
	size_t room;

	memmove(session->staging, session->staging + session->rd, staged);
	session->rd = 0;
	session->wr = staged;
	room = GK_STAGING_BYTES - staged;
	assert(room > 0);
	if (room > staging_wanted(session))
		room = staging_wanted(session);
	return (struct iovec){.iov_base = session->staging + staged, .iov_len = room};
}

void gk_recv_pump(struct gk_session *session)
{
	struct gk_queue *queue = session->queue;
	struct io_uring_sqe *sqe;

	if (session->recv_busy || session->state != GK_SESSION_UP)
		return;
	sqe = gk_queue_sqe(queue, gk_cqe_key(GK_CQE_RECV, (uint16_t)session->slot));
	sqe->fd = session->fd;
	session->recv_direct = session->rx_tag;
	if (session->recv_direct) {
		session->recv_iov[0].iov_base = session->rx_dst;
		session->recv_iov[0].iov_len = session->rx_left;
		session->recv_iov[1] = staging_room(session);
		session->recv_msg.msg_iov = session->recv_iov;
		session->recv_msg.msg_iovlen = 2;
		sqe->opcode = IORING_OP_RECVMSG;
		sqe->addr = (uintptr_t)&session->recv_msg;
		sqe->len = 1;
	} else {
		struct iovec room = staging_room(session);

		sqe->opcode = IORING_OP_RECV;
		sqe->addr = (uintptr_t)room.iov_base;
		sqe->len = (uint32_t)room.iov_len;
	}
	session->recv_busy = true;
	gk_count(&queue->counters.receives, 1);
}

void gk_recv_done(struct gk_session *session, int res)
{
	session->recv_busy = false;
	if (session->state == GK_SESSION_DRAINING) {
		gk_session_drained(session);
		return;
	}
	if (res == -EINTR || res == -EAGAIN)
		return;
	if (res <= 0) {
		gk_session_fail(session, res ? res : -ECONNRESET,
				res ? "receiving failed" : "the server closed the connection");
		return;
	}
	if (session->recv_direct) {
		uint32_t direct = (uint32_t)res < session->rx_left ? (uint32_t)res
								   : session->rx_left;

		session->rx_dst += direct;
		session->rx_left -= direct;
		res -= (int)direct;
		if (session->rx_left)
			gk_count(&session->queue->counters.partial_receives, 1);
	}
	session->wr += (size_t)res;
	gk_reply_consume(session);
}

void gk_recv_expect(struct gk_session *session, struct gk_tag *tag, uint32_t offset, uint32_t len,
		    bool last)
{
	session->rx_tag = tag;
	session->rx_dst = tag->buf + tag->done + offset;
	session->rx_left = len;
	session->rx_last = last;
}

/* Moves staged payload to its request. Whether the payload is complete now. */
bool gk_recv_from_staging(struct gk_session *session)
{
	size_t staged = session->wr - session->rd;
	uint32_t len = staged < session->rx_left ? (uint32_t)staged : session->rx_left;

	memcpy(session->rx_dst, session->staging + session->rd, len);
	session->rd += len;
	session->rx_dst += len;
	session->rx_left -= len;
	gk_count(&session->queue->counters.staged_bytes, len);
	return !session->rx_left;
}
