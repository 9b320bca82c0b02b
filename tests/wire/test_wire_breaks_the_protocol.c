// SPDX-License-Identifier: MIT
/*
 * The server says what it may not: that connection is not trusted any more. What it carried fails
 * with -EIO, once; the buffers are as they were; the other connection of the queue goes on.
 */
#include <errno.h>
#include <string.h>

#include "wire_rig.h"

#define LEN    1024
#define OFFSET 8192

/* Puts what the server says instead of the right reply to a READ of LEN bytes at OFFSET. */
typedef void evil(struct fake_bytes *reply, uint64_t cookie);

static const uint8_t junk[2 * LEN] = {1, 2, 3, 4};

/*
 * Session 0 carries the READ and a WRITE, session 1 another WRITE. The evil reply kills session 0
 * alone.
 */
static void dies_of(evil *put, bool structured)
{
	struct rig rig;
	struct fake_request request[3];
	struct fake_bytes reply = {0};
	uint8_t payload[512];

	rig_begin(&rig, &(struct rig_options){.sessions = 2, .structured = structured});
	request[0] = rig_request(&rig, 0, 5, NBD_CMD_READ, OFFSET, LEN);
	request[1] = rig_request(&rig, 1, 6, NBD_CMD_WRITE, 0, 512);
	request[2] = rig_request(&rig, 0, 7, NBD_CMD_WRITE, 512, 512);
	assert_true(fake_take_bytes(rig.peer[1], payload, sizeof(payload)));

	put(&reply, request[0].cookie);
	rig_say(&rig, 0, &reply);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig_result(&rig, 5), -EIO);
	assert_int_equal(rig_result(&rig, 7), -EIO);
	assert_true(rig.front.slots[6].busy);
	assert_int_equal(rig.queue.sessions[1].state, GK_SESSION_UP);

	fake_bytes_done(&reply);
	fake_put_simple(&reply, request[1].cookie, 0);
	rig_say(&rig, 1, &reply);
	assert_int_equal(rig_result(&rig, 6), 512);
	rig_in_step(&rig, 1, 5);
	for (uint16_t tag = 6; tag < 8; tag++)
		assert_int_equal(rig.front.slots[tag].commits, 1);
	assert_int_equal(rig.front.slots[5].commits, 2);
	fake_bytes_done(&reply);
	rig_end(&rig);
}

static void put_bad_magic(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put32(reply, NBD_REQUEST_MAGIC);
	fake_put32(reply, 0);
	fake_put64(reply, cookie);
	fake_put(reply, junk, LEN);
}

static void put_cookie_of_no_tag(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_simple(reply, cookie | 0xffff, 0);
	fake_put(reply, junk, LEN);
}

static void put_cookie_of_an_idle_tag(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_simple(reply, (cookie & ~UINT64_C(0xffff)) | 1, 0);
	fake_put(reply, junk, LEN);
}

static void put_cookie_that_we_never_make(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_simple(reply, cookie | 0x10000, 0);
	fake_put(reply, junk, LEN);
}

/* Tag 6 is out, but on the other session; its generation is 1 as this one's. */
static void put_cookie_of_another_session(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_simple(reply, (cookie & ~UINT64_C(0xffff)) | 6, 0);
}

static void put_cookie_of_the_last_generation(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_simple(reply, cookie - (UINT64_C(1) << 32), NBD_EPERM);
}

static void put_cookie_of_the_next_generation(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_simple(reply, cookie + (UINT64_C(1) << 32), NBD_EPERM);
}

static void put_chunk_unasked(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_data(reply, NBD_REPLY_FLAG_DONE, cookie, OFFSET, junk, LEN);
}

static void put_simple_success(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_simple(reply, cookie, 0);
	fake_put(reply, junk, LEN);
}

static void put_oversize_chunk(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_data(reply, NBD_REPLY_FLAG_DONE, cookie, OFFSET, junk, LEN + 1);
}

/* The length alone must decide: such a payload will never come. */
static void put_absurd_chunk(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, 0, NBD_REPLY_TYPE_OFFSET_DATA, cookie, UINT32_MAX);
	fake_put64(reply, OFFSET);
}

static void put_chunk_before_the_range(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_data(reply, 0, cookie, OFFSET - 1, junk, 2);
}

static void put_chunk_behind_the_range(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_data(reply, 0, cookie, OFFSET + LEN, junk, 1);
}

static void put_chunk_across_the_end(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_data(reply, 0, cookie, OFFSET + LEN - 1, junk, 2);
}

static void put_chunk_whose_end_wraps(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_data(reply, 0, cookie, UINT64_MAX, junk, LEN);
}

static void put_hole_across_the_end(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_hole(reply, 0, cookie, OFFSET + 1, LEN);
}

