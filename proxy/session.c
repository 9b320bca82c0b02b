// SPDX-License-Identifier: MIT
#include "session.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "datapath.h"
#include "log.h"
#include "memory.h"
#include "nbd_request.h"

static size_t count_iov(unsigned int depth)
{
	size_t n = 2 * (size_t)depth;

	return n < 2 ? 2 : n < IOV_MAX ? n : IOV_MAX;
}

size_t gk_session_bytes(unsigned int depth)
{
	return (depth + 1) * sizeof(struct nbd_request) + count_iov(depth) * sizeof(struct iovec) +
	       GK_STAGING_BYTES + GK_BOUNCE_BYTES;
}

int gk_session_init(struct gk_session *session, struct gk_queue *queue, unsigned int slot,
		    unsigned int depth)
{
	size_t n_iov = count_iov(depth);

	*session = (struct gk_session){.queue = queue, .slot = slot, .fd = -1};
	session->headers = calloc(depth + 1, sizeof(*session->headers));
	session->iov = calloc(n_iov, sizeof(*session->iov));
	session->staging = malloc(GK_STAGING_BYTES);
	session->bounce = malloc(GK_BOUNCE_BYTES);
	if (!session->headers || !session->iov || !session->staging || !session->bounce ||
	    gk_memory_populate(session->headers, (depth + 1) * sizeof(*session->headers)) ||
	    gk_memory_populate(session->iov, n_iov * sizeof(*session->iov)) ||
	    gk_memory_populate(session->staging, GK_STAGING_BYTES) ||
	    gk_memory_populate(session->bounce, GK_BOUNCE_BYTES)) {
		gk_session_done(session);
		return -ENOMEM;
	}
	return 0;
}

void gk_session_done(struct gk_session *session)
{
	if (session->queue && session->fd >= 0)
		close(session->fd);
	free(session->headers);
	free(session->iov);
	free(session->staging);
	free(session->bounce);
	gk_tls_stream_free(session->tls);
	*session = (struct gk_session){.fd = -1};
}

static void set_state(struct gk_session *session, enum gk_session_state state)
{
	/* Another thread that sees DEAD also sees how the connection ended. */
	__atomic_store_n(&session->state, state, __ATOMIC_RELEASE);
}

