// SPDX-License-Identifier: MIT
#include "memory.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* A locked stack is in memory as a whole; getaddrinfo() is what needs most of one. */
#ifdef __SANITIZE_THREAD__
#define STACK_BYTES (8192 * 1024) /* the sanitizer's own data of a thread is on it */
#else
#define STACK_BYTES (512 * 1024)
#endif
#define OOM_SCORE   "-1000" /* never: what the OOM killer gains by killing us hangs all that uses us */

static bool has_ipc_lock(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	return syscall(SYS_capget, &header, data) == 0 &&
	       data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

/* With a limit, each mmap() above it would fail, at some time long after mlockall() has succeeded. */
static bool may_lock_all(void)
{
	struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	struct rlimit limit;

	return has_ipc_lock() || setrlimit(RLIMIT_MEMLOCK, &unlimited) == 0 ||
	       (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY);
}

static void lock_all(void)
{
	pthread_attr_t attr;
	int r = 0;

	if (!pthread_attr_init(&attr)) {
		(void)pthread_attr_setstacksize(&attr, STACK_BYTES);
		(void)pthread_setattr_default_np(&attr);
		(void)pthread_attr_destroy(&attr);
	}
	if (!may_lock_all())
		r = -EPERM;
	else if (mlockall(MCL_CURRENT | MCL_FUTURE))
		r = -errno;
	if (r)
		gk_log(GK_LOG_WARNING,
		       "memory is not locked (%s): a host that swaps, or that is short of memory, may "
		       "hang on its own devices; give gkproxy CAP_IPC_LOCK or LimitMEMLOCK=infinity",
		       gk_strerror(r));
}

/*
 * Memory that a thread allocates must not wait for writes to a device of ours: neither that of a
 * queue, nor that of one that dials a server anew while writes wait for just that. Threads made later
 * inherit it (Linux kernel/fork.c, copy_process()). The effect is checked, since a kernel that ignores
 * the call would only show as a hang under memory pressure.
 */
static void become_io_flusher(void)
{
	int r = prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) ? -errno : 0;

	if (!r && prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) != 1)
		r = -EINVAL;
	if (r)
		gk_log(GK_LOG_WARNING,
		       "PR_SET_IO_FLUSHER failed (%s): under memory pressure devices may hang; run with "
		       "CAP_SYS_RESOURCE", gk_strerror(r));
}

static void spare_from_oom_killer(void)
{
	static const char path[] = "/proc/self/oom_score_adj";
	FILE *file = fopen(path, "r+e");
	int score = 0;
	int r = file ? 0 : -errno;

	if (file) {
		/* Another value than 0 was somebody's choice. */
		if (fscanf(file, "%d", &score) == 1 && score == 0) {
			rewind(file);
			fputs(OOM_SCORE, file);
		}
		if (fclose(file))
			r = -errno;
	}
	if (r)
		gk_log(GK_LOG_WARNING,
		       "cannot lower %s (%s): when memory runs out the kernel may kill gkproxy, and "
		       "what uses its devices hangs; give it CAP_SYS_RESOURCE or OOMScoreAdjust=-1000",
		       path, gk_strerror(r));
}

void gk_memory_protect(void)
{
	lock_all();
	become_io_flusher();
	spare_from_oom_killer();
}