static void put_hole_that_is_huge(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_hole(reply, 0, cookie, OFFSET, UINT32_MAX);
}

static void put_hole_of_nothing(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_hole(reply, 0, cookie, OFFSET, 0);
}

static void put_hole_with_a_long_payload(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, 0, NBD_REPLY_TYPE_OFFSET_HOLE, cookie, 13);
	fake_put(reply, junk, 13);
}

static void put_data_of_nothing(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_data(reply, 0, cookie, OFFSET, junk, 0);
}

static void put_data_without_offset(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, 0, NBD_REPLY_TYPE_OFFSET_DATA, cookie, 7);
	fake_put(reply, junk, 7);
}

static void put_the_same_data_twice(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_data(reply, 0, cookie, OFFSET, junk, LEN);
	fake_put_data(reply, NBD_REPLY_FLAG_DONE, cookie, OFFSET, junk, LEN);
}

/* As many bytes as were asked for, but the second half of the range is never written. */
static void put_the_first_half_twice(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_data(reply, 0, cookie, OFFSET, junk, LEN / 2);
	fake_put_data(reply, NBD_REPLY_FLAG_DONE, cookie, OFFSET, junk, LEN / 2);
}

static void put_chunks_that_overlap_by_a_byte(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_data(reply, 0, cookie, OFFSET, junk, LEN / 2 + 1);
	fake_put_hole(reply, NBD_REPLY_FLAG_DONE, cookie, OFFSET + LEN / 2, LEN / 2 - 1);
}

static void put_none_that_does_not_end(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, 0, NBD_REPLY_TYPE_NONE, cookie, 0);
}

static void put_none_with_a_payload(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, cookie, 4);
	fake_put(reply, junk, 4);
}

static void put_block_status(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_BLOCK_STATUS, cookie, 12);
	fake_put(reply, junk, 12);
}

static void put_type_that_does_not_exist(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, NBD_REPLY_FLAG_DONE, 77, cookie, 12);
	fake_put(reply, junk, 12);
}

static void put_short_error(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, cookie, 5);
	fake_put(reply, junk, 5);
}

static void put_error_without_its_offset(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR_OFFSET, cookie, 6);
	fake_put32(reply, NBD_EIO);
	fake_put16(reply, 0);
}

static void put_message_beyond_its_chunk(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, cookie, 8);
	fake_put32(reply, NBD_EIO);
	fake_put16(reply, 3);
	fake_put16(reply, 0);
}

static void put_endless_message(struct fake_bytes *reply, uint64_t cookie)
{
	fake_put_chunk(reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, cookie, 1U << 30);
	fake_put32(reply, NBD_EIO);
	fake_put16(reply, 0);
}

static void put_errors_without_end(struct fake_bytes *reply, uint64_t cookie)
{
	for (unsigned int i = 0; i < 33; i++)
		fake_put_error(reply, 0, NBD_REPLY_TYPE_ERROR, cookie, NBD_EIO, "again", 0);
}

