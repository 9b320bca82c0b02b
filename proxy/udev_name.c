// SPDX-License-Identifier: MIT
#include "udev_name.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#define RUN_DIR	 "/run/gkproxy"
#define UDEV_DIR RUN_DIR "/udev"
#define DISK	 "ublkb"

static void file_of(int dev_id, char *ret_path, size_t size)
{
	snprintf(ret_path, size, UDEV_DIR "/" DISK "%d", dev_id);
}

/* A descriptor with the file's lock. The file is a new one: its former owner may still have that one's lock. */
static int write_file(const char *path, const char *name)
{
	char fresh[sizeof(UDEV_DIR) + 40];
	int r = 0;
	int fd;

	(void)mkdir(RUN_DIR, 0755);
	(void)mkdir(UDEV_DIR, 0755);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	/* Names have letters, digits, '.', '_' and '-': nothing that udev would expand. */
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 || dprintf(fd, "GKPROXY_NAME=%s\n", name) < 0 ||
	    rename(fresh, path) < 0)
		r = -errno;
	if (!r)
		return fd;
	unlink(fresh);
	close(fd);
	return r;
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

/* Its owner lives, or the kernel still has the disk. */
static bool is_taken(const char *path, const char *disk)
{
	char sysfs[sizeof("/sys/class/block/") + NAME_MAX];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0;

	if (fd >= 0)
		close(fd);
	snprintf(sysfs, sizeof(sysfs), "/sys/class/block/%s", disk);
	return locked || access(sysfs, F_OK) == 0;
}

/* Whether a disk of this host other than the one that own_path is of has the name: ret_disk. */
static bool find_other(const char *own_path, const char *name, char *ret_disk, size_t size)
{
	DIR *dir = opendir(UDEV_DIR);
	struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		char path[sizeof(UDEV_DIR) + 1 + NAME_MAX];
		const char *number = entry->d_name + strlen(DISK);

		if (strncmp(entry->d_name, DISK, strlen(DISK)) != 0 ||
		    number[strspn(number, "0123456789")])
			continue;
		snprintf(path, sizeof(path), UDEV_DIR "/%s", entry->d_name);
		found = strcmp(path, own_path) != 0 && is_of(path, name) &&
			is_taken(path, entry->d_name);
		if (found)
			snprintf(ret_disk, size, "%s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

int gk_udev_name_save(int dev_id, const char *name, int *ret_fd)
{
	char path[sizeof(UDEV_DIR) + 32];
	char other[NAME_MAX + 1];
	int fd;

	file_of(dev_id, path, sizeof(path));
	/* First ours, then a look around: of two who do so at a time, one at least sees the other. */
	fd = write_file(path, name);
	if (fd < 0)
		gk_log(GK_LOG_WARNING, "%s: cannot write %s: %s: udev will not make /dev/gkproxy/%s",
		       name, path, gk_strerror(fd), name);
	if (find_other(path, name, other, sizeof(other))) {
		gk_log(GK_LOG_ERROR, "%s: /dev/%s has this name already, from a gkproxy with another "
		       "state_dir (%s/%s): detach that one, or give this one another name", name,
		       other, UDEV_DIR, other);
		gk_udev_name_forget(dev_id, name, fd);
		return -EEXIST;
	}
	*ret_fd = fd < 0 ? -1 : fd;
	return 0;
}

void gk_udev_name_forget(int dev_id, const char *name, int fd)
{
	char path[sizeof(UDEV_DIR) + 32];

	file_of(dev_id, path, sizeof(path));
	if (is_of(path, name))
		unlink(path);
	if (fd >= 0)
		close(fd);
}
