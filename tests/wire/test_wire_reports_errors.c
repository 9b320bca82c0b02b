// SPDX-License-Identifier: MIT
/* The server fails requests: each gets its own errno, and the stream stays in step. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "wire_rig.h"

static const struct {
	uint32_t wire;
	int result;
} errors[] = {
	{NBD_EPERM, -EPERM},         {NBD_EIO, -EIO},           {NBD_ENOMEM, -ENOMEM},
	{NBD_EINVAL, -EINVAL},       {NBD_ENOSPC, -ENOSPC},     {NBD_EOVERFLOW, -EOVERFLOW},
	{NBD_ENOTSUP, -EOPNOTSUPP},  {NBD_ESHUTDOWN, -ESHUTDOWN}, {99999, -EIO},
};
#define N_ERRORS (sizeof(errors) / sizeof(errors[0]))

static void say_simple(struct rig *rig, uint64_t cookie, uint32_t error)
{
	struct fake_bytes reply = {0};

	fake_put_simple(&reply, cookie, error);
	rig_say(rig, 0, &reply);
	fake_bytes_done(&reply);
}

static void a_failed_read_gets_its_errno_and_has_no_payload(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	for (size_t i = 0; i < N_ERRORS; i++) {
		struct fake_request request = rig_request(&rig, 0, 1, NBD_CMD_READ, 0, 4096);

		say_simple(&rig, request.cookie, errors[i].wire);
		assert_int_equal(rig_result(&rig, 1), errors[i].result);
		rig_in_step(&rig, 0, 2);
	}
	assert_int_equal(rig.queue.counters.errors, N_ERRORS);
	rig_end(&rig);
}

static void a_failed_write_gets_its_errno(void **state)
{
	struct rig rig;
	uint8_t payload[4096];

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	for (size_t i = 0; i < N_ERRORS; i++) {
		struct fake_request request = rig_request(&rig, 0, 1, NBD_CMD_WRITE, 0, 4096);

		assert_true(fake_take_bytes(rig.peer[0], payload, sizeof(payload)));
		say_simple(&rig, request.cookie, errors[i].wire);
		assert_int_equal(rig_result(&rig, 1), errors[i].result);
		rig_in_step(&rig, 0, 2);
	}
	rig_end(&rig);
}

static void flush_trim_and_write_zeroes_fail_alone(void **state)
{
	static const struct {
		uint16_t type;
		uint32_t len;
	} commands[] = {{NBD_CMD_FLUSH, 0}, {NBD_CMD_TRIM, 1U << 30}, {NBD_CMD_WRITE_ZEROES, 8192}};
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.structured = true});
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		uint16_t type = commands[i].type;
		struct fake_request request =
			rig_request(&rig, 0, 1, type, 0, commands[i].len);

		say_simple(&rig, request.cookie, NBD_ENOTSUP);
		assert_int_equal(rig_result(&rig, 1), -EOPNOTSUPP);
		request = rig_request(&rig, 0, 1, type, 0, commands[i].len);
		say_simple(&rig, request.cookie, 0);
		assert_int_equal(rig_result(&rig, 1), commands[i].len);
		rig_in_step(&rig, 0, 2);
	}
	rig_end(&rig);
}

/* A failed READ among others: a client that expects its payload would take the next reply for it. */
static void an_error_between_two_reads_costs_only_its_own(void **state)
{
	struct rig rig;
	struct fake_request request[3];
	struct fake_bytes reply = {0};
	uint8_t content[2][1024];

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	for (uint16_t i = 0; i < 3; i++)
		request[i] = rig_request(&rig, 0, i, NBD_CMD_READ, i * 1024, 1024);
	for (unsigned int i = 0; i < 2; i++)
		rig_pattern(content[i], 0, 1024, i);
	fake_put_simple(&reply, request[0].cookie, 0);
	fake_put(&reply, content[0], 1024);
	fake_put_simple(&reply, request[1].cookie, NBD_EPERM);
	fake_put_simple(&reply, request[2].cookie, 0);
	fake_put(&reply, content[1], 1024);
	rig_say(&rig, 0, &reply);
	fake_bytes_done(&reply);
	rig_run(&rig);
	assert_int_equal(rig.front.slots[0].result, 1024);
	assert_int_equal(rig.front.slots[1].result, -EPERM);
	assert_int_equal(rig.front.slots[2].result, 1024);
	assert_memory_equal(rig.queue.tags[0].buf, content[0], 1024);
	assert_memory_equal(rig.queue.tags[2].buf, content[1], 1024);
	rig_in_step(&rig, 0, 1);
	rig_end(&rig);
}

