// SPDX-License-Identifier: MIT
#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "datapath.h"
#include "gk_io_uring.h"
#include "memory.h"

/* Of each tag: larger payload never enters user memory, but for a few bytes through staging. */
static uint32_t tag_buf_bytes(const struct gk_queue_params *params)
{
	if (params->path && params->path->kernel_buffers &&
	    params->threshold_bytes < params->max_io_bytes)
		return params->threshold_bytes;
	return params->max_io_bytes;
}

size_t gk_queue_bytes(const struct gk_queue_params *params)
{
	size_t per_tag = tag_buf_bytes(params) + sizeof(struct gk_tag) + sizeof(struct gk_tag *);
	size_t per_session = sizeof(struct gk_session) + sizeof(struct gk_mail_offer) +
			     gk_session_bytes(params->depth);

	return params->depth * per_tag + params->n_sessions * per_session;
}

int gk_queue_init(struct gk_queue *queue, const struct gk_queue_params *params)
{
	const struct gk_path *path = params->path ? params->path : &gk_path_copy;
	uint32_t buf_bytes = tag_buf_bytes(params);
	size_t bytes = (size_t)params->depth * buf_bytes;
	int r = 0;

	*queue = (struct gk_queue){
		.front = params->front,
		.path = path,
		.front_data = params->front_data,
		.dev_id = params->dev_id,
		.id = params->id,
		.depth = params->depth,
		.n_sessions = params->n_sessions,
		.retry = params->retry,
		.unflushed = params->unflushed,
		.force_fua = params->force_fua,
		.on_dead = params->on_dead,
		.on_dead_arg = params->on_dead_arg,
		.mail.event_fd = -1,
		.max_io_bytes = params->max_io_bytes,
		.threshold_bytes = params->threshold_bytes,
		.buf_bytes = buf_bytes,
		.ring.ring_fd = -1,
	};
	queue->tags = calloc(params->depth, sizeof(*queue->tags));
	queue->sessions = calloc(params->n_sessions, sizeof(*queue->sessions));
	queue->parked_tail = &queue->parked;
	queue->offers = calloc(params->n_sessions, sizeof(*queue->offers));
	queue->settling = calloc(params->depth, sizeof(*queue->settling));
	queue->buffers = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (queue->buffers == MAP_FAILED)
		queue->buffers = NULL;
	if (!queue->tags || !queue->sessions || !queue->offers || !queue->settling || !queue->buffers) {
		gk_queue_done(queue);
		return -ENOMEM;
	}
	r = gk_memory_populate(queue->buffers, bytes);
	if (!r)
		r = gk_mail_init(&queue->mail, params->n_sessions);
	if (!r && getrandom(&queue->secret, sizeof(queue->secret), 0) < 0)
		r = -errno;
	for (unsigned int i = 0; i < params->depth; i++) {
		queue->tags[i].id = (uint16_t)i;
		queue->tags[i].buf = queue->buffers + (size_t)i * buf_bytes;
	}
	for (unsigned int i = 0; i < params->n_sessions && !r; i++)
		r = gk_session_init(&queue->sessions[i], queue, i, params->depth);
	if (r)
		gk_queue_done(queue);
	return r;
}

void gk_queue_done(struct gk_queue *queue)
{
	for (unsigned int i = 0; queue->sessions && i < queue->n_sessions; i++)
		gk_session_done(&queue->sessions[i]);
	if (queue->buffers)
		munmap(queue->buffers, queue->buf_bytes ? (size_t)queue->depth * queue->buf_bytes : 1);
	gk_mail_done(&queue->mail);
	free(queue->offers);
	queue->offers = NULL;
	free(queue->settling);
	free(queue->sessions);
	free(queue->tags);
	queue->sessions = NULL;
	queue->buffers = NULL;
	queue->settling = NULL;
	queue->tags = NULL;
}

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void await_mail(struct gk_queue *queue)
{
	struct io_uring_sqe *sqe = gk_queue_sqe(queue, gk_cqe_key(GK_CQE_MAIL, 0));

	sqe->opcode = IORING_OP_POLL_ADD;
	sqe->fd = queue->mail.event_fd;
	sqe->poll32_events = POLLIN;
}

