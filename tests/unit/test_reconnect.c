// SPDX-License-Identifier: MIT
#include "reconnect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define DRAWS 2000

/* Shortest and longest of many waits before attempt n. */
static void range_of(unsigned int attempt, unsigned int *ret_min, unsigned int *ret_max)
{
	unsigned int seed = 7;

	*ret_min = UINT32_MAX;
	*ret_max = 0;
	for (unsigned int i = 0; i < DRAWS; i++) {
		unsigned int ms = gk_reconnect_delay_ms(attempt, &seed);

		*ret_min = ms < *ret_min ? ms : *ret_min;
		*ret_max = ms > *ret_max ? ms : *ret_max;
	}
}

static void the_first_attempt_waits_for_nothing(void **state)
{
	unsigned int seed = 1;

	(void)state;
	assert_int_equal(gk_reconnect_delay_ms(0, &seed), 0);
}

/* Each wait is drawn from the upper half of its time, and reaches both ends of it. */
static void waits_double_up_to_ten_seconds(void **state)
{
	static const unsigned int times_ms[] = {100,  200,  400,   800,   1600,
						3200, 6400, 10000, 10000, 10000};

	(void)state;
	for (unsigned int i = 0; i < sizeof(times_ms) / sizeof(times_ms[0]); i++) {
		unsigned int min;
		unsigned int max;

		range_of(i + 1, &min, &max);
		assert_in_range(min, times_ms[i] / 2, times_ms[i] / 2 + times_ms[i] / 20);
		assert_in_range(max, times_ms[i] - times_ms[i] / 20, times_ms[i]);
	}
}

static void a_server_that_stays_away_is_tried_for_ever(void **state)
{
	static const unsigned int attempts[] = {32, 33, 64, 65, 100000, UINT32_MAX};

	(void)state;
	for (unsigned int i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
		unsigned int seed = i;

		assert_in_range(gk_reconnect_delay_ms(attempts[i], &seed), 5000, 10000);
	}
}

static void two_clients_do_not_wait_alike(void **state)
{
	unsigned int one = 1;
	unsigned int other = 2;
	unsigned int same = 0;

	(void)state;
	for (unsigned int attempt = 1; attempt <= 20; attempt++)
		same += gk_reconnect_delay_ms(attempt, &one) ==
			gk_reconnect_delay_ms(attempt, &other);
	assert_true(same < 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_attempt_waits_for_nothing),
		cmocka_unit_test(waits_double_up_to_ten_seconds),
		cmocka_unit_test(a_server_that_stays_away_is_tried_for_ever),
		cmocka_unit_test(two_clients_do_not_wait_alike),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
