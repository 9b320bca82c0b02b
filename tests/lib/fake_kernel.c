// SPDX-License-Identifier: MIT
#include "fake_kernel.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include "datapath.h"
#include "gk_io_uring.h"

static struct fake_kernel *of(struct gk_queue *queue)
{
	/* front_data is the rig's mem_front, as everywhere in tests. */
	return (struct fake_kernel *)((char *)queue->front_data -
				      offsetof(struct fake_kernel, rig.front));
}

/* The withheld completion of this kind for the tag, or NULL. */
static struct fake_cqe *withheld(struct fake_kernel *kernel, enum gk_cqe_kind kind, uint16_t tag)
{
	for (unsigned int i = 0; i < FAKE_KERNEL_CQES; i++) {
		struct fake_cqe *cqe = &kernel->cqes[i];

		if (cqe->withheld && cqe->key == gk_cqe_key(kind, tag))
			return cqe;
	}
	return NULL;
}

/* The completion of an SQE that was changed takes the way of the one it was made from. */
static void pass_on(struct gk_queue *queue, uint64_t key, int res, uint32_t flags)
{
	struct gk_session *session = &queue->sessions[0];
	uint16_t index = gk_cqe_key_index(key);

	switch (gk_cqe_key_kind(key)) {
	case GK_CQE_SEND:
		gk_send_done(session, gk_cqe_key_element(key), res);
		break;
	case GK_CQE_SEND_LEADER:
		gk_send_leader_done(queue, index, res);
		break;
	case GK_CQE_SEND_ZC:
		gk_send_zc_done(queue, index, res, flags);
		break;
	case GK_CQE_ZC_LEADER:
		gk_send_zc_leader_done(queue, index, res);
		break;
	case GK_CQE_RECV:
		gk_recv_done(session, res);
		break;
	case GK_CQE_RECV_PAYLOAD:
		gk_recv_payload_done(session, res);
		break;
	case GK_CQE_RECV_LEADER:
		gk_recv_leader_done(session, res);
		break;
	case GK_CQE_FRONT:
	case GK_CQE_MAIL:
	case GK_CQE_TICK:
		fail_msg("an SQE that moves no bytes was changed");
	}
}

/* Nothing more is to come of this tag's SEND_ZC: the command that lent its buffer ends too. */
static void give_leader(struct gk_queue *queue, uint16_t tag)
{
	struct fake_cqe *leader = withheld(of(queue), GK_CQE_ZC_LEADER, tag);

	if (!leader)
		return;
	leader->key = 0;
	pass_on(queue, gk_cqe_key(GK_CQE_ZC_LEADER, tag), 0, 0);
}

static void complete(struct gk_queue *queue, uint16_t index, int res)
{
	struct fake_cqe *cqe = &of(queue)->cqes[index];
	enum gk_cqe_kind kind = gk_cqe_key_kind(cqe->key);
	uint64_t key = cqe->key;

	if (cqe->answered)
		res = cqe->result;
	/* The leader's CQE comes last of its group's, and the notification is one of them. */
	if (cqe->withheld && kind == GK_CQE_ZC_LEADER)
		return;
	if (cqe->withheld && res > 0) {
		pass_on(queue, key, res, IORING_CQE_F_MORE);
		return;
	}
	cqe->stray = kind == GK_CQE_SEND_ZC && res == -ECANCELED;
	if (!cqe->stray)
		cqe->key = 0;
	pass_on(queue, key, res, 0);
	if (cqe->withheld)
		give_leader(queue, gk_cqe_key_index(key));
}

static int start(struct gk_queue *queue)
{
	return mem_front_ops.start(queue);
}

static void commit(struct gk_queue *queue, struct gk_tag *tag, int32_t result)
{
	mem_front_ops.commit(queue, tag, result);
}

static const struct gk_front front = {.start = start, .complete = complete, .commit = commit};

/* A pair of connected TCP sockets: ours, and the server's. */
static void tcp_pair(int fds[2])
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(listener >= 0 && fds[0] >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
	assert_int_equal(connect(fds[0], (struct sockaddr *)&address, len), 0);
	fds[1] = accept(listener, NULL, NULL);
	assert_true(fds[1] >= 0);
	/* As dialled connections are: no waiting for acknowledgements. */
	assert_int_equal(setsockopt(fds[0], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)), 0);
	close(listener);
}

