/* SPDX-License-Identifier: MIT */
/*
 * What the queues of a device counted, summed up; and what came out of it: rates and percentiles.
 * Plain values that belong to whoever reads them. Any thread that may look at the device.
 */
#ifndef GK_STATS_H
#define GK_STATS_H

#include <stdint.h>

#include "histogram.h"
#include "loop.h"

struct gk_stats {
	uint64_t at_ns;     /* CLOCK_MONOTONIC, when it was read */
	uint64_t in_flight; /* requests that the kernel waits for */
	uint64_t reconnects;
	struct gk_counters counters;
	struct gk_histogram latency[GK_OPS]; /* of requests that ended, also of those with errors */
};

/* Adds what one queue counted; its thread may run. */
void gk_stats_add_queue(struct gk_stats *stats, const struct gk_queue *queue);

/* What happened between two readings: counters and latencies; in_flight is that of now. */
void gk_stats_diff(const struct gk_stats *now, const struct gk_stats *before,
		   struct gk_stats *ret_diff);

/* How many latencies it holds; and of them those below `ns`, which must begin a bucket. */
uint64_t gk_histogram_count(const struct gk_histogram *histogram);
uint64_t gk_histogram_below(const struct gk_histogram *histogram, uint64_t ns);

/*
 * The latency in ns that the share q (0 to 1) of them does not exceed, to an eighth of itself; 0
 * when there is none.
 */
uint64_t gk_histogram_quantile_ns(const struct gk_histogram *histogram, double q);

#endif
