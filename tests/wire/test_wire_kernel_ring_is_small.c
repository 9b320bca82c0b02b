// SPDX-License-Identifier: MIT
/*
 * The ring has room for one chain only, where the loop would have room for all: it is full again
 * and again, of what is to be submitted and of what has completed, and no request gets lost.
 */
#include "disk_model.h"
#include "session.h"

int __real_io_uring_queue_init(unsigned int entries, struct io_uring *ring, unsigned int flags);
int __real_io_uring_submit(struct io_uring *ring);
int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned int wait_nr);
int __wrap_io_uring_queue_init(unsigned int entries, struct io_uring *ring, unsigned int flags);
int __wrap_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned int wait_nr);

static unsigned int submissions_full;
static unsigned int completions_full;

int __wrap_io_uring_queue_init(unsigned int entries, struct io_uring *ring, unsigned int flags)
{
	struct io_uring_params params = {
		.flags = flags | IORING_SETUP_CQSIZE,
		.cq_entries = GK_CHAIN_SQES,
	};

	(void)entries;
	return io_uring_queue_init_params(GK_CHAIN_SQES, ring, &params);
}

/* Only who finds the ring full submits without waiting. */
int __wrap_io_uring_submit(struct io_uring *ring)
{
	submissions_full++;
	return __real_io_uring_submit(ring);
}

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned int wait_nr)
{
	int r = __real_io_uring_submit_and_wait(ring, wait_nr);

	completions_full += io_uring_cq_has_overflow(ring);
	return r;
}

/* Rounds until the ring has been full often; what completes is only more than its room with chains.
 */
static void serve(const struct gk_path *path)
{
	struct rig_options options = {
		.sessions = 4,
		.path = path,
		.threshold_bytes = path ? 2048 : 0,
	};
	const struct fake_disk_options manners = {.random_order = true};
	bool enough = false;

	submissions_full = 0;
	completions_full = 0;
	for (unsigned int i = 0; i < 200 && !enough; i++) {
		assert_int_equal(disk_model_serve(&options, &manners, 600).errors, 0);
		enough = submissions_full > 100 && (!path || completions_full > 0);
	}
	print_message("found full: %u times before a chain, %u times behind a turn\n",
		      submissions_full, completions_full);
	assert_true(enough);
}

static void with_the_payload_in_our_buffers(void **state)
{
	(void)state;
	serve(NULL);
}

static void with_lent_pages(void **state)
{
	(void)state;
	serve(&mem_path_single);
	serve(&mem_path_paired);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(with_the_payload_in_our_buffers),
		cmocka_unit_test(with_lent_pages),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