int gk_memory_populate(void *start, size_t bytes)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t first = (uintptr_t)start / page * page;
	uintptr_t end = ((uintptr_t)start + bytes + page - 1) / page * page;

	if (!bytes || !madvise((void *)first, end - first, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return -ENOMEM;
	/* An older kernel; what is in the buffer stays. */
	for (uintptr_t at = (uintptr_t)start; at < (uintptr_t)start + bytes; at = (at / page + 1) * page)
		*(volatile char *)at = *(volatile char *)at;
	return 0;
}

/* One of the two kinds of cgroups that can limit memory: where it is, and its files. */
struct cgroup_kind {
	const char *mount;
	const char *limits[2];
	const char *usage;
	const char *file_pages[2]; /* of memory.stat; with the cgroups below */
};

static const struct cgroup_kind cgroup_v1 = {
	.mount = "/sys/fs/cgroup/memory",
	.limits = {"memory.limit_in_bytes"},
	.usage = "memory.usage_in_bytes",
	.file_pages = {"total_inactive_file", "total_active_file"},
};

static const struct cgroup_kind cgroup_v2 = {
	.mount = "/sys/fs/cgroup",
	/* Whoever is above memory.high is stalled by the kernel, again and again. */
	.limits = {"memory.max", "memory.high"},
	.usage = "memory.current",
	.file_pages = {"inactive_file", "active_file"},
};

/* False without such a file, or without a number in it ("max"). */
static bool read_number(const char *folder, const char *name, uint64_t *value)
{
	char path[PATH_MAX];
	FILE *file;
	bool is_number;

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return false;
	file = fopen(path, "re");
	if (!file)
		return false;
	is_number = fscanf(file, "%" SCNu64, value) == 1;
	fclose(file);
	return is_number;
}

/* What the kernel takes back when the cgroup is at its limit. */
static uint64_t page_cache_of(const char *folder, const struct cgroup_kind *kind)
{
	char path[PATH_MAX], line[128], name[64];
	uint64_t sum = 0, value;
	FILE *file;

	if (snprintf(path, sizeof(path), "%s/memory.stat", folder) >= (int)sizeof(path))
		return 0;
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %" SCNu64, name, &value) == 2 &&
		    (!strcmp(name, kind->file_pages[0]) || !strcmp(name, kind->file_pages[1])))
			sum += value;
	if (file)
		fclose(file);
	return sum;
}

static void look_at_cgroup(const char *folder, const struct cgroup_kind *kind, uint64_t *available,
			   char *limit, size_t limit_size)
{
	uint64_t max, used, cache;

	if (!read_number(folder, kind->usage, &used))
		return;
	cache = page_cache_of(folder, kind);
	used -= cache < used ? cache : used;
	for (size_t i = 0; i < 2 && kind->limits[i]; i++) {
		if (!read_number(folder, kind->limits[i], &max))
			continue;
		max = used < max ? max - used : 0;
		if (max >= *available)
			continue;
		*available = max;
		snprintf(limit, limit_size, "%s/%s", folder, kind->limits[i]);
	}
}

/*
 * From the process's cgroup up. A container may see its own as the topmost one while its path is
 * the host's: the folders that are not there are passed over.
 */
static void look_at_cgroups(const char *root, const char *path, const struct cgroup_kind *kind,
			    uint64_t *available, char *limit, size_t limit_size)
{
	size_t top = strlen(root) + strlen(kind->mount);
	char folder[PATH_MAX];

	if (snprintf(folder, sizeof(folder), "%s%s%s", root, kind->mount, path) >=
	    (int)sizeof(folder))
		return;
	for (;;) {
		look_at_cgroup(folder, kind, available, limit, limit_size);
		if (strlen(folder) <= top)
			return;
		*strrchr(folder, '/') = '\0';
	}
}

/* A line of /proc/self/cgroup is ID:CONTROLLERS:PATH; v2's has id 0 and no controllers. */
static const struct cgroup_kind *parse_cgroup(char *line, char **ret_path)
{
	char *controllers = strchr(line, ':');
	char *path = controllers ? strchr(controllers + 1, ':') : NULL;

	if (!path || path[1] != '/')
		return NULL;
	*path++ = '\0';
	controllers++;
	path[strcspn(path, "\n")] = '\0';
	*ret_path = path;
	if (!*controllers)
		return &cgroup_v2;
	for (char *save, *name = strtok_r(controllers, ",", &save); name;
	     name = strtok_r(NULL, ",", &save))
		if (!strcmp(name, "memory"))
			return &cgroup_v1;
	return NULL;
}

uint64_t gk_memory_available(const char *root, char *limit, size_t limit_size)
{
	uint64_t available = UINT64_MAX;
	char path[PATH_MAX], line[PATH_MAX + 64];
	uint64_t kib;
	FILE *file;

	limit[0] = '\0';
	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			available = kib * 1024;
	if (file)
		fclose(file);
	snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		char *cgroup;
		const struct cgroup_kind *kind = parse_cgroup(line, &cgroup);

		if (kind)
			look_at_cgroups(root, cgroup, kind, &available, limit, limit_size);
	}
	if (file)
		fclose(file);
	return available;
}
