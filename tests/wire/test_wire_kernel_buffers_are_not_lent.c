// SPDX-License-Identifier: MIT
/*
 * The kernel cannot lend the pages of a request: its payload is copied, once, in its place in the
 * stream, and no other request notices. When it cannot be copied either, that request fails, and
 * the connection only if the server was promised bytes which are not there.
 */
#include <errno.h>
#include <string.h>

#include "fake_kernel.h"

#define THRESHOLD 1024
#define LEN	  1536
#define HEADER	  sizeof(struct nbd_request)
#define N	  4

static const int errors[] = {-ENOMEM, -EINVAL, -EFAULT, -EOPNOTSUPP};

#define N_ERRORS (sizeof(errors) / sizeof(errors[0]))

/* Lending fails as it does with registered buffers, in a group's member, and in its leader. */
static const struct {
	const struct gk_path *path;
	bool leader;
} ways[] = {{&mem_path_single, false}, {&mem_path_paired, false}, {&mem_path_paired, true}};

#define N_WAYS (sizeof(ways) / sizeof(ways[0]))

static void begin(struct fake_kernel *kernel, const struct gk_path *path, bool no_wait_all)
{
	fake_kernel_begin(kernel, &(struct rig_options){
					  .path = path,
					  .no_wait_all = no_wait_all,
					  .threshold_bytes = THRESHOLD,
					  .max_io_bytes = 8192,
				  });
}

/* The nth transfer from now on fails; 0: none. */
static void spoil(struct fake_kernel *kernel, unsigned int nth, int error, bool leader)
{
	kernel->fail_transfer = nth;
	kernel->fail_error = error;
	kernel->fail_leader = leader;
}

static void submit(struct fake_kernel *kernel, uint16_t tag, uint16_t type)
{
	uint8_t *data = mem_front_data(&kernel->rig.queue, tag);

	if (type == NBD_CMD_WRITE)
		rig_pattern(data, tag * 4096, LEN, 7);
	else
		memset(data, 0x5a, LEN);
	mem_front_submit(&kernel->rig.queue, tag, type, 0, tag * 4096, LEN);
}

/* Takes a request of this slot with its payload; adds the reply to it. */
static void serve(struct fake_kernel *kernel, uint16_t tag, struct fake_bytes *replies)
{
	struct fake_request request = fake_kernel_take(kernel);
	uint8_t expected[LEN];
	uint8_t payload[LEN];

	assert_int_equal(request.offset, tag * 4096);
	assert_int_equal(request.length, LEN);
	rig_pattern(expected, request.offset, LEN, 7);
	fake_put_simple(replies, request.cookie, 0);
	if (request.type == NBD_CMD_READ) {
		fake_put(replies, expected, LEN);
	} else {
		fake_kernel_take_bytes(kernel, payload, LEN);
		assert_memory_equal(payload, expected, LEN);
	}
}

static void check(struct fake_kernel *kernel, uint16_t tag)
{
	uint8_t expected[LEN];

	rig_pattern(expected, tag * 4096, LEN, 7);
	assert_int_equal(kernel->rig.front.slots[tag].result, LEN);
	assert_memory_equal(mem_front_data(&kernel->rig.queue, tag), expected, LEN);
}

static void round_trip(struct fake_kernel *kernel, uint16_t type)
{
	struct fake_bytes replies = {0};

	for (uint16_t t = 0; t < N; t++)
		submit(kernel, t, type);
	for (uint16_t t = 0; t < N; t++)
		serve(kernel, t, &replies);
	rig_say(&kernel->rig, 0, &replies);
	fake_bytes_done(&replies);
	fake_kernel_run(kernel);
	for (uint16_t t = 0; t < N; t++)
		check(kernel, t);
}