void fake_kernel_connect_tcp(struct fake_kernel *kernel, bool zero_copy)
{
	struct rig *rig = &kernel->rig;
	struct gk_session_facts facts = {
		.structured = rig->options.structured,
		.send_zc = zero_copy,
		.max_payload = rig->options.max_payload,
	};
	int fds[2];

	rig_close_peer(rig, 0);
	rig_wait_dead(rig, 0);
	tcp_pair(fds);
	rig->peer[0] = fds[1];
	gk_session_up(&rig->queue.sessions[0], 0, fds[0], &facts);
	rig->queue.sessions[0].no_wait_all = rig->options.no_wait_all;
}

void fake_kernel_begin(struct fake_kernel *kernel, const struct rig_options *options)
{
	*kernel = (struct fake_kernel){
		.cut_send = NEVER,
		.cut_send_again = NEVER,
		.cut_payload = NEVER,
		.cut_payload_again = NEVER,
	};
	rig_begin(&kernel->rig, options);
	kernel->rig.queue.front = &front;
}

/* Its completion comes to complete() above. */
static struct fake_cqe *divert(struct fake_kernel *kernel, struct io_uring_sqe *sqe)
{
	uint16_t i = 0;

	while (kernel->cqes[i].key)
		assert_true(++i < FAKE_KERNEL_CQES);
	kernel->cqes[i] = (struct fake_cqe){.key = sqe->user_data};
	sqe->user_data = gk_cqe_key(GK_CQE_FRONT, i);
	return &kernel->cqes[i];
}

/* Nothing is done, and this is the result. */
static void answer(struct fake_kernel *kernel, struct io_uring_sqe *sqe, int result)
{
	bool diverted = gk_cqe_key_kind(sqe->user_data) == GK_CQE_FRONT;
	struct fake_cqe *cqe =
		diverted ? &kernel->cqes[gk_cqe_key_index(sqe->user_data)] : divert(kernel, sqe);

	cqe->withheld = false;
	cqe->answered = true;
	cqe->result = result;
	*sqe = (struct io_uring_sqe){.opcode = IORING_OP_NOP,
				     .fd = -1,
				     .flags = sqe->flags,
				     .user_data = sqe->user_data};
}

/* With two SQEs the leader comes first; the first one counts the transfer. */
static bool fail_now(struct fake_kernel *kernel, struct io_uring_sqe *sqe, bool leader)
{
	bool paired = kernel->rig.queue.path->transfer_cqes > 1;

	if (leader == paired && kernel->fail_transfer && !--kernel->fail_transfer)
		kernel->failing = true;
	if (!kernel->failing || leader != (paired && kernel->fail_leader))
		return false;
	kernel->failing = false;
	kernel->refused = kernel->refuse;
	answer(kernel, sqe, kernel->fail_error);
	return true;
}

static size_t message_bytes(const struct msghdr *msg)
{
	size_t bytes = 0;

	for (size_t i = 0; i < msg->msg_iovlen; i++)
		bytes += msg->msg_iov[i].iov_len;
	return bytes;
}

static void shorten_message(struct fake_kernel *kernel, struct io_uring_sqe *sqe, size_t bytes)
{
	const struct msghdr *whole = (const struct msghdr *)(uintptr_t)sqe->addr;
	size_t i = 0;

	kernel->msg = *whole;
	kernel->msg.msg_iov = kernel->iov;
	for (; bytes; i++) {
		assert_true(i < FAKE_KERNEL_IOVS);
		kernel->iov[i] = whole->msg_iov[i];
		if (kernel->iov[i].iov_len > bytes)
			kernel->iov[i].iov_len = bytes;
		bytes -= kernel->iov[i].iov_len;
	}
	kernel->msg.msg_iovlen = i;
	sqe->addr = (uintptr_t)&kernel->msg;
}

