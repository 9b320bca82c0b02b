// SPDX-License-Identifier: MIT
/* What the kernel is told of a slot, seen in the submission ring; there is no ublk behind it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "datapath.h"
#include "ublk_front.h"

#define DEPTH 4

static struct gk_queue queue;
static struct gk_ublk_queue uq = {.cdev_fd = -1};

static int set_up(void **state)
{
	struct gk_queue_params params = {
		.front = &gk_ublk_front,
		.front_data = &uq,
		.depth = DEPTH,
		.n_sessions = 1,
		.max_io_bytes = 4096,
	};

	(void)state;
	if (gk_queue_init(&queue, &params))
		return -1;
	return io_uring_queue_init(16, &queue.ring, 0);
}

static int tear_down(void **state)
{
	(void)state;
	io_uring_queue_exit(&queue.ring);
	queue.ring.ring_fd = -1;
	gk_queue_done(&queue);
	return 0;
}

/* The youngest SQE of n that wait. */
static void is_told(unsigned int n, uint32_t op, uint16_t tag, int32_t result)
{
	const struct io_uring_sqe *sqe;
	struct ublksrv_io_cmd cmd;

	assert_int_equal(io_uring_sq_ready(&queue.ring), n);
	sqe = &queue.ring.sq.sqes[(queue.ring.sq.sqe_tail - 1) & *queue.ring.sq.kring_mask];
	memcpy(&cmd, sqe->cmd, sizeof(cmd));
	assert_int_equal(sqe->opcode, IORING_OP_URING_CMD);
	assert_int_equal(sqe->user_data, gk_cqe_key(GK_CQE_FRONT, tag));
	assert_int_equal((uint32_t)sqe->off, op);
	assert_int_equal(cmd.tag, tag);
	assert_int_equal(cmd.result, result);
}

static void a_commit_without_memory_is_said_again(void **state)
{
	(void)state;
	queue.front_live = DEPTH;
	gk_ublk_commit(&queue, &queue.tags[2], -EIO);
	is_told(1, UBLK_U_IO_COMMIT_AND_FETCH_REQ, 2, -EIO);
	gk_ublk_fetch(&queue, 2, -ENOMEM);
	is_told(2, UBLK_U_IO_COMMIT_AND_FETCH_REQ, 2, -EIO);
	gk_ublk_fetch(&queue, 2, -EAGAIN);
	is_told(3, UBLK_U_IO_COMMIT_AND_FETCH_REQ, 2, -EIO);
	assert_int_equal(queue.front_live, DEPTH);
}

static void a_fetch_without_memory_is_said_again(void **state)
{
	(void)state;
	assert_int_equal(gk_ublk_front.start(&queue), 0);
	gk_ublk_fetch(&queue, 1, -ENOMEM);
	is_told(DEPTH + 1, UBLK_U_IO_FETCH_REQ, 1, 0);
	assert_int_equal(queue.front_live, DEPTH);
}

static void a_slot_of_a_stopped_device_is_not(void **state)
{
	(void)state;
	queue.front_live = DEPTH;
	gk_ublk_commit(&queue, &queue.tags[0], 4096);
	gk_ublk_fetch(&queue, 0, UBLK_IO_RES_ABORT);
	is_told(1, UBLK_U_IO_COMMIT_AND_FETCH_REQ, 0, 4096);
	assert_int_equal(queue.front_live, DEPTH - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_commit_without_memory_is_said_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_fetch_without_memory_is_said_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_slot_of_a_stopped_device_is_not, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
