// SPDX-License-Identifier: MIT
#include "iov_cursor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#define N 5

static const size_t lens[N] = {3, 0, 1, 0, 7};
#define TOTAL 11

static char bytes[] = "abcdefghijk";

static void make(struct iovec *iov)
{
	char *p = bytes;

	for (unsigned int i = 0; i < N; i++) {
		iov[i] = (struct iovec){.iov_base = p, .iov_len = lens[i]};
		p += lens[i];
	}
}

/* What the iovecs still hold, as one string. */
static size_t join(const struct iovec *iov, size_t n_iov, char *out)
{
	size_t n = 0;

	for (size_t i = 0; i < n_iov; i++) {
		memcpy(out + n, iov[i].iov_base, iov[i].iov_len);
		n += iov[i].iov_len;
	}
	return n;
}

static void every_position_leaves_exactly_the_rest(void **state)
{
	(void)state;
	for (size_t at = 0; at <= TOTAL; at++) {
		struct iovec array[N];
		struct iovec *iov = array;
		size_t n_iov = N;
		char rest[TOTAL];

		make(array);
		gk_iov_advance(&iov, &n_iov, at);
		assert_int_equal(join(iov, n_iov, rest), TOTAL - at);
		assert_memory_equal(rest, bytes + at, TOTAL - at);
		assert_ptr_equal(iov + n_iov, array + N);
		assert_true(at < TOTAL || n_iov == 0);
	}
}

static void every_pair_of_steps_adds_up(void **state)
{
	(void)state;
	for (size_t first = 0; first <= TOTAL; first++) {
		for (size_t second = 0; first + second <= TOTAL; second++) {
			struct iovec array[N];
			struct iovec *iov = array;
			size_t n_iov = N;
			char rest[TOTAL];
			size_t at = first + second;

			make(array);
			gk_iov_advance(&iov, &n_iov, first);
			gk_iov_advance(&iov, &n_iov, second);
			assert_int_equal(join(iov, n_iov, rest), TOTAL - at);
			assert_memory_equal(rest, bytes + at, TOTAL - at);
		}
	}
}

/* An operation never starts with an iovec that has nothing to send. */
static void the_start_is_never_empty(void **state)
{
	struct iovec array[N];
	struct iovec *iov = array;
	size_t n_iov = N;

	(void)state;
	make(array);
	gk_iov_advance(&iov, &n_iov, 3);
	assert_int_equal(n_iov, 3);
	assert_int_equal(iov->iov_len, 1);
	gk_iov_advance(&iov, &n_iov, 1);
	assert_int_equal(n_iov, 1);
	assert_int_equal(iov->iov_len, 7);
}

static void what_is_behind_the_first_is_not_touched(void **state)
{
	struct iovec array[N];
	struct iovec whole[N];
	struct iovec *iov = array;
	size_t n_iov = N;

	(void)state;
	make(array);
	make(whole);
	gk_iov_advance(&iov, &n_iov, 2);
	assert_ptr_equal(iov, array);
	assert_ptr_equal(iov[0].iov_base, bytes + 2);
	assert_int_equal(iov[0].iov_len, 1);
	assert_memory_equal(array + 1, whole + 1, (N - 1) * sizeof(array[0]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_position_leaves_exactly_the_rest),
		cmocka_unit_test(every_pair_of_steps_adds_up),
		cmocka_unit_test(the_start_is_never_empty),
		cmocka_unit_test(what_is_behind_the_first_is_not_touched),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
