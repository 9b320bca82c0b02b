// SPDX-License-Identifier: MIT
#include "growth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 5000
/*
 * The C library keeps stacks of threads that have ended, more of them when two happen to end at the
 * same time: each is a few pages and 300 bytes of heap. What grows each round is more by far.
 */
#define HEAP_MAX  4096
#define PAGES_MAX 64

void growth_prepare(char **argv)
{
	if (getenv("GLIBC_TUNABLES"))
		return;
	setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1", 1);
	execv("/proc/self/exe", argv);
	perror("execv");
	exit(EXIT_FAILURE);
}

struct growth_holdings growth_measure(void)
{
	struct mallinfo2 info = mallinfo2();
	struct growth_holdings now = {.heap_bytes = info.uordblks + info.hblkhd};
	DIR *dir = opendir("/proc/self/fd");
	FILE *file = fopen("/proc/self/statm", "re");

	assert_non_null(dir);
	assert_non_null(file);
	while (readdir(dir))
		now.descriptors++;
	closedir(dir);
	assert_int_equal(fscanf(file, "%*u %zu", &now.resident_pages), 1);
	fclose(file);
	return now;
}

void growth_assert_none(const char *what, struct growth_holdings before)
{
	struct timespec pause = {.tv_nsec = 1000000};
	struct growth_holdings after;
	bool none = false;
	long pages;

	for (unsigned int ms = 0; ms < PATIENCE_MS && !none; ms++) {
		after = growth_measure();
		none = after.descriptors <= before.descriptors &&
		       after.heap_bytes <= before.heap_bytes + HEAP_MAX;
		if (!none)
			nanosleep(&pause, NULL);
	}
	pages = (long)after.resident_pages - (long)before.resident_pages;
	print_message("%s, %u times: %+d descriptors, %+ld bytes of heap, %+ld pages resident\n",
		      what, GROWTH_ROUNDS, (int)(after.descriptors - before.descriptors),
		      (long)(after.heap_bytes - before.heap_bytes), pages);
	assert_true(none);
	assert_true(GROWTH_SANITIZED || pages < PAGES_MAX);
}
