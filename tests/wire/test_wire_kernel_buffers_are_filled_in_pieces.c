// SPDX-License-Identifier: MIT
/*
 * Payload received into the requests' own pages: cut by the kernel at every byte, stopped and ended
 * by the server at every byte, partly in staging already, in chunks and holes.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "fake_kernel.h"

#define THRESHOLD 64
#define HEADER	  sizeof(struct nbd_simple_reply)

static const struct gk_path *const paths[] = {&mem_path_single, &mem_path_paired};

static const uint32_t lengths[] = {100, 64, 90};

#define N_READS	      3
#define PAYLOAD_BYTES (100 + 64 + 90)

/* i: which of the four ways in which payload reaches the pages. */
static void begin(struct fake_kernel *kernel, unsigned int i, bool structured)
{
	fake_kernel_begin(kernel, &(struct rig_options){
					  .path = paths[i / 2],
					  .no_wait_all = i % 2,
					  .threshold_bytes = THRESHOLD,
					  .max_io_bytes = 8192,
					  .structured = structured,
				  });
}

static void submit_read(struct fake_kernel *kernel, uint16_t tag, uint64_t offset, uint32_t len)
{
	memset(mem_front_data(&kernel->rig.queue, tag), 0x5a, 8192);
	mem_front_submit(&kernel->rig.queue, tag, NBD_CMD_READ, 0, offset, len);
}

/* These bytes and none around them. */
static void check_read(struct fake_kernel *kernel, uint16_t tag, uint64_t offset, uint32_t len)
{
	const uint8_t *data = mem_front_data(&kernel->rig.queue, tag);
	uint8_t expected[8192];
	uint32_t touched = 0;

	rig_pattern(expected, offset, len, 1);
	assert_int_equal(kernel->rig.front.slots[tag].result, len);
	assert_memory_equal(data, expected, len);
	for (uint32_t i = len; i < 8192; i++)
		touched += data[i] != 0x5a;
	assert_int_equal(touched, 0);
}

static void put_read_reply(struct fake_bytes *replies, const struct fake_request *request)
{
	uint8_t content[8192];

	rig_pattern(content, request->offset, request->length, 1);
	fake_put_simple(replies, request->cookie, 0);
	fake_put(replies, content, request->length);
}

/* Three READs, answered at once. */
static void round_trip(struct fake_kernel *kernel)
{
	struct fake_bytes replies = {0};

	for (uint16_t t = 0; t < N_READS; t++)
		submit_read(kernel, t, t * 1000, lengths[t]);
	for (uint16_t t = 0; t < N_READS; t++) {
		struct fake_request request = fake_kernel_take(kernel);

		put_read_reply(&replies, &request);
	}
	rig_say(&kernel->rig, 0, &replies);
	fake_bytes_done(&replies);
	fake_kernel_run(kernel);
	for (uint16_t t = 0; t < N_READS; t++)
		check_read(kernel, t, t * 1000, lengths[t]);
}

/* Payload and the header of the next reply come in one operation, and nothing through staging. */
static void the_next_header_is_linked_behind_the_payload(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;
		bool linked = i % 2 == 0;

		begin(&kernel, i, false);
		round_trip(&kernel);
		assert_int_equal(kernel.rig.queue.counters.direct_receives, N_READS);
		assert_int_equal(kernel.rig.queue.counters.receives,
				 linked ? 1 + N_READS : 2 * N_READS);
		assert_int_equal(kernel.rig.queue.counters.bytes_direct, PAYLOAD_BYTES);
		assert_int_equal(kernel.rig.queue.counters.staged_bytes, 0);
		assert_int_equal(kernel.rig.queue.counters.partial_receives, 0);
		rig_end(&kernel.rig);
	}
}