/* Lets bytes through as long as *left lasts; false when it does not last for this one. */
static bool meter(struct fake_kernel *kernel, struct io_uring_sqe *sqe, size_t *left, size_t again)
{
	bool message = sqe->opcode == IORING_OP_SENDMSG;
	size_t bytes =
		message ? message_bytes((const struct msghdr *)(uintptr_t)sqe->addr) : sqe->len;

	if (*left == NEVER)
		return true;
	if (*left >= bytes) {
		*left -= bytes;
		return true;
	}
	if (!*left) {
		answer(kernel, sqe, kernel->interruption ? kernel->interruption : -EINTR);
		kernel->interrupted++;
	} else {
		if (message)
			shorten_message(kernel, sqe, *left);
		else
			sqe->len = (uint32_t)*left;
		/* Exactly that much, so that the result is known. */
		sqe->msg_flags |= MSG_WAITALL;
		kernel->cuts++;
	}
	*left = again;
	return false;
}

static bool is_payload(const struct fake_kernel *kernel, const struct io_uring_sqe *sqe)
{
	const struct gk_session *session = &kernel->rig.queue.sessions[0];

	/* What could not be lent is sent from the session's own memory. */
	return sqe->opcode == IORING_OP_SEND && sqe->addr != (uintptr_t)session->bounce;
}

/* A SEND_ZC whose notification does not come by itself: a SEND, and the rest is made up. */
static void withhold(struct fake_kernel *kernel, struct io_uring_sqe *sqe)
{
	struct fake_cqe *cqe = divert(kernel, sqe);

	cqe->withheld = true;
	if (sqe->opcode != IORING_OP_SEND_ZC)
		return;
	sqe->opcode = IORING_OP_SEND;
	sqe->ioprio = 0;
}

static bool send_zc(struct fake_kernel *kernel, struct io_uring_sqe *sqe)
{
	uint16_t tag = gk_cqe_key_index(sqe->user_data);
	bool whole = !fail_now(kernel, sqe, false) &&
		     meter(kernel, sqe, &kernel->cut_send, kernel->cut_send_again);
	struct fake_cqe *leader = withheld(kernel, GK_CQE_ZC_LEADER, tag);

	/* One that moves nothing has no notification. */
	if (sqe->opcode == IORING_OP_NOP && leader)
		leader->withheld = false;
	else if (sqe->opcode == IORING_OP_SEND_ZC && kernel->withhold)
		withhold(kernel, sqe);
	return whole;
}

/* Does to an SQE what it shall; false when it ends in a way that breaks the link behind it. */
static bool execute(struct fake_kernel *kernel, struct io_uring_sqe *sqe)
{
	switch (gk_cqe_key_kind(sqe->user_data)) {
	case GK_CQE_SEND:
		if (is_payload(kernel, sqe) && fail_now(kernel, sqe, false))
			return false;
		return meter(kernel, sqe, &kernel->cut_send, kernel->cut_send_again);
	case GK_CQE_RECV_PAYLOAD:
		if (fail_now(kernel, sqe, false))
			return false;
		return meter(kernel, sqe, &kernel->cut_payload, kernel->cut_payload_again);
	case GK_CQE_SEND_LEADER:
	case GK_CQE_RECV_LEADER:
		return !fail_now(kernel, sqe, true);
	case GK_CQE_ZC_LEADER:
		if (fail_now(kernel, sqe, true))
			return false;
		if (kernel->withhold)
			withhold(kernel, sqe);
		return true;
	case GK_CQE_SEND_ZC:
		return send_zc(kernel, sqe);
	case GK_CQE_RECV:
	case GK_CQE_FRONT:
	case GK_CQE_MAIL:
	case GK_CQE_TICK:
		break;
	}
	return true;
}

/* Without MSG_WAITALL one that ends short would let run what is linked behind it. */
static void check_link(const struct io_uring_sqe *sqe)
{
	bool moves_bytes = sqe->opcode == IORING_OP_SEND || sqe->opcode == IORING_OP_SEND_ZC ||
			   sqe->opcode == IORING_OP_SENDMSG || sqe->opcode == IORING_OP_RECV;

	if (moves_bytes && sqe->flags & IOSQE_IO_LINK)
		assert_true(sqe->msg_flags & MSG_WAITALL);
}

