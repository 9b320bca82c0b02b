// SPDX-License-Identifier: MIT
/* Connections that end: by the server, by us, in the middle of a send, or all of them. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "wire_rig.h"

#define LEN 65536

/* Submits a WRITE, larger than the socket takes, and leaves its send waiting for the server. */
static void block_a_send(struct rig *rig, uint16_t tag)
{
	mem_front_submit(&rig->queue, tag, NBD_CMD_WRITE, 0, 0, LEN);
	while (!rig->queue.counters.partial_sends)
		rig_turn(rig);
	/* The rest goes to the kernel without waiting for a completion: there will be none. */
	assert_true(io_uring_submit(&rig->queue.ring) >= 1);
	assert_int_equal(io_uring_cq_ready(&rig->queue.ring), 0);
	assert_int_equal(rig->queue.tags[tag].state, GK_TAG_SENDING);
}

static void the_server_dies_without_reading_what_is_sent(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.sndbuf_bytes = 1});
	block_a_send(&rig, 0);
	mem_front_submit(&rig.queue, 1, NBD_CMD_READ, 0, 0, 512);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig_result(&rig, 0), -EIO);
	assert_int_equal(rig_result(&rig, 1), -EIO);
	rig_end(&rig);
}

/* The end is noticed by the receiving half while the send still holds the tag's buffer. */
static void a_protocol_error_ends_a_blocked_send(void **state)
{
	struct rig rig;
	struct fake_bytes reply = {0};

	(void)state;
	rig_begin(&rig, &(struct rig_options){.sndbuf_bytes = 1});
	block_a_send(&rig, 0);
	fake_put(&reply, "nonsense", 8);
	rig_say(&rig, 0, &reply);
	while (rig.queue.sessions[0].state == GK_SESSION_UP)
		rig_turn(&rig);
	/* Not before the operation that reads the buffer has ended. */
	assert_true(rig.front.slots[0].busy == (rig.queue.sessions[0].state != GK_SESSION_DEAD));
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig_result(&rig, 0), -EIO);
	fake_bytes_done(&reply);
	rig_end(&rig);
}

static void commit_before_dead(struct gk_queue *queue, struct gk_tag *tag, int32_t result)
{
	assert_int_equal(queue->sessions[0].state, GK_SESSION_DRAINING);
	mem_front_ops.commit(queue, tag, result);
}

/*
 * The redialling thread looks for what is not flushed once it sees a session DEAD. A write that was
 * acknowledged, but held back while the network referred to its pages, or as here while its send
 * had not ended, ends only when its session does: not after that.
 */
static void a_session_is_dead_after_its_last_write(void **state)
{
	struct gk_front front = mem_front_ops;
	struct fake_bytes bytes = {0};
	struct fake_request request;
	struct rig rig;

	(void)state;
	front.commit = commit_before_dead;
	rig_begin(&rig, &(struct rig_options){.sndbuf_bytes = 1, .retry = {.replay = true}});
	rig.queue.front = &front;
	block_a_send(&rig, 0);
	assert_true(fake_take(rig.peer[0], &request));
	fake_put_simple(&bytes, request.cookie, 0);
	rig_say(&rig, 0, &bytes);
	fake_bytes_done(&bytes);
	while (rig.queue.sessions[0].in_flight)
		rig_turn(&rig);
	assert_true(rig.front.slots[0].busy);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig_result(&rig, 0), LEN);
	rig_end(&rig);
}

static void closing_the_queue_ends_a_blocked_send(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.sndbuf_bytes = 1});
	block_a_send(&rig, 0);
	gk_queue_close(&rig.queue);
	assert_false(rig.front.slots[0].busy);
	assert_int_equal(rig.front.slots[0].result, -EIO);
	rig_end(&rig);
}

