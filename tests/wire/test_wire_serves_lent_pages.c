// SPDX-License-Identifier: MIT
/*
 * The same server, and payload of 2 KiB and more through the requests' own pages as on the data
 * paths group and registered: headers, small payloads and large ones alternate in linked chains.
 */
#include "disk_model.h"

static void lent(const struct rig_options *rig, const struct fake_disk_options *options)
{
	static const struct gk_path *const paths[] = {&mem_path_single, &mem_path_paired};

	for (unsigned int i = 0; i < 2; i++) {
		struct rig_options with_path = *rig;
		uint64_t sends = 0;
		uint64_t receives = 0;
		uint64_t bytes = 0;

		with_path.path = paths[i];
		with_path.threshold_bytes = 2048;
		/*
		 * Payload that is there together with its header is copied: how much is received
		 * into lent pages depends on who is faster, so it is repeated until it was some.
		 */
		for (unsigned int round = 0; round < 50 && (sends <= 10 || receives <= 10); round++) {
			struct gk_counters counters = disk_model_serve(&with_path, options, 300);

			sends += counters.direct_sends;
			receives += counters.direct_receives;
			bytes += counters.bytes_direct;
			assert_int_equal(counters.fallbacks > 0, rig->lend_fails_every > 0);
		}
		assert_true(sends > 10);
		assert_true(receives > 10);
		assert_true(bytes > 10 * with_path.threshold_bytes);
	}
}

static void lent_pages(void **state)
{
	(void)state;
	lent(&(struct rig_options){0}, &(struct fake_disk_options){.random_order = true});
}

static void lent_pages_in_random_chunks(void **state)
{
	(void)state;
	lent(&(struct rig_options){.structured = true},
	     &(struct fake_disk_options){.random_order = true, .chunk_bytes = 9000});
}

static void lent_pages_in_tiny_writes(void **state)
{
	(void)state;
	lent(&(struct rig_options){.max_io_bytes = 16384},
	     &(struct fake_disk_options){.piece = 997});
}

static void lent_pages_through_a_small_send_buffer(void **state)
{
	(void)state;
	lent(&(struct rig_options){.sndbuf_bytes = 1, .sessions = 2},
	     &(struct fake_disk_options){.random_order = true});
}

static void lent_pages_with_a_small_maximum(void **state)
{
	(void)state;
	lent(&(struct rig_options){.max_payload = 7168, .structured = true},
	     &(struct fake_disk_options){.random_order = true, .chunk_bytes = 3000});
}

/* A kernel that does not repeat a short send: each element on its own, each resumed. */
static void lent_pages_without_wait_all(void **state)
{
	(void)state;
	lent(&(struct rig_options){.no_wait_all = true, .sndbuf_bytes = 1},
	     &(struct fake_disk_options){.random_order = true});
}

static void pages_that_are_sometimes_not_lent(void **state)
{
	(void)state;
	lent(&(struct rig_options){.lend_fails_every = 5, .sndbuf_bytes = 1},
	     &(struct fake_disk_options){.random_order = true});
}

static void pages_that_are_sometimes_not_lent_in_chunks(void **state)
{
	(void)state;
	lent(&(struct rig_options){.lend_fails_every = 3, .structured = true, .no_wait_all = true},
	     &(struct fake_disk_options){.random_order = true, .chunk_bytes = 9000});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lent_pages),
		cmocka_unit_test(lent_pages_in_random_chunks),
		cmocka_unit_test(lent_pages_in_tiny_writes),
		cmocka_unit_test(lent_pages_through_a_small_send_buffer),
		cmocka_unit_test(lent_pages_with_a_small_maximum),
		cmocka_unit_test(lent_pages_without_wait_all),
		cmocka_unit_test(pages_that_are_sometimes_not_lent),
		cmocka_unit_test(pages_that_are_sometimes_not_lent_in_chunks),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
