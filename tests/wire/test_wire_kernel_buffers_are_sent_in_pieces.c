// SPDX-License-Identifier: MIT
/*
 * Chains of headers and payloads from the requests' own pages that the kernel cuts: at every byte,
 * at every n-th byte, in payload that had to be copied. The server must see the same stream.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "fake_kernel.h"

/* From here on payload leaves through the request's own pages. */
#define THRESHOLD 64

static const struct gk_path *const paths[] = {&mem_path_single, &mem_path_paired};

/* As they are submitted, to the slot of their place. */
static const struct {
	uint16_t type;
	uint32_t len;
} requests[] = {
	{NBD_CMD_FLUSH, 0}, {NBD_CMD_WRITE, 40}, {NBD_CMD_WRITE, 100}, {NBD_CMD_WRITE, 64},
	{NBD_CMD_READ, 30}, {NBD_CMD_WRITE, 90}, {NBD_CMD_WRITE, 30},
};

#define N_REQUESTS   (sizeof(requests) / sizeof(requests[0]))
#define STREAM_BYTES (N_REQUESTS * sizeof(struct nbd_request) + 40 + 100 + 64 + 90 + 30)

/* Where the chain's elements end: what is gathered, a payload, what is gathered, ... */
static const size_t element_ends[] = {3 * 28 + 40,  3 * 28 + 140, 4 * 28 + 140, 4 * 28 + 204,
				      6 * 28 + 204, 6 * 28 + 294, 7 * 28 + 324};

static bool is_element_end(size_t bytes)
{
	for (size_t i = 0; i < sizeof(element_ends) / sizeof(element_ends[0]); i++)
		if (bytes == element_ends[i])
			return true;
	return !bytes;
}

static void submit_all(struct fake_kernel *kernel, unsigned int salt)
{
	for (uint16_t i = 0; i < N_REQUESTS; i++) {
		rig_pattern(mem_front_data(&kernel->rig.queue, i), i * 1024, requests[i].len,
			    salt + i);
		mem_front_submit(&kernel->rig.queue, i, requests[i].type, 0,
				 requests[i].len ? i * 1024 : 0, requests[i].len);
	}
}

/* Takes what all of them must have brought to the server, no byte more, and answers. */
static void serve_all(struct fake_kernel *kernel, unsigned int salt)
{
	struct fake_bytes replies = {0};
	uint8_t expected[128] = {0};
	uint8_t payload[128];

	for (uint16_t i = 0; i < N_REQUESTS; i++) {
		struct fake_request request = fake_kernel_take(kernel);

		assert_int_equal(request.type, requests[i].type);
		assert_int_equal(request.offset, requests[i].len ? i * 1024 : 0);
		assert_int_equal(request.length, requests[i].len);
		rig_pattern(expected, i * 1024, requests[i].len, salt + i);
		fake_put_simple(&replies, request.cookie, 0);
		if (request.type == NBD_CMD_READ)
			fake_put(&replies, expected, request.length);
		if (request.type != NBD_CMD_WRITE)
			continue;
		fake_kernel_take_bytes(kernel, payload, request.length);
		assert_memory_equal(payload, expected, request.length);
	}
	assert_int_equal(recv(kernel->rig.peer[0], payload, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	rig_say(&kernel->rig, 0, &replies);
	fake_bytes_done(&replies);
}

static void check_results(struct fake_kernel *kernel)
{
	for (uint16_t i = 0; i < N_REQUESTS; i++)
		assert_int_equal(kernel->rig.front.slots[i].result, requests[i].len);
	assert_int_equal(kernel->rig.queue.counters.errors, 0);
}

/* All requests once; returns the counters of this round alone where they are asked for. */
static void round_trip(struct fake_kernel *kernel, unsigned int salt)
{
	submit_all(kernel, salt);
	serve_all(kernel, salt);
	fake_kernel_run(kernel);
	check_results(kernel);
}

static void begin(struct fake_kernel *kernel, const struct gk_path *path, bool no_wait_all)
{
	fake_kernel_begin(kernel, &(struct rig_options){
					  .path = path,
					  .threshold_bytes = THRESHOLD,
					  .max_io_bytes = 8192,
					  .no_wait_all = no_wait_all,
				  });
}

static void uncut_it_is_one_chain(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_kernel kernel;

		begin(&kernel, paths[i], false);
		round_trip(&kernel, 0);
		assert_int_equal(kernel.rig.queue.counters.sends, 1);
		assert_int_equal(kernel.longest_chain, 7 + 3 * i);
		assert_int_equal(kernel.rig.queue.counters.direct_sends, 3);
		assert_int_equal(kernel.rig.queue.counters.bytes_direct, 100 + 64 + 90);
		assert_int_equal(kernel.rig.queue.counters.partial_sends, 0);
		rig_end(&kernel.rig);
	}
}

static void cut_at_every_byte(const struct gk_path *path, bool no_wait_all)
{
	struct fake_kernel kernel;

	assert_int_equal(element_ends[6], STREAM_BYTES);
	begin(&kernel, path, no_wait_all);
	for (size_t at = 0; at < STREAM_BYTES; at++) {
		uint64_t before = kernel.rig.queue.counters.partial_sends;
		bool between = is_element_end(at);

		kernel.cuts = 0;
		kernel.interrupted = 0;
		kernel.cut_send = at;
		round_trip(&kernel, (unsigned int)at);
		/* Between two elements nothing is partial: the second one has not begun. */
		assert_int_equal(kernel.cuts, !between);
		assert_int_equal(kernel.interrupted, between);
		assert_int_equal(kernel.rig.queue.counters.partial_sends - before, !between);
	}
	assert_int_equal(kernel.rig.queue.counters.fallbacks, 0);
	assert_int_equal(kernel.rig.queue.counters.bytes_direct, STREAM_BYTES * (100 + 64 + 90));
	rig_end(&kernel.rig);
}

static void a_chain_cut_at_every_byte_goes_on_there(void **state)
{
	(void)state;
	cut_at_every_byte(&mem_path_single, false);
	cut_at_every_byte(&mem_path_paired, false);
}

static void elements_sent_one_by_one_are_cut_at_every_byte(void **state)
{
	(void)state;
	cut_at_every_byte(&mem_path_single, true);
	cut_at_every_byte(&mem_path_paired, true);
}

static void a_chain_is_cut_again_and_again(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;

		begin(&kernel, paths[i / 2], i % 2);
		for (size_t every = 1; every < 130; every += every < 8 ? 1 : 13) {
			kernel.cuts = 0;
			kernel.cut_send = every;
			kernel.cut_send_again = every;
			round_trip(&kernel, (unsigned int)every);
			assert_true(kernel.cuts > STREAM_BYTES / every / 4);
		}
		rig_end(&kernel.rig);
	}
}

