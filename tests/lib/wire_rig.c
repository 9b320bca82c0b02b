// SPDX-License-Identifier: MIT
#include "wire_rig.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls_peer.h"

bool rig_unavailable(void)
{
	struct io_uring ring;
	int r = io_uring_queue_init(2, &ring, 0);

	if (r < 0) {
		printf("skipped: this host has no io_uring: %s\n", gk_strerror(r));
		return true;
	}
	io_uring_queue_exit(&ring);
	return false;
}

void rig_quiet(void)
{
	gk_log_set_level((enum gk_log_level) - 1);
}

void rig_begin(struct rig *rig, const struct rig_options *options)
{
	struct gk_queue_params params;

	*rig = (struct rig){.options = *options};
	if (getenv("GK_RIG_TLS"))
		rig->options.tls = true;
	if (!rig->options.depth)
		rig->options.depth = 8;
	if (!rig->options.sessions)
		rig->options.sessions = 1;
	if (!rig->options.max_io_bytes)
		rig->options.max_io_bytes = 65536;
	if (!rig->options.max_payload)
		rig->options.max_payload = rig->options.max_io_bytes;
	params = (struct gk_queue_params){
		.front = &mem_front_ops,
		.front_data = &rig->front,
		.depth = rig->options.depth,
		.n_sessions = rig->options.sessions,
		.max_io_bytes = rig->options.max_io_bytes,
		.path = rig->options.path,
		.threshold_bytes = rig->options.threshold_bytes,
		.retry = rig->options.retry,
		.unflushed = rig->options.unflushed,
		.force_fua = rig->options.force_fua,
	};
	assert_int_equal(mem_front_init(&rig->front, rig->options.depth, rig->options.max_io_bytes),
			 0);
	rig->front.lend_fails_every = rig->options.lend_fails_every;
	assert_int_equal(gk_queue_init(&rig->queue, &params), 0);
	assert_int_equal(gk_queue_open(&rig->queue), 0);
	assert_int_equal(rig->queue.front->start(&rig->queue), 0);
	for (unsigned int i = 0; i < RIG_SESSIONS; i++)
		rig->peer[i] = -1;
	for (unsigned int i = 0; i < rig->options.sessions; i++)
		rig_connect(rig, i);
}

void rig_end(struct rig *rig)
{
	gk_queue_close(&rig->queue);
	assert_int_equal(rig->front.n_busy, 0);
	gk_queue_done(&rig->queue);
	mem_front_done(&rig->front);
	for (unsigned int i = 0; i < RIG_SESSIONS; i++)
		rig_close_peer(rig, i);
}

/* TLS over our end of a connection; the server's end gives way to one behind TLS. */
static void secure(struct rig *rig, unsigned int session, int fd, struct gk_session_facts *facts)
{
	unsigned int wanted = !rig->options.ktls       ? 0
			      : rig->options.ktls_send ? GK_TLS_SEND
						       : GK_TLS_SEND | GK_TLS_RECV;
	struct gk_tls *tls;

	rig->tls[session] = tls_peer_new(rig->peer[session], getenv("GK_RIG_TLS"));
	rig->peer[session] = tls_peer_fd(rig->tls[session]);
	tls = tls_peer_connect(fd);
	facts->tls_version = gk_tls_version(tls);
	facts->tls_cipher = gk_tls_cipher(tls);
	facts->ktls = gk_tls_offload(tls, fd, wanted);
	assert_int_equal(facts->ktls, wanted);
	if (facts->ktls & GK_TLS_RECV) {
		gk_tls_free(tls);
	} else {
		facts->tls = gk_tls_stream_new(tls, facts->ktls);
		assert_non_null(facts->tls);
	}
}

static void tcp_pair(int fds[2])
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fds[0], (struct sockaddr *)&address, len), 0);
	fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fds[1] >= 0);
	close(listener);
}

/* A new pair of sockets: the server's end is kept, ours returned; with what TLS there is. */
static int connect_peer(struct rig *rig, unsigned int session, struct gk_session_facts *facts)
{
	int bytes = rig->options.sndbuf_bytes;
	int fds[2];

	if (rig->options.ktls)
		tcp_pair(fds);
	else
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	if (bytes)
		assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)),
				 0);
	rig_close_peer(rig, session);
	rig->peer[session] = fds[1];
	if (rig->options.tls || rig->options.ktls)
		secure(rig, session, fds[0], facts);
	return fds[0];
}

static struct gk_session_facts facts_of(const struct rig *rig)
{
	return (struct gk_session_facts){
		.structured = rig->options.structured,
		.df = rig->options.df,
		.max_payload = rig->options.max_payload,
	};
}

void rig_connect(struct rig *rig, unsigned int session)
{
	struct gk_session_facts facts = facts_of(rig);
	int fd = connect_peer(rig, session, &facts);

	gk_session_up(&rig->queue.sessions[session], session, fd, &facts);
	rig->queue.sessions[session].no_wait_all = rig->options.no_wait_all;
}