static void each_in_turn(uint16_t type, bool no_wait_all)
{
	for (unsigned int w = 0; w < N_WAYS; w++) {
		struct fake_kernel kernel;
		uint64_t fallbacks = 0;

		begin(&kernel, ways[w].path, no_wait_all);
		for (unsigned int e = 0; e < N_ERRORS; e++)
			for (unsigned int nth = 0; nth <= N; nth++) {
				uint64_t direct = kernel.rig.queue.counters.bytes_direct;

				spoil(&kernel, nth, errors[e], ways[w].leader);
				round_trip(&kernel, type);
				fallbacks += nth > 0;
				assert_int_equal(kernel.rig.queue.counters.fallbacks, fallbacks);
				assert_int_equal(kernel.rig.queue.counters.bytes_direct - direct,
						 (nth ? N - 1 : N) * LEN);
			}
		assert_int_equal(kernel.rig.queue.counters.errors, 0);
		assert_int_equal(kernel.rig.queue.counters.partial_sends, 0);
		assert_int_equal(kernel.rig.queue.counters.staged_bytes,
				 type == NBD_CMD_READ ? fallbacks * LEN : 0);
		rig_end(&kernel.rig);
	}
}

static void each_write_in_turn_is_copied(void **state)
{
	(void)state;
	each_in_turn(NBD_CMD_WRITE, false);
	each_in_turn(NBD_CMD_WRITE, true);
}

static void each_read_in_turn_is_copied(void **state)
{
	(void)state;
	each_in_turn(NBD_CMD_READ, false);
	each_in_turn(NBD_CMD_READ, true);
}

/* Lent at first, then cut, and not lent again for the rest. */
static void the_rest_of_a_payload_is_copied(void **state)
{
	static const uint16_t types[] = {NBD_CMD_WRITE, NBD_CMD_READ};

	(void)state;
	for (unsigned int w = 0; w < N_WAYS; w++)
		for (unsigned int i = 0; i < 2; i++) {
			struct fake_kernel kernel;

			begin(&kernel, ways[w].path, false);
			for (size_t at = 1; at < LEN; at += 97) {
				struct fake_bytes replies = {0};

				kernel.cut_send = types[i] == NBD_CMD_WRITE ? HEADER + at : NEVER;
				kernel.cut_payload = types[i] == NBD_CMD_READ ? at : NEVER;
				kernel.cuts = 0;
				spoil(&kernel, 2, -ENOMEM, ways[w].leader);
				submit(&kernel, 0, types[i]);
				serve(&kernel, 0, &replies);
				rig_say(&kernel.rig, 0, &replies);
				fake_bytes_done(&replies);
				fake_kernel_run(&kernel);
				check(&kernel, 0);
				assert_int_equal(kernel.cuts, 1);
			}
			assert_int_equal(kernel.rig.queue.counters.fallbacks, (LEN + 95) / 97);
			assert_true(kernel.rig.queue.counters.bytes_direct > 0);
			rig_end(&kernel.rig);
		}
}

/*
 * The kernel has no memory for an SQE in the middle of a chain: it refuses that one when it is
 * submitted, and cancels all of the chain, the part before it included.
 */
static void a_chain_that_is_refused_costs_a_copy(void **state)
{
	(void)state;
	for (unsigned int w = 0; w < N_WAYS; w++) {
		struct fake_kernel kernel;

		begin(&kernel, ways[w].path, false);
		kernel.refuse = true;
		for (unsigned int nth = 1; nth <= N; nth++) {
			spoil(&kernel, nth, -ENOMEM, ways[w].leader);
			round_trip(&kernel, NBD_CMD_WRITE);
			assert_int_equal(kernel.rig.queue.counters.fallbacks, nth);
			assert_int_equal(kernel.rig.queue.counters.bytes_direct,
					 nth * (N - 1) * LEN);
		}
		assert_int_equal(kernel.rig.queue.counters.errors, 0);
		rig_end(&kernel.rig);
	}
}

/* Cancelled as a whole, for no reason that could be done something about: not tried for ever. */
static void a_chain_that_is_cancelled_as_a_whole_ends_the_connection(void **state)
{
	(void)state;
	rig_quiet();
	for (unsigned int w = 0; w < N_WAYS; w++) {
		struct fake_kernel kernel;

		begin(&kernel, ways[w].path, false);
		kernel.refuse = true;
		spoil(&kernel, 2, -ECANCELED, ways[w].leader);
		for (uint16_t t = 0; t < N; t++)
			submit(&kernel, t, NBD_CMD_WRITE);
		fake_kernel_run(&kernel);
		for (uint16_t t = 0; t < N; t++)
			assert_int_equal(kernel.rig.front.slots[t].result, -EIO);
		assert_int_equal(kernel.rig.queue.counters.fallbacks, 0);
		rig_end(&kernel.rig);
	}
}