static void a_receive_cut_at_every_byte_goes_on_there(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;

		begin(&kernel, i, false);
		for (size_t at = 0; at < PAYLOAD_BYTES; at++) {
			bool between = at == 0 || at == 100 || at == 164;
			uint64_t before = kernel.rig.queue.counters.partial_receives;

			kernel.cuts = 0;
			kernel.cut_payload = at;
			round_trip(&kernel);
			assert_int_equal(kernel.cuts, !between);
			assert_int_equal(kernel.rig.queue.counters.partial_receives - before,
					 !between);
		}
		assert_int_equal(kernel.interrupted, 3);
		assert_int_equal(kernel.rig.queue.counters.staged_bytes, 0);
		assert_int_equal(kernel.rig.queue.counters.bytes_direct,
				 PAYLOAD_BYTES * PAYLOAD_BYTES);
		rig_end(&kernel.rig);
	}
}

static void a_receive_is_cut_again_and_again(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;

		begin(&kernel, i, false);
		for (size_t every = 1; every < 70; every += every < 8 ? 1 : 11) {
			kernel.cuts = 0;
			kernel.cut_payload = kernel.cut_payload_again = every;
			round_trip(&kernel);
			assert_true(kernel.cuts >= PAYLOAD_BYTES / every / 2);
		}
		rig_end(&kernel.rig);
	}
}

/* The socket holds nothing more: what the server has said is in the request's pages or staged. */
static void assert_all_taken(const struct fake_kernel *kernel)
{
	int left = -1;

	assert_int_equal(ioctl(kernel->rig.queue.sessions[0].fd, FIONREAD, &left), 0);
	assert_int_equal(left, 0);
}

/* The server stops for a while behind every byte of three replies. */
static void the_server_pauses_at_every_byte(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;

		begin(&kernel, i, false);
		for (size_t at = 1; at < N_READS * HEADER + PAYLOAD_BYTES; at++) {
			struct fake_bytes replies = {0};

			for (uint16_t t = 0; t < N_READS; t++)
				submit_read(&kernel, t, t * 1000, lengths[t]);
			for (uint16_t t = 0; t < N_READS; t++) {
				struct fake_request request = fake_kernel_take(&kernel);

				put_read_reply(&replies, &request);
			}
			assert_true(fake_send(kernel.rig.peer[0], replies.p, at, 0));
			fake_kernel_settle(&kernel);
			assert_all_taken(&kernel);
			assert_true(
				fake_send(kernel.rig.peer[0], replies.p + at, replies.n - at, 0));
			fake_kernel_run(&kernel);
			for (uint16_t t = 0; t < N_READS; t++)
				check_read(&kernel, t, t * 1000, lengths[t]);
			fake_bytes_done(&replies);
		}
		assert_int_equal(kernel.rig.queue.counters.staged_bytes, 0);
		/* Without MSG_WAITALL each pause inside a payload is a partial receive. */
		assert_int_equal(kernel.rig.queue.counters.partial_receives,
				 i % 2 ? PAYLOAD_BYTES - N_READS : 0);
		rig_end(&kernel.rig);
	}
}

/*
 * With a small READ in flight more than a header is taken into staging, and so what the server has
 * sent of the payload by then is. The rest of it passes staging by.
 */
static void payload_that_is_staged_already_is_copied_and_the_rest_is_not(void **state)
{
	enum { LEN = 300, SMALL = 10 };

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;

		begin(&kernel, i, false);
		for (size_t at = 0; at <= LEN; at++) {
			struct gk_counters before = kernel.rig.queue.counters;
			struct fake_bytes reply = {0};
			struct fake_bytes small = {0};
			struct fake_request request;

			submit_read(&kernel, 0, 5000, LEN);
			submit_read(&kernel, 1, 9000, SMALL);
			request = fake_kernel_take(&kernel);
			put_read_reply(&reply, &request);
			request = fake_kernel_take(&kernel);
			put_read_reply(&small, &request);
			assert_true(fake_send(kernel.rig.peer[0], reply.p, HEADER + at, 0));
			fake_kernel_settle(&kernel);
			assert_int_equal(
				kernel.rig.queue.counters.staged_bytes - before.staged_bytes, at);
			assert_true(
				fake_send(kernel.rig.peer[0], reply.p + HEADER + at, LEN - at, 0));
			fake_kernel_settle(&kernel);
			rig_say(&kernel.rig, 0, &small);
			fake_kernel_run(&kernel);
			check_read(&kernel, 0, 5000, LEN);
			check_read(&kernel, 1, 9000, SMALL);
			assert_int_equal(kernel.rig.queue.counters.staged_bytes -
						 before.staged_bytes,
					 at + SMALL);
			assert_int_equal(kernel.rig.queue.counters.bytes_direct -
						 before.bytes_direct,
					 LEN - at);
			fake_bytes_done(&reply);
			fake_bytes_done(&small);
		}
		rig_end(&kernel.rig);
	}
}

