// SPDX-License-Identifier: MIT
/* A good server with awkward habits: whatever it does, the disk is what the model says. */
#include "disk_model.h"

static void in_order_and_whole(void **state)
{
	struct gk_counters counters;

	(void)state;
	counters = disk_model_serve(&(struct rig_options){0}, &(struct fake_disk_options){0}, 600);
	/* What gathered left together, and what came together was taken together. */
	assert_true(counters.sends < 600);
	assert_true(counters.requests[GK_OP_READ] > 100 && counters.requests[GK_OP_WRITE] > 100);
	assert_true(counters.requests[GK_OP_TRIM] > 20 && counters.requests[GK_OP_FLUSH] > 20);
	assert_true(counters.requests[GK_OP_WRITE_ZEROES] > 20);
}

static void in_random_order(void **state)
{
	(void)state;
	disk_model_serve(&(struct rig_options){0},
			 &(struct fake_disk_options){.random_order = true}, 600);
}

static void in_random_chunks_with_holes(void **state)
{
	(void)state;
	disk_model_serve(&(struct rig_options){.structured = true},
			 &(struct fake_disk_options){.chunk_bytes = 5000, .random_order = true},
			 600);
}

static void in_one_chunk_as_df_demands(void **state)
{
	(void)state;
	disk_model_serve(&(struct rig_options){.structured = true, .df = true},
			 &(struct fake_disk_options){.chunk_bytes = 5000}, 600);
}

static void in_tiny_writes(void **state)
{
	(void)state;
	disk_model_serve(&(struct rig_options){0}, &(struct fake_disk_options){.piece = 97}, 200);
}

static void in_tiny_writes_of_chunks(void **state)
{
	(void)state;
	disk_model_serve(
		&(struct rig_options){.structured = true},
		&(struct fake_disk_options){.piece = 31, .chunk_bytes = 3000, .random_order = true},
		100);
}

/* A socket that takes a few KiB at a time: sends end early wherever they happen to. */
static void through_a_small_send_buffer(void **state)
{
	struct gk_counters counters;

	(void)state;
	counters = disk_model_serve(&(struct rig_options){.sndbuf_bytes = 1},
				    &(struct fake_disk_options){.random_order = true}, 600);
	assert_true(counters.partial_sends > 0);
}

static void through_a_small_send_buffer_in_random_chunks(void **state)
{
	struct gk_counters counters;

	(void)state;
	counters = disk_model_serve(
		&(struct rig_options){.sndbuf_bytes = 1, .structured = true},
		&(struct fake_disk_options){.random_order = true, .chunk_bytes = 4096}, 600);
	assert_true(counters.partial_sends > 0);
}

static void over_three_sessions(void **state)
{
	(void)state;
	disk_model_serve(&(struct rig_options){.sessions = 3, .sndbuf_bytes = 1},
			 &(struct fake_disk_options){.random_order = true}, 600);
}

/* Requests in parts: up to 22 of them, and other requests between them. */
static void with_a_small_maximum(void **state)
{
	(void)state;
	disk_model_serve(&(struct rig_options){.max_payload = 3072, .sessions = 2},
			 &(struct fake_disk_options){.random_order = true}, 600);
}

/* Requests on both sides of the size from which payload goes straight to its buffer. */
static void with_large_requests(void **state)
{
	(void)state;
	disk_model_serve(&(struct rig_options){.max_io_bytes = 96 * 1024},
			 &(struct fake_disk_options){.random_order = true}, 600);
}

/* With nothing but large READs in flight, no byte of payload is copied out of staging. */
static void large_reads_pass_staging_by(void **state)
{
	(void)state;
	for (unsigned int structured = 0; structured < 2; structured++) {
		struct disk_model *m =
			disk_model_begin(&(struct rig_options){.structured = structured},
					 &(struct fake_disk_options){0}, 0);

		for (uint16_t tag = 0; tag < 4; tag++)
			mem_front_submit(&m->rig.queue, tag, NBD_CMD_READ, 0, tag * 65536, 65536);
		rig_run(&m->rig);
		for (uint16_t tag = 0; tag < 4; tag++) {
			assert_int_equal(m->rig.front.slots[tag].result, 65536);
			assert_memory_equal(m->rig.queue.tags[tag].buf, m->bytes + tag * 65536,
					    65536);
		}
		assert_int_equal(disk_model_end(m).staged_bytes, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order_and_whole),
		cmocka_unit_test(in_random_order),
		cmocka_unit_test(in_random_chunks_with_holes),
		cmocka_unit_test(in_one_chunk_as_df_demands),
		cmocka_unit_test(in_tiny_writes),
		cmocka_unit_test(in_tiny_writes_of_chunks),
		cmocka_unit_test(through_a_small_send_buffer),
		cmocka_unit_test(through_a_small_send_buffer_in_random_chunks),
		cmocka_unit_test(over_three_sessions),
		cmocka_unit_test(with_a_small_maximum),
		cmocka_unit_test(with_large_requests),
		cmocka_unit_test(large_reads_pass_staging_by),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