/* The pages of the n-th payload are not lent, and the copy of it is cut at every byte as well. */
static void payload_that_had_to_be_copied_is_cut_at_every_byte(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_kernel kernel;

		begin(&kernel, paths[i], false);
		for (size_t at = 0; at < STREAM_BYTES; at++) {
			kernel.cut_send = at;
			kernel.fail_transfer = 1 + at % 3;
			kernel.fail_error = -ENOMEM;
			kernel.fail_leader = true;
			round_trip(&kernel, (unsigned int)at);
		}
		assert_int_equal(kernel.rig.queue.counters.fallbacks, STREAM_BYTES);
		assert_true(kernel.rig.queue.counters.partial_sends >= STREAM_BYTES - 7);
		rig_end(&kernel.rig);
	}
}

/* A copy goes out in stretches of the session's bounce buffer; only what is cut is partial. */
static void a_long_copy_is_not_partial(void **state)
{
	static uint8_t payload[2 * GK_BOUNCE_BYTES + 512];
	static uint8_t expected[sizeof(payload)];

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_kernel kernel;
		struct fake_request request;
		struct fake_bytes reply = {0};

		fake_kernel_begin(&kernel, &(struct rig_options){.path = paths[i],
								 .threshold_bytes = THRESHOLD,
								 .max_io_bytes = sizeof(payload)});
		rig_pattern(expected, 0, sizeof(expected), 5);
		memcpy(mem_front_data(&kernel.rig.queue, 0), expected, sizeof(expected));
		kernel.fail_transfer = 1;
		kernel.fail_error = -EINVAL;
		mem_front_submit(&kernel.rig.queue, 0, NBD_CMD_WRITE, 0, 0, sizeof(payload));
		request = fake_kernel_take(&kernel);
		fake_kernel_take_bytes(&kernel, payload, sizeof(payload));
		assert_memory_equal(payload, expected, sizeof(payload));
		fake_put_simple(&reply, request.cookie, 0);
		rig_say(&kernel.rig, 0, &reply);
		fake_bytes_done(&reply);
		fake_kernel_run(&kernel);
		assert_int_equal(kernel.rig.front.slots[0].result, sizeof(payload));
		assert_int_equal(kernel.rig.queue.counters.fallbacks, 1);
		assert_int_equal(kernel.rig.queue.counters.bytes_direct, 0);
		assert_int_equal(kernel.rig.queue.counters.partial_sends, 0);
		rig_end(&kernel.rig);
	}
}

#define N_MANY 12

