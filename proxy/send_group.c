// SPDX-License-Identifier: MIT
/*
 * Sending: at most one operation per session is in flight. While it runs, new tags gather in the
 * session's FIFO; when it ends, everything gathered goes out as the next one: headers and small
 * payloads as one sendmsg (4 to 8 times the rate of one send per request, measured), and, where
 * the path has kernel buffers, each large payload as a link of its own behind its header.
 *
 *   element 0           element 1          element 2           element 3
 *   SENDMSG headers ──▶ SEND payload t7 ──▶ SENDMSG header ──▶ SEND payload t9
 *
 * Whatever the kernel did not send of an operation is sent again from there: every CQE tells how
 * much of its element went out, and a link runs only if the one before it was sent whole.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>

#include "datapath.h"
#include "gk_io_uring.h"
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
	/* TLS in user space cannot reach a request's own pages. */
	if (tag->type == NBD_CMD_READ ? gk_session_decrypts(session) : gk_session_encrypts(session))
		tag->no_kernel_buffer = true;
	tag->large = (tag->type == NBD_CMD_READ || tag->type == NBD_CMD_WRITE) &&
		     (tag->direct || tag->part >= GK_LARGE_BYTES);
	session->large += tag->large;
	session->large_reads += tag->large && tag->type == NBD_CMD_READ;
}

static uint16_t wire_flags(const struct gk_session *session, const struct gk_tag *tag)
{
	/* Up to 64 KiB a server must honour DF, and one chunk is less work than several. */
	if (tag->type == NBD_CMD_READ && session->df && tag->part <= 65536)
		return tag->flags | NBD_CMD_FLAG_DF;
	return tag->flags;
}

static struct gk_send_element *last_element(struct gk_session *session)
{
	return session->n_chain ? &session->chain[session->n_chain - 1] : NULL;
}

/* Iovecs that the operation uses so far. */
static size_t iovs_used(const struct gk_session *session)
{
	for (unsigned int i = session->n_chain; i > 0; i--) {
		const struct gk_send_element *element = &session->chain[i - 1];

		if (!element->tag)
			return (size_t)(element->msg.msg_iov - session->iov) +
			       element->msg.msg_iovlen;
	}
	return 0;
}

/* Adds bytes of user memory to the operation; adjacent ones, as headers are, share an iovec. */
static void gather_bytes(struct gk_session *session, void *base, size_t len)
{
	struct gk_send_element *element = last_element(session);
	struct iovec *last;

	if (!element || element->tag) {
		struct iovec *iov = session->iov + iovs_used(session);

		element = &session->chain[session->n_chain++];
		*element = (struct gk_send_element){.msg.msg_iov = iov};
	}
	last = element->msg.msg_iovlen ? &element->msg.msg_iov[element->msg.msg_iovlen - 1] : NULL;
	if (last && (char *)last->iov_base + last->iov_len == (char *)base)
		last->iov_len += len;
	else
		element->msg.msg_iov[element->msg.msg_iovlen++] =
			(struct iovec){.iov_base = base, .iov_len = len};
	element->left += len;
}

static bool has_room(struct gk_session *session, const struct gk_tag *tag)
{
	const struct gk_send_element *last = last_element(session);
	unsigned int elements = !last || last->tag;

	elements += tag->type == NBD_CMD_WRITE && tag->direct;
	return session->n_chain + elements <= GK_CHAIN_ELEMENTS &&
	       iovs_used(session) + 2 <= GATHER_IOVS;
}

static bool wants_proof(const struct gk_session *session)
{
	return session->prove && !session->proof_ns;
}