/* The connection is lost: each of the READs has ended once more, and failed. */
static void check_lost(struct fake_kernel *kernel, unsigned int commits)
{
	fake_kernel_run(kernel);
	rig_wait_dead(&kernel->rig, 0);
	for (uint16_t t = 0; t < N_READS; t++) {
		assert_int_equal(kernel->rig.front.slots[t].result, -EIO);
		assert_int_equal(kernel->rig.front.slots[t].commits, commits);
	}
}

static void the_server_closes_at_every_byte_of_a_payload(void **state)
{
	(void)state;
	rig_quiet();
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;

		begin(&kernel, i, false);
		for (unsigned int at = 0; at < lengths[0]; at++) {
			struct fake_bytes reply = {0};
			struct fake_request request;

			for (uint16_t t = 0; t < N_READS; t++)
				submit_read(&kernel, t, t * 1000, lengths[t]);
			request = fake_kernel_take(&kernel);
			put_read_reply(&reply, &request);
			assert_true(fake_send(kernel.rig.peer[0], reply.p, HEADER + at, 0));
			/* Also while the payload's receive has not begun, half of the times. */
			if (at % 2)
				fake_kernel_settle(&kernel);
			rig_close_peer(&kernel.rig, 0);
			check_lost(&kernel, at + 1);
			fake_bytes_done(&reply);
			rig_connect(&kernel.rig, 0);
		}
		rig_end(&kernel.rig);
	}
}

static void the_server_resets_in_the_middle_of_a_payload(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct linger linger = {.l_onoff = 1};
		struct fake_kernel kernel;
		struct fake_bytes reply = {0};
		struct fake_request request;

		begin(&kernel, i, false);
		fake_kernel_connect_tcp(&kernel, false);
		for (uint16_t t = 0; t < N_READS; t++)
			submit_read(&kernel, t, t * 1000, lengths[t]);
		request = fake_kernel_take(&kernel);
		put_read_reply(&reply, &request);
		assert_true(fake_send(kernel.rig.peer[0], reply.p, HEADER + 50, 0));
		fake_kernel_settle(&kernel);
		assert_int_equal(setsockopt(kernel.rig.peer[0], SOL_SOCKET, SO_LINGER, &linger,
					    sizeof(linger)),
				 0);
		rig_close_peer(&kernel.rig, 0);
		check_lost(&kernel, 1);
		fake_bytes_done(&reply);
		rig_end(&kernel.rig);
	}
}

/* A payload whose receive fails outright takes the connection with it, once. */
static void a_receive_that_fails_ends_the_connection(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;
		struct fake_bytes reply = {0};
		struct fake_request request;

		begin(&kernel, i, false);
		kernel.fail_transfer = 1;
		kernel.fail_error = -ECONNRESET;
		for (uint16_t t = 0; t < N_READS; t++)
			submit_read(&kernel, t, t * 1000, lengths[t]);
		request = fake_kernel_take(&kernel);
		put_read_reply(&reply, &request);
		rig_say(&kernel.rig, 0, &reply);
		check_lost(&kernel, 1);
		assert_int_equal(kernel.rig.queue.counters.fallbacks, 0);
		fake_bytes_done(&reply);
		rig_end(&kernel.rig);
	}
}

