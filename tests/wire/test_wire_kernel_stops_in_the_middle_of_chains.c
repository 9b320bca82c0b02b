// SPDX-License-Identifier: MIT
/*
 * A kernel that is out of memory takes the first half of a chain and runs it; the second half, handed
 * in later, would be a chain of its own that overtakes the first. Here submissions stop where the test
 * wants them to: the kernel is told of fewer SQEs than there are, which has the same effect.
 */
#include <stdlib.h>
#include <string.h>

#include "disk_model.h"
#include "fake_kernel.h"

int __real_io_uring_submit(struct io_uring *ring);
int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned int wait_nr);
int __real_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned int wait_nr, struct __kernel_timespec *ts,
					    sigset_t *mask);
int __wrap_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned int wait_nr);
int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned int wait_nr, struct __kernel_timespec *ts,
					    sigset_t *mask);

/* Of the SQEs that have something linked behind them, every so-manieth is the last to be taken. */
static unsigned int cut_every;
static unsigned int links;
static unsigned int cuts;

/* A group that is cut behind its leader fails as a whole; the leader's part is a NOP here. */
static void fail_leader(struct io_uring_sqe *sqe)
{
	if (sqe->opcode == IORING_OP_NOP) {
		sqe->opcode = IORING_OP_READ;
		sqe->fd = -1;
	}
}

/* Submits what stands before the cut, if there is to be one in what is pending. */
static bool submit_less(struct io_uring *ring, int *ret_submitted)
{
	unsigned int tail = ring->sq.sqe_tail;

	for (unsigned int i = tail - io_uring_sq_ready(ring); cut_every && i != tail; i++) {
		struct io_uring_sqe *sqe = &ring->sq.sqes[i & ring->sq.ring_mask];

		if (!(sqe->flags & IOSQE_IO_LINK) || ++links % cut_every)
			continue;
		fail_leader(sqe);
		ring->sq.sqe_tail = i + 1;
		*ret_submitted = __real_io_uring_submit(ring);
		ring->sq.sqe_tail = tail;
		cuts++;
		return true;
	}
	return false;
}

int __wrap_io_uring_submit(struct io_uring *ring)
{
	int n;

	return submit_less(ring, &n) ? n : __real_io_uring_submit(ring);
}

/* As the kernel does, it does not wait when it has not taken all. */
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned int wait_nr)
{
	int n;

	return submit_less(ring, &n) ? n : __real_io_uring_submit_and_wait(ring, wait_nr);
}

int __wrap_io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned int wait_nr, struct __kernel_timespec *ts,
					    sigset_t *mask)
{
	int n;

	return submit_less(ring, &n) ? n
				     : __real_io_uring_submit_and_wait_timeout(ring, cqe, wait_nr, ts,
									       mask);
}

static void cut(unsigned int every)
{
	cut_every = every;
	links = 0;
	cuts = 0;
}

/* The socket takes little at a time, so that the first half of a chain has to wait. */
static void no_half_overtakes_the_other(void **state)
{
	static const struct gk_path *const paths[] = {&mem_path_single, &mem_path_paired};

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		unsigned int n_cuts = 0;

		/* How much is linked depends on the server's pace: until enough was, at least once round. */
		for (unsigned int every = 1; every < 12 || n_cuts <= 50; every += 2) {
			struct gk_counters counters;

			cut(every % 12);
			do {
				counters = disk_model_serve(
					&(struct rig_options){.path = paths[i],
							      .threshold_bytes = 8192,
							      .sndbuf_bytes = 4608},
					&(struct fake_disk_options){0}, 600);
				assert_int_equal(counters.errors, 0);
				/* A single SQE is taken or not; only a leader can be without its member. */
				assert_true(i == 1 || !counters.fallbacks);
			} while (!cuts);
			n_cuts += cuts;
		}
	}
	cut(0);
}

/* One large WRITE on a connection that sends without a copy; its header is sent, and it is not. */
static void what_was_cut_off_has_no_notification(void **state)
{
	struct fake_disk_server server = {.size = 1 << 20, .disk = calloc(1, 1 << 20)};
	enum { LEN = 65536 };
	struct fake_kernel kernel;
	struct rig *rig = &kernel.rig;

	(void)state;
	assert_non_null(server.disk);
	rig_quiet();
	fake_kernel_begin(&kernel, &(struct rig_options){.path = &mem_path_single,
							 .threshold_bytes = LEN});
	fake_kernel_connect_tcp(&kernel, true);
	server.fd = rig_take_peer(rig, 0);
	fake_disk_start(&server);
	cut(1);
	for (unsigned int n = 1; n < 10; n++) {
		rig_pattern(mem_front_data(&rig->queue, 0), 0, LEN, n);
		mem_front_submit(&rig->queue, 0, NBD_CMD_WRITE, 0, n * LEN, LEN);
		assert_int_equal(rig_result(rig, 0), LEN);
		assert_int_equal(cuts, n);
		/* Cut off once, and then sent without a copy all the same. */
		assert_int_equal(rig->queue.counters.zc_sends, 2 * n);
		assert_false(rig->queue.tags[0].notice_due);
		assert_memory_equal(server.disk + n * LEN, mem_front_data(&rig->queue, 0), LEN);
	}
	cut(0);
	rig_end(rig);
	fake_disk_join(&server);
	free(server.disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_half_overtakes_the_other),
		cmocka_unit_test(what_was_cut_off_has_no_notification),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
