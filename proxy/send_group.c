// SPDX-License-Identifier: MIT
/*
 * Sending: at most one operation per session is in flight. While it runs, new tags gather in the
 * session's FIFO; when it ends, everything gathered goes out as one sendmsg over headers and
 * payloads (4 to 8 times the rate of one send per request, measured).
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>

#include "datapath.h"
#include "iov_cursor.h"
#include "nbd_request.h"

/*
 * An operation takes no more tags once it has this many bytes, so that a request which arrives
 * behind a burst of large writes is not kept waiting for all of them.
 */
#define GATHER_BYTES (1024 * 1024)
#define GATHER_IOVS  IOV_MAX

void gk_send_enqueue(struct gk_session *session, struct gk_tag *tag)
{
	gk_tag_next_part(tag, session->max_payload);
	tag->state = GK_TAG_QUEUED;
	tag->session = session;
	tag->next = NULL;
	*session->fifo_tail = tag;
	session->fifo_tail = &tag->next;
	session->in_flight++;
	tag->large_read = tag->type == NBD_CMD_READ && tag->part >= GK_LARGE_READ_BYTES;
	session->large_reads += tag->large_read;
}

static uint16_t wire_flags(const struct gk_session *session, const struct gk_tag *tag)
{
	/* Up to 64 KiB a server must honour DF, and one chunk is less work than several. */
	if (tag->type == NBD_CMD_READ && session->df && tag->part <= 65536)
		return tag->flags | NBD_CMD_FLAG_DF;
	return tag->flags;
}

/* Adds bytes to the operation; headers that lie one after the other share an iovec. */
static void gather_bytes(struct gk_session *session, void *base, size_t len)
{
	struct msghdr *msg = &session->send_msg;
	struct iovec *last = msg->msg_iovlen ? &msg->msg_iov[msg->msg_iovlen - 1] : NULL;

	if (last && (char *)last->iov_base + last->iov_len == (char *)base)
		last->iov_len += len;
	else
		msg->msg_iov[msg->msg_iovlen++] = (struct iovec){.iov_base = base, .iov_len = len};
	session->send_left += len;
}

/* Moves tags from the FIFO into the operation that is being built. */
static void gather(struct gk_session *session)
{
	struct gk_tag **sending_tail = &session->sending;
	struct nbd_request *header = session->headers;
	struct gk_tag *tag;

	session->send_msg.msg_iov = session->iov;
	session->send_msg.msg_iovlen = 0;
	while ((tag = session->fifo) && session->send_left < GATHER_BYTES &&
	       session->send_msg.msg_iovlen + 2 <= GATHER_IOVS) {
		session->fifo = tag->next;
		tag->next = NULL;
		*sending_tail = tag;
		sending_tail = &tag->next;
		tag->state = GK_TAG_SENDING;
		gk_nbd_request_build(tag->type, wire_flags(session, tag),
				     gk_nbd_cookie(tag->id, tag->generation),
				     tag->len ? tag->offset + tag->done : 0, tag->part, header);
		gather_bytes(session, header++, sizeof(*header));
		if (tag->type == NBD_CMD_WRITE)
			gather_bytes(session, tag->buf + tag->done, tag->part);
	}
	if (!session->fifo)
		session->fifo_tail = &session->fifo;
}

static void submit(struct gk_session *session)
{
	struct gk_queue *queue = session->queue;
	struct io_uring_sqe *sqe =
		gk_queue_sqe(queue, gk_cqe_key(GK_CQE_SEND, (uint16_t)session->slot));

	sqe->opcode = IORING_OP_SENDMSG;
	sqe->fd = session->fd;
	sqe->addr = (uintptr_t)&session->send_msg;
	sqe->len = 1;
	sqe->msg_flags = MSG_NOSIGNAL | session->send_flags;
	session->send_busy = true;
	gk_count(&queue->counters.sends, 1);
}

void gk_send_pump(struct gk_session *session)
{
	if (session->send_busy || !session->fifo || session->state != GK_SESSION_UP)
		return;
	assert(!session->sending && !session->send_left);
	gather(session);
	submit(session);
}

/* Every byte of the operation is on its way: its tags now only wait for their answers. */
static void finish(struct gk_session *session)
{
	struct gk_tag *tag = session->sending;

	session->sending = NULL;
	while (tag) {
		struct gk_tag *next = tag->next;

		gk_tag_sent(session->queue, tag);
		tag = next;
	}
}

void gk_send_done(struct gk_session *session, int res)
{
	session->send_busy = false;
	if (session->state == GK_SESSION_DRAINING) {
		gk_session_drained(session);
		return;
	}
	if (res == -EINTR || res == -EAGAIN)
		res = 0;
	else if (res <= 0) {
		gk_session_fail(session, res ? res : -EPIPE, "sending failed");
		return;
	}
	assert((size_t)res <= session->send_left);
	session->send_left -= (size_t)res;
	if (!session->send_left) {
		finish(session);
		return;
	}
	gk_iov_advance(&session->send_msg.msg_iov, &session->send_msg.msg_iovlen, (size_t)res);
	gk_count(&session->queue->counters.partial_sends, 1);
	submit(session);
}