static void read_mail(struct gk_queue *queue)
{
	struct gk_mail_orders orders;
	bool up = false;

	gk_mail_take(&queue->mail, queue->offers, &orders);
	for (unsigned int i = 0; orders.leave && i < queue->n_sessions; i++)
		gk_session_fail(&queue->sessions[i], -EAGAIN,
				"its server takes no more connections, another one is tried");
	for (unsigned int i = 0; i < queue->n_sessions; i++) {
		const struct gk_mail_offer *offer = &queue->offers[i];

		if (offer->fd < 0)
			continue;
		gk_session_up(&queue->sessions[i], offer->id, offer->fd, &offer->facts);
		gk_mail_taken(&queue->mail, i);
		up = true;
	}
	if (up)
		gk_session_unpark(queue);
	for (unsigned int i = 0; orders.prove && i < queue->n_sessions; i++)
		queue->sessions[i].prove = queue->sessions[i].state == GK_SESSION_UP;
	if (orders.hand_over) {
		queue->retry.reconnect_timeout_ns = 0;
		for (unsigned int i = 0; i < queue->n_sessions; i++)
			gk_session_hand_over(&queue->sessions[i]);
	}
	if (orders.detach || orders.abort) {
		queue->stopping = true;
		gk_session_unpark_failed(queue);
		for (unsigned int i = 0; i < queue->n_sessions; i++) {
			gk_session_fenced(&queue->sessions[i], GK_SESSION_END_UNKNOWN);
			if (orders.abort)
				gk_session_fail(&queue->sessions[i], -ECANCELED,
						"cut because the device is removed");
		}
	}
	await_mail(queue);
}

/* One timer at a time, and only while something could take too long. */
static void keep_ticking(struct gk_queue *queue)
{
	struct io_uring_sqe *sqe;
	uint64_t ns;

	if (queue->ticking || !gk_session_needs_tick(queue))
		return;
	ns = gk_session_tick_ns(queue);
	queue->tick.tv_sec = (long long)(ns / 1000000000);
	queue->tick.tv_nsec = (long long)(ns % 1000000000);
	sqe = gk_queue_sqe(queue, gk_cqe_key(GK_CQE_TICK, 0));
	sqe->opcode = IORING_OP_TIMEOUT;
	sqe->fd = -1;
	sqe->addr = (uintptr_t)&queue->tick;
	sqe->len = 1;
	queue->ticking = true;
}

int gk_queue_open(struct gk_queue *queue)
{
	/*
	 * A command per tag; per session a chain of sends, and a payload and a header to receive.
	 * The completion ring is twice as large, room for the notifications of SEND_ZC too.
	 */
	unsigned int per_session = GK_CHAIN_SQES + 3;
	unsigned int entries = queue->depth + per_session * queue->n_sessions + 2;
	unsigned int flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
	int r;

	r = io_uring_queue_init(entries, &queue->ring, flags);
	if (r == -EINVAL)
		r = io_uring_queue_init(entries, &queue->ring, IORING_SETUP_COOP_TASKRUN);
	if (r == -EINVAL)
		r = io_uring_queue_init(entries, &queue->ring, 0);
	if (r < 0) {
		queue->ring.ring_fd = -1;
		return r;
	}
	/* Saves the file look-up of each enter; works without. */
	(void)io_uring_register_ring_fd(&queue->ring);
	r = queue->path->open ? queue->path->open(queue) : 0;
	if (r) {
		io_uring_queue_exit(&queue->ring);
		queue->ring.ring_fd = -1;
		return r;
	}
	queue->now_ns = monotonic_ns();
	await_mail(queue);
	return 0;
}

