// SPDX-License-Identifier: MIT
/*
 * The server closes the connection after n bytes of its reply, for every n: the request fails with
 * -EIO, the session is DEAD, nothing hangs, and the other session of the queue is not touched.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "wire_rig.h"

#define LEN 200

/* Puts a whole good reply to a READ of LEN bytes at 0. */
typedef void good(struct fake_bytes *reply, uint64_t cookie, const uint8_t *content);

static void put_simple_read(struct fake_bytes *reply, uint64_t cookie, const uint8_t *content)
{
	fake_put_simple(reply, cookie, 0);
	fake_put(reply, content, LEN);
}

static void put_simple_error(struct fake_bytes *reply, uint64_t cookie, const uint8_t *content)
{
	(void)content;
	fake_put_simple(reply, cookie, NBD_EPERM);
}

static void put_all_chunks(struct fake_bytes *reply, uint64_t cookie, const uint8_t *content)
{
	fake_put_data(reply, 0, cookie, 0, content, 50);
	fake_put_hole(reply, 0, cookie, 50, 100);
	fake_put_data(reply, 0, cookie, 150, content + 150, LEN - 150);
	fake_put_none(reply, cookie);
}

static void put_error_chunks(struct fake_bytes *reply, uint64_t cookie, const uint8_t *content)
{
	fake_put_error(reply, 0, NBD_REPLY_TYPE_ERROR_OFFSET, cookie, NBD_EPERM, "no", 50);
	fake_put_data(reply, 0, cookie, 0, content, 50);
	fake_put_error(reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, cookie, NBD_EPERM,
		       "enough", 0);
}

/* split: the part before the end arrives in a turn of its own, so the payload is under way. */
static void close_everywhere(good *put, bool structured, bool split, int32_t whole,
			     const struct gk_path *path)
{
	struct rig rig;
	uint8_t content[LEN];
	size_t reply_len = 0;

	rig_pattern(content, 0, LEN, 1);
	memset(content + 50, 0, 100);
	rig_begin(&rig, &(struct rig_options){.sessions = 2,
					      .structured = structured,
					      .path = path,
					      .threshold_bytes = 32});
	for (size_t n = 0; n == 0 || n <= reply_len; n++) {
		struct fake_request read = rig_request(&rig, 0, 0, NBD_CMD_READ, 0, LEN);
		struct fake_request flush = rig_request(&rig, 1, 1, NBD_CMD_FLUSH, 0, 0);
		struct fake_bytes reply = {0};

		/* Waits on the session that will die, with nothing of its own on the way back. */
		rig_request(&rig, 0, 2, NBD_CMD_TRIM, 0, 4096);
		put(&reply, read.cookie, content);
		reply_len = reply.n;
		if (n) {
			assert_true(fake_send(rig.peer[0], reply.p, n, 0));
			if (split)
				rig_turn(&rig);
		}
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		assert_int_equal(rig_result(&rig, 0), n == reply_len ? whole : -EIO);
		if (n == reply_len && whole == LEN)
			assert_memory_equal(mem_front_data(&rig.queue, 0), content, LEN);
		assert_int_equal(rig_result(&rig, 2), -EIO);
		assert_int_equal(rig.front.slots[0].commits, n + 1);
		assert_true(rig.front.slots[1].busy);
		fake_bytes_done(&reply);

		fake_put_simple(&reply, flush.cookie, 0);
		rig_say(&rig, 1, &reply);
		assert_int_equal(rig_result(&rig, 1), 0);
		rig_in_step(&rig, 1, 3);
		fake_bytes_done(&reply);
		rig_connect(&rig, 0);
	}
	assert_true(reply_len >= 16);
	rig_end(&rig);
}

static void in_a_simple_reply(void **state)
{
	(void)state;
	close_everywhere(put_simple_read, false, false, LEN, NULL);
}

static void in_a_simple_reply_under_way(void **state)
{
	(void)state;
	close_everywhere(put_simple_read, false, true, LEN, NULL);
}

static void in_a_simple_error(void **state)
{
	(void)state;
	close_everywhere(put_simple_error, false, false, -EPERM, NULL);
}

static void in_chunks_of_all_kinds(void **state)
{
	(void)state;
	close_everywhere(put_all_chunks, true, false, LEN, NULL);
}

static void in_chunks_of_all_kinds_under_way(void **state)
{
	(void)state;
	close_everywhere(put_all_chunks, true, true, LEN, NULL);
}

static void in_error_chunks(void **state)
{
	(void)state;
	close_everywhere(put_error_chunks, true, true, -EPERM, NULL);
}

static void in_a_simple_reply_to_lent_pages(void **state)
{
	(void)state;
	close_everywhere(put_simple_read, false, true, LEN, &mem_path_single);
	close_everywhere(put_simple_read, false, true, LEN, &mem_path_paired);
}

static void in_chunks_to_lent_pages(void **state)
{
	(void)state;
	close_everywhere(put_all_chunks, true, true, LEN, &mem_path_single);
	close_everywhere(put_all_chunks, true, true, LEN, &mem_path_paired);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_a_simple_reply),
		cmocka_unit_test(in_a_simple_reply_under_way),
		cmocka_unit_test(in_a_simple_error),
		cmocka_unit_test(in_chunks_of_all_kinds),
		cmocka_unit_test(in_chunks_of_all_kinds_under_way),
		cmocka_unit_test(in_error_chunks),
		cmocka_unit_test(in_a_simple_reply_to_lent_pages),
		cmocka_unit_test(in_chunks_to_lent_pages),
	};

	if (rig_unavailable())
		return 77;
	/* Thousands of connections die here as they should. */
	rig_quiet();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
