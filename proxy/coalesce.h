/* SPDX-License-Identifier: MIT */
/*
 * How long a turn of the loop may wait for more than one completion. A server that sends each reply
 * by itself wakes the queue's thread for every one, and with it come a receive, a send and an enter
 * per request. While many small requests are in flight, the thread rather sleeps a little longer
 * and takes what has come by then together.
 *
 * A fixed time is wrong: a fast server runs dry in it. So it follows what a turn brought: it grows
 * while less than a quarter of the requests in flight end in one, and shrinks from half of them on.
 * As the requests that end during a time are to those in flight what it is to a request's latency,
 * this keeps it at a quarter to half of the latency. Where a dozen ended that is more than they gain
 * by it: then it is a sixth to a third. It is GK_COALESCE_MAX_US in any case at most.
 *
 * Where several come together by themselves, as when client and server share a CPU, waiting would
 * only cost. So every now and then a few turns do without, and it is those that decide whether the
 * next ones wait.
 *
 * Pure; each queue has one, for its thread.
 */
#ifndef GK_COALESCE_H
#define GK_COALESCE_H

#include <stdbool.h>

#define GK_COALESCE_DEPTH  16  /* requests in flight from which on waiting can pay */
#define GK_COALESCE_CQES   16  /* completions that end the waiting early */
#define GK_COALESCE_MAX_US 200

/* Zeroed: does not wait yet. */
struct gk_coalesce {
	unsigned int window_us; /* 0, or 5 to GK_COALESCE_MAX_US */
	unsigned int in_flight; /* when the turn began; 0: with a large one */
	bool in_vain;           /* the last wait ended with nothing */
	bool waits;             /* else it finds out whether to */
	unsigned int turns;     /* since that changed */
	unsigned int ended;     /* requests, in those turns */
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