/* Moves tags from the FIFO into the operation that is being built. */
static void gather(struct gk_session *session)
{
	struct gk_tag **sending_tail = &session->sending;
	struct nbd_request *header = session->headers;
	size_t bytes = 0;
	struct gk_tag *tag;

	if (wants_proof(session)) {
		session->prove = false;
		session->proof_ns = session->queue->now_ns;
		gk_nbd_request_build(NBD_CMD_FLUSH, 0, GK_PROOF_COOKIE, 0, 0, header);
		gather_bytes(session, header++, sizeof(*header));
	}
	while ((tag = session->fifo) && bytes < GATHER_BYTES && has_room(session, tag)) {
		session->fifo = tag->next;
		tag->next = NULL;
		*sending_tail = tag;
		sending_tail = &tag->next;
		tag->state = GK_TAG_SENDING;
		tag->wire_ns = session->queue->now_ns;
		gk_nbd_request_build(tag->type, wire_flags(session, tag),
				     gk_nbd_cookie(tag->id, tag->generation),
				     tag->len ? tag->offset + tag->done : 0, tag->part, header);
		gather_bytes(session, header++, sizeof(*header));
		if (tag->type != NBD_CMD_WRITE)
			continue;
		bytes += tag->part;
		if (tag->direct)
			session->chain[session->n_chain++] = (struct gk_send_element){
				.tag = tag, .offset = tag->done, .left = tag->part};
		else
			gather_bytes(session, tag->buf + tag->done, tag->part);
	}
	if (!session->fifo)
		session->fifo_tail = &session->fifo;
}

static bool needs_bounce(const struct gk_send_element *element)
{
	return element->tag && element->tag->no_kernel_buffer;
}

static uint64_t key(const struct gk_session *session, enum gk_cqe_kind kind, unsigned int index)
{
	return gk_cqe_key_of_element(kind, (uint16_t)session->slot, index);
}

static bool wants_zero_copy(const struct gk_session *session, const struct gk_send_element *element)
{
	/* One at a time per tag: what a short one left goes as a plain SEND. */
	return element->tag && session->send_zc && !element->tag->no_zc && !element->tag->lent &&
	       !element->tag->notice_due && !needs_bounce(element);
}

static void submit_payload(struct gk_session *session, unsigned int index, int msg_flags, bool link)
{
	struct gk_queue *queue = session->queue;
	struct gk_send_element *element = &session->chain[index];
	uint16_t tag_id = element->tag->id;
	struct gk_transfer transfer = {
		.fd = session->fd,
		.offset = element->offset,
		.len = (uint32_t)element->left,
		.msg_flags = msg_flags,
		.to_socket = true,
		.zero_copy = wants_zero_copy(session, element),
		.link = link,
		.key = key(session, GK_CQE_SEND, index),
		.leader_key = gk_cqe_key(GK_CQE_SEND_LEADER, tag_id),
	};

	element->zero_copy = transfer.zero_copy;
	/* Its notification may come when the chain is long another one: it is the tag's. */
	if (transfer.zero_copy) {
		transfer.key = gk_cqe_key(GK_CQE_SEND_ZC, tag_id);
		transfer.leader_key = gk_cqe_key(GK_CQE_ZC_LEADER, tag_id);
		gk_count(&queue->counters.zc_sends, 1);
	}
	queue->path->transfer(queue, element->tag, &transfer);
	session->send_owed += queue->path->transfer_cqes;
	gk_count(&queue->counters.direct_sends, 1);
}

/* What TLS has encrypted and not sent. */
static void submit_encrypted(struct gk_session *session, unsigned int index)
{
	const struct gk_tls_stream *stream = session->tls;
	struct io_uring_sqe *sqe = gk_queue_sqe(session->queue, key(session, GK_CQE_SEND, index));

	sqe->opcode = IORING_OP_SEND;
	sqe->fd = session->fd;
	sqe->addr = (uintptr_t)stream->tls->out + stream->sent;
	sqe->len = (uint32_t)(stream->tls->out_len - stream->sent);
	sqe->msg_flags = MSG_NOSIGNAL;
}

/* A stretch of an element through TLS in user space; ended() asks for the next one. */
static void encrypt(struct gk_session *session, unsigned int index, const struct iovec *iov, size_t n)
{
	int r = gk_tls_stream_encrypt(session->tls, iov, n);

	if (r) {
		gk_session_fail(session, r, session->tls->tls->why);
		return;
	}
	submit_encrypted(session, index);
	session->send_owed++;
}