void rig_offer(struct rig *rig, unsigned int session)
{
	struct gk_mail_offer offer = {.id = session, .facts = facts_of(rig)};

	offer.fd = connect_peer(rig, session, &offer.facts);
	assert_int_equal(rig->queue.sessions[session].state, GK_SESSION_DEAD);
	gk_mail_offer(&rig->queue.mail, session, &offer);
	while (gk_mail_offered(&rig->queue.mail, session))
		rig_turn(rig);
}

int rig_take_peer(struct rig *rig, unsigned int session)
{
	int fd = rig->peer[session];

	rig->peer[session] = -1;
	return fd;
}

void rig_close_peer(struct rig *rig, unsigned int session)
{
	if (rig->peer[session] >= 0)
		close(rig->peer[session]);
	rig->peer[session] = -1;
	tls_peer_forget(rig->tls[session]);
	rig->tls[session] = NULL;
}

void rig_turn(struct rig *rig)
{
	assert_int_equal(gk_queue_turn(&rig->queue), 0);
}

static bool unsent(const struct rig *rig)
{
	for (unsigned int i = 0; i < rig->queue.depth; i++)
		if (rig->queue.tags[i].state == GK_TAG_QUEUED ||
		    rig->queue.tags[i].state == GK_TAG_SENDING)
			return true;
	return false;
}

void rig_send_all(struct rig *rig)
{
	while (unsent(rig))
		rig_turn(rig);
}

/* Results are looked up by tag here; the order of ends is for those who ask mem_front_next(). */
static void forget_order(struct rig *rig)
{
	uint16_t tag;
	int32_t result;

	while (mem_front_next(&rig->front, &tag, &result))
		;
}

void rig_run(struct rig *rig)
{
	while (rig->front.n_busy)
		rig_turn(rig);
	forget_order(rig);
}

struct fake_request rig_request(struct rig *rig, unsigned int session, uint16_t tag, uint16_t type,
				uint64_t offset, uint32_t len)
{
	struct fake_request request;

	mem_front_submit(&rig->queue, tag, type, 0, offset, len);
	rig_send_all(rig);
	assert_true(fake_take(rig->peer[session], &request));
	assert_int_equal(request.type, type);
	assert_int_equal(request.offset, offset);
	assert_int_equal(request.length, len);
	return request;
}

void rig_say(struct rig *rig, unsigned int session, const struct fake_bytes *bytes)
{
	assert_true(fake_send(rig->peer[session], bytes->p, bytes->n, 0));
}

int32_t rig_result(struct rig *rig, uint16_t tag)
{
	while (rig->front.slots[tag].busy)
		rig_turn(rig);
	forget_order(rig);
	return rig->front.slots[tag].result;
}

void rig_wait_dead(struct rig *rig, unsigned int session)
{
	while (rig->queue.sessions[session].state != GK_SESSION_DEAD)
		rig_turn(rig);
}

enum gk_session_state rig_wait_down(struct rig *rig, unsigned int session)
{
	while (rig->queue.sessions[session].state == GK_SESSION_UP)
		rig_turn(rig);
	return rig->queue.sessions[session].state;
}

void rig_answer(struct rig *rig, unsigned int session, const struct fake_request *request,
		const void *content)
{
	struct fake_bytes reply = {0};

	if (request->type != NBD_CMD_READ) {
		fake_put_simple(&reply, request->cookie, 0);
	} else if (rig->options.structured) {
		fake_put_data(&reply, NBD_REPLY_FLAG_DONE, request->cookie, request->offset,
			      content, request->length);
	} else {
		fake_put_simple(&reply, request->cookie, 0);
		fake_put(&reply, content, request->length);
	}
	rig_say(rig, session, &reply);
	fake_bytes_done(&reply);
}

void rig_babble(struct rig *rig, unsigned int session)
{
	struct fake_bytes bytes = {0};

	fake_put(&bytes, "nonsense, not replies", 21);
	rig_say(rig, session, &bytes);
	fake_bytes_done(&bytes);
}

void rig_in_step(struct rig *rig, unsigned int session, uint16_t tag)
{
	struct fake_request request = rig_request(rig, session, tag, NBD_CMD_READ, 4096, 512);
	uint8_t content[512];

	rig_pattern(content, 4096, sizeof(content), tag);
	memset(mem_front_data(&rig->queue, tag), 0, sizeof(content));
	rig_answer(rig, session, &request, content);
	assert_int_equal(rig_result(rig, tag), 512);
	assert_memory_equal(mem_front_data(&rig->queue, tag), content, sizeof(content));
	assert_int_equal(rig->queue.sessions[session].state, GK_SESSION_UP);
}

void rig_pattern(uint8_t *buf, uint64_t offset, size_t len, unsigned int salt)
{
	for (size_t i = 0; i < len;) {
		uint64_t word = (offset + i) / 8 * UINT64_C(0x9e3779b97f4a7c15) +
				(salt + 1) * UINT64_C(0xd1b54a32d192ed03);
		size_t skip = (offset + i) % 8;
		size_t n = 8 - skip < len - i ? 8 - skip : len - i;

		word ^= word >> 29;
		memcpy(buf + i, (uint8_t *)&word + skip, n);
		i += n;
	}
}
