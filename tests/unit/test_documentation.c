// SPDX-License-Identifier: MIT
/* proxy.conf(5) and the sample name every key that the parser knows, with its kind and default, and no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_keys.h"

#define ITEM ".It Ic "

static char *read_file(const char *name)
{
	char path[512];
	char *text = NULL;
	size_t size = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", GK_SOURCE_DIR, name);
	file = fopen(path, "re");
	if (!file || getdelim(&text, &size, '\0', file) < 0)
		fail_msg("cannot read %s", path);
	fclose(file);
	return text;
}

static const char *kind_of(const struct gk_config_key *key)
{
	switch (key->kind) {
	case GK_KEY_BOOL:
		return "boolean";
	case GK_KEY_NUMBER:
		return "number";
	case GK_KEY_SIZE:
		return "size";
	case GK_KEY_TIME:
		return "seconds";
	case GK_KEY_CHOICE:
		return "word";
	case GK_KEY_TEXT:
	case GK_KEY_NAME:
	case GK_KEY_ADDRESS:
		return "text";
	case GK_KEY_REMOTE:
		return "text or list of texts";
	case GK_KEY_SECTION:
		return !strcmp(key->name, "devices") ? "list of groups" : "group";
	}
	return "?";
}

/* "default ...", as the page has it; quotes as quote. Nothing for what has no default. */
static void default_of(const struct gk_config_key *key, const char *quote, char *text, size_t size)
{
	double value = key->fallback;

	switch (key->kind) {
	case GK_KEY_BOOL:
		snprintf(text, size, ", default %s", value != 0 ? "true" : "false");
		break;
	case GK_KEY_NUMBER:
	case GK_KEY_TIME:
	case GK_KEY_SIZE:
		snprintf(text, size, ", default %g", value);
		break;
	case GK_KEY_CHOICE:
		snprintf(text, size, ", default %s%s%s", quote, key->choices[(int)value], quote);
		break;
	case GK_KEY_TEXT:
	case GK_KEY_ADDRESS:
		snprintf(text, size, ", default %s%s%s", quote, key->text_fallback, quote);
		break;
	case GK_KEY_NAME:
	case GK_KEY_REMOTE:
		snprintf(text, size, ", required");
		break;
	case GK_KEY_SECTION:
		text[0] = '\0';
	}
}

static void entry_has_choices(const char *entry, const struct gk_config_key *key)
{
	const char *end = strstr(entry, "\n" ITEM);
	char *said = strndup(entry, end ? (size_t)(end - entry) : strlen(entry));

	for (int i = 0; key->choices[i]; i++) {
		char word[64];

		snprintf(word, sizeof(word), ".Qq %s", key->choices[i]);
		if (!strstr(said, word))
			fail_msg("proxy.conf.5 lacks the word \"%s\" of %s", key->choices[i],
				 key->name);
	}
	free(said);
}

static void page_has(const char *page, const struct gk_config_key *keys)
{
	for (; keys->name; keys++) {
		char standard[256];
		char line[512];
		const char *found;

		default_of(keys, "\\(dq", standard, sizeof(standard));
		snprintf(line, sizeof(line), "\n" ITEM "%s No = %s%s\n", keys->name, kind_of(keys),
			 standard);
		found = strstr(page, line);
		if (!found)
			fail_msg("proxy.conf.5 lacks the line '%.*s'", (int)strlen(line) - 2, line + 1);
		entry_has_choices(found + strlen(line), keys);
	}
}

static void the_page_names_every_key(void **state)
{
	char *page = read_file("deploy/man/proxy.conf.5");

	(void)state;
	page_has(page, gk_config_file_keys);
	page_has(page, gk_config_device_keys);
	free(page);
}

static void the_page_names_no_other_key(void **state)
{
	char *page = read_file("deploy/man/proxy.conf.5");
	size_t found = 0;

	(void)state;
	for (char *item = strstr(page, "\n" ITEM); item; item = strstr(item + 1, "\n" ITEM)) {
		char name[64] = "";

		sscanf(item + 1, ITEM "%63s", name);
		if (!gk_config_keys_find(gk_config_file_keys, name) &&
		    !gk_config_keys_find(gk_config_device_keys, name))
			fail_msg("proxy.conf.5 has a key that the parser does not know: %s", name);
		found++;
	}
	assert_true(found > 0);
	free(page);
}

/* Whether sample has "key = " with nothing but blanks, '#' or '{' and ';' of a group before it. */
static bool sample_sets(const char *sample, const char *key)
{
	const char *dot = strchr(key, '.');
	const char *word = dot ? dot + 1 : key;
	size_t n = strlen(word);

	for (const char *p = strstr(sample, word); p; p = strstr(p + 1, word)) {
		const char *after = p + n + strspn(p + n, " ");

		if (strchr(" #{;\n", p[-1]) && *after == '=')
			return true;
	}
	return false;
}

static void the_sample_shows_every_key(void **state)
{
	const struct gk_config_key *tables[] = {gk_config_file_keys, gk_config_device_keys};
	char *sample = read_file("deploy/proxy.conf");

	(void)state;
	for (size_t i = 0; i < 2; i++)
		for (const struct gk_config_key *key = tables[i]; key->name; key++)
			if (!sample_sets(sample, key->name))
				fail_msg("deploy/proxy.conf does not show %s", key->name);
	free(sample);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_page_names_every_key),
		cmocka_unit_test(the_page_names_no_other_key),
		cmocka_unit_test(the_sample_shows_every_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
