// SPDX-License-Identifier: MIT
/* Control commands on a ring of their own; what stands for the control device knows none of them. */
#include "ublk_ctrl.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "wire_rig.h"

static int refusals[3]; /* of the next submits, in this order; 0: none */
static unsigned int n_submits;

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);

int __wrap_io_uring_submit(struct io_uring *ring)
{
	unsigned int i = n_submits++;
	int r = i < sizeof(refusals) / sizeof(refusals[0]) ? refusals[i] : 0;

	return r ? r : __real_io_uring_submit(ring);
}

static void a_command_that_the_kernel_has_no_memory_for_is_sent_again(void **state)
{
	struct gk_ublk_ctrl ctrl = {.fd = eventfd(0, EFD_CLOEXEC)};
	struct ublksrv_ctrl_dev_info info = {.dev_id = 1};
	struct io_uring_cqe *cqe;

	(void)state;
	assert_true(ctrl.fd >= 0);
	assert_int_equal(io_uring_queue_init(4, &ctrl.ring, IORING_SETUP_SQE128), 0);
	pthread_mutex_init(&ctrl.lock, NULL);
	refusals[0] = -EAGAIN;
	refusals[1] = -ENOMEM;
	refusals[2] = -EINTR;
	/* The answer to the command, and none that is left for the next one. */
	assert_int_equal(gk_ublk_ctrl_get_info(&ctrl, &info), -EOPNOTSUPP);
	assert_int_equal(n_submits, 4);
	assert_int_equal(gk_ublk_ctrl_start_recovery(&ctrl, 1), -EOPNOTSUPP);
	assert_int_equal(io_uring_peek_cqe(&ctrl.ring, &cqe), -EAGAIN);
	gk_ublk_ctrl_close(&ctrl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_command_that_the_kernel_has_no_memory_for_is_sent_again),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
