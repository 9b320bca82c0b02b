// SPDX-License-Identifier: MIT
/* A tag's life without a ring: what the loop would do is done by hand. */
#include "tag.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "mem_front.h"
#include "nbd_request.h"

#define MAX 4096

struct fixture {
	struct gk_queue queue;
	struct mem_front front;
	int peer;
};

static int set_up(void **state)
{
	static struct fixture f;
	struct gk_queue_params params = {
		.front = &mem_front_ops,
		.front_data = &f.front,
		.depth = 4,
		.n_sessions = 1,
		.max_io_bytes = 16 * MAX,
	};
	struct gk_session_facts facts = {.max_payload = MAX};
	int fds[2];

	if (mem_front_init(&f.front, 4, 0) || gk_queue_init(&f.queue, &params) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		return -1;
	gk_session_up(&f.queue.sessions[0], 0, fds[0], &facts);
	f.peer = fds[1];
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	gk_queue_done(&f->queue);
	mem_front_done(&f->front);
	close(f->peer);
	return 0;
}

static struct gk_tag *begin(struct fixture *f, uint16_t id, uint16_t type, uint32_t len)
{
	uint16_t ended;
	int32_t result;

	while (mem_front_next(&f->front, &ended, &result))
		;
	mem_front_submit(&f->queue, id, type, 0, 65536, len);
	return &f->queue.tags[id];
}

/* The send operation takes the tag, which is first in the FIFO. */
static void start_sending(struct fixture *f, struct gk_tag *tag)
{
	struct gk_session *session = &f->queue.sessions[0];

	assert_ptr_equal(session->fifo, tag);
	assert_int_equal(tag->state, GK_TAG_QUEUED);
	session->fifo = tag->next;
	if (!session->fifo)
		session->fifo_tail = &session->fifo;
	tag->state = GK_TAG_SENDING;
}

static void send_whole(struct fixture *f, struct gk_tag *tag)
{
	start_sending(f, tag);
	gk_tag_sent(&f->queue, tag);
	assert_int_equal(tag->state, GK_TAG_SENT);
}

static void parts_cover_the_request_in_order(void **state)
{
	static const struct {
		uint16_t type;
		uint32_t len;
		uint32_t max;
		uint32_t parts;
		uint32_t last;
	} cases[] = {
		{NBD_CMD_READ, 1, 4096, 1, 1},
		{NBD_CMD_READ, 4096, 4096, 1, 4096},
		{NBD_CMD_READ, 4097, 4096, 2, 1},
		{NBD_CMD_WRITE, 524288, 65536, 8, 65536},
		{NBD_CMD_WRITE, 524288, 3 * 512, 342, 512},
		{NBD_CMD_READ, 524288, UINT32_MAX, 1, 524288},
		{NBD_CMD_TRIM, 1U << 30, 4096, 1, 1U << 30},
		{NBD_CMD_WRITE_ZEROES, 1U << 26, 512, 1, 1U << 26},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct gk_tag tag = {.type = cases[i].type, .len = cases[i].len};
		uint32_t parts = 0;

		while (tag.done < tag.len) {
			gk_tag_next_part(&tag, cases[i].max);
			assert_true(tag.part > 0 && tag.done + tag.part <= tag.len);
			tag.done += tag.part;
			parts++;
		}
		assert_int_equal(parts, cases[i].parts);
		assert_int_equal(tag.part, cases[i].last);
		assert_int_equal(tag.generation, cases[i].parts);
	}
}

static void flush_is_one_part_of_nothing(void **state)
{
	struct gk_tag tag = {.type = NBD_CMD_FLUSH, .part = 77};

	(void)state;
	gk_tag_next_part(&tag, 4096);
	assert_int_equal(tag.part, 0);
	assert_int_equal(tag.generation, 1);
}

static void a_part_starts_without_a_past(void **state)
{
	struct gk_tag tag = {
		.type = NBD_CMD_READ,
		.len = 8192,
		.done = 4096,
		.filled = 4096,
		.error = -EIO,
		.error_chunks = 32,
		.answered = true,
	};

	(void)state;
	gk_tag_next_part(&tag, 4096);
	assert_int_equal(tag.filled, 0);
	assert_int_equal(tag.error, 0);
	assert_int_equal(tag.error_chunks, 0);
	assert_false(tag.answered);
	assert_int_equal(tag.done, 4096);
}

static void the_generation_wraps_and_still_differs(void **state)
{
	struct gk_tag tag = {.type = NBD_CMD_FLUSH, .generation = UINT32_MAX - 1, .id = 9};
	uint64_t before;
	uint16_t id;
	uint32_t generation;

	(void)state;
	gk_tag_next_part(&tag, 4096);
	before = gk_nbd_cookie(tag.id, tag.generation);
	gk_tag_next_part(&tag, 4096);
	assert_int_equal(tag.generation, 0);
	assert_true(gk_nbd_cookie(tag.id, tag.generation) != before);
	assert_int_equal(gk_nbd_cookie_split(before, &id, &generation), 0);
	assert_int_equal(id, 9);
	assert_int_equal(generation, UINT32_MAX);
}

static void every_request_of_a_tag_has_a_new_generation(void **state)
{
	struct fixture *f = *state;
	uint32_t last = f->queue.tags[2].generation;

	for (unsigned int i = 0; i < 5; i++) {
		struct gk_tag *tag = begin(f, 2, NBD_CMD_FLUSH, 0);

		assert_int_equal(tag->generation, last + 1);
		last = tag->generation;
		send_whole(f, tag);
		gk_tag_answer(&f->queue, tag, 0);
		assert_false(f->front.slots[2].busy);
	}
}

static void requests_are_numbered_as_they_enter(void **state)
{
	struct fixture *f = *state;
	static const uint16_t order[] = {3, 0, 2, 1};

	for (unsigned int i = 1; i < 4; i++) {
		begin(f, order[i - 1], NBD_CMD_FLUSH, 0);
		begin(f, order[i], NBD_CMD_FLUSH, 0);
		assert_int_equal(f->queue.tags[order[i]].sequence,
				 f->queue.tags[order[i - 1]].sequence + 1);
		for (unsigned int j = i - 1; j <= i; j++) {
			send_whole(f, &f->queue.tags[order[j]]);
			gk_tag_answer(&f->queue, &f->queue.tags[order[j]], 0);
		}
	}
}

static void an_answer_after_the_send_ends_the_request(void **state)
{
	struct fixture *f = *state;
	struct gk_tag *tag = begin(f, 1, NBD_CMD_WRITE, 512);

	send_whole(f, tag);
	assert_true(f->front.slots[1].busy);
	assert_int_equal(f->queue.sessions[0].in_flight, 1);
	gk_tag_answer(&f->queue, tag, 0);
	assert_int_equal(f->front.slots[1].result, 512);
	assert_int_equal(tag->state, GK_TAG_IDLE);
	assert_null(tag->session);
	assert_int_equal(f->queue.sessions[0].in_flight, 0);
	assert_int_equal(f->queue.counters.bytes_written, 512);
	assert_int_equal(f->queue.counters.errors, 0);
}

static void an_answer_during_the_send_waits_for_its_end(void **state)
{
	struct fixture *f = *state;
	static const int errors[] = {0, -ENOSPC};

	for (unsigned int i = 0; i < 2; i++) {
		struct gk_tag *tag = begin(f, 1, NBD_CMD_WRITE, 512);

		start_sending(f, tag);
		gk_tag_answer(&f->queue, tag, errors[i]);
		assert_true(f->front.slots[1].busy);
		assert_int_equal(tag->state, GK_TAG_SENDING);
		assert_int_equal(f->queue.sessions[0].in_flight, 0);
		gk_tag_sent(&f->queue, tag);
		assert_false(f->front.slots[1].busy);
		assert_int_equal(f->front.slots[1].result, errors[i] ? errors[i] : 512);
		assert_int_equal(tag->state, GK_TAG_IDLE);
	}
	assert_int_equal(f->queue.counters.errors, 1);
}

static void the_answer_to_a_part_puts_the_next_one_in_the_queue(void **state)
{
	struct fixture *f = *state;
	struct gk_tag *tag = begin(f, 0, NBD_CMD_READ, 2 * MAX + 512);

	for (uint32_t part = 0; part < 3; part++) {
		assert_int_equal(tag->done, part * MAX);
		assert_int_equal(tag->part, part < 2 ? MAX : 512);
		send_whole(f, tag);
		gk_tag_answer(&f->queue, tag, 0);
	}
	assert_int_equal(f->front.slots[0].result, 2 * MAX + 512);
	assert_int_equal(f->front.slots[0].commits, 1);
	assert_int_equal(f->queue.counters.requests[GK_OP_READ], 1);
}

/* Also when it is answered while it is still being sent. */
static void an_early_answer_to_a_part_puts_the_next_one_in_the_queue(void **state)
{
	struct fixture *f = *state;
	struct gk_tag *tag = begin(f, 0, NBD_CMD_WRITE, 2 * MAX);

	start_sending(f, tag);
	gk_tag_answer(&f->queue, tag, 0);
	gk_tag_sent(&f->queue, tag);
	assert_true(f->front.slots[0].busy);
	assert_int_equal(tag->done, MAX);
	send_whole(f, tag);
	gk_tag_answer(&f->queue, tag, 0);
	assert_int_equal(f->front.slots[0].result, 2 * MAX);
}

static void a_failed_part_fails_the_whole_without_a_short_count(void **state)
{
	struct fixture *f = *state;
	struct gk_tag *tag = begin(f, 0, NBD_CMD_WRITE, 3 * MAX);

	send_whole(f, tag);
	gk_tag_answer(&f->queue, tag, 0);
	send_whole(f, tag);
	gk_tag_answer(&f->queue, tag, -ENOSPC);
	assert_int_equal(f->front.slots[0].result, -ENOSPC);
	assert_int_equal(tag->state, GK_TAG_IDLE);
	assert_null(f->queue.sessions[0].fifo);
	/* And the slot's next request begins at its beginning. */
	tag = begin(f, 0, NBD_CMD_WRITE, MAX);
	assert_int_equal(tag->done, 0);
	send_whole(f, tag);
	gk_tag_answer(&f->queue, tag, 0);
	assert_int_equal(f->front.slots[0].result, MAX);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parts_cover_the_request_in_order),
		cmocka_unit_test(flush_is_one_part_of_nothing),
		cmocka_unit_test(a_part_starts_without_a_past),
		cmocka_unit_test(the_generation_wraps_and_still_differs),
		TEST(every_request_of_a_tag_has_a_new_generation),
		TEST(requests_are_numbered_as_they_enter),
		TEST(an_answer_after_the_send_ends_the_request),
		TEST(an_answer_during_the_send_waits_for_its_end),
		TEST(the_answer_to_a_part_puts_the_next_one_in_the_queue),
		TEST(an_early_answer_to_a_part_puts_the_next_one_in_the_queue),
		TEST(a_failed_part_fails_the_whole_without_a_short_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