static int no_copy_in(struct gk_queue *queue, const struct gk_tag *tag, void *to, uint32_t offset,
		      uint32_t len)
{
	(void)queue;
	(void)tag;
	(void)to;
	(void)offset;
	(void)len;
	return -ENOMEM;
}

static int no_copy_out(struct gk_queue *queue, const struct gk_tag *tag, const void *from,
		       uint32_t offset, uint32_t len)
{
	(void)queue;
	(void)tag;
	(void)from;
	(void)offset;
	(void)len;
	return -ENOMEM;
}

/* Its header is on the wire, and nothing else may follow it there. */
static void a_write_that_cannot_be_copied_costs_the_connection(void **state)
{
	(void)state;
	rig_quiet();
	for (unsigned int w = 0; w < N_WAYS; w++)
		for (unsigned int nth = 1; nth <= N; nth++) {
			struct gk_path path = *ways[w].path;
			struct fake_kernel kernel;

			path.copy_in = no_copy_in;
			begin(&kernel, &path, false);
			spoil(&kernel, nth, -EINVAL, ways[w].leader);
			for (uint16_t t = 0; t < N; t++)
				submit(&kernel, t, NBD_CMD_WRITE);
			fake_kernel_run(&kernel);
			rig_wait_dead(&kernel.rig, 0);
			for (uint16_t t = 0; t < N; t++) {
				assert_int_equal(kernel.rig.front.slots[t].result, -EIO);
				assert_int_equal(kernel.rig.front.slots[t].commits, 1);
			}
			rig_end(&kernel.rig);
		}
}

/* Its payload is thrown away, and the replies behind it are found. */
static void a_read_that_cannot_be_copied_fails_alone(void **state)
{
	(void)state;
	rig_quiet();
	for (unsigned int w = 0; w < N_WAYS; w++)
		for (unsigned int nth = 1; nth <= N; nth++) {
			struct gk_path path = *ways[w].path;
			struct fake_bytes replies = {0};
			struct fake_kernel kernel;

			path.copy_out = no_copy_out;
			begin(&kernel, &path, false);
			spoil(&kernel, nth, -EINVAL, ways[w].leader);
			for (uint16_t t = 0; t < N; t++)
				submit(&kernel, t, NBD_CMD_READ);
			for (uint16_t t = 0; t < N; t++)
				serve(&kernel, t, &replies);
			rig_say(&kernel.rig, 0, &replies);
			fake_bytes_done(&replies);
			fake_kernel_run(&kernel);
			for (uint16_t t = 0; t < N; t++)
				if (t + 1U != nth)
					check(&kernel, t);
				else
					assert_int_equal(kernel.rig.front.slots[t].result, -ENOMEM);
			assert_int_equal(kernel.rig.queue.counters.errors, 1);
			path.copy_out = ways[w].path->copy_out;
			round_trip(&kernel, NBD_CMD_READ);
			rig_end(&kernel.rig);
		}
}

/* For the next request of the slot the kernel is asked again. */
static void the_next_request_is_lent_its_pages_again(void **state)
{
	(void)state;
	for (unsigned int w = 0; w < N_WAYS; w++) {
		struct fake_kernel kernel;

		begin(&kernel, ways[w].path, false);
		spoil(&kernel, 1, -ENOMEM, ways[w].leader);
		round_trip(&kernel, NBD_CMD_WRITE);
		assert_int_equal(kernel.rig.queue.counters.bytes_direct, (N - 1) * LEN);
		round_trip(&kernel, NBD_CMD_WRITE);
		assert_int_equal(kernel.rig.queue.counters.bytes_direct, (2 * N - 1) * LEN);
		assert_int_equal(kernel.rig.queue.counters.fallbacks, 1);
		rig_end(&kernel.rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_write_in_turn_is_copied),
		cmocka_unit_test(each_read_in_turn_is_copied),
		cmocka_unit_test(the_rest_of_a_payload_is_copied),
		cmocka_unit_test(a_chain_that_is_refused_costs_a_copy),
		cmocka_unit_test(a_chain_that_is_cancelled_as_a_whole_ends_the_connection),
		cmocka_unit_test(a_write_that_cannot_be_copied_costs_the_connection),
		cmocka_unit_test(a_read_that_cannot_be_copied_fails_alone),
		cmocka_unit_test(the_next_request_is_lent_its_pages_again),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