#define SIMPLE(name)                                                                               \
	static void name##_ends_the_session(void **state)                                          \
	{                                                                                          \
		(void)state;                                                                       \
		dies_of(put_##name, false);                                                        \
	}
#define STRUCTURED(name)                                                                           \
	static void name##_ends_the_session(void **state)                                          \
	{                                                                                          \
		(void)state;                                                                       \
		dies_of(put_##name, true);                                                         \
	}

SIMPLE(bad_magic)
SIMPLE(cookie_of_no_tag)
SIMPLE(cookie_of_an_idle_tag)
SIMPLE(cookie_that_we_never_make)
SIMPLE(cookie_of_another_session)
SIMPLE(cookie_of_the_last_generation)
SIMPLE(cookie_of_the_next_generation)
SIMPLE(chunk_unasked)
STRUCTURED(simple_success)
STRUCTURED(oversize_chunk)
STRUCTURED(absurd_chunk)
STRUCTURED(chunk_before_the_range)
STRUCTURED(chunk_behind_the_range)
STRUCTURED(chunk_across_the_end)
STRUCTURED(chunk_whose_end_wraps)
STRUCTURED(hole_across_the_end)
STRUCTURED(hole_that_is_huge)
STRUCTURED(hole_of_nothing)
STRUCTURED(hole_with_a_long_payload)
STRUCTURED(data_of_nothing)
STRUCTURED(data_without_offset)
STRUCTURED(the_same_data_twice)
STRUCTURED(the_first_half_twice)
STRUCTURED(chunks_that_overlap_by_a_byte)
STRUCTURED(none_that_does_not_end)
STRUCTURED(none_with_a_payload)
STRUCTURED(block_status)
STRUCTURED(type_that_does_not_exist)
STRUCTURED(short_error)
STRUCTURED(error_without_its_offset)
STRUCTURED(message_beyond_its_chunk)
STRUCTURED(endless_message)
STRUCTURED(errors_without_end)

/* A chunk with content answers a READ only. */
static void data_for_a_write_ends_the_session(void **state)
{
	struct rig rig;
	struct fake_request request;
	struct fake_bytes reply = {0};

	(void)state;
	rig_begin(&rig, &(struct rig_options){.structured = true});
	rig_pattern(rig.queue.tags[0].buf, 0, 512, 1);
	request = rig_request(&rig, 0, 0, NBD_CMD_WRITE, 0, 512);
	fake_put_data(&reply, NBD_REPLY_FLAG_DONE, request.cookie, 0, junk, 512);
	rig_say(&rig, 0, &reply);
	assert_int_equal(rig_result(&rig, 0), -EIO);
	rig_wait_dead(&rig, 0);
	fake_bytes_done(&reply);
	rig_end(&rig);
}

/*
 * The reply comes twice while the tag carries its next request: the second reply belongs to the
 * request before, and must neither complete the new one nor fill its buffer.
 */
static void a_repeated_cookie_ends_the_session(void **state)
{
	struct rig rig;
	struct fake_request request;
	struct fake_bytes reply = {0};
	uint8_t before[512];

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	request = rig_request(&rig, 0, 2, NBD_CMD_READ, 0, 512);
	fake_put_simple(&reply, request.cookie, 0);
	fake_put(&reply, junk, 512);
	rig_say(&rig, 0, &reply);
	assert_int_equal(rig_result(&rig, 2), 512);

	rig_pattern(rig.queue.tags[2].buf, 0, 512, 7);
	memcpy(before, rig.queue.tags[2].buf, 512);
	assert_int_not_equal(rig_request(&rig, 0, 2, NBD_CMD_READ, 0, 512).cookie, request.cookie);
	rig_say(&rig, 0, &reply);
	assert_int_equal(rig_result(&rig, 2), -EIO);
	assert_memory_equal(rig.queue.tags[2].buf, before, 512);
	rig_wait_dead(&rig, 0);
	fake_bytes_done(&reply);
	rig_end(&rig);
}

/* Both copies in one piece: the second finds the slot idle. */
static void a_doubled_reply_ends_the_session_after_the_request(void **state)
{
	struct rig rig;
	struct fake_request request;
	struct fake_bytes reply = {0};

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	request = rig_request(&rig, 0, 2, NBD_CMD_FLUSH, 0, 0);
	fake_put_simple(&reply, request.cookie, 0);
	fake_put_simple(&reply, request.cookie, 0);
	rig_say(&rig, 0, &reply);
	assert_int_equal(rig_result(&rig, 2), 0);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig.front.slots[2].commits, 1);
	fake_bytes_done(&reply);
	rig_end(&rig);
}

static void bytes_that_nobody_asked_for_end_the_session(void **state)
{
	struct rig rig;
	struct fake_bytes reply = {0};

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	fake_put_simple(&reply, 0, 0);
	rig_say(&rig, 0, &reply);
	rig_wait_dead(&rig, 0);
	fake_bytes_done(&reply);
	rig_end(&rig);
}

#define TEST(name) cmocka_unit_test(name##_ends_the_session)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(bad_magic),
		TEST(cookie_of_no_tag),
		TEST(cookie_of_an_idle_tag),
		TEST(cookie_that_we_never_make),
		TEST(cookie_of_another_session),
		TEST(cookie_of_the_last_generation),
		TEST(cookie_of_the_next_generation),
		TEST(chunk_unasked),
		TEST(simple_success),
		TEST(oversize_chunk),
		TEST(absurd_chunk),
		TEST(chunk_before_the_range),
		TEST(chunk_behind_the_range),
		TEST(chunk_across_the_end),
		TEST(chunk_whose_end_wraps),
		TEST(hole_across_the_end),
		TEST(hole_that_is_huge),
		TEST(hole_of_nothing),
		TEST(hole_with_a_long_payload),
		TEST(data_of_nothing),
		TEST(data_without_offset),
		TEST(the_same_data_twice),
		TEST(the_first_half_twice),
		TEST(chunks_that_overlap_by_a_byte),
		TEST(none_that_does_not_end),
		TEST(none_with_a_payload),
		TEST(block_status),
		TEST(type_that_does_not_exist),
		TEST(short_error),
		TEST(error_without_its_offset),
		TEST(message_beyond_its_chunk),
		TEST(endless_message),
		TEST(errors_without_end),
		TEST(data_for_a_write),
		TEST(a_repeated_cookie),
		cmocka_unit_test(a_doubled_reply_ends_the_session_after_the_request),
		cmocka_unit_test(bytes_that_nobody_asked_for_end_the_session),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
