/* SPDX-License-Identifier: MIT */
/*
 * How long a turn of the loop may wait for more than one completion. A server that sends each reply
 * by itself wakes the queue's thread for every one, and with it come a receive, a send and an enter
 * per request. While many small requests are in flight, the thread rather sleeps a little longer
 * and takes what has come by then together.
 *
 * A fixed time is wrong: a fast server runs dry in it. So it follows what a turn brought: when a
 * quarter of the requests in flight end in one turn it shrinks, below an eighth it grows. As the
 * requests that end during a time are to those in flight what it is to a request's latency, this
 * keeps it at an eighth to a quarter of the latency, and at GK_COALESCE_MAX_US in any case.
 *
 * Pure; each queue has one, for its thread.
 */
#ifndef GK_COALESCE_H
#define GK_COALESCE_H

#include <stdbool.h>

#define GK_COALESCE_DEPTH  16  /* requests in flight from which on waiting can pay */
#define GK_COALESCE_CQES   8   /* completions that end the waiting early */
#define GK_COALESCE_MAX_US 100

/* Zeroed: does not wait yet. */
struct gk_coalesce {
	unsigned int window_us; /* 0, or 5 to GK_COALESCE_MAX_US */
	unsigned int in_flight; /* when the turn began */
	bool in_vain;           /* the last wait ended with nothing */
};

/*
 * A turn begins with this many requests in flight; large: one of them has a payload that is moved
 * by itself, whose server would starve. Returns how many microseconds to wait at most for
 * GK_COALESCE_CQES completions; 0: for the first one, without limit.
 */
unsigned int gk_coalesce_begin(struct gk_coalesce *coalesce, unsigned int in_flight, bool large);

/* The turn ended: so many requests did in it, and whether the wait brought no completion at all. */
void gk_coalesce_end(struct gk_coalesce *coalesce, unsigned int ended, bool in_vain);

#endif
