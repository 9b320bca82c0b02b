// SPDX-License-Identifier: MIT
#include "udev_name.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#define RUN_DIR	 "/run/gkproxy"
#define UDEV_DIR RUN_DIR "/udev"

static void file_of(int dev_id, char *ret_path, size_t size)
{
	snprintf(ret_path, size, UDEV_DIR "/ublkb%d", dev_id);
}

static int write_file(const char *path, const char *name)
{
	FILE *file;
	int r = 0;

	(void)mkdir(RUN_DIR, 0755);
	(void)mkdir(UDEV_DIR, 0755);
	file = fopen(path, "we");
	if (!file)
		return -errno;
	/* Names have letters, digits, '.', '_' and '-': nothing that udev would expand. */
	if (fprintf(file, "GKPROXY_NAME=%s\n", name) < 0)
		r = -errno;
	if (fclose(file) && !r)
		r = -errno;
	return r;
}

void gk_udev_name_save(int dev_id, const char *name)
{
	char path[sizeof(UDEV_DIR) + 32];
	int r;

	file_of(dev_id, path, sizeof(path));
	r = write_file(path, name);
	if (r)
		gk_log(GK_LOG_WARNING, "%s: cannot write %s: %s: udev will not make /dev/gkproxy/%s",
		       name, path, gk_strerror(r), name);
}

/* The number may be another daemon's by now. */
static bool is_of(const char *path, const char *name)
{
	char line[128] = "";
	char expected[128];
	FILE *file = fopen(path, "re");

	if (!file)
		return false;
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	snprintf(expected, sizeof(expected), "GKPROXY_NAME=%s\n", name);
	return !strcmp(line, expected);
}

void gk_udev_name_forget(int dev_id, const char *name)
{
	char path[sizeof(UDEV_DIR) + 32];

	file_of(dev_id, path, sizeof(path));
	if (is_of(path, name))
		unlink(path);
}
