// SPDX-License-Identifier: MIT
/* The queue sees every byte of a reply alone: each boundary inside a reply is a boundary of reads. */
#include <errno.h>
#include <string.h>

#include "wire_rig.h"

#define LEN 600

/* The request ends with the last byte of the reply and not before. */
static void say_byte_by_byte(struct rig *rig, uint16_t tag, struct fake_bytes *reply)
{
	for (size_t i = 0; i < reply->n; i++) {
		assert_true(rig->front.slots[tag].busy);
		assert_true(fake_send(rig->peer[0], reply->p + i, 1, 0));
		rig_turn(rig);
	}
	assert_false(rig->front.slots[tag].busy);
	fake_bytes_done(reply);
}

static void a_simple_read_arrives_byte_by_byte(void **state)
{
	struct rig rig;
	struct fake_bytes reply = {0};
	struct fake_request request;
	uint8_t content[LEN];

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	request = rig_request(&rig, 0, 3, NBD_CMD_READ, 1024, LEN);
	rig_pattern(content, 1024, LEN, 1);
	fake_put_simple(&reply, request.cookie, 0);
	fake_put(&reply, content, LEN);
	say_byte_by_byte(&rig, 3, &reply);
	assert_int_equal(rig.front.slots[3].result, LEN);
	assert_memory_equal(rig.queue.tags[3].buf, content, LEN);
	assert_int_equal(rig.queue.counters.partial_receives, LEN - 1);
	rig_in_step(&rig, 0, 0);
	rig_end(&rig);
}

static void a_large_read_arrives_byte_by_byte(void **state)
{
	const uint32_t len = 2 * GK_LARGE_BYTES;
	struct rig rig;
	struct fake_bytes reply = {0};
	struct fake_request request;
	static uint8_t content[2 * GK_LARGE_BYTES];

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	request = rig_request(&rig, 0, 0, NBD_CMD_READ, 0, len);
	rig_pattern(content, 0, len, 2);
	fake_put_simple(&reply, request.cookie, 0);
	fake_put(&reply, content, len);
	/* All but the ends at once: it is the ends where offsets are adjusted. */
	for (size_t i = 0; i < 100; i++) {
		assert_true(fake_send(rig.peer[0], reply.p + i, 1, 0));
		rig_turn(&rig);
	}
	assert_true(fake_send(rig.peer[0], reply.p + 100, reply.n - 110, 0));
	for (size_t i = reply.n - 10; i < reply.n; i++) {
		assert_true(rig.front.slots[0].busy);
		assert_true(fake_send(rig.peer[0], reply.p + i, 1, 0));
		rig_turn(&rig);
	}
	assert_int_equal(rig_result(&rig, 0), len);
	assert_memory_equal(rig.queue.tags[0].buf, content, len);
	fake_bytes_done(&reply);
	rig_in_step(&rig, 0, 0);
	rig_end(&rig);
}

static void a_simple_write_reply_arrives_byte_by_byte(void **state)
{
	struct rig rig;
	struct fake_bytes reply = {0};
	struct fake_request request;
	uint8_t received[LEN];

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	rig_pattern(rig.queue.tags[7].buf, 0, LEN, 3);
	request = rig_request(&rig, 0, 7, NBD_CMD_WRITE, 0, LEN);
	assert_true(fake_take_bytes(rig.peer[0], received, LEN));
	assert_memory_equal(received, rig.queue.tags[7].buf, LEN);
	fake_put_simple(&reply, request.cookie, 0);
	say_byte_by_byte(&rig, 7, &reply);
	assert_int_equal(rig.front.slots[7].result, LEN);
	rig_in_step(&rig, 0, 0);
	rig_end(&rig);
}

static void an_error_reply_to_a_read_arrives_byte_by_byte(void **state)
{
	struct rig rig;
	struct fake_bytes reply = {0};
	struct fake_request request;

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	request = rig_request(&rig, 0, 1, NBD_CMD_READ, 0, LEN);
	fake_put_simple(&reply, request.cookie, NBD_ENOSPC);
	say_byte_by_byte(&rig, 1, &reply);
	assert_int_equal(rig.front.slots[1].result, -ENOSPC);
	rig_in_step(&rig, 0, 0);
	rig_end(&rig);
}

static void chunks_of_all_kinds_arrive_byte_by_byte(void **state)
{
	struct rig rig;
	struct fake_bytes reply = {0};
	struct fake_request request;
	uint8_t content[LEN];

	(void)state;
	rig_begin(&rig, &(struct rig_options){.structured = true});
	request = rig_request(&rig, 0, 2, NBD_CMD_READ, 512, LEN);
	rig_pattern(content, 512, LEN, 4);
	memset(content + 200, 0, 100);
	memset(rig.queue.tags[2].buf, 0xee, LEN);
	fake_put_data(&reply, 0, request.cookie, 512 + 300, content + 300, LEN - 300);
	fake_put_hole(&reply, 0, request.cookie, 512 + 200, 100);
	fake_put_data(&reply, 0, request.cookie, 512, content, 200);
	fake_put_none(&reply, request.cookie);
	say_byte_by_byte(&rig, 2, &reply);
	assert_int_equal(rig.front.slots[2].result, LEN);
	assert_memory_equal(rig.queue.tags[2].buf, content, LEN);

	request = rig_request(&rig, 0, 2, NBD_CMD_READ, 512, LEN);
	fake_put_error(&reply, 0, NBD_REPLY_TYPE_ERROR_OFFSET, request.cookie, NBD_EIO,
		       "a bad sector", 600);
	fake_put_data(&reply, 0, request.cookie, 512, content, 88);
	fake_put_error(&reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, request.cookie,
		       NBD_ENOMEM, "and no memory", 0);
	say_byte_by_byte(&rig, 2, &reply);
	assert_int_equal(rig.front.slots[2].result, -EIO);
	rig_in_step(&rig, 0, 0);
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_simple_read_arrives_byte_by_byte),
		cmocka_unit_test(a_large_read_arrives_byte_by_byte),
		cmocka_unit_test(a_simple_write_reply_arrives_byte_by_byte),
		cmocka_unit_test(an_error_reply_to_a_read_arrives_byte_by_byte),
		cmocka_unit_test(chunks_of_all_kinds_arrive_byte_by_byte),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
