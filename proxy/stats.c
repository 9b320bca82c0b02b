// SPDX-License-Identifier: MIT
#include "stats.h"

#include <string.h>

/* Summed as what they are: numbers of 64 bits, one after the other. */
#define N_COUNTERS (sizeof(struct gk_counters) / sizeof(uint64_t))

_Static_assert(sizeof(struct gk_counters) % sizeof(uint64_t) == 0, "nothing but counters");

static void add_histogram(struct gk_histogram *sum, const struct gk_histogram *histogram)
{
	for (unsigned int i = 0; i < GK_HISTOGRAM_BUCKETS; i++)
		sum->buckets[i] += gk_count_read(&histogram->buckets[i]);
	sum->sum_ns += gk_count_read(&histogram->sum_ns);
}

void gk_stats_add_queue(struct gk_stats *stats, const struct gk_queue *queue)
{
	const uint64_t *counters = (const uint64_t *)&queue->counters;
	uint64_t *sums = (uint64_t *)&stats->counters;
	uint64_t ended = 0;
	uint64_t begun;

	for (unsigned int op = 0; op < GK_OPS; op++) {
		/* Whoever ended had begun, and what began is read later: acquire. */
		ended += __atomic_load_n(&queue->counters.requests[op], __ATOMIC_ACQUIRE);
		add_histogram(&stats->latency[op], &queue->latency[op]);
	}
	begun = gk_count_read(&queue->next_sequence);
	stats->in_flight += begun > ended ? begun - ended : 0;
	for (size_t i = 0; i < N_COUNTERS; i++)
		sums[i] += gk_count_read(&counters[i]);
}

void gk_stats_diff(const struct gk_stats *now, const struct gk_stats *before,
		   struct gk_stats *ret_diff)
{
	const uint64_t *earlier = (const uint64_t *)&before->counters;
	uint64_t *counters = (uint64_t *)&ret_diff->counters;

	*ret_diff = *now;
	ret_diff->at_ns -= before->at_ns;
	ret_diff->reconnects -= before->reconnects;
	for (size_t i = 0; i < N_COUNTERS; i++)
		counters[i] -= earlier[i];
	for (unsigned int op = 0; op < GK_OPS; op++) {
		struct gk_histogram *latency = &ret_diff->latency[op];

		for (unsigned int i = 0; i < GK_HISTOGRAM_BUCKETS; i++)
			latency->buckets[i] -= before->latency[op].buckets[i];
		latency->sum_ns -= before->latency[op].sum_ns;
	}
}

uint64_t gk_histogram_count(const struct gk_histogram *histogram)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < GK_HISTOGRAM_BUCKETS; i++)
		n += histogram->buckets[i];
	return n;
}

uint64_t gk_histogram_below(const struct gk_histogram *histogram, uint64_t ns)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < GK_HISTOGRAM_BUCKETS - 1 && gk_histogram_floor_ns(i + 1) <= ns;
	     i++)
		n += histogram->buckets[i];
	return n;
}

uint64_t gk_histogram_quantile_ns(const struct gk_histogram *histogram, double q)
{
	double rank = q * (double)gk_histogram_count(histogram);
	double below = 0;

	for (unsigned int i = 0; i < GK_HISTOGRAM_BUCKETS; i++) {
		double n = (double)histogram->buckets[i];
		double floor = (double)gk_histogram_floor_ns(i);
		double width = (double)gk_histogram_floor_ns(i + 1) - floor;

		if (n > 0 && below + n >= rank)
			return (uint64_t)(floor + width * (rank > below ? (rank - below) / n : 0));
		below += n;
	}
	return 0;
}
