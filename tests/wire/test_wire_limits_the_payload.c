// SPDX-License-Identifier: MIT
/* Requests above the server's maximum leave in parts, one after the other, and end once. */
#include <errno.h>
#include <string.h>

#include "wire_rig.h"

#define MAX    4096
#define OFFSET 10240
#define LEN    (2 * MAX + 1024)

static void begin(struct rig *rig, bool structured)
{
	rig_begin(rig, &(struct rig_options){.max_payload = MAX, .structured = structured});
}

/* Lets the server take the next part, which must cover these bytes of the request. */
static uint64_t take_part(struct rig *rig, uint16_t type, uint32_t from, uint32_t len)
{
	struct fake_request request;

	rig_send_all(rig);
	assert_true(fake_take(rig->peer[0], &request));
	assert_int_equal(request.type, type);
	assert_int_equal(request.offset, OFFSET + from);
	assert_int_equal(request.length, len);
	return request.cookie;
}

/* What the session has received is acted on: one turn per message, since all of it fits. */
static void say_simple(struct rig *rig, uint64_t cookie, uint32_t error, const uint8_t *data,
		       size_t len)
{
	struct fake_bytes reply = {0};

	fake_put_simple(&reply, cookie, error);
	fake_put(&reply, data, len);
	rig_say(rig, 0, &reply);
	fake_bytes_done(&reply);
	rig_turn(rig);
}

static void a_read_comes_in_parts(void **state)
{
	struct rig rig;
	uint8_t content[LEN];
	uint64_t cookies[3];

	(void)state;
	begin(&rig, false);
	rig_pattern(content, OFFSET, LEN, 1);
	mem_front_submit(&rig.queue, 3, NBD_CMD_READ, 0, OFFSET, LEN);
	for (uint32_t i = 0; i < 3; i++) {
		uint32_t len = i < 2 ? MAX : LEN - 2 * MAX;

		assert_true(rig.front.slots[3].busy);
		cookies[i] = take_part(&rig, NBD_CMD_READ, i * MAX, len);
		say_simple(&rig, cookies[i], 0, content + i * MAX, len);
	}
	assert_int_equal(rig_result(&rig, 3), LEN);
	assert_memory_equal(rig.queue.tags[3].buf, content, LEN);
	assert_int_equal(rig.front.slots[3].commits, 1);
	assert_int_equal(rig.queue.counters.requests[GK_OP_READ], 1);
	assert_int_equal(rig.queue.counters.bytes_read, LEN);
	/* Each part is a request of its own on the wire. */
	assert_true(cookies[0] != cookies[1] && cookies[1] != cookies[2]);
	rig_end(&rig);
}

static void a_write_goes_in_parts(void **state)
{
	struct rig rig;
	uint8_t received[LEN];

	(void)state;
	begin(&rig, false);
	rig_pattern(rig.queue.tags[3].buf, OFFSET, LEN, 2);
	mem_front_submit(&rig.queue, 3, NBD_CMD_WRITE, 0, OFFSET, LEN);
	for (uint32_t i = 0; i < 3; i++) {
		uint32_t len = i < 2 ? MAX : LEN - 2 * MAX;
		uint64_t cookie = take_part(&rig, NBD_CMD_WRITE, i * MAX, len);

		assert_true(fake_take_bytes(rig.peer[0], received + i * MAX, len));
		say_simple(&rig, cookie, 0, NULL, 0);
	}
	assert_int_equal(rig_result(&rig, 3), LEN);
	assert_memory_equal(received, rig.queue.tags[3].buf, LEN);
	assert_int_equal(rig.front.slots[3].commits, 1);
	rig_end(&rig);
}

static void chunks_of_a_part_are_measured_by_the_part(void **state)
{
	struct rig rig;
	struct fake_bytes reply = {0};
	uint8_t content[2 * MAX];
	uint64_t cookie;

	(void)state;
	begin(&rig, true);
	rig_pattern(content, OFFSET, sizeof(content), 3);
	memset(content + MAX, 0, 512);
	mem_front_submit(&rig.queue, 0, NBD_CMD_READ, 0, OFFSET, sizeof(content));
	cookie = take_part(&rig, NBD_CMD_READ, 0, MAX);
	fake_put_data(&reply, NBD_REPLY_FLAG_DONE, cookie, OFFSET, content, MAX);
	rig_say(&rig, 0, &reply);
	fake_bytes_done(&reply);
	rig_turn(&rig);
	cookie = take_part(&rig, NBD_CMD_READ, MAX, MAX);
	fake_put_data(&reply, 0, cookie, OFFSET + MAX + 512, content + MAX + 512, MAX - 512);
	fake_put_hole(&reply, NBD_REPLY_FLAG_DONE, cookie, OFFSET + MAX, 512);
	rig_say(&rig, 0, &reply);
	assert_int_equal(rig_result(&rig, 0), sizeof(content));
	assert_memory_equal(rig.queue.tags[0].buf, content, sizeof(content));
	fake_bytes_done(&reply);

	/* Within the request, but not within the part that was asked for. */
	mem_front_submit(&rig.queue, 0, NBD_CMD_READ, 0, OFFSET, sizeof(content));
	cookie = take_part(&rig, NBD_CMD_READ, 0, MAX);
	fake_put_data(&reply, 0, cookie, OFFSET + MAX, content, 512);
	rig_say(&rig, 0, &reply);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig_result(&rig, 0), -EIO);
	fake_bytes_done(&reply);
	rig_end(&rig);
}