static struct io_uring_sqe *sqe_at(struct gk_queue *queue, unsigned int position)
{
	return &queue->ring.sq.sqes[position & *queue->ring.sq.kring_mask];
}

/*
 * Whether what stands behind an SQE depends on it: a link, the rest of a group, or, when the SQE
 * is the last of a group, the link of its leader.
 */
static bool chain_goes_on(unsigned int flags, unsigned int before)
{
	return flags & (IOSQE_IO_LINK | IOSQE_SQE_GROUP) ||
	       (before & IOSQE_SQE_GROUP && before & IOSQE_IO_LINK);
}

/*
 * The kernel may stop taking SQEs in the middle of a chain when it is out of memory, and run what
 * it has. The rest would start at the next submission without waiting for the first half, and
 * overtake it on the stream: it is turned into what it has to be, cancelled.
 * (Linux io_uring/io_uring.c, io_submit_sqes().)
 */
static void cancel_cut_chain(struct gk_queue *queue)
{
	unsigned int tail = queue->ring.sq.sqe_tail;
	unsigned int position = tail - io_uring_sq_ready(&queue->ring);
	unsigned int before = sqe_at(queue, position - 1)->flags;
	bool go_on = chain_goes_on(before, sqe_at(queue, position - 2)->flags);

	while (go_on && position != tail) {
		struct io_uring_sqe *sqe = sqe_at(queue, position++);
		uint64_t key = sqe->user_data;

		go_on = chain_goes_on(sqe->flags, before);
		before = sqe->flags;
		memset(sqe, 0, sizeof(*sqe));
		sqe->opcode = IORING_OP_NOP;
		sqe->user_data = key | GK_CQE_CUT;
	}
}

void gk_queue_reserve(struct gk_queue *queue, unsigned int n)
{
	/* Submission empties the ring, unless the kernel is out of memory for a moment. */
	while (io_uring_sq_space_left(&queue->ring) < n) {
		(void)io_uring_submit(&queue->ring);
		cancel_cut_chain(queue);
	}
}

struct io_uring_sqe *gk_queue_sqe(struct gk_queue *queue, uint64_t key)
{
	struct io_uring_sqe *sqe;

	gk_queue_reserve(queue, 1);
	sqe = io_uring_get_sqe(&queue->ring);
	memset(sqe, 0, sizeof(*sqe));
	sqe->user_data = key;
	return sqe;
}

static void dispatch(struct gk_queue *queue, const struct io_uring_cqe *cqe)
{
	uint64_t key = cqe->user_data;
	int res = key & GK_CQE_CUT ? -ECANCELED : cqe->res;
	uint16_t index = gk_cqe_key_index(key);
	unsigned int element = gk_cqe_key_element(key);

	switch (gk_cqe_key_kind(key)) {
	case GK_CQE_FRONT:
		queue->front->complete(queue, index, res);
		break;
	case GK_CQE_SEND:
		gk_send_done(&queue->sessions[index], element, res);
		break;
	case GK_CQE_SEND_LEADER:
		gk_send_leader_done(queue, index, res);
		break;
	case GK_CQE_ZC_LEADER:
		gk_send_zc_leader_done(queue, index, res);
		break;
	case GK_CQE_SEND_ZC:
		if (key & GK_CQE_CUT)
			gk_send_zc_cut(queue, index);
		else
			gk_send_zc_done(queue, index, res, cqe->flags);
		break;
	case GK_CQE_RECV:
		gk_recv_done(&queue->sessions[index], res);
		break;
	case GK_CQE_RECV_PAYLOAD:
		gk_recv_payload_done(&queue->sessions[index], res);
		break;
	case GK_CQE_RECV_LEADER:
		gk_recv_leader_done(&queue->sessions[index], res);
		break;
	case GK_CQE_MAIL:
		read_mail(queue);
		break;
	case GK_CQE_TICK:
		queue->ticking = false;
		gk_session_tick(queue);
		break;
	}
}

