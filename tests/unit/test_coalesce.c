// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "coalesce.h"

/* n turns with so many requests in flight, of which so many end in each; returns the last window. */
static unsigned int turns(struct gk_coalesce *coalesce, unsigned int n, unsigned int in_flight,
			  unsigned int ended)
{
	unsigned int window = 0;

	while (n--) {
		window = gk_coalesce_begin(coalesce, in_flight, false);
		gk_coalesce_end(coalesce, ended, false);
	}
	return window;
}

/* One that waits already. */
static struct gk_coalesce waiting(unsigned int window_us)
{
	return (struct gk_coalesce){.window_us = window_us, .waits = true};
}

static void a_small_depth_is_never_made_to_wait(void **state)
{
	(void)state;
	for (unsigned int depth = 0; depth < GK_COALESCE_DEPTH; depth++) {
		struct gk_coalesce coalesce = {0};

		for (unsigned int ended = 0; ended <= depth; ended++)
			assert_int_equal(turns(&coalesce, 50, depth, ended), 0);
	}
}

static void one_reply_at_a_time_makes_the_window_grow_to_its_limit(void **state)
{
	struct gk_coalesce coalesce = {0};
	unsigned int last = 0;

	(void)state;
	for (unsigned int i = 0; i < 100; i++) {
		unsigned int window = turns(&coalesce, 1, 64, 1);

		assert_true(window >= last && window <= last + 5);
		last = window;
	}
	assert_int_equal(last, GK_COALESCE_MAX_US);
}

static void where_several_end_in_a_turn_anyway_it_does_not_begin(void **state)
{
	struct gk_coalesce coalesce = {0};

	(void)state;
	for (unsigned int i = 0; i < 10000; i++)
		assert_int_equal(turns(&coalesce, 1, 128, i % 3 ? 1 : 5), 0);
	/* One each in two turns of three, and two in the third. */
	for (unsigned int i = 0; i < 40; i++)
		(void)turns(&coalesce, 1, 128, i % 3 ? 1 : 2);
	assert_true(coalesce.waits);
}

/* Without waiting a turn ends one request, and later four: that is found out. */
static void whether_it_pays_is_tried_again_and_again(void **state)
{
	struct gk_coalesce coalesce = {0};
	unsigned int waited = 0;

	(void)state;
	for (unsigned int i = 0; i < 100000; i++) {
		unsigned int window = gk_coalesce_begin(&coalesce, 64, false);

		waited += window > 0;
		gk_coalesce_end(&coalesce, window ? 14 : 1, false);
	}
	/* All but 16 turns of 1040. */
	assert_in_range(waited, 98000, 99000);
	waited = 0;
	for (unsigned int i = 0; i < 100000; i++) {
		unsigned int window = gk_coalesce_begin(&coalesce, 64, false);

		waited += window > 0;
		gk_coalesce_end(&coalesce, window ? 14 : 4, false);
	}
	assert_in_range(waited, 0, 1024);
}

static void a_fast_server_is_not_waited_for(void **state)
{
	struct gk_coalesce coalesce = waiting(GK_COALESCE_MAX_US);

	(void)state;
	assert_int_equal(turns(&coalesce, 7, 64, 22), 0);
	assert_int_equal(turns(&coalesce, 3000, 64, 64), 0);
}

static void between_its_limits_it_stays(void **state)
{
	/* In flight, and the fewest and the most that may end in a turn. */
	static const unsigned int limits[][3] = {
		{16, 4, 8}, {32, 8, 12}, {48, 12, 16}, {64, 12, 21}, {128, 22, 42}, {600, 100, 200},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		const unsigned int *limit = limits[i];

		for (unsigned int ended = 1; ended <= limit[0]; ended++) {
			struct gk_coalesce coalesce = waiting(40);
			unsigned int window;

			(void)turns(&coalesce, 1, limit[0], ended);
			window = coalesce.window_us;
			assert_int_equal(window, ended < limit[1]   ? 45
						 : ended > limit[2] ? 20
								    : 40);
		}
	}
}

/* A server with this many replies in a millisecond: where the window comes to rest. */
static void it_settles_below_half_of_the_latency(void **state)
{
	(void)state;
	for (unsigned int rate = 20; rate <= 2000; rate += 20) {
		for (unsigned int depth = GK_COALESCE_DEPTH; depth <= 256; depth *= 2) {
			struct gk_coalesce coalesce = {0};
			unsigned int latency_us = depth * 1000 / rate;
			unsigned int window = 0;

			for (unsigned int i = 0; i < 1000; i++) {
				window = gk_coalesce_begin(&coalesce, depth, false);
				gk_coalesce_end(&coalesce, window ? window * rate / 1000 : 1, false);
				/* One step above, for the turn that finds out. */
				assert_true(window <= latency_us / 2 + 1000 / rate + 5);
			}
		}
	}
}

static void a_large_payload_is_not_made_to_wait(void **state)
{
	struct gk_coalesce coalesce = waiting(50);

	(void)state;
	assert_int_equal(gk_coalesce_begin(&coalesce, 64, true), 0);
	gk_coalesce_end(&coalesce, 1, false);
	/* When it has gone it is found out anew. */
	assert_int_equal(turns(&coalesce, 16, 64, 1), 0);
	assert_int_equal(turns(&coalesce, 1, 64, 1), 50);
}

static void an_idle_server_is_not_polled(void **state)
{
	struct gk_coalesce coalesce = waiting(50);

	(void)state;
	assert_int_equal(gk_coalesce_begin(&coalesce, 64, false), 50);
	gk_coalesce_end(&coalesce, 0, true);
	/* Without limit, until something comes; the window is kept for then. */
	assert_int_equal(gk_coalesce_begin(&coalesce, 64, false), 0);
	gk_coalesce_end(&coalesce, 15, false);
	assert_int_equal(gk_coalesce_begin(&coalesce, 64, false), 50);
}

/* New requests and ends of sends are turns, too: they say nothing about the server. */
static void turns_in_which_nothing_ends_change_nothing(void **state)
{
	struct gk_coalesce coalesce = waiting(50);

	(void)state;
	assert_int_equal(turns(&coalesce, 100, 64, 0), 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_small_depth_is_never_made_to_wait),
		cmocka_unit_test(one_reply_at_a_time_makes_the_window_grow_to_its_limit),
		cmocka_unit_test(where_several_end_in_a_turn_anyway_it_does_not_begin),
		cmocka_unit_test(whether_it_pays_is_tried_again_and_again),
		cmocka_unit_test(a_fast_server_is_not_waited_for),
		cmocka_unit_test(between_its_limits_it_stays),
		cmocka_unit_test(it_settles_below_half_of_the_latency),
		cmocka_unit_test(a_large_payload_is_not_made_to_wait),
		cmocka_unit_test(an_idle_server_is_not_polled),
		cmocka_unit_test(turns_in_which_nothing_ends_change_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
