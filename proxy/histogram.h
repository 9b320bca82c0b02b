/* SPDX-License-Identifier: MIT */
/*
 * Latencies, log-linear: eight buckets to each power of two of nanoseconds, so that a value is
 * known to an eighth of itself. One thread adds, any thread reads; no lock.
 */
#ifndef GK_HISTOGRAM_H
#define GK_HISTOGRAM_H

#include <stdint.h>

#define GK_HISTOGRAM_SUB_BITS 3
#define GK_HISTOGRAM_MIN_BITS 10 /* below 1.024 us: bucket 0 */
#define GK_HISTOGRAM_MAX_BITS 38 /* from 275 s on: the last one */
#define GK_HISTOGRAM_BUCKETS                                                                       \
	(((GK_HISTOGRAM_MAX_BITS - GK_HISTOGRAM_MIN_BITS) << GK_HISTOGRAM_SUB_BITS) + 2)

struct gk_histogram {
	uint64_t buckets[GK_HISTOGRAM_BUCKETS];
	uint64_t sum_ns;
};

/* The bucket of a latency. */
static inline unsigned int gk_histogram_index(uint64_t ns)
{
	unsigned int exponent;

	if (ns < UINT64_C(1) << GK_HISTOGRAM_MIN_BITS)
		return 0;
	if (ns >= UINT64_C(1) << GK_HISTOGRAM_MAX_BITS)
		return GK_HISTOGRAM_BUCKETS - 1;
	exponent = 63 - (unsigned int)__builtin_clzll(ns);
	return 1 + ((exponent - GK_HISTOGRAM_MIN_BITS) << GK_HISTOGRAM_SUB_BITS) +
	       (unsigned int)(ns >> (exponent - GK_HISTOGRAM_SUB_BITS) &
			      ((1U << GK_HISTOGRAM_SUB_BITS) - 1));
}

/* The least latency, in ns, of bucket i; of one past the last: the end of the range. */
static inline uint64_t gk_histogram_floor_ns(unsigned int i)
{
	unsigned int exponent;
	uint64_t sub;

	if (!i)
		return 0;
	if (i >= GK_HISTOGRAM_BUCKETS - 1)
		return UINT64_C(1) << GK_HISTOGRAM_MAX_BITS;
	exponent = GK_HISTOGRAM_MIN_BITS + ((i - 1) >> GK_HISTOGRAM_SUB_BITS);
	sub = (1U << GK_HISTOGRAM_SUB_BITS) + ((i - 1) & ((1U << GK_HISTOGRAM_SUB_BITS) - 1));
	return sub << (exponent - GK_HISTOGRAM_SUB_BITS);
}

/* The one thread that adds. */
static inline void gk_histogram_add(struct gk_histogram *histogram, uint64_t ns)
{
	uint64_t *bucket = &histogram->buckets[gk_histogram_index(ns)];

	__atomic_store_n(bucket, *bucket + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&histogram->sum_ns, histogram->sum_ns + ns, __ATOMIC_RELAXED);
}

#endif
