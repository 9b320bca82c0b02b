/* SPDX-License-Identifier: MIT */
#ifndef GK_JOIN_H
#define GK_JOIN_H

#include <pthread.h>
#include <stdbool.h>

/*
 * Joins a thread that ends within so many seconds, by CLOCK_MONOTONIC. False: it has not, and is
 * still to be joined. Any thread, one at a time for one that is joined.
 */
bool gk_join_within(pthread_t thread, unsigned int seconds);

#endif
