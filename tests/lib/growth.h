/* SPDX-License-Identifier: MIT */
/*
 * Whether a test's process holds more after many rounds of something than before: descriptors, and
 * bytes handed out by malloc(). With a sanitizer, which has a malloc() of its own and finds by
 * itself what is lost, only descriptors count, and rounds are fewer. One thread at a time.
 */
#ifndef GK_GROWTH_H
#define GK_GROWTH_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GROWTH_SANITIZED 1
#define GROWTH_ROUNDS	 500
#else
#define GROWTH_SANITIZED 0
#define GROWTH_ROUNDS	 10000
#endif
#define GROWTH_WARM_UP 200 /* rounds, after which nothing grows any more */

struct growth_holdings {
	unsigned int descriptors;
	size_t heap_bytes;
	size_t resident_pages;
};

/*
 * Before anything else in main(): starts the program again with a malloc() that keeps one heap for
 * all threads and no cache of each, so that all of it is counted.
 */
void growth_prepare(char **argv);

/* Fails the running cmocka test when /proc cannot be read. */
struct growth_holdings growth_measure(void);

/*
 * Prints what has changed in GROWTH_ROUNDS rounds, and fails the running cmocka test if anything
 * has grown. What ends on a thread of its own is given a few seconds to do so.
 */
void growth_assert_none(const char *what, struct growth_holdings before);

#endif