/* Out of order, with a pause behind every byte: chunks into the pages, holes as zeroes. */
static void chunks_and_holes_find_their_places(void **state)
{
	enum { OFFSET = 4096, LEN = 400, HOLE = 130, HOLE_LEN = 70 };

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;
		size_t bytes = 1;

		begin(&kernel, i, true);
		for (size_t at = 1; at <= bytes; at++) {
			struct fake_bytes reply = {0};
			struct fake_request request;
			uint8_t expected[LEN];

			rig_pattern(expected, OFFSET, LEN, 1);
			memset(expected + HOLE, 0, HOLE_LEN);
			submit_read(&kernel, 0, OFFSET, LEN);
			request = fake_kernel_take(&kernel);
			fake_put_data(&reply, 0, request.cookie, OFFSET + 200, expected + 200, 200);
			fake_put_hole(&reply, 0, request.cookie, OFFSET + HOLE, HOLE_LEN);
			fake_put_data(&reply, NBD_REPLY_FLAG_DONE, request.cookie, OFFSET, expected,
				      HOLE);
			bytes = reply.n;
			assert_true(fake_send(kernel.rig.peer[0], reply.p, at, 0));
			fake_kernel_settle(&kernel);
			assert_true(fake_send(kernel.rig.peer[0], reply.p + at, reply.n - at, 0));
			fake_kernel_run(&kernel);
			assert_int_equal(kernel.rig.front.slots[0].result, LEN);
			assert_memory_equal(mem_front_data(&kernel.rig.queue, 0), expected, LEN);
			assert_int_equal(mem_front_data(&kernel.rig.queue, 0)[LEN], 0x5a);
			fake_bytes_done(&reply);
		}
		assert_int_equal(kernel.rig.queue.counters.errors, 0);
		assert_true(kernel.rig.queue.counters.bytes_direct > 100 * LEN);
		rig_end(&kernel.rig);
	}
}

/* Parts above the server's maximum: each is received at its own place, cut every few bytes. */
static void parts_of_a_read_are_cut(void **state)
{
	enum { LEN = 300, PART = 48 };

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;

		fake_kernel_begin(&kernel, &(struct rig_options){.path = paths[i / 2],
								 .no_wait_all = i % 2,
								 .max_payload = PART,
								 .max_io_bytes = 8192,
								 .threshold_bytes = THRESHOLD});
		kernel.cut_payload = kernel.cut_payload_again = 7;
		submit_read(&kernel, 2, 4096, LEN);
		for (uint32_t done = 0; done < LEN; done += PART) {
			struct fake_request request = fake_kernel_take(&kernel);
			struct fake_bytes reply = {0};

			assert_int_equal(request.offset, 4096 + done);
			assert_int_equal(request.length, LEN - done < PART ? LEN - done : PART);
			put_read_reply(&reply, &request);
			rig_say(&kernel.rig, 0, &reply);
			fake_bytes_done(&reply);
		}
		fake_kernel_run(&kernel);
		check_read(&kernel, 2, 4096, LEN);
		assert_int_equal(kernel.rig.queue.counters.bytes_direct, LEN);
		assert_true(kernel.rig.queue.counters.partial_receives > LEN / 7 / 2);
		rig_end(&kernel.rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_next_header_is_linked_behind_the_payload),
		cmocka_unit_test(a_receive_cut_at_every_byte_goes_on_there),
		cmocka_unit_test(a_receive_is_cut_again_and_again),
		cmocka_unit_test(the_server_pauses_at_every_byte),
		cmocka_unit_test(payload_that_is_staged_already_is_copied_and_the_rest_is_not),
		cmocka_unit_test(a_receive_that_fails_ends_the_connection),
		cmocka_unit_test(the_server_resets_in_the_middle_of_a_payload),
		cmocka_unit_test(the_server_closes_at_every_byte_of_a_payload),
		cmocka_unit_test(chunks_and_holes_find_their_places),
		cmocka_unit_test(parts_of_a_read_are_cut),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
