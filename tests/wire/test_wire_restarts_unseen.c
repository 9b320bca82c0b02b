// SPDX-License-Identifier: MIT
/*
 * A server restarts, and the end of one of our connections is not seen: it was idle, and its host
 * came back too soon, or the network lost what said so. What was not flushed is gone all the same,
 * and the next flush must say so, whichever connection it takes.
 *
 * The redialling thread is the device's own, and so is its dialling; the rest of the device is a
 * queue with the memory front, turned by the test.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "device.h"
#include "handshake_server.h"
#include "wire_rig.h"

#define DEPTH 8
#define BYTES (1024 * 1024)
#define LEN   4096
#define FLAGS (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN)

struct rest {
	struct gk_device device;
	struct gk_device_queue dq;
	struct gk_device_config config;
	struct gk_nbd_uri uri;
	struct mem_front front;
	struct gk_handshake_server *server; /* after its restart */
	int peer[2];                        /* of the connections from before */
};

static void serve(void *arg, unsigned int number, int fd)
{
	struct fake_request request;
	uint8_t payload[LEN];

	(void)arg;
	(void)number;
	while (fake_take(fd, &request) && request.type != NBD_CMD_DISC) {
		struct fake_bytes reply = {0};

		if (request.type == NBD_CMD_WRITE && !fake_take_bytes(fd, payload, request.length))
			return;
		fake_put_simple(&reply, request.cookie, 0);
		(void)fake_send(fd, reply.p, reply.n, 0);
		fake_bytes_done(&reply);
	}
}

static struct gk_queue *queue_of(struct rest *rest)
{
	return &rest->dq.queue;
}

static void turn(struct rest *rest)
{
	assert_int_equal(gk_queue_turn(queue_of(rest)), 0);
}

