// SPDX-License-Identifier: MIT
/* Structured replies as the protocol allows them, down to its corners. */
#include <errno.h>
#include <string.h>

#include "wire_rig.h"

#define LEN    4096
#define OFFSET UINT64_C(0x123456789000)

struct chunky {
	struct rig rig;
	struct fake_bytes reply;
	uint64_t cookie;
	uint8_t content[LEN];
};

/* A READ of LEN bytes at OFFSET is on the wire; its buffer holds what must not stay there. */
static void begin(struct chunky *c)
{
	*c = (struct chunky){0};
	rig_begin(&c->rig, &(struct rig_options){.structured = true});
	rig_pattern(c->content, OFFSET, LEN, 1);
	memset(c->rig.queue.tags[0].buf, 0x55, LEN);
	c->cookie = rig_request(&c->rig, 0, 0, NBD_CMD_READ, OFFSET, LEN).cookie;
}

static void put(struct chunky *c, uint16_t flags, uint32_t from, uint32_t to)
{
	fake_put_data(&c->reply, flags, c->cookie, OFFSET + from, c->content + from, to - from);
}

/* The reply is said; the READ ends with result and the session lives on. */
static void ends_with(struct chunky *c, int32_t result)
{
	rig_say(&c->rig, 0, &c->reply);
	assert_int_equal(rig_result(&c->rig, 0), result);
	if (result == LEN)
		assert_memory_equal(c->rig.queue.tags[0].buf, c->content, LEN);
	rig_in_step(&c->rig, 0, 1);
	fake_bytes_done(&c->reply);
	rig_end(&c->rig);
}

static void one_chunk_is_the_whole(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	put(&c, NBD_REPLY_FLAG_DONE, 0, LEN);
	ends_with(&c, LEN);
}

static void chunks_may_come_in_any_order(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	put(&c, 0, 3000, LEN);
	put(&c, 0, 0, 1);
	put(&c, 0, 1000, 3000);
	put(&c, NBD_REPLY_FLAG_DONE, 1, 1000);
	ends_with(&c, LEN);
}

/* As many separate pieces as there can be when chunks are 64 bytes: every second one first. */
static void many_pieces_may_be_apart(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	for (uint32_t at = 0; at < LEN; at += 128)
		put(&c, 0, at, at + 64);
	for (uint32_t at = 64; at < LEN; at += 128)
		put(&c, at + 128 > LEN ? NBD_REPLY_FLAG_DONE : 0, at, at + 64);
	ends_with(&c, LEN);
}

static void a_hole_reads_as_zeroes(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	memset(c.content, 0, LEN);
	fake_put_hole(&c.reply, NBD_REPLY_FLAG_DONE, c.cookie, OFFSET, LEN);
	ends_with(&c, LEN);
}

static void a_hole_between_data(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	memset(c.content + 512, 0, 1024);
	put(&c, 0, 1536, LEN);
	fake_put_hole(&c.reply, 0, c.cookie, OFFSET + 512, 1024);
	put(&c, 0, 0, 512);
	fake_put_none(&c.reply, c.cookie);
	ends_with(&c, LEN);
}

static void none_alone_after_an_error(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	fake_put_error(&c.reply, 0, NBD_REPLY_TYPE_ERROR, c.cookie, NBD_ENOSPC, "", 0);
	fake_put_none(&c.reply, c.cookie);
	ends_with(&c, -ENOSPC);
}

static void an_error_with_its_offset(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	put(&c, 0, 0, 512);
	fake_put_error(&c.reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR_OFFSET, c.cookie,
		       NBD_EOVERFLOW, "bad sector", OFFSET + 512);
	ends_with(&c, -EOVERFLOW);
}

static void data_may_follow_an_error(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	fake_put_error(&c.reply, 0, NBD_REPLY_TYPE_ERROR_OFFSET, c.cookie, NBD_EINVAL, "bad",
		       OFFSET + 512);
	put(&c, 0, 0, 512);
	put(&c, NBD_REPLY_FLAG_DONE, 512, LEN);
	ends_with(&c, -EINVAL);
}

static void the_first_of_several_errors_counts(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	fake_put_error(&c.reply, 0, NBD_REPLY_TYPE_ERROR_OFFSET, c.cookie, NBD_ENOMEM, "a", OFFSET);
	fake_put_error(&c.reply, 0, NBD_REPLY_TYPE_ERROR_OFFSET, c.cookie, NBD_EPERM, "b", OFFSET);
	fake_put_error(&c.reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, c.cookie, NBD_EIO, "c",
		       0);
	ends_with(&c, -ENOMEM);
}

static void an_error_type_that_nobody_knows_is_an_error(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	fake_put_error(&c.reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_FLAG_ERROR | 99, c.cookie,
		       NBD_EPERM, "from the future", 0);
	ends_with(&c, -EPERM);
}

static void an_error_chunk_without_an_error_is_eio(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	fake_put_error(&c.reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, c.cookie, 0, "", 0);
	ends_with(&c, -EIO);
}