/* Never a short count: the request fails as a whole, and the later parts are not asked for. */
static void an_error_in_a_later_part_fails_the_request(void **state)
{
	struct rig rig;
	uint8_t content[MAX] = {0};

	(void)state;
	begin(&rig, false);
	mem_front_submit(&rig.queue, 3, NBD_CMD_READ, 0, OFFSET, LEN);
	say_simple(&rig, take_part(&rig, NBD_CMD_READ, 0, MAX), 0, content, MAX);
	say_simple(&rig, take_part(&rig, NBD_CMD_READ, MAX, MAX), NBD_ENOMEM, NULL, 0);
	assert_int_equal(rig_result(&rig, 3), -ENOMEM);
	rig_in_step(&rig, 0, 3);
	rig_end(&rig);
}

/* The next request of the tag starts from nothing. */
static void a_failed_part_leaves_nothing_behind(void **state)
{
	struct rig rig;
	uint8_t content[LEN];

	(void)state;
	begin(&rig, false);
	rig_pattern(content, OFFSET, LEN, 4);
	mem_front_submit(&rig.queue, 0, NBD_CMD_READ, 0, OFFSET, LEN);
	say_simple(&rig, take_part(&rig, NBD_CMD_READ, 0, MAX), 0, content, MAX);
	say_simple(&rig, take_part(&rig, NBD_CMD_READ, MAX, MAX), NBD_EIO, NULL, 0);
	assert_int_equal(rig_result(&rig, 0), -EIO);
	memset(rig.queue.tags[0].buf, 0, LEN);
	mem_front_submit(&rig.queue, 0, NBD_CMD_READ, 0, OFFSET, LEN);
	for (uint32_t i = 0; i < 3; i++) {
		uint32_t len = i < 2 ? MAX : LEN - 2 * MAX;

		say_simple(&rig, take_part(&rig, NBD_CMD_READ, i * MAX, len), 0,
			   content + i * MAX, len);
	}
	assert_int_equal(rig_result(&rig, 0), LEN);
	assert_memory_equal(rig.queue.tags[0].buf, content, LEN);
	rig_end(&rig);
}

/* The maximum is one of payload: these have none. */
static void trim_and_write_zeroes_stay_whole(void **state)
{
	static const uint16_t types[] = {NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};
	struct rig rig;

	(void)state;
	begin(&rig, false);
	for (unsigned int i = 0; i < 2; i++) {
		mem_front_submit(&rig.queue, 0, types[i], 0, OFFSET, 1U << 30);
		say_simple(&rig, take_part(&rig, types[i], 0, 1U << 30), 0, NULL, 0);
		assert_int_equal(rig_result(&rig, 0), 1 << 30);
	}
	rig_end(&rig);
}

/* The flag belongs to every part: each of them must be on the disk when the request ends. */
static void fua_goes_with_every_part(void **state)
{
	struct rig rig;
	uint8_t received[MAX];

	(void)state;
	begin(&rig, false);
	mem_front_submit(&rig.queue, 0, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, OFFSET, 2 * MAX);
	for (uint32_t i = 0; i < 2; i++) {
		struct fake_request request;

		rig_send_all(&rig);
		assert_true(fake_take(rig.peer[0], &request));
		assert_int_equal(request.flags, NBD_CMD_FLAG_FUA);
		assert_true(fake_take_bytes(rig.peer[0], received, MAX));
		say_simple(&rig, request.cookie, 0, NULL, 0);
	}
	assert_int_equal(rig_result(&rig, 0), 2 * MAX);
	rig_end(&rig);
}

static void a_connection_that_dies_between_parts_fails_the_request(void **state)
{
	struct rig rig;
	uint8_t content[MAX] = {0};

	(void)state;
	begin(&rig, false);
	mem_front_submit(&rig.queue, 3, NBD_CMD_READ, 0, OFFSET, LEN);
	say_simple(&rig, take_part(&rig, NBD_CMD_READ, 0, MAX), 0, content, MAX);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig_result(&rig, 3), -EIO);
	assert_int_equal(rig.front.slots[3].commits, 1);
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_comes_in_parts),
		cmocka_unit_test(a_write_goes_in_parts),
		cmocka_unit_test(chunks_of_a_part_are_measured_by_the_part),
		cmocka_unit_test(an_error_in_a_later_part_fails_the_request),
		cmocka_unit_test(a_failed_part_leaves_nothing_behind),
		cmocka_unit_test(trim_and_write_zeroes_stay_whole),
		cmocka_unit_test(fua_goes_with_every_part),
		cmocka_unit_test(a_connection_that_dies_between_parts_fails_the_request),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
