// SPDX-License-Identifier: MIT
#include "memory.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
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

uint64_t gk_memory_available(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	uint64_t available = UINT64_MAX;
	char line[128];
	uint64_t kib;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			available = kib * 1024;
	if (file)
		fclose(file);
	return available;
}