static void begin(struct rest *rest)
{
	static const struct gk_handshake_server_script script = {
		.size_bytes = BYTES,
		.flags = FLAGS,
		.accepted_fd = -1,
		.transmit = serve,
	};
	const struct gk_session_facts facts = {.max_payload = 65536};
	struct gk_queue_params params = {
		.front = &mem_front_ops,
		.front_data = &rest->front,
		.depth = DEPTH,
		.n_sessions = 2,
		.max_io_bytes = 65536,
		.retry = {.replay = true},
		.unflushed = &rest->device.unflushed,
		.on_dead = gk_reconnect_wake,
		.on_dead_arg = &rest->device.reconnect,
	};
	char text[64];
	char why[256];

	*rest = (struct rest){0};
	rest->server = gk_handshake_server_new("127.0.0.1", &script);
	assert_non_null(rest->server);
	snprintf(text, sizeof(text), "nbd://127.0.0.1:%s/", gk_handshake_server_port(rest->server));
	assert_int_equal(gk_nbd_uri_parse(text, why, sizeof(why), &rest->uri), 0);
	rest->config = (struct gk_device_config){
		.name = (char *)"rest",
		.remotes = &rest->uri,
		.n_remotes = 1,
		.connect_timeout_s = 10,
		.unflushed = GK_UNFLUSHED_FAIL_NEXT_FLUSH,
	};
	rest->device = (struct gk_device){
		.config = &rest->config,
		.plan = {.size_bytes = BYTES, .block_size = 512},
		.facts = {.size_bytes = BYTES, .flags = FLAGS, .block_min = 1, .block_preferred = 4096,
			  .block_max = 32 * 1024 * 1024},
		.n_connections = 2,
		.n_queues = 1,
		.queues = &rest->dq,
	};
	assert_int_equal(gk_reconnect_init(&rest->device.reconnect), 0);
	assert_int_equal(mem_front_init(&rest->front, DEPTH, 65536), 0);
	assert_int_equal(gk_queue_init(queue_of(rest), &params), 0);
	assert_int_equal(gk_queue_open(queue_of(rest)), 0);
	assert_int_equal(queue_of(rest)->front->start(queue_of(rest)), 0);
	for (unsigned int i = 0; i < 2; i++) {
		int fds[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		rest->peer[i] = fds[1];
		gk_session_up(&queue_of(rest)->sessions[i], i, fds[0], &facts);
	}
	assert_int_equal(gk_reconnect_start(&rest->device), 0);
}

static void end(struct rest *rest)
{
	gk_reconnect_stop(&rest->device.reconnect);
	gk_queue_close(queue_of(rest));
	gk_queue_done(queue_of(rest));
	gk_reconnect_done(&rest->device.reconnect);
	mem_front_done(&rest->front);
	gk_handshake_server_free(rest->server);
	gk_nbd_uri_done(&rest->uri);
	for (unsigned int i = 0; i < 2; i++)
		if (rest->peer[i] >= 0)
			close(rest->peer[i]);
}

static int32_t result(struct rest *rest, uint16_t tag)
{
	while (rest->front.slots[tag].busy)
		turn(rest);
	return rest->front.slots[tag].result;
}

static void hang_up(struct rest *rest, unsigned int i)
{
	close(rest->peer[i]);
	rest->peer[i] = -1;
}

static void answer(struct rest *rest, unsigned int i, const struct fake_request *request)
{
	struct fake_bytes reply = {0};

	fake_put_simple(&reply, request->cookie, 0);
	assert_true(fake_send(rest->peer[i], reply.p, reply.n, 0));
	fake_bytes_done(&reply);
}

/* The server from before the restart takes a write and says that it has it. */
static void write_unflushed(struct rest *rest)
{
	struct fake_request request;
	uint8_t payload[LEN];

	mem_front_submit(queue_of(rest), 0, NBD_CMD_WRITE, 0, 0, LEN);
	while (queue_of(rest)->tags[0].state != GK_TAG_SENT)
		turn(rest);
	assert_true(fake_take(rest->peer[0], &request));
	assert_true(fake_take_bytes(rest->peer[0], payload, LEN));
	answer(rest, 0, &request);
	assert_int_equal(result(rest, 0), LEN);
}

static bool is_readable(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	return poll(&pfd, 1, 0) == 1;
}

static enum gk_session_state state_of(struct rest *rest, unsigned int i)
{
	return queue_of(rest)->sessions[i].state;
}

/* With a write that is not flushed. */
static void lose_the_first(struct rest *rest)
{
	write_unflushed(rest);
	hang_up(rest, 0);
	while (state_of(rest, 0) == GK_SESSION_UP)
		turn(rest);
}

/* The second connection is silent because nobody asks, and what is asked of it resets it. */
static void an_idle_connection_is_no_proof_that_the_server_lived(void **state)
{
	struct rest rest;

	(void)state;
	begin(&rest);
	lose_the_first(&rest);
	while (state_of(&rest, 0) != GK_SESSION_UP) {
		if (rest.peer[1] >= 0 && is_readable(rest.peer[1]))
			hang_up(&rest, 1);
		turn(&rest);
	}
	mem_front_submit(queue_of(&rest), 1, NBD_CMD_FLUSH, 0, 0, 0);
	assert_int_equal(result(&rest, 1), -EIO);
	end(&rest);
}

/* One connection may end while the server lives on: that costs nobody anything. */
static void a_connection_that_answers_is(void **state)
{
	struct fake_request request;
	struct rest rest;

	(void)state;
	begin(&rest);
	lose_the_first(&rest);
	while (state_of(&rest, 0) != GK_SESSION_UP) {
		if (is_readable(rest.peer[1])) {
			assert_true(fake_take(rest.peer[1], &request));
			assert_int_equal(request.type, NBD_CMD_FLUSH);
			answer(&rest, 1, &request);
		}
		turn(&rest);
	}
	assert_int_equal(state_of(&rest, 1), GK_SESSION_UP);
	mem_front_submit(queue_of(&rest), 1, NBD_CMD_FLUSH, 0, 0, 0);
	assert_int_equal(result(&rest, 1), 0);
	end(&rest);
}

static struct fake_request take_proof(struct rig *rig)
{
	struct fake_request request;

	while (rig->queue.sessions[0].prove || rig->queue.sessions[0].send_owed)
		rig_turn(rig);
	assert_true(fake_take(rig->peer[0], &request));
	assert_int_equal(request.type, NBD_CMD_FLUSH);
	assert_int_equal(request.cookie, GK_PROOF_COOKIE);
	return request;
}

static void order_proof(struct rig *rig)
{
	gk_mail_prove(&rig->queue.mail);
	while (!rig->queue.sessions[0].prove)
		rig_turn(rig);
}

static void say_error(struct rig *rig, const struct fake_request *request)
{
	struct fake_bytes bytes = {0};

	fake_put_simple(&bytes, request->cookie, NBD_EIO);
	rig_say(rig, 0, &bytes);
	fake_bytes_done(&bytes);
	rig_in_step(rig, 0, 0);
}

/* Also one that cannot flush lives; but what it said before it was asked again counts for nothing. */
static void any_answer_to_the_last_question_is_a_proof(void **state)
{
	struct fake_bytes bytes = {0};
	struct fake_request request;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	order_proof(&rig);
	request = take_proof(&rig);
	order_proof(&rig);
	say_error(&rig, &request);
	assert_int_equal(rig.queue.proofs, 0);
	request = take_proof(&rig);
	say_error(&rig, &request);
	assert_int_equal(rig.queue.proofs, 1);
	assert_int_equal(rig.queue.counters.errors, 0);
	/* Nobody has asked any more. */
	fake_put_simple(&bytes, request.cookie, 0);
	rig_say(&rig, 0, &bytes);
	fake_bytes_done(&bytes);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig.queue.proofs, 1);
	rig_end(&rig);
}

static void a_question_that_is_not_answered_in_time_ends_the_connection(void **state)
{
	const struct rig_options options = {.retry = {.replay = true, .request_timeout_ns = 1000}};
	struct rig rig;

	(void)state;
	rig_begin(&rig, &options);
	order_proof(&rig);
	take_proof(&rig);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig.queue.counters.timeouts, 1);
	assert_int_equal(rig.queue.proofs, 0);
	rig_end(&rig);
}

/* Behind it goes all that waits, of every tag. */
static void a_question_goes_ahead_of_a_full_queue(void **state)
{
	struct fake_request request;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.depth = DEPTH});
	order_proof(&rig);
	for (uint16_t tag = 0; tag < DEPTH; tag++)
		mem_front_submit(&rig.queue, tag, NBD_CMD_TRIM, 0, tag * LEN, LEN);
	take_proof(&rig);
	assert_int_equal(rig.queue.counters.sends, 1);
	for (uint16_t tag = 0; tag < DEPTH; tag++) {
		assert_true(fake_take(rig.peer[0], &request));
		assert_int_equal(request.type, NBD_CMD_TRIM);
		assert_int_equal(request.offset, tag * LEN);
		rig_answer(&rig, 0, &request, NULL);
		assert_int_equal(rig_result(&rig, tag), LEN);
	}
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_idle_connection_is_no_proof_that_the_server_lived),
		cmocka_unit_test(a_connection_that_answers_is),
		cmocka_unit_test(any_answer_to_the_last_question_is_a_proof),
		cmocka_unit_test(a_question_that_is_not_answered_in_time_ends_the_connection),
		cmocka_unit_test(a_question_goes_ahead_of_a_full_queue),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
