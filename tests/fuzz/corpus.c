// SPDX-License-Identifier: MIT
/*
 * Without libFuzzer: gives a harness each file of a folder, whole and cut off at each byte. The
 * regressions that fuzzing found are among them.
 */
#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "fuzz.h"

#define MAX_FILE 65536

/* In memory of exactly its size, so that the sanitizer sees a read beyond it. */
static void feed(const uint8_t *bytes, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	CHECK(copy);
	memcpy(copy, bytes, n);
	LLVMFuzzerTestOneInput(copy, n);
	free(copy);
}

static void feed_file(const char *path)
{
	static uint8_t bytes[MAX_FILE];
	FILE *file = fopen(path, "re");
	size_t n;

	CHECK(file);
	n = fread(bytes, 1, sizeof(bytes), file);
	CHECK(!ferror(file) && n < sizeof(bytes));
	fclose(file);
	/* What aborts is then the last one that was named. */
	fprintf(stderr, "%s\n", path);
	for (size_t cut = n < 2048 ? 0 : n; cut <= n; cut++)
		feed(bytes, cut);
}

int main(int argc, char **argv)
{
	unsigned int n_files = 0;
	struct dirent *entry;
	DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;

	if (!folder) {
		fprintf(stderr, "usage: %s FOLDER: %s\n", argv[0], strerror(errno));
		return 2;
	}
	while ((entry = readdir(folder))) {
		char path[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
		feed_file(path);
		n_files++;
	}
	closedir(folder);
	printf("%u files\n", n_files);
	return n_files ? 0 : 1;
}
