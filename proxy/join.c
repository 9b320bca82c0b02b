// SPDX-License-Identifier: MIT
#include "join.h"

#include <stdint.h>
#include <time.h>

#define LOOK_NS 1000000

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/* Not by pthread_clockjoin_np(): gcc 12's thread sanitizer does not know that it joins. */
bool gk_join_within(pthread_t thread, unsigned int seconds)
{
	int64_t until = now_ns() + seconds * INT64_C(1000000000);
	struct timespec pause = {.tv_nsec = LOOK_NS};

	while (pthread_tryjoin_np(thread, NULL)) {
		if (now_ns() >= until)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}
