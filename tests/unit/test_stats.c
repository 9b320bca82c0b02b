/* SPDX-License-Identifier: MIT */
/* Latencies in buckets, their quantiles, and what happened between two readings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "stats.h"

static void every_latency_is_in_the_bucket_whose_floor_it_reaches(void **state)
{
	(void)state;
	assert_int_equal(gk_histogram_index(0), 0);
	assert_int_equal(gk_histogram_index(1023), 0);
	assert_int_equal(gk_histogram_index(1024), 1);
	assert_int_equal(gk_histogram_index(UINT64_MAX), GK_HISTOGRAM_BUCKETS - 1);
	for (unsigned int i = 1; i < GK_HISTOGRAM_BUCKETS; i++) {
		uint64_t floor = gk_histogram_floor_ns(i);

		assert_int_equal(gk_histogram_index(floor), i);
		assert_int_equal(gk_histogram_index(floor - 1), i - 1);
		/* No bucket is wider than an eighth of what is in it. */
		if (i < GK_HISTOGRAM_BUCKETS - 1)
			assert_true(gk_histogram_floor_ns(i + 1) - floor <= floor / 8);
	}
}

static void quantiles_are_right_to_an_eighth(void **state)
{
	static const double shares[] = {0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0};
	struct gk_histogram histogram = {.sum_ns = 0};
	const uint64_t n = 20000;

	(void)state;
	assert_int_equal(gk_histogram_quantile_ns(&histogram, 0.5), 0);
	/* 2 us, 4 us, ... 40 ms, each once, in another order. */
	for (uint64_t i = 0; i < n; i++)
		gk_histogram_add(&histogram, (i * 7919 % n + 1) * 2000);
	assert_int_equal(gk_histogram_count(&histogram), n);
	assert_int_equal(histogram.sum_ns, n * (n + 1) / 2 * 2000);
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		double exact = shares[i] * (double)n * 2000;
		double found = (double)gk_histogram_quantile_ns(&histogram, shares[i]);

		if (found < exact * 7 / 8 || found > exact * 9 / 8)
			fail_msg("share %g: %.0f ns, exactly %.0f", shares[i], found, exact);
	}
}

static void one_latency_is_every_quantile(void **state)
{
	struct gk_histogram histogram = {.sum_ns = 0};

	(void)state;
	gk_histogram_add(&histogram, 1000000);
	for (double q = 0; q <= 1; q += 0.25) {
		uint64_t ns = gk_histogram_quantile_ns(&histogram, q);

		assert_in_range(ns, 875000, 1125000);
	}
}

static void counts_below_a_power_of_two_are_exact(void **state)
{
	struct gk_histogram histogram = {.sum_ns = 0};

	(void)state;
	gk_histogram_add(&histogram, 0);
	gk_histogram_add(&histogram, (1 << 20) - 1);
	gk_histogram_add(&histogram, 1 << 20);
	gk_histogram_add(&histogram, UINT64_C(1) << 60);
	assert_int_equal(gk_histogram_below(&histogram, 1 << 14), 1);
	assert_int_equal(gk_histogram_below(&histogram, 1 << 20), 2);
	assert_int_equal(gk_histogram_below(&histogram, 1 << 21), 3);
	assert_int_equal(gk_histogram_below(&histogram, UINT64_C(1) << 38), 3);
	assert_int_equal(gk_histogram_count(&histogram), 4);
}

static void queues_add_up_and_readings_are_compared(void **state)
{
	struct gk_queue *queues = calloc(2, sizeof(*queues));
	struct gk_stats before = {.at_ns = 1000};
	struct gk_stats now = {.at_ns = 4000, .reconnects = 3};
	struct gk_stats diff;

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		queues[i].next_sequence = 10;
		queues[i].counters.requests[GK_OP_READ] = 4;
		queues[i].counters.requests[GK_OP_FLUSH] = 1;
		queues[i].counters.bytes_read = 100;
		queues[i].counters.loops = 7;
		gk_histogram_add(&queues[i].latency[GK_OP_READ], 5000);
		gk_stats_add_queue(&before, &queues[i]);
	}
	assert_int_equal(before.in_flight, 10);
	assert_int_equal(before.counters.requests[GK_OP_READ], 8);
	assert_int_equal(before.counters.loops, 14);
	assert_int_equal(gk_histogram_count(&before.latency[GK_OP_READ]), 2);
	queues[1].counters.requests[GK_OP_READ] = 9;
	queues[1].counters.bytes_read = 150;
	gk_histogram_add(&queues[1].latency[GK_OP_READ], 1000000);
	for (unsigned int i = 0; i < 2; i++)
		gk_stats_add_queue(&now, &queues[i]);
	gk_stats_diff(&now, &before, &diff);
	assert_int_equal(diff.at_ns, 3000);
	assert_int_equal(diff.in_flight, 5);
	assert_int_equal(diff.reconnects, 3);
	assert_int_equal(diff.counters.requests[GK_OP_READ], 5);
	assert_int_equal(diff.counters.bytes_read, 50);
	assert_int_equal(diff.counters.loops, 0);
	assert_int_equal(gk_histogram_count(&diff.latency[GK_OP_READ]), 1);
	assert_int_equal(diff.latency[GK_OP_READ].sum_ns, 1000000);
	free(queues);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_latency_is_in_the_bucket_whose_floor_it_reaches),
		cmocka_unit_test(quantiles_are_right_to_an_eighth),
		cmocka_unit_test(one_latency_is_every_quantile),
		cmocka_unit_test(counts_below_a_power_of_two_are_exact),
		cmocka_unit_test(queues_add_up_and_readings_are_compared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