/* Takes what is there, verifies it against expected from *at on. */
static void take_available(int fd, const uint8_t *expected, size_t *at)
{
	uint8_t buf[16384];
	ssize_t r;

	while ((r = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		assert_memory_equal(buf, expected + *at, (size_t)r);
		*at += (size_t)r;
	}
}

/*
 * Submits a WRITE that the socket cannot take whole, answers it before reading the payload, and
 * only then reads: the buffer belongs to the send operation until its end.
 */
static void answer_before_reading(struct rig *rig, uint32_t error, int32_t result)
{
	const uint32_t len = rig->options.max_io_bytes;
	struct gk_tag *tag = &rig->queue.tags[4];
	struct fake_request request;
	size_t taken = 0;

	rig_pattern(tag->buf, 0, len, 9);
	mem_front_submit(&rig->queue, 4, NBD_CMD_WRITE, 0, 0, len);
	while (!rig->queue.counters.partial_sends)
		rig_turn(rig);
	assert_true(fake_take(rig->peer[0], &request));
	say_simple(rig, request.cookie, error);
	while (!tag->answered)
		rig_turn(rig);
	assert_int_equal(tag->state, GK_TAG_SENDING);
	assert_true(rig->front.slots[4].busy);
	for (;;) {
		take_available(rig->peer[0], tag->buf, &taken);
		if (!rig->front.slots[4].busy)
			break;
		assert_int_equal(tag->state, GK_TAG_SENDING);
		rig_turn(rig);
	}
	take_available(rig->peer[0], tag->buf, &taken);
	assert_int_equal(taken, len);
	assert_int_equal(rig->front.slots[4].result, result);
	assert_int_equal(rig->front.slots[4].commits, 1);
	rig_in_step(rig, 0, 4);
}

static void a_write_that_fails_while_it_is_sent_ends_after_its_last_byte(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.sndbuf_bytes = 1});
	answer_before_reading(&rig, NBD_ENOSPC, -ENOSPC);
	rig_end(&rig);
}

/* A server is free to say so; it is our buffer that must live on. */
static void a_write_that_succeeds_while_it_is_sent_ends_after_its_last_byte(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.sndbuf_bytes = 1});
	answer_before_reading(&rig, 0, (int32_t)rig.options.max_io_bytes);
	rig_end(&rig);
}

static void the_early_error_stands_when_the_connection_dies_next(void **state)
{
	struct rig rig;
	struct fake_request request;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.sndbuf_bytes = 1});
	mem_front_submit(&rig.queue, 4, NBD_CMD_WRITE, 0, 0, 65536);
	while (!rig.queue.counters.partial_sends)
		rig_turn(&rig);
	assert_true(fake_take(rig.peer[0], &request));
	say_simple(&rig, request.cookie, NBD_EPERM);
	while (!rig.queue.tags[4].answered)
		rig_turn(&rig);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig_result(&rig, 4), -EPERM);
	rig_end(&rig);
}

static uint32_t fail_some(const struct fake_request *request)
{
	return request->offset / 4096 % 3 == 1 ? NBD_EIO : 0;
}

/* Every third block fails, from 128 requests at once, in any order: the others are right. */
static void many_errors_among_many_requests(void **state)
{
	static uint8_t disk[128 * 4096];
	struct rig rig;
	struct fake_disk_server server = {
		.disk = disk,
		.size = sizeof(disk),
		.options = {.fail = fail_some, .random_order = true, .seed = 5},
	};

	(void)state;
	rig_pattern(disk, 0, sizeof(disk), 0);
	rig_begin(&rig, &(struct rig_options){.depth = 128});
	server.fd = rig.peer[0];
	rig.peer[0] = -1;
	fake_disk_start(&server);
	for (unsigned int round = 0; round < 4; round++) {
		for (uint16_t i = 0; i < 128; i++)
			mem_front_submit(&rig.queue, i, NBD_CMD_READ, 0, i * 4096, 4096);
		rig_run(&rig);
		for (uint16_t i = 0; i < 128; i++) {
			uint8_t expected[4096];

			assert_int_equal(rig.front.slots[i].result, i % 3 == 1 ? -EIO : 4096);
			rig_pattern(expected, i * 4096, sizeof(expected), 0);
			if (i % 3 != 1)
				assert_memory_equal(rig.queue.tags[i].buf, expected, 4096);
			memset(rig.queue.tags[i].buf, 0, 4096);
		}
	}
	rig_end(&rig);
	fake_disk_join(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_failed_read_gets_its_errno_and_has_no_payload),
		cmocka_unit_test(a_failed_write_gets_its_errno),
		cmocka_unit_test(flush_trim_and_write_zeroes_fail_alone),
		cmocka_unit_test(an_error_between_two_reads_costs_only_its_own),
		cmocka_unit_test(a_write_that_fails_while_it_is_sent_ends_after_its_last_byte),
		cmocka_unit_test(a_write_that_succeeds_while_it_is_sent_ends_after_its_last_byte),
		cmocka_unit_test(the_early_error_stands_when_the_connection_dies_next),
		cmocka_unit_test(many_errors_among_many_requests),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