/* A send of encrypted bytes ended: false when the rest of them is on its way now. */
static bool encrypted_sent(struct gk_session *session, unsigned int index, int *res)
{
	struct gk_tls_stream *stream = session->tls;

	if (session->state != GK_SESSION_UP || (*res <= 0 && *res != -EINTR && *res != -EAGAIN))
		return true;
	if (*res > 0)
		stream->sent += (size_t)*res;
	if (stream->sent < stream->tls->out_len) {
		if (*res > 0)
			gk_count(&session->queue->counters.partial_sends, 1);
		submit_encrypted(session, index);
		return false;
	}
	*res = (int)stream->covers;
	stream->tls->out_len = 0;
	stream->sent = 0;
	stream->covers = 0;
	return true;
}

static void submit_message(struct gk_session *session, unsigned int index, int msg_flags, bool link)
{
	struct io_uring_sqe *sqe;

	if (gk_session_encrypts(session)) {
		const struct msghdr *msg = &session->chain[index].msg;

		encrypt(session, index, msg->msg_iov, msg->msg_iovlen);
		return;
	}
	sqe = gk_queue_sqe(session->queue, key(session, GK_CQE_SEND, index));
	sqe->opcode = IORING_OP_SENDMSG;
	sqe->fd = session->fd;
	sqe->addr = (uintptr_t)&session->chain[index].msg;
	sqe->len = 1;
	sqe->msg_flags = (uint32_t)msg_flags;
	sqe->flags = link ? IOSQE_IO_LINK : 0;
	session->send_owed++;
}

/*
 * The kernel could not lend this request's pages: a stretch of it is copied to user memory and
 * sent from there. 0, or -errno when it cannot be copied either.
 */
static int submit_bounced(struct gk_session *session, unsigned int index)
{
	struct gk_queue *queue = session->queue;
	struct gk_send_element *element = &session->chain[index];
	uint32_t len = element->left < GK_BOUNCE_BYTES ? (uint32_t)element->left : GK_BOUNCE_BYTES;
	struct io_uring_sqe *sqe;
	int r = queue->path->copy_in(queue, element->tag, session->bounce, element->offset, len);

	if (r)
		return r;
	if (gk_session_encrypts(session)) {
		encrypt(session, index, &(struct iovec){session->bounce, len}, 1);
		return 0;
	}
	sqe = gk_queue_sqe(queue, key(session, GK_CQE_SEND, index));
	sqe->opcode = IORING_OP_SEND;
	sqe->fd = session->fd;
	sqe->addr = (uintptr_t)session->bounce;
	sqe->len = len;
	sqe->msg_flags = MSG_NOSIGNAL;
	session->send_owed++;
	return 0;
}

/*
 * A group ends with the notification of its SEND_ZC, so a link behind it would wait until the peer
 * has acknowledged the payload.
 */
static bool holds_up_links(const struct gk_session *session, const struct gk_send_element *element)
{
	return wants_zero_copy(session, element) && session->queue->path->transfer_cqes > 1;
}

/* kTLS refuses the flag (Linux net/tls/tls_sw.c, tls_sw_sendmsg(), 6.12 to 7.3). */
static bool can_wait_for_all(const struct gk_session *session)
{
	return !session->no_wait_all && !session->tls_version;
}

/* Queues what is unsent of the operation as one chain, as far as it can be one. */
static void submit(struct gk_session *session)
{
	struct gk_queue *queue = session->queue;
	unsigned int i = session->first;
	bool link;

	/* A submit in between would cut the chain, and its second half overtake the first. */
	gk_queue_reserve(queue, GK_CHAIN_SQES);
	for (unsigned int j = i; j < session->n_chain; j++) {
		session->chain[j].result = -ECANCELED;
		session->chain[j].leader_result = 0;
	}
	gk_count(&queue->counters.sends, 1);
	if (needs_bounce(&session->chain[i])) {
		int r = submit_bounced(session, i);

		/* In the middle of a request the stream has room for nothing else. */
		if (r)
			gk_session_fail(session, r, "the payload of a WRITE cannot be read");
		return;
	}
	do {
		/*
		 * Only a send that the kernel repeats until it is whole may be followed by a link:
		 * without MSG_WAITALL a short one counts as success.
		 */
		link = can_wait_for_all(session) && i + 1 < session->n_chain &&
		       !needs_bounce(&session->chain[i + 1]) &&
		       !holds_up_links(session, &session->chain[i]);
		int flags = MSG_NOSIGNAL | (link ? MSG_MORE | MSG_WAITALL : 0);

		/* The header and its payload in one record. */
		if (session->ktls & GK_TLS_SEND && i + 1 < session->n_chain)
			flags |= MSG_MORE;

		if (!session->chain[i].tag)
			submit_message(session, i, flags, link);
		else
			submit_payload(session, i,
				       flags | (can_wait_for_all(session) ? MSG_WAITALL : 0), link);
		i++;
	} while (link);
}