static void the_longest_message_is_taken(void **state)
{
	static char message[NBD_MAX_STRING + 1];
	struct chunky c;

	(void)state;
	begin(&c);
	memset(message, 'm', NBD_MAX_STRING);
	for (unsigned int i = 0; i < 32; i++)
		fake_put_error(&c.reply, i == 31 ? NBD_REPLY_FLAG_DONE : 0,
			       NBD_REPLY_TYPE_ERROR_OFFSET, c.cookie, NBD_ENOSPC, message, OFFSET);
	ends_with(&c, -ENOSPC);
}

static void a_simple_error_to_a_read(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	fake_put_simple(&c.reply, c.cookie, NBD_EPERM);
	ends_with(&c, -EPERM);
}

/* The stream is in step, so a READ that was not filled costs that request only. */
static void a_read_with_a_gap_fails_alone(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	put(&c, 0, 0, 1000);
	put(&c, NBD_REPLY_FLAG_DONE, 1001, LEN);
	ends_with(&c, -EIO);
}

static void none_alone_fails_a_read(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	fake_put_none(&c.reply, c.cookie);
	ends_with(&c, -EIO);
}

/* The chunk that ends the one READ must not count for the next one of the tag. */
static void what_one_reply_filled_is_forgotten_by_the_next(void **state)
{
	struct chunky c;

	(void)state;
	begin(&c);
	put(&c, 0, 0, 3000);
	fake_put_none(&c.reply, c.cookie);
	rig_say(&c.rig, 0, &c.reply);
	assert_int_equal(rig_result(&c.rig, 0), -EIO);
	fake_bytes_done(&c.reply);
	c.cookie = rig_request(&c.rig, 0, 0, NBD_CMD_READ, OFFSET, LEN).cookie;
	put(&c, 0, 0, 1000);
	put(&c, NBD_REPLY_FLAG_DONE, 1000, LEN);
	ends_with(&c, LEN);
}

static void writes_are_answered_by_chunks_too(void **state)
{
	struct chunky c;
	uint8_t payload[LEN];
	uint64_t cookie;

	(void)state;
	begin(&c);
	cookie = rig_request(&c.rig, 0, 4, NBD_CMD_WRITE, 0, LEN).cookie;
	assert_true(fake_take_bytes(c.rig.peer[0], payload, LEN));
	fake_put_none(&c.reply, cookie);
	rig_say(&c.rig, 0, &c.reply);
	assert_int_equal(rig_result(&c.rig, 4), LEN);
	fake_bytes_done(&c.reply);

	cookie = rig_request(&c.rig, 0, 4, NBD_CMD_TRIM, 0, LEN).cookie;
	fake_put_error(&c.reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, cookie, NBD_ENOTSUP,
		       "no holes here", 0);
	rig_say(&c.rig, 0, &c.reply);
	assert_int_equal(rig_result(&c.rig, 4), -EOPNOTSUPP);
	fake_bytes_done(&c.reply);
	put(&c, NBD_REPLY_FLAG_DONE, 0, LEN);
	ends_with(&c, LEN);
}

/* Up to 64 KiB a server must keep a READ in one piece when it is told DF. */
static void df_is_asked_for_where_the_server_must_honour_it(void **state)
{
	static const struct {
		bool df;
		uint16_t type;
		uint32_t len;
		uint16_t flags;
	} cases[] = {
		{true, NBD_CMD_READ, 512, NBD_CMD_FLAG_DF},
		{true, NBD_CMD_READ, 65536, NBD_CMD_FLAG_DF},
		{true, NBD_CMD_READ, 65536 + 512, 0},
		{true, NBD_CMD_TRIM, 512, 0},
		{false, NBD_CMD_READ, 512, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rig rig;

		rig_begin(&rig, &(struct rig_options){.structured = true,
						      .df = cases[i].df,
						      .max_io_bytes = 131072});
		assert_int_equal(
			rig_request(&rig, 0, 0, cases[i].type, 0, cases[i].len).flags,
			cases[i].flags);
		rig_end(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_chunk_is_the_whole),
		cmocka_unit_test(chunks_may_come_in_any_order),
		cmocka_unit_test(many_pieces_may_be_apart),
		cmocka_unit_test(a_hole_reads_as_zeroes),
		cmocka_unit_test(a_hole_between_data),
		cmocka_unit_test(none_alone_after_an_error),
		cmocka_unit_test(an_error_with_its_offset),
		cmocka_unit_test(data_may_follow_an_error),
		cmocka_unit_test(the_first_of_several_errors_counts),
		cmocka_unit_test(an_error_type_that_nobody_knows_is_an_error),
		cmocka_unit_test(an_error_chunk_without_an_error_is_eio),
		cmocka_unit_test(the_longest_message_is_taken),
		cmocka_unit_test(a_simple_error_to_a_read),
		cmocka_unit_test(a_read_with_a_gap_fails_alone),
		cmocka_unit_test(none_alone_fails_a_read),
		cmocka_unit_test(what_one_reply_filled_is_forgotten_by_the_next),
		cmocka_unit_test(writes_are_answered_by_chunks_too),
		cmocka_unit_test(df_is_asked_for_where_the_server_must_honour_it),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