static void set_linger(const struct gk_session *session, bool reset)
{
	struct linger linger = {.l_onoff = reset, .l_linger = 0};

	(void)setsockopt(session->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/*
 * Elsewhere SO_RCVLOWAT does nothing, or, below TLS in the kernel, counts bytes of records some of
 * which TLS has taken already, and so could wait for ever.
 */
static bool is_plain_tcp(int fd)
{
	char ulp[16];
	socklen_t len = sizeof(ulp);

	return !getsockopt(fd, IPPROTO_TCP, TCP_ULP, ulp, &len) && !len;
}

void gk_session_up(struct gk_session *session, unsigned int id, int fd,
		   const struct gk_session_facts *facts)
{
	assert(session->state == GK_SESSION_DEAD && !session->send_owed && !session->recv_busy &&
	       !session->payload_owed);
	session->id = id;
	session->fd = fd;
	session->structured = facts->structured;
	session->df = facts->structured && facts->df;
	session->max_payload = facts->max_payload;
	session->send_zc = facts->send_zc && !facts->tls_version;
	session->tls = facts->tls;
	__atomic_store_n(&session->ktls, facts->ktls, __ATOMIC_RELAXED);
	__atomic_store_n(&session->tls_cipher, facts->tls_cipher, __ATOMIC_RELAXED);
	__atomic_store_n(&session->tls_version, facts->tls_version, __ATOMIC_RELAXED);
	/*
	 * The network refers to the pages of requests until the peer has the bytes. Should this
	 * process die, closing the socket must give them back, whatever the peer does.
	 */
	if (session->send_zc)
		set_linger(session, true);
	session->fifo = NULL;
	session->fifo_tail = &session->fifo;
	session->sending = NULL;
	session->prove = false;
	session->proof_ns = 0;
	session->answered_ns = 0;
	session->oldest_ns = 0;
	session->n_oldest = 0;
	session->n_chain = 0;
	session->first = 0;
	session->in_flight = 0;
	session->large = 0;
	session->large_reads = 0;
	session->lent = 0;
	session->reset = false;
	session->end = GK_SESSION_END_UNKNOWN;
	session->dropped = false;
	session->rd = 0;
	session->wr = 0;
	session->rx_tag = NULL;
	session->plain_tcp = !facts->tls_version && is_plain_tcp(fd);
	session->low_water = 1;
	set_state(session, GK_SESSION_UP);
}

static int by_sequence(const void *a, const void *b)
{
	const struct gk_tag *x = *(struct gk_tag *const *)a;
	const struct gk_tag *y = *(struct gk_tag *const *)b;

	return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

/* No operation can touch the session's tags any more: their outcomes are decided now. */
static void settle(struct gk_session *session)
{
	struct gk_queue *queue = session->queue;
	unsigned int n = 0;

	close(session->fd);
	session->fd = -1;
	gk_tls_stream_free(session->tls);
	session->tls = NULL;
	for (unsigned int i = 0; i < queue->depth; i++) {
		struct gk_tag *tag = &queue->tags[i];

		if (tag->session == session && tag->state != GK_TAG_IDLE)
			queue->settling[n++] = tag;
	}
	qsort(queue->settling, n, sizeof(*queue->settling), by_sequence);
	gk_session_settle_tags(queue, queue->settling, n);
	/* Last: who sees DEAD also sees what was acknowledged and not flushed. */
	set_state(session, GK_SESSION_DEAD);
	if (queue->on_dead)
		queue->on_dead(queue->on_dead_arg);
}

/* Resets the connection: what is not acknowledged is dropped, and its pages come back. */
static void reset(struct gk_session *session)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};

	(void)connect(session->fd, &none, sizeof(none));
}

void gk_session_drained(struct gk_session *session)
{
	if (session->state != GK_SESSION_DRAINING || session->send_owed || session->recv_busy ||
	    session->payload_owed)
		return;
	if (!session->lent) {
		settle(session);
	} else if (!session->reset) {
		session->reset = true;
		reset(session);
	}
}

static void drain(struct gk_session *session)
{
	set_state(session, GK_SESSION_DRAINING);
	shutdown(session->fd, SHUT_RDWR);
	gk_session_drained(session);
}

static bool is_unanswered_write(const struct gk_session *session, const struct gk_tag *tag)
{
	return tag->session == session && !tag->answered &&
	       (tag->state == GK_TAG_SENDING || tag->state == GK_TAG_SENT) &&
	       tag->type != NBD_CMD_READ && tag->type != NBD_CMD_FLUSH;
}

/* Writes that the server may hold and not have answered: their replay needs a fence. */
static unsigned int unanswered_writes(const struct gk_session *session)
{
	const struct gk_queue *queue = session->queue;
	unsigned int n = 0;

	for (unsigned int i = 0; i < queue->depth; i++)
		n += is_unanswered_write(session, &queue->tags[i]);
	return n;
}

/* They end with -EIO once no operation touches their buffers any more. */
static void fail_unanswered_writes(struct gk_session *session)
{
	struct gk_queue *queue = session->queue;

	for (unsigned int i = 0; i < queue->depth; i++) {
		struct gk_tag *tag = &queue->tags[i];

		if (!is_unanswered_write(session, tag))
			continue;
		tag->error = -EIO;
		tag->answered = true;
	}
}

static const char *fate(const struct gk_queue *queue)
{
	if (queue->stopping)
		return "are given up";
	return queue->retry.replay ? "are sent again" : "fail with an input/output error";
}

/* kTLS reads nothing more: a forged record, or new keys, which kernels from 6.14 on wait for. */
static bool is_garbled(int error)
{
	return error == -EBADMSG || error == -EKEYEXPIRED;
}

/* The kernel gave the connection up: it reads as ended, whatever the server still holds. */
static bool is_broken_here(int error)
{
	return error == -EHOSTUNREACH || error == -ENETUNREACH || error == -ENETDOWN ||
	       error == -ENETRESET || error == -EHOSTDOWN || error == -ENOTCONN ||
	       error == -ETIME || error == -ETIMEDOUT || is_garbled(error);
}

/* The server's doing, and perhaps because of something that it was asked for. */
static bool is_drop(int error)
{
	return error == -EPIPE || error == -ECONNRESET || error == -ECONNABORTED ||
	       error == -EPROTO || error == -EBADE;
}

/* UP → FENCING if the server may hold a write, else → DRAINING. */
static void give_up(struct gk_session *session, int error)
{
	struct gk_queue *queue = session->queue;

	session->dropped = is_drop(error);
	if (error == -EPIPE || error == -ECONNRESET || error == -ECONNABORTED)
		session->end = session->end ? session->end : GK_SESSION_END_RESET;
	if (!queue->retry.replay || queue->stopping || session->end ||
	    !unanswered_writes(session)) {
		drain(session);
		return;
	}
	set_state(session, GK_SESSION_FENCING);
	session->fence_begin_ns = queue->now_ns;
	session->blind = is_broken_here(error);
	session->garbled = is_garbled(error);
	shutdown(session->fd, SHUT_WR);
}

void gk_session_fail(struct gk_session *session, int error, const char *why)
{
	struct gk_queue *queue = session->queue;

	if (session->state != GK_SESSION_UP)
		return;
	GK_LOG_LIMITED(&queue->session_log, GK_LOG_ERROR,
		       "dev%d q%u s%u: connection lost: %s (%s); %u requests in flight %s",
		       queue->dev_id, queue->id, session->id, why, gk_strerror(error),
		       session->in_flight, fate(queue));
	give_up(session, error);
}

void gk_session_hand_over(struct gk_session *session)
{
	if (session->state == GK_SESSION_UP)
		give_up(session, 0);
}

void gk_session_fence_read(struct gk_session *session, int res)
{
	if (is_broken_here(res)) {
		session->blind = true;
		session->garbled = is_garbled(res);
		session->fence_begin_ns = session->queue->now_ns;
	} else if (!session->blind) {
		gk_session_fenced(session, res ? GK_SESSION_END_RESET : GK_SESSION_END_OURS);
	}
}

/*
 * Where kTLS decrypts nothing more, as after a KeyUpdate that the kernel cannot follow (GnuTLS sends
 * one every 2^24 records), the end of the connection still shows below it.
 */
void gk_session_fence_look(struct gk_session *session)
{
	struct pollfd end = {.fd = session->fd, .events = POLLRDHUP};
	int error = 0;
	socklen_t len = sizeof(error);

	if (!session->garbled || poll(&end, 1, 0) <= 0 || !(end.revents & POLLRDHUP))
		return;
	(void)getsockopt(session->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	/* Asking clears it, and next time the kernel's having given up would look like an end. */
	if (!is_garbled(-error) && is_broken_here(-error))
		session->garbled = false;
	else
		gk_session_fenced(session, error == ECONNRESET ? GK_SESSION_END_RESET
							       : GK_SESSION_END_OURS);
}

void gk_session_fenced(struct gk_session *session, enum gk_session_end end)
{
	struct gk_queue *queue = session->queue;
	unsigned int writes;

	if (session->state != GK_SESSION_FENCING)
		return;
	session->end = end;
	writes = end || queue->stopping ? 0 : unanswered_writes(session);
	if (writes && queue->retry.fence_strict) {
		gk_count(&queue->counters.unfenced_failures, writes);
		gk_log(GK_LOG_ERROR,
		       "dev%d q%u s%u: this host gave the old connection up, so its end at the server "
		       "cannot be seen: %u writes that the server may still hold fail, as fence = "
		       "\"strict\" asks for", queue->dev_id, queue->id, session->id, writes);
		fail_unanswered_writes(session);
	} else if (writes) {
		gk_count(&queue->counters.unfenced_replays, writes);
		gk_log(GK_LOG_WARNING,
		       "dev%d q%u s%u: the old connection did not end within fence_timeout: %u "
		       "writes are sent again although the server may still hold them",
		       queue->dev_id, queue->id, session->id, writes);
	}
	drain(session);
}

void gk_session_goodbye(struct gk_session *session)
{
	struct nbd_request disc;

	if (session->state != GK_SESSION_UP)
		return;
	if (session->send_zc)
		set_linger(session, false);
	/* In the middle of a send operation the stream has no room for another request. */
	if (!session->send_owed) {
		gk_nbd_request_build(NBD_CMD_DISC, 0, 0, 0, 0, &disc);
		if (session->tls_version)
			gk_tls_stream_goodbye(session, &disc, sizeof(disc));
		else
			(void)!send(session->fd, &disc, sizeof(disc), MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	drain(session);
}
