// SPDX-License-Identifier: MIT
#include "writeback.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

/* Whether "major:minor" is the device or one of its partitions: their sysfs folders are nested. */
static bool is_on_device(const char *dev, int dev_id)
{
	char link[64];
	char target[PATH_MAX];
	char disk[32];
	ssize_t n;

	snprintf(link, sizeof(link), "/sys/dev/block/%s", dev);
	n = readlink(link, target, sizeof(target) - 2);
	if (n < 0)
		return false;
	memcpy(target + n, "/", 2);
	snprintf(disk, sizeof(disk), "/ublkb%d/", dev_id);
	return strstr(target, disk);
}

static void sync_path(int dev_id, const char *path, int flags, int (*sync_fd)(int fd))
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0 || sync_fd(fd) < 0)
		gk_log(GK_LOG_WARNING, "dev%d: cannot write out %s: %s", dev_id, path,
		       gk_strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Undoes the octal escapes of mountinfo, in place: proc(5). */
static void unescape(char *path)
{
	char *to = path;

	for (const char *from = path; *from; to++) {
		unsigned int octal;

		if (*from == '\\' && sscanf(from + 1, "%3o", &octal) == 1) {
			*to = (char)octal;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

void gk_writeback(int dev_id)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char path[32];
	char *line = NULL;
	size_t size = 0;

	while (mounts && getline(&line, &size, mounts) > 0) {
		char dev[32];
		char *where = NULL;

		if (sscanf(line, "%*d %*d %31s %*s %ms", dev, &where) == 2 &&
		    is_on_device(dev, dev_id)) {
			unescape(where);
			sync_path(dev_id, where, O_RDONLY, syncfs);
		}
		free(where);
	}
	free(line);
	if (mounts)
		fclose(mounts);
	snprintf(path, sizeof(path), "/dev/ublkb%d", dev_id);
	sync_path(dev_id, path, O_RDONLY, fsync);
}
