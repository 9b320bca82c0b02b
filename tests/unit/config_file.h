/* SPDX-License-Identifier: MIT */
/*
 * For tests of config/: writes a text to a file of its own and loads it. make_directory() and
 * remove_directory() are the group's set-up and tear-down.
 */
#ifndef GK_TESTS_CONFIG_FILE_H
#define GK_TESTS_CONFIG_FILE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"

#define MAX_REPORTS 32

struct reports {
	size_t n;
	char *messages[MAX_REPORTS];
};

static char directory[] = "/tmp/gk-test-config-XXXXXX";
static char path[sizeof(directory) + 16];

static inline int make_directory(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/proxy.conf", directory);
	return 0;
}

static inline int remove_directory(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(directory);
}

static inline void keep_report(void *arg, const char *message)
{
	struct reports *reports = arg;

	assert_true(reports->n < MAX_REPORTS);
	reports->messages[reports->n] = strdup(message);
	assert_non_null(reports->messages[reports->n++]);
}

static inline void free_reports(struct reports *reports)
{
	while (reports->n > 0)
		free(reports->messages[--reports->n]);
}

static inline void write_bytes(const char *text, size_t n)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, n, file), n);
	assert_int_equal(fclose(file), 0);
}

/* Loads the file at path; the messages must be exactly those of want, without the path in front. */
static inline void load_bad(const char *const *want, size_t n_want, int want_err)
{
	struct gk_config *config = (void *)path;
	struct reports reports = {0};

	assert_int_equal(gk_config_load(path, keep_report, &reports, &config), want_err);
	assert_ptr_equal(config, (void *)path);
	for (size_t i = 0; i < reports.n || i < n_want; i++) {
		const char *got = i < reports.n ? reports.messages[i] : "(nothing)";

		if (!strncmp(got, path, strlen(path)))
			got += strlen(path);
		if (i >= n_want || strcmp(got, want[i]))
			fail_msg("message %zu: '%s', not '%s'", i, got,
				 i < n_want ? want[i] : "(nothing)");
	}
	free_reports(&reports);
}

/* The text has this mistake and no other. */
static inline void text_is_bad(const char *text, const char *want)
{
	write_bytes(text, strlen(text));
	load_bad(&want, 1, -EINVAL);
}

static inline struct gk_config *load_good(const char *text)
{
	struct gk_config *config = NULL;
	struct reports reports = {0};

	write_bytes(text, strlen(text));
	if (gk_config_load(path, keep_report, &reports, &config))
		fail_msg("%s: %s", text, reports.n ? reports.messages[0] : "no message");
	assert_int_equal(reports.n, 0);
	return config;
}

/* A file with one device and line in it, as its second line. */
static inline void device_line(const char *line, char *text, size_t size)
{
	snprintf(text, size, "devices = ( { name = \"a\"; remote = \"nbd://h/\";\n%s\n} );\n",
		 line);
}

#endif