void gk_send_pump(struct gk_session *session)
{
	if (session->send_owed || session->state != GK_SESSION_UP)
		return;
	assert(!session->sending && !session->n_chain);
	/* Reading may make TLS say something of its own, as after a KeyUpdate. */
	if (!session->fifo && gk_session_encrypts(session) && session->tls->tls->out_len) {
		submit_encrypted(session, 0);
		session->send_owed++;
	}
	if ((!session->fifo && !wants_proof(session)) || session->send_owed)
		return;
	gather(session);
	submit(session);
}

/* Every byte of the operation is on its way: its tags now only wait for their answers. */
static void finish(struct gk_session *session)
{
	struct gk_tag *tag = session->sending;

	session->n_chain = 0;
	session->first = 0;
	session->sending = NULL;
	while (tag) {
		struct gk_tag *next = tag->next;

		gk_tag_sent(session->queue, tag);
		tag = next;
	}
}

static void advance(struct gk_session *session, struct gk_send_element *element, size_t sent)
{
	assert(sent <= element->left);
	element->left -= sent;
	if (element->tag) {
		element->offset += (uint32_t)sent;
		if (!needs_bounce(element))
			gk_count(&session->queue->counters.bytes_direct, sent);
	} else {
		gk_iov_advance(&element->msg.msg_iov, &element->msg.msg_iovlen, sent);
	}
}

/*
 * Why an element is unfinished: 0 when it goes on from where it stopped, or -errno when the
 * stream's position cannot be known or the socket is broken.
 */
static int judge(struct gk_session *session, struct gk_send_element *element, bool progress)
{
	int result = element->result;

	for (unsigned int i = session->first + 1; i < session->n_chain; i++)
		if (session->chain[i].result > 0)
			return -EPROTO;
	if (element->zero_copy && element->leader_result >= 0 &&
	    (result == -EOPNOTSUPP || result == -ENOMEM || result == -ENOBUFS)) {
		element->tag->no_zc = true;
		return 0;
	}
	if (element->tag && !needs_bounce(element) && result <= 0 &&
	    gk_lending_failed(element->leader_result, result)) {
		element->tag->no_kernel_buffer = true;
		gk_count(&session->queue->counters.fallbacks, 1);
		return 0;
	}
	if (result > 0) {
		/* A stretch that was copied and has left whole is followed by the next one. */
		if (!gk_session_encrypts(session) &&
		    (!needs_bounce(element) || result < GK_BOUNCE_BYTES))
			gk_count(&session->queue->counters.partial_sends, 1);
		return 0;
	}
	if (result == -EINTR || result == -EAGAIN)
		return 0;
	if (result == -ECANCELED && progress)
		return 0;
	return result ? result : -EPIPE;
}

/*
 * Whose result tells why the operation stopped: its first unfinished element, unless the kernel
 * refused a later one at submission, which cancels the whole chain.
 */
static struct gk_send_element *culprit(struct gk_session *session)
{
	for (unsigned int i = session->first; i < session->n_chain; i++) {
		struct gk_send_element *element = &session->chain[i];

		if (element->result != -ECANCELED ||
		    (element->leader_result < 0 && element->leader_result != -ECANCELED))
			return element;
	}
	return &session->chain[session->first];
}