static uint64_t requests_ended(const struct gk_queue *queue)
{
	uint64_t n = 0;

	for (size_t op = 0; op < GK_OPS; op++)
		n += queue->counters.requests[op];
	return n;
}

/* The one enter of a turn. */
static int submit_and_wait(struct gk_queue *queue)
{
	struct __kernel_timespec window = {0};
	struct io_uring_cqe *cqe;
	unsigned int in_flight = 0;
	bool large = false;
	int r;

	for (unsigned int i = 0; i < queue->n_sessions; i++) {
		const struct gk_session *session = &queue->sessions[i];

		if (session->state != GK_SESSION_UP)
			continue;
		in_flight += session->in_flight;
		large |= session->large > 0;
	}
	window.tv_nsec = 1000 * gk_coalesce_begin(&queue->coalesce, in_flight, large);
	/* Without EXT_ARG (Linux 5.11) a limit would take an SQE of its own. */
	if (!window.tv_nsec || !(queue->ring.features & IORING_FEAT_EXT_ARG))
		return io_uring_submit_and_wait(&queue->ring, 1);
	gk_count(&queue->counters.coalesced_loops, 1);
	r = io_uring_submit_and_wait_timeout(&queue->ring, &cqe, GK_COALESCE_CQES, &window, NULL);
	return r == -ETIME ? 0 : r;
}

int gk_queue_turn(struct gk_queue *queue)
{
	uint64_t ended = requests_ended(queue);
	struct io_uring_cqe *cqe;
	unsigned int head;
	unsigned int n = 0;
	int r;

	if (queue->holding)
		gk_session_release(queue);
	/* All that gathered during the last turn goes out together, before the one enter. */
	for (unsigned int i = 0; i < queue->n_sessions; i++) {
		gk_send_pump(&queue->sessions[i]);
		gk_recv_pump(&queue->sessions[i]);
	}
	keep_ticking(queue);
	r = submit_and_wait(queue);
	cancel_cut_chain(queue);
	if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
		return r;
	queue->now_ns = monotonic_ns();
	gk_count(&queue->counters.loops, 1);
	io_uring_for_each_cqe(&queue->ring, head, cqe)
	{
		dispatch(queue, cqe);
		n++;
	}
	io_uring_cq_advance(&queue->ring, n);
	gk_coalesce_end(&queue->coalesce, (unsigned int)(requests_ended(queue) - ended), !n);
	return 0;
}

void gk_queue_close(struct gk_queue *queue)
{
	bool busy = false;

	if (queue->ring.ring_fd < 0)
		return;
	queue->stopping = true;
	gk_session_unpark_failed(queue);
	for (unsigned int i = 0; i < queue->n_sessions; i++) {
		gk_session_fenced(&queue->sessions[i], GK_SESSION_END_UNKNOWN);
		gk_session_goodbye(&queue->sessions[i]);
	}
	/* A shut-down socket ends its operations at once; their buffers are freed after this. */
	do {
		busy = false;
		for (unsigned int i = 0; i < queue->n_sessions; i++)
			busy |= queue->sessions[i].state != GK_SESSION_DEAD;
	} while (busy && gk_queue_turn(queue) == 0);
	io_uring_queue_exit(&queue->ring);
	queue->ring.ring_fd = -1;
}

void gk_queue_submit(struct gk_queue *queue, struct gk_tag *tag)
{
	struct gk_session *best = NULL;

	for (unsigned int i = 0; i < queue->n_sessions; i++) {
		struct gk_session *session = &queue->sessions[i];

		if (session->state == GK_SESSION_UP &&
		    (!best || session->in_flight < best->in_flight))
			best = session;
	}
	/* Whoever asks for durability must hear of what the server lost. */
	if (gk_tag_owes(queue, tag))
		gk_tag_end(queue, tag, -EIO);
	else if (best && gk_session_holds_back(queue))
		gk_session_hold(queue, tag);
	else if (best)
		gk_send_enqueue(best, tag);
	else
		gk_session_park(queue, tag);
}