/* Twelve headers with their payloads are 24 elements: three chains of eight, in order. */
static void many_payloads_take_several_chains(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		for (size_t every = 50; every < 1000; every += 117) {
			struct fake_kernel kernel;
			struct fake_bytes replies = {0};
			uint8_t payload[THRESHOLD];
			uint8_t expected[THRESHOLD];

			fake_kernel_begin(&kernel,
					  &(struct rig_options){.path = paths[i],
								.depth = N_MANY,
								.max_io_bytes = 8192,
								.threshold_bytes = THRESHOLD});
			/* The last round is not cut. */
			if (every < 850)
				kernel.cut_send = kernel.cut_send_again = every;
			for (uint16_t t = 0; t < N_MANY; t++) {
				rig_pattern(mem_front_data(&kernel.rig.queue, t), t * THRESHOLD,
					    THRESHOLD, t);
				mem_front_submit(&kernel.rig.queue, t, NBD_CMD_WRITE, 0,
						 t * THRESHOLD, THRESHOLD);
			}
			for (uint16_t t = 0; t < N_MANY; t++) {
				struct fake_request request = fake_kernel_take(&kernel);

				assert_int_equal(request.offset, t * THRESHOLD);
				fake_kernel_take_bytes(&kernel, payload, THRESHOLD);
				rig_pattern(expected, t * THRESHOLD, THRESHOLD, t);
				assert_memory_equal(payload, expected, THRESHOLD);
				fake_put_simple(&replies, request.cookie, 0);
			}
			rig_say(&kernel.rig, 0, &replies);
			fake_bytes_done(&replies);
			fake_kernel_run(&kernel);
			assert_int_equal(kernel.rig.queue.counters.errors, 0);
			assert_true(kernel.longest_chain <= GK_CHAIN_SQES);
			if (every < 850)
				assert_true(kernel.cuts > 0);
			else
				assert_int_equal(kernel.rig.queue.counters.sends, 3);
			rig_end(&kernel.rig);
		}
	}
}

/* Four payloads and their headers fill a chain: not even a FLUSH has room in it. */
static void nothing_is_gathered_behind_a_full_chain(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_kernel kernel;
		struct fake_bytes replies = {0};

		begin(&kernel, paths[i], false);
		for (uint16_t t = 0; t < 4; t++) {
			rig_pattern(mem_front_data(&kernel.rig.queue, t), t * 512, THRESHOLD, 3);
			mem_front_submit(&kernel.rig.queue, t, NBD_CMD_WRITE, 0, t * 512,
					 THRESHOLD);
		}
		mem_front_submit(&kernel.rig.queue, 4, NBD_CMD_FLUSH, 0, 0, 0);
		for (uint16_t t = 0; t < 5; t++) {
			struct fake_request request = fake_kernel_take(&kernel);
			uint8_t payload[THRESHOLD];

			assert_int_equal(request.type, t < 4 ? NBD_CMD_WRITE : NBD_CMD_FLUSH);
			if (t < 4) {
				fake_kernel_take_bytes(&kernel, payload, THRESHOLD);
				assert_memory_equal(payload, mem_front_data(&kernel.rig.queue, t),
						    THRESHOLD);
			}
			fake_put_simple(&replies, request.cookie, 0);
		}
		assert_int_equal(kernel.rig.queue.counters.sends, 2);
		rig_say(&kernel.rig, 0, &replies);
		fake_bytes_done(&replies);
		fake_kernel_run(&kernel);
		assert_int_equal(kernel.rig.queue.counters.errors, 0);
		rig_end(&kernel.rig);
	}
}

/* Each part has its own header, and its payload begins where the part does. */
static void parts_of_a_request_are_cut(void **state)
{
	enum { LEN = 300, PART = 48 };

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;
		uint8_t payload[LEN];

		fake_kernel_begin(&kernel, &(struct rig_options){.path = paths[i / 2],
								 .max_payload = PART,
								 .max_io_bytes = 8192,
								 .threshold_bytes = THRESHOLD,
								 .no_wait_all = i % 2});
		kernel.cut_send = kernel.cut_send_again = 7;
		rig_pattern(mem_front_data(&kernel.rig.queue, 2), 0, LEN, i);
		mem_front_submit(&kernel.rig.queue, 2, NBD_CMD_WRITE, 0, 4096, LEN);
		for (uint32_t done = 0; done < LEN; done += PART) {
			uint32_t part = LEN - done < PART ? LEN - done : PART;
			struct fake_request request = fake_kernel_take(&kernel);
			struct fake_bytes reply = {0};

			assert_int_equal(request.offset, 4096 + done);
			assert_int_equal(request.length, part);
			fake_kernel_take_bytes(&kernel, payload + done, part);
			fake_put_simple(&reply, request.cookie, 0);
			rig_say(&kernel.rig, 0, &reply);
			fake_bytes_done(&reply);
		}
		fake_kernel_run(&kernel);
		assert_int_equal(kernel.rig.front.slots[2].result, LEN);
		assert_memory_equal(payload, mem_front_data(&kernel.rig.queue, 2), LEN);
		assert_int_equal(kernel.rig.queue.counters.bytes_direct, LEN);
		assert_true(kernel.rig.queue.counters.partial_sends > LEN / 7 / 2);
		rig_end(&kernel.rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uncut_it_is_one_chain),
		cmocka_unit_test(a_chain_cut_at_every_byte_goes_on_there),
		cmocka_unit_test(elements_sent_one_by_one_are_cut_at_every_byte),
		cmocka_unit_test(a_chain_is_cut_again_and_again),
		cmocka_unit_test(payload_that_had_to_be_copied_is_cut_at_every_byte),
		cmocka_unit_test(a_long_copy_is_not_partial),
		cmocka_unit_test(many_payloads_take_several_chains),
		cmocka_unit_test(nothing_is_gathered_behind_a_full_chain),
		cmocka_unit_test(parts_of_a_request_are_cut),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
