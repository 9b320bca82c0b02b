/* SPDX-License-Identifier: MIT */
#include "config_scan.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAX_DIGITS 9 /* safely inside 32 bits, and no key takes more */

struct scan {
	const char *at, *end;
	unsigned int line;
	char key[65]; /* the last name that was passed */
	gk_config_scan_fn *mistake;
	void *arg;
};

static bool at(const struct scan *scan, const char *word)
{
	size_t n = strlen(word);

	return (size_t)(scan->end - scan->at) >= n && !memcmp(scan->at, word, n);
}

static void step(struct scan *scan)
{
	if (*scan->at++ == '\n')
		scan->line++;
}

static int stop(struct scan *scan, unsigned int line, const char *expected)
{
	scan->mistake(scan->arg, line, NULL, expected);
	return -EINVAL;
}

static void skip_line(struct scan *scan)
{
	while (scan->at < scan->end && *scan->at != '\n')
		scan->at++;
}

static int skip_comment(struct scan *scan)
{
	unsigned int line = scan->line;

	for (scan->at += 2; scan->at < scan->end; step(scan)) {
		if (at(scan, "*/")) {
			scan->at += 2;
			return 0;
		}
	}
	return stop(scan, line, "expected the end of this comment, */");
}

static int skip_text(struct scan *scan)
{
	unsigned int line = scan->line;

	for (scan->at++; scan->at < scan->end; step(scan)) {
		if (*scan->at == '"') {
			scan->at++;
			return 0;
		}
		if (*scan->at == '\0' || at(scan, "\\x00"))
			return stop(scan, scan->line, "expected text without a NUL");
		if (*scan->at == '\\' && scan->at + 1 < scan->end)
			step(scan);
	}
	return stop(scan, line, "expected the end of this text, \"");
}

static void check_number(struct scan *scan, const char *word, size_t n)
{
	const char *expected = NULL;
	size_t digits = 0;

	while (digits < n && isdigit((unsigned char)word[digits]))
		digits++;
	if (digits == 1 && n > 1 && isalpha((unsigned char)word[1]) && !strchr("eEL", word[1]))
		expected = "expected a decimal number";
	else if (digits > MAX_DIGITS && (digits == n || word[digits] == 'L'))
		expected = "expected a number of at most 9 digits";
	if (expected)
		scan->mistake(scan->arg, scan->line, *scan->key ? scan->key : NULL, expected);
}

static void skip_word(struct scan *scan)
{
	const char *word = scan->at;
	size_t n = 0;

	/* A sign belongs to a name, as in a-b, and to an exponent. */
	while (word + n < scan->end && word[n] &&
	       (isalnum((unsigned char)word[n]) || strchr("_.*-+", word[n])))
		n++;
	scan->at += n;
	if (isdigit((unsigned char)*word))
		check_number(scan, word, n);
	else
		snprintf(scan->key, sizeof(scan->key), "%.*s", (int)n, word);
}

int gk_config_scan(const char *text, size_t n, gk_config_scan_fn *mistake, void *arg)
{
	struct scan scan = {text, text + n, 1, "", mistake, arg};
	int err = 0;

	while (!err && scan.at < scan.end) {
		if (*scan.at == '"')
			err = skip_text(&scan);
		else if (*scan.at == '#' || at(&scan, "//"))
			skip_line(&scan);
		else if (at(&scan, "/*"))
			err = skip_comment(&scan);
		else if (*scan.at == '@')
			err = stop(&scan, scan.line,
				   "expected everything in this file: no @include");
		else if (*scan.at == '\0')
			err = stop(&scan, scan.line, "expected text without a NUL");
		else if (isalnum((unsigned char)*scan.at))
			skip_word(&scan);
		else
			step(&scan);
	}
	return err;
}
