// SPDX-License-Identifier: MIT
/* A queue's memory is there before the first request, and it is as much as gk_queue_bytes() says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loop.h"
#include "memory.h"

/* How many of the pages that hold these bytes are in memory. */
static size_t present(const void *start, size_t bytes, size_t *ret_pages)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t first = (uintptr_t)start / page * page;
	size_t n = ((uintptr_t)start + bytes - first + page - 1) / page;
	unsigned char *in = malloc(n);
	size_t count = 0;

	assert_non_null(in);
	assert_int_equal(mincore((void *)first, n * page, in), 0);
	for (size_t i = 0; i < n; i++)
		count += in[i] & 1;
	free(in);
	*ret_pages = n;
	return count;
}

static void assert_present(const void *start, size_t bytes)
{
	size_t n_pages, n = present(start, bytes, &n_pages);

	assert_int_equal(n, n_pages);
}

static const struct gk_path lending = {.name = "lending", .kernel_buffers = true};

static void a_queue_is_in_memory_from_the_start(void **state)
{
	const struct gk_path *const paths[] = {&gk_path_copy, &lending};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct gk_queue_params params = {
			.path = paths[i],
			.depth = 32,
			.n_sessions = 3,
			.max_io_bytes = 512 * 1024,
			.threshold_bytes = 32 * 1024,
		};
		struct gk_queue queue;

		assert_int_equal(gk_queue_init(&queue, &params), 0);
		assert_present(queue.buffers, (size_t)queue.depth * queue.buf_bytes);
		for (unsigned int s = 0; s < params.n_sessions; s++) {
			assert_present(queue.sessions[s].staging, GK_STAGING_BYTES);
			assert_present(queue.sessions[s].bounce, GK_BOUNCE_BYTES);
			assert_present(queue.sessions[s].headers,
				       params.depth * sizeof(*queue.sessions[s].headers));
		}
		gk_queue_done(&queue);
	}
}

static void populating_changes_no_byte(void **state)
{
	size_t bytes = 1 << 20, n;
	uint8_t *buffer = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1, 0);

	(void)state;
	assert_ptr_not_equal(buffer, MAP_FAILED);
	/* This is what the test above would see of a buffer that nobody has touched. */
	assert_int_equal(present(buffer, bytes, &n), 0);
	memset(buffer + 5000, 0xa5, 10);
	assert_int_equal(gk_memory_populate(buffer + 5000, bytes - 5000), 0);
	assert_present(buffer + 5000, bytes - 5000);
	for (size_t i = 4096; i < bytes; i++)
		assert_int_equal(buffer[i], i >= 5000 && i < 5010 ? 0xa5 : 0);
	assert_int_equal(gk_memory_populate(buffer, 0), 0);
	munmap(buffer, bytes);
}

static void memory_that_is_not_there_is_an_error(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *buffer = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1, 0);

	(void)state;
	assert_ptr_not_equal(buffer, MAP_FAILED);
	munmap(buffer + page, page);
	assert_int_equal(gk_memory_populate(buffer, 3 * page), -ENOMEM);
	munmap(buffer, page);
	munmap(buffer + 2 * page, page);
	assert_in_range(gk_memory_available(), 1 << 20, (uint64_t)1 << 50);
}

/* The formula of README.md, "Memory". */
static void bytes_follow_depth_path_and_connections(void **state)
{
	struct gk_queue_params params = {
		.depth = 128,
		.n_sessions = 1,
		.max_io_bytes = 512 * 1024,
		.threshold_bytes = 32 * 1024,
	};
	size_t copy = gk_queue_bytes(&params), two, lent;

	(void)state;
	params.n_sessions = 2;
	two = gk_queue_bytes(&params);
	assert_in_range(two - copy, 320 * 1024, 336 * 1024);
	params.path = &lending;
	lent = gk_queue_bytes(&params);
	assert_int_equal(two - lent, (size_t)128 * (512 - 32) * 1024);
	params.depth = 4096;
	params.n_sessions = 1;
	assert_in_range(gk_queue_bytes(&params), (size_t)4096 * 32 * 1024,
			(size_t)4096 * 33 * 1024);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_queue_is_in_memory_from_the_start),
		cmocka_unit_test(populating_changes_no_byte),
		cmocka_unit_test(memory_that_is_not_there_is_an_error),
		cmocka_unit_test(bytes_follow_depth_path_and_connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
