// SPDX-License-Identifier: MIT
/* Who uses a device: when that cannot be found out, it counts as used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "holders.h"

#define NO_DEVICE 99999

/* As many descriptors may be opened, and no more. */
static void leave(unsigned int n)
{
	struct rlimit limit;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)fd + n;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void without_descriptors_it_counts_as_used(void **state)
{
	struct rlimit before;
	char what[256];

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	assert_false(gk_holders_find(NO_DEVICE, what, sizeof(what)));
	/* Two are open at a time: /proc, and the folder of a process. */
	for (unsigned int n = 0; n < 3; n++) {
		memset(what, 0, sizeof(what));
		leave(n);
		assert_int_equal(gk_holders_find(NO_DEVICE, what, sizeof(what)), n < 2);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
		if (n < 2)
			assert_non_null(strstr(what, "perhaps in use, which cannot be found out (Too many"));
	}
}

static bool no_memory; /* for lines */

ssize_t __real_getline(char **line, size_t *size, FILE *file);
ssize_t __wrap_getline(char **line, size_t *size, FILE *file);
ssize_t __real___getdelim(char **line, size_t *size, int end, FILE *file);
ssize_t __wrap___getdelim(char **line, size_t *size, int end, FILE *file);

ssize_t __wrap_getline(char **line, size_t *size, FILE *file)
{
	return no_memory ? -1 : __real_getline(line, size, file);
}

/* What getline() is in optimized code. */
ssize_t __wrap___getdelim(char **line, size_t *size, int end, FILE *file)
{
	return no_memory ? -1 : __real___getdelim(line, size, end, file);
}

static void without_memory_it_counts_as_used(void **state)
{
	char what[512] = "";

	(void)state;
	no_memory = true;
	assert_true(gk_holders_find(NO_DEVICE, what, sizeof(what)));
	no_memory = false;
	assert_non_null(strstr(what, "perhaps in use, which cannot be found out (Cannot allocate"));
	assert_false(gk_holders_find(NO_DEVICE, what, sizeof(what)));
}

static void names_of_mount_points_are_unescaped(void **state)
{
	char path[] = "/mnt/a\\040b\\134c";

	(void)state;
	gk_holders_unescape(path);
	assert_string_equal(path, "/mnt/a b\\c");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_descriptors_it_counts_as_used),
		cmocka_unit_test(without_memory_it_counts_as_used),
		cmocka_unit_test(names_of_mount_points_are_unescaped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
