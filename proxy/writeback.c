// SPDX-License-Identifier: MIT
#include "writeback.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "holders.h"
#include "log.h"

static void sync_path(int dev_id, const char *path, int flags, int (*sync_fd)(int fd))
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0 || sync_fd(fd) < 0)
		gk_log(GK_LOG_WARNING, "dev%d: cannot write out %s: %s", dev_id, path,
		       gk_strerror(errno));
	if (fd >= 0)
		close(fd);
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
		    gk_holders_is_on_device(dev, dev_id)) {
			gk_holders_unescape(where);
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
