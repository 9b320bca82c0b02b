/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config_scan.h"

/* The bytes of a text, NUL among them, without the one that ends it. */
#define BYTES(text) text, sizeof(text) - 1

static const char digits[] = "expected a number of at most 9 digits";
static const char decimal[] = "expected a decimal number";
static const char nul[] = "expected text without a NUL";
static const char comment[] = "expected the end of this comment, */";
static const char quote[] = "expected the end of this text, \"";
static const char include[] = "expected everything in this file: no @include";

struct found {
	unsigned int n, line;
	char key[80];
	const char *expected;
};

static void keep(void *arg, unsigned int line, const char *key, const char *expected)
{
	struct found *found = arg;

	found->n++;
	found->line = line;
	snprintf(found->key, sizeof(found->key), "%s", key ? key : "(none)");
	found->expected = expected;
}

/* The scan sees a copy of exactly n bytes, so that a step beyond them is caught by ASan. */
static int scan(const char *text, size_t n, struct found *found)
{
	char *copy = malloc(n ? n : 1);
	int err;

	assert_non_null(copy);
	memcpy(copy, text, n);
	*found = (struct found){0};
	err = gk_config_scan(copy, n, keep, found);
	free(copy);
	return err;
}

static void what_libconfig_passes_over_is_found(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		unsigned int line;
		const char *key, *expected;
		int err;
	} texts[] = {
		{BYTES("depth = 4294967424;"), 1, "depth", digits, 0},
		{BYTES("depth = 1234567890"), 1, "depth", digits, 0},
		{BYTES("\na-b =\n-1234567890"), 3, "a-b", digits, 0},
		{BYTES("a = 0000000001L"), 1, "a", digits, 0},
		{BYTES("a = 12345678901LL"), 1, "a", digits, 0},
		{BYTES("12345678901"), 1, "(none)", digits, 0},
		{BYTES("id = 0xFFFFFFFF;"), 1, "id", decimal, 0},
		{BYTES("id=0b101;"), 1, "id", decimal, 0},
		{BYTES("/* a\n*/ /*/\n\n"), 2, "(none)", comment, -EINVAL},
		{BYTES("/*"), 1, "(none)", comment, -EINVAL},
		{BYTES("\na = \"b\n\n"), 2, "(none)", quote, -EINVAL},
		{BYTES("\""), 1, "(none)", quote, -EINVAL},
		{BYTES("a = \"\\"), 1, "(none)", quote, -EINVAL},
		{BYTES("a = \"\\\""), 1, "(none)", quote, -EINVAL},
		{BYTES("a = \"\n\\x00\""), 2, "(none)", nul, -EINVAL},
		{BYTES("a = \"\n\0\""), 2, "(none)", nul, -EINVAL},
		{BYTES("a = 1;\n\0"), 2, "(none)", nul, -EINVAL},
		{BYTES("a\0"), 1, "(none)", nul, -EINVAL},
		{BYTES("\"x\"\n \t@include \"/\""), 2, "(none)", include, -EINVAL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct found found;
		int err = scan(texts[i].text, texts[i].n, &found);

		if (err != texts[i].err || found.n != 1 || found.line != texts[i].line ||
		    strcmp(found.key, texts[i].key) || strcmp(found.expected, texts[i].expected))
			fail_msg("%s: %d, %u mistakes, the last %u: %s: %s", texts[i].text, err,
				 found.n, found.line, found.key,
				 found.expected ? found.expected : "(none)");
	}
}

static void what_is_right_passes(void **state)
{
	static const char *const texts[] = {
		"",
		"a",
		"/",
		"1",
		"a = 999999999;",
		"a = -999999999L;",
		"a = 1e5;",
		"a = 1E-5;",
		"a = 0.1234567890123;",
		"a = 1234567890.5;",
		"a1234567890 = 1;",
		"a = 0L;",
		"a = \"1234567890 @include /* # \\\" \\\\\";",
		"# 1234567890 \" /* @\n",
		"// 0xFF \" /* @",
		"/* 1234567890 \" @ # // \n ** */ a = \"\"; /**/",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct found found;

		if (scan(texts[i], strlen(texts[i]), &found) || found.n)
			fail_msg("%s: %u: %s", texts[i], found.line, found.expected);
	}
}

static void every_bad_number_is_told(void **state)
{
	struct found found;

	(void)state;
	assert_int_equal(
		scan(BYTES("a = 1234567890; b = 0x1;\nc = [ 1234567890, 5, 1234567890 ];"), &found),
		0);
	assert_int_equal(found.n, 4);
	assert_string_equal(found.key, "c");
	assert_int_equal(found.line, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_libconfig_passes_over_is_found),
		cmocka_unit_test(what_is_right_passes),
		cmocka_unit_test(every_bad_number_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