/* The operation in flight has ended: take stock, and send what it left. */
static void ended(struct gk_session *session)
{
	unsigned int before = session->first;
	int r;

	if (session->state != GK_SESSION_UP) {
		gk_session_drained(session);
		return;
	}
	for (; session->first < session->n_chain; session->first++) {
		struct gk_send_element *element = &session->chain[session->first];

		if (element->result > 0)
			advance(session, element, (size_t)element->result);
		if (element->left)
			break;
	}
	if (session->first == session->n_chain) {
		bool unsent = !session->n_chain && session->tls->tls->out_len;

		finish(session);
		if (unsent)
			gk_session_fail(session, -EPIPE, "sending failed");
		return;
	}
	r = judge(session, culprit(session), session->first > before);
	if (r)
		gk_session_fail(session, r, "sending failed");
	else
		submit(session);
}

void gk_send_done(struct gk_session *session, unsigned int element, int res)
{
	if (gk_session_encrypts(session) && !encrypted_sent(session, element, &res))
		return;
	session->chain[element].result = res;
	if (!--session->send_owed)
		ended(session);
}

/* The element of the operation in flight that sends this tag's payload. */
static unsigned int element_of(const struct gk_session *session, const struct gk_tag *tag)
{
	unsigned int i = session->first;

	while (i < session->n_chain && session->chain[i].tag != tag)
		i++;
	assert(i < session->n_chain);
	return i;
}

static void lend(struct gk_tag *tag)
{
	tag->lent++;
	tag->session->lent++;
}

static void returned(struct gk_queue *queue, struct gk_tag *tag)
{
	struct gk_session *session = tag->session;

	session->lent--;
	gk_tag_returned(queue, tag);
	gk_session_drained(session);
}

void gk_send_leader_done(struct gk_queue *queue, uint16_t tag_id, int res)
{
	struct gk_tag *tag = &queue->tags[tag_id];
	struct gk_session *session = tag->session;

	session->chain[element_of(session, tag)].leader_result = res;
	if (!--session->send_owed)
		ended(session);
}

void gk_send_zc_leader_done(struct gk_queue *queue, uint16_t tag_id, int res)
{
	struct gk_tag *tag = &queue->tags[tag_id];

	if (tag->leader_lent) {
		tag->leader_lent = false;
		returned(queue, tag);
	} else {
		gk_send_leader_done(queue, tag_id, res);
	}
}

static void notified(struct gk_queue *queue, struct gk_tag *tag, int res)
{
	if (tag->notice_due) {
		tag->notice_due = false;
	} else if (tag->lent > tag->leader_lent) {
		if ((uint32_t)res & IORING_NOTIF_USAGE_ZC_COPIED)
			gk_count(&queue->counters.zc_copied, 1);
		returned(queue, tag);
	}
}

void gk_send_zc_done(struct gk_queue *queue, uint16_t tag_id, int res, uint32_t cqe_flags)
{
	struct gk_tag *tag = &queue->tags[tag_id];
	struct gk_session *session = tag->session;

	if (cqe_flags & IORING_CQE_F_NOTIF) {
		notified(queue, tag, res);
		return;
	}
	/*
	 * One that a broken link cancels has a notification as well, but no F_MORE to announce it
	 * (Linux 6.12 to 7.3). It says nothing, and must not be taken for that of a later SEND_ZC.
	 */
	if (cqe_flags & IORING_CQE_F_MORE)
		lend(tag);
	else if (res == -ECANCELED)
		tag->notice_due = true;
	/* The lending command ends with the notification; the stream need not wait for it. */
	if (res > 0 && queue->path->transfer_cqes > 1) {
		lend(tag);
		tag->leader_lent = true;
		session->send_owed--;
	}
	gk_send_done(session, element_of(session, tag), res);
}

/* It was cut off its chain before the kernel saw it: no notification follows. */
void gk_send_zc_cut(struct gk_queue *queue, uint16_t tag_id)
{
	struct gk_tag *tag = &queue->tags[tag_id];
	struct gk_session *session = tag->session;

	gk_send_done(session, element_of(session, tag), -ECANCELED);
}