static void the_queue_says_good_bye(void **state)
{
	struct rig rig;
	struct fake_request request;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.sessions = 2});
	rig_in_step(&rig, 0, 0);
	gk_queue_close(&rig.queue);
	for (unsigned int i = 0; i < 2; i++) {
		uint8_t byte;

		assert_int_equal(rig.queue.sessions[i].state, GK_SESSION_DEAD);
		assert_true(fake_take(rig.peer[i], &request));
		assert_int_equal(request.type, NBD_CMD_DISC);
		assert_int_equal(request.flags, 0);
		assert_int_equal(request.offset, 0);
		assert_int_equal(request.length, 0);
		assert_int_equal(recv(rig.peer[i], &byte, 1, 0), 0);
	}
	rig_end(&rig);
}

static void requests_that_are_out_end_with_the_queue(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	rig_request(&rig, 0, 0, NBD_CMD_READ, 0, 512);
	mem_front_submit(&rig.queue, 1, NBD_CMD_READ, 0, 0, 512);
	gk_queue_close(&rig.queue);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(rig.front.slots[i].result, -EIO);
	rig_end(&rig);
}

static void the_second_session_takes_over(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.sessions = 2});
	rig_in_step(&rig, 0, 0);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	for (uint16_t tag = 0; tag < 4; tag++)
		rig_in_step(&rig, 1, tag);
	/* And the first one is used again when it is back. */
	rig_connect(&rig, 0);
	rig_in_step(&rig, 0, 5);
	rig_end(&rig);
}

static void without_a_session_requests_fail_at_once(void **state)
{
	static const uint16_t types[] = {NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM};
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.sessions = 2});
	for (unsigned int i = 0; i < 2; i++) {
		rig_close_peer(&rig, i);
		rig_wait_dead(&rig, i);
	}
	for (uint16_t i = 0; i < 3; i++) {
		mem_front_submit(&rig.queue, i, types[i], 0, 0, 512);
		assert_false(rig.front.slots[i].busy);
		assert_int_equal(rig.front.slots[i].result, -EIO);
	}
	assert_int_equal(rig.queue.counters.errors, 3);
	rig_end(&rig);
}

/* The request enters while the socket is shut down but still owes a completion. */
static void a_draining_session_takes_no_request(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	rig_request(&rig, 0, 0, NBD_CMD_READ, 0, 512);
	gk_session_fail(&rig.queue.sessions[0], -EPROTO, "the test says so");
	assert_int_equal(rig.queue.sessions[0].state, GK_SESSION_DRAINING);
	assert_true(rig.front.slots[0].busy);
	mem_front_submit(&rig.queue, 1, NBD_CMD_READ, 0, 0, 512);
	assert_false(rig.front.slots[1].busy);
	assert_int_equal(rig.front.slots[1].result, -EIO);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig_result(&rig, 0), -EIO);
	rig_end(&rig);
}

/* Requests of a dead session end in the order in which they entered, whatever their tags. */
static void the_dead_are_settled_in_their_order(void **state)
{
	static const uint16_t order[] = {5, 2, 7, 0, 3};
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	for (unsigned int i = 0; i < 5; i++)
		rig_request(&rig, 0, order[i], NBD_CMD_READ, 0, 512);
	rig_close_peer(&rig, 0);
	while (rig.queue.sessions[0].state != GK_SESSION_DEAD)
		rig_turn(&rig);
	for (unsigned int i = 0; i < 5; i++) {
		uint16_t tag;
		int32_t result;

		assert_true(mem_front_next(&rig.front, &tag, &result));
		assert_int_equal(tag, order[i]);
		assert_int_equal(result, -EIO);
	}
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_server_dies_without_reading_what_is_sent),
		cmocka_unit_test(a_protocol_error_ends_a_blocked_send),
		cmocka_unit_test(a_session_is_dead_after_its_last_write),
		cmocka_unit_test(closing_the_queue_ends_a_blocked_send),
		cmocka_unit_test(the_queue_says_good_bye),
		cmocka_unit_test(requests_that_are_out_end_with_the_queue),
		cmocka_unit_test(the_second_session_takes_over),
		cmocka_unit_test(without_a_session_requests_fail_at_once),
		cmocka_unit_test(a_draining_session_takes_no_request),
		cmocka_unit_test(the_dead_are_settled_in_their_order),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
