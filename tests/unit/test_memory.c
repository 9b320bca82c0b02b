// SPDX-License-Identifier: MIT
/* A queue's memory is there before the first request, and it is as much as gk_queue_bytes() says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
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
}

/* A file of the fake system, with the folders above it. */
static void put(const char *root, const char *path, const char *text)
{
	char full[PATH_MAX];
	FILE *file;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *slash = strchr(full + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
		*slash = '/';
	}
	file = fopen(full, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* What a process may take, and who says so. */
static void assert_room(const char *root, uint64_t mib, const char *limit)
{
	char why[PATH_MAX];
	uint64_t available = gk_memory_available(root, why, sizeof(why));

	assert_int_equal(available, mib << 20);
	assert_string_equal(limit[0] ? why + strlen(root) : why, limit);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void the_tightest_limit_counts(void **state)
{
	char root[] = "/tmp/gk-memory-XXXXXX";

	(void)state;
	assert_non_null(mkdtemp(root));
	put(root, "/proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 1048576 kB\n");
	assert_room(root, 1024, "");

	/* Version 2: the unit has a limit, and so has the slice above it. */
	put(root, "/proc/self/cgroup", "0::/a.slice/gkproxy.service\n");
	assert_room(root, 1024, "");
	put(root, "/sys/fs/cgroup/a.slice/gkproxy.service/memory.max", "max\n");
	put(root, "/sys/fs/cgroup/a.slice/gkproxy.service/memory.high", "max\n");
	put(root, "/sys/fs/cgroup/a.slice/gkproxy.service/memory.current", "104857600\n");
	assert_room(root, 1024, "");
	put(root, "/sys/fs/cgroup/a.slice/gkproxy.service/memory.max", "419430400\n");
	assert_room(root, 300, "/sys/fs/cgroup/a.slice/gkproxy.service/memory.max");
	put(root, "/sys/fs/cgroup/a.slice/gkproxy.service/memory.stat",
	    "anon 1\nfile 90000000\nactive_anon 5\ninactive_file 10485760\nactive_file 20971520\n");
	assert_room(root, 330, "/sys/fs/cgroup/a.slice/gkproxy.service/memory.max");
	put(root, "/sys/fs/cgroup/a.slice/memory.max", "419430400\n");
	put(root, "/sys/fs/cgroup/a.slice/memory.current", "314572800\n");
	assert_room(root, 100, "/sys/fs/cgroup/a.slice/memory.max");
	put(root, "/sys/fs/cgroup/a.slice/memory.high", "367001600\n");
	assert_room(root, 50, "/sys/fs/cgroup/a.slice/memory.high");
	/* The limit was lowered below what is used. */
	put(root, "/sys/fs/cgroup/a.slice/memory.max", "1048576\n");
	assert_room(root, 0, "/sys/fs/cgroup/a.slice/memory.max");

	/* Version 1, in a container that has the host's path and only its own cgroup. */
	put(root, "/proc/self/cgroup",
	    "12:cpu,cpuacct:/docker/77\n5:memory:/docker/77\n1:name=systemd:/docker/77\n0::/x\n");
	assert_room(root, 1024, "");
	put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put(root, "/sys/fs/cgroup/memory/memory.usage_in_bytes", "52428800\n");
	put(root, "/sys/fs/cgroup/memory/memory.stat",
	    "inactive_file 1\nactive_file 1\ntotal_inactive_file 20971520\ntotal_active_file 0\n");
	assert_room(root, 1024, "");
	put(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n");
	assert_room(root, 98, "/sys/fs/cgroup/memory/memory.limit_in_bytes");

	/* The host has less than any limit leaves; what cannot be understood limits nothing. */
	put(root, "/proc/meminfo", "MemAvailable: 2048 kB\n");
	assert_room(root, 2, "");
	put(root, "/proc/self/cgroup", "\n5\n5:memory\n5:memory:\n0::nonsense\n::\n");
	assert_room(root, 2, "");
	assert_int_equal(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void this_host_has_memory_to_spare(void **state)
{
	char why[PATH_MAX];

	(void)state;
	assert_in_range(gk_memory_available("", why, sizeof(why)), 1 << 20, (uint64_t)1 << 50);
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
		cmocka_unit_test(the_tightest_limit_counts),
		cmocka_unit_test(this_host_has_memory_to_spare),
		cmocka_unit_test(bytes_follow_depth_path_and_connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
