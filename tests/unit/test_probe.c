// SPDX-License-Identifier: MIT
/*
 * What a host offers is not ours to demand, so these tests hold the results against each other,
 * and against what can be seen of the host without io_uring.
 */
#include "probe.h"

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "gk_ublk.h"

static struct gk_probe probe;

static int run_once(void **state)
{
	(void)state;
	gk_probe_run(&probe);
	return 0;
}

static void every_result_is_zero_or_an_errno(void **state)
{
	const int results[] = {
		probe.io_uring,		  probe.defer_taskrun,	   probe.ublk,
		probe.sqe_group,	  probe.group_kbuf,	   probe.ublk_group_kbuf,
		probe.fixed_buf_sendrecv, probe.ublk_auto_buf_reg, probe.ublk_user_copy,
		probe.ublk_user_recovery, probe.send_zc,	   probe.ktls,
	};

	(void)state;
	for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
		assert_in_range(-results[i], 0, 4095);
}

static void nothing_works_without_a_ring(void **state)
{
	(void)state;
	if (probe.io_uring == 0)
		return;
	assert_int_not_equal(probe.defer_taskrun, 0);
	assert_int_not_equal(probe.sqe_group, 0);
	assert_int_not_equal(probe.ublk, 0);
	assert_int_not_equal(probe.fixed_buf_sendrecv, 0);
	assert_int_not_equal(probe.send_zc, 0);
}

static void a_group_buffer_needs_groups_and_ublk(void **state)
{
	(void)state;
	if (probe.ublk_group_kbuf == 0) {
		assert_int_equal(probe.ublk, 0);
		assert_int_equal(probe.group_kbuf, 0);
		assert_int_equal(probe.ublk_user_copy, 0);
	}
	if (probe.group_kbuf == 0)
		assert_int_equal(probe.sqe_group, 0);
	else
		assert_int_not_equal(probe.ublk_group_kbuf, 0);
}

static void check_ublk_bits(int result, uint64_t bits)
{
	if (probe.ublk < 0)
		assert_int_equal(result, probe.ublk);
	else
		assert_int_equal(result == 0, (probe.ublk_features & bits) == bits);
}

static void ublk_results_say_what_the_feature_word_says(void **state)
{
	(void)state;
	check_ublk_bits(probe.ublk_auto_buf_reg, UBLK_F_AUTO_BUF_REG);
	check_ublk_bits(probe.ublk_user_copy, UBLK_F_USER_COPY);
	check_ublk_bits(probe.ublk_user_recovery,
			UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE);
}

static void ublk_fails_with_the_errno_of_its_control_device(void **state)
{
	int fd = open(UBLK_CONTROL_PATH, O_RDWR | O_CLOEXEC);
	int error = errno;

	(void)state;
	if (fd >= 0) {
		close(fd);
		return;
	}
	assert_int_equal(probe.ublk, -error);
	assert_int_equal(probe.ublk_features, 0);
}

static void two_runs_agree(void **state)
{
	struct gk_probe again;

	(void)state;
	gk_probe_run(&again);
	assert_int_equal(again.io_uring, probe.io_uring);
	assert_int_equal(again.defer_taskrun, probe.defer_taskrun);
	assert_int_equal(again.ublk, probe.ublk);
	assert_int_equal(again.ublk_features, probe.ublk_features);
	assert_int_equal(again.ublk_group_kbuf, probe.ublk_group_kbuf);
	assert_int_equal(again.fixed_buf_sendrecv, probe.fixed_buf_sendrecv);
	assert_int_equal(again.send_zc, probe.send_zc);
	assert_int_equal(again.ktls, probe.ktls);
}

static int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void no_file_is_left_open(void **state)
{
	struct gk_probe again;
	int before = open_fds();

	(void)state;
	gk_probe_run(&again);
	assert_int_equal(open_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_result_is_zero_or_an_errno),
		cmocka_unit_test(nothing_works_without_a_ring),
		cmocka_unit_test(a_group_buffer_needs_groups_and_ublk),
		cmocka_unit_test(ublk_results_say_what_the_feature_word_says),
		cmocka_unit_test(ublk_fails_with_the_errno_of_its_control_device),
		cmocka_unit_test(two_runs_agree),
		cmocka_unit_test(no_file_is_left_open),
	};

	return cmocka_run_group_tests(tests, run_once, NULL);
}