/* The chain that begins at `first`; returns where the next one does. */
static unsigned int execute_chain(struct fake_kernel *kernel, unsigned int first)
{
	const struct io_uring_sq *sq = &kernel->rig.queue.ring.sq;
	struct io_uring_sqe *sqe;
	unsigned int i = first;
	bool broken = false;

	kernel->refused = false;
	do {
		sqe = &sq->sqes[i++ & sq->ring_mask];
		check_link(sqe);
		if (broken)
			answer(kernel, sqe, -ECANCELED);
		else
			broken = !execute(kernel, sqe);
		if (!kernel->refused)
			continue;
		for (unsigned int before = first; before + 1 != i; before++)
			answer(kernel, &sq->sqes[before & sq->ring_mask], -ECANCELED);
		kernel->refused = false;
	} while (sqe->flags & IOSQE_IO_LINK);
	if (i - first > kernel->longest_chain)
		kernel->longest_chain = i - first;
	return i;
}

/* What has been queued and not submitted. */
static void execute_all(struct fake_kernel *kernel)
{
	const struct io_uring_sq *sq = &kernel->rig.queue.ring.sq;
	unsigned int i = sq->sqe_head;

	while (i != sq->sqe_tail)
		i = execute_chain(kernel, i);
}

static void pump(struct fake_kernel *kernel)
{
	struct gk_session *session = &kernel->rig.queue.sessions[0];

	gk_send_pump(session);
	gk_recv_pump(session);
	execute_all(kernel);
}

void fake_kernel_turn(struct fake_kernel *kernel)
{
	pump(kernel);
	rig_turn(&kernel->rig);
}

void fake_kernel_settle(struct fake_kernel *kernel)
{
	struct io_uring *ring = &kernel->rig.queue.ring;

	for (;;) {
		pump(kernel);
		assert_true(io_uring_submit_and_get_events(ring) >= 0);
		if (!io_uring_cq_ready(ring))
			return;
		rig_turn(&kernel->rig);
	}
}

void fake_kernel_run(struct fake_kernel *kernel)
{
	uint16_t tag;
	int32_t result;

	while (kernel->rig.front.n_busy)
		fake_kernel_turn(kernel);
	while (mem_front_next(&kernel->rig.front, &tag, &result))
		;
}

void fake_kernel_take_bytes(struct fake_kernel *kernel, void *buf, size_t len)
{
	struct pollfd pfd = {.fd = kernel->rig.peer[0], .events = POLLIN};
	uint8_t *p = buf;

	while (len) {
		ssize_t n;

		fake_kernel_settle(kernel);
		/* What was sent is there, but for TCP on a busy machine. */
		assert_int_equal(poll(&pfd, 1, 10000), 1);
		n = recv(pfd.fd, p, len, MSG_DONTWAIT);
		assert_true(n > 0);
		p += n;
		len -= (size_t)n;
	}
}

struct fake_request fake_kernel_take(struct fake_kernel *kernel)
{
	uint8_t header[sizeof(struct nbd_request)];

	fake_kernel_take_bytes(kernel, header, sizeof(header));
	return fake_parse(header);
}

void fake_kernel_notify(struct fake_kernel *kernel, uint16_t tag)
{
	struct gk_queue *queue = &kernel->rig.queue;
	struct fake_cqe *cqe = withheld(kernel, GK_CQE_SEND_ZC, tag);

	assert_non_null(cqe);
	cqe->key = 0;
	gk_send_zc_done(queue, tag, 0, IORING_CQE_F_NOTIF);
	give_leader(queue, tag);
}

unsigned int fake_kernel_notify_cancelled(struct fake_kernel *kernel)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < FAKE_KERNEL_CQES; i++) {
		struct fake_cqe *cqe = &kernel->cqes[i];

		if (!cqe->key || !cqe->stray)
			continue;
		gk_send_zc_done(&kernel->rig.queue, gk_cqe_key_index(cqe->key), 0,
				IORING_CQE_F_NOTIF);
		cqe->key = 0;
		n++;
	}
	return n;
}

unsigned int fake_kernel_withheld(const struct fake_kernel *kernel)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < FAKE_KERNEL_CQES; i++)
		n += kernel->cqes[i].withheld &&
		     gk_cqe_key_kind(kernel->cqes[i].key) == GK_CQE_SEND_ZC;
	return n;
}
