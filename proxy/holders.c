// SPDX-License-Identifier: MIT
#include "holders.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "log.h"

/* sysfs nests the folders of partitions in that of their disk. */
bool gk_holders_is_on_device(const char *dev, int dev_id)
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

static bool is_on_device_number(dev_t dev, int dev_id)
{
	char text[32];

	snprintf(text, sizeof(text), "%u:%u", major(dev), minor(dev));
	return gk_holders_is_on_device(text, dev_id);
}

void gk_holders_unescape(char *path)
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

/* All lines were read, or there was no memory for one. */
static bool is_at_end(FILE *file)
{
	if (feof(file))
		return true;
	errno = ENOMEM;
	return false;
}

/* After something was not opened: whether it is we who cannot, who then know nothing about users. */
static bool is_in_doubt(char *what, size_t size)
{
	int error = errno;

	if (error != EMFILE && error != ENFILE && error != ENOMEM)
		return false;
	snprintf(what, size, "perhaps in use, which cannot be found out (%s)", gk_strerror(error));
	return true;
}

static bool is_mounted(int dev_id, char *what, size_t size)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (!found && mounts && getline(&line, &room, mounts) > 0) {
		char dev[32];
		char *where = NULL;

		if (sscanf(line, "%*d %*d %31s %*s %ms", dev, &where) == 2 &&
		    gk_holders_is_on_device(dev, dev_id)) {
			gk_holders_unescape(where);
			snprintf(what, size, "mounted at %s", where);
			found = true;
		}
		free(where);
	}
	free(line);
	if (!mounts || (!found && !is_at_end(mounts)))
		found = is_in_doubt(what, size);
	if (mounts)
		fclose(mounts);
	return found;
}

static bool is_swap(int dev_id, char *what, size_t size)
{
	FILE *swaps = fopen("/proc/swaps", "re");
	char *line = NULL;
	size_t room = 0;
	bool found = false;

	while (!found && swaps && getline(&line, &room, swaps) > 0) {
		char *path = NULL;
		struct stat st;

		if (sscanf(line, "%ms", &path) == 1) {
			gk_holders_unescape(path);
			found = !stat(path, &st) && S_ISBLK(st.st_mode) &&
				is_on_device_number(st.st_rdev, dev_id);
		}
		free(path);
	}
	if (found)
		snprintf(what, size, "in use as swap");
	free(line);
	if (!swaps || (!found && !is_at_end(swaps)))
		found = is_in_doubt(what, size);
	if (swaps)
		fclose(swaps);
	return found;
}

/* Device mapper, RAID and their like, on the disk itself. */
static bool has_driver_on_top(int dev_id, char *what, size_t size)
{
	char path[64];
	const struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/block/ublkb%d/holders", dev_id);
	dir = opendir(path);
	while (!found && dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(what, size, "used by /dev/%.64s", entry->d_name);
		found = true;
	}
	if (!dir)
		return is_in_doubt(what, size);
	closedir(dir);
	return found;
}

/* "/dev/ublkb3" or "/dev/ublkb3p1" for 3. */
static bool is_node_name(const char *path, int dev_id)
{
	const char *name = strrchr(path, '/');
	int n = 0;
	int id;

	if (!name || sscanf(name, "/ublkb%d%n", &id, &n) != 1 || id != dev_id)
		return false;
	return !name[n] || (name[n] == 'p' && isdigit((unsigned char)name[n + 1]));
}

static bool process_has_it(const char *pid, int dev_id, char *what, size_t size)
{
	char path[PATH_MAX];
	char command[32] = "?";
	const struct dirent *entry;
	struct stat st;
	bool found = false;
	FILE *file;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	dir = opendir(path);
	while (!found && dir && (entry = readdir(dir))) {
		/* Looked at by name: what else is open there may hang when it is touched. */
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, path, sizeof(path) - 1);

		path[n > 0 ? n : 0] = '\0';
		/* A plain file of that name is none: gkproxy has one itself (udev_name.h). */
		found = is_node_name(path, dev_id) &&
			(fstatat(dirfd(dir), entry->d_name, &st, 0) < 0 || S_ISBLK(st.st_mode));
	}
	if (!dir)
		return is_in_doubt(what, size);
	closedir(dir);
	if (!found)
		return false;
	snprintf(path, sizeof(path), "/proc/%.16s/comm", pid);
	file = fopen(path, "re");
	if (file && fgets(command, sizeof(command), file))
		command[strcspn(command, "\n")] = '\0';
	if (file)
		fclose(file);
	snprintf(what, size, "open in process %.16s (%s)", pid, command);
	return true;
}

static bool is_open(int dev_id, char *what, size_t size)
{
	const struct dirent *entry;
	bool found = false;
	DIR *proc = opendir("/proc");

	while (!found && proc && (entry = readdir(proc)))
		found = isdigit((unsigned char)entry->d_name[0]) &&
			process_has_it(entry->d_name, dev_id, what, size);
	if (!proc)
		return is_in_doubt(what, size);
	closedir(proc);
	return found;
}

/* Claimed by the kernel for somebody who is not seen from here: in another mount namespace, say. */
static bool is_claimed(int dev_id, char *what, size_t size)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/ublkb%d", dev_id);
	fd = open(path, O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	if (fd >= 0)
		return false;
	if (errno != EBUSY)
		return is_in_doubt(what, size);
	snprintf(what, size, "in use (mounted in another namespace, or part of another device)");
	return true;
}

bool gk_holders_find(int dev_id, char *what, size_t size)
{
	return is_mounted(dev_id, what, size) || is_swap(dev_id, what, size) ||
	       has_driver_on_top(dev_id, what, size) || is_open(dev_id, what, size) ||
	       is_claimed(dev_id, what, size);
}
