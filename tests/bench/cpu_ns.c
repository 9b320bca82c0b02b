// SPDX-License-Identifier: MIT
/*
 * cpu_ns PID|kernel...: prints for each argument the nanoseconds of run time so far of that
 * process, all its threads included, on one line. kernel: of the kernel's threads that work for a
 * block device or a socket, kworkers and ksoftirqd, together. What has ended counts nothing.
 *
 * /proc/PID/stat has hundredths of a second only, and schedstat is missing where the kernel was
 * built without CONFIG_SCHED_INFO.
 */
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t run_time_ns(const char *pid)
{
	struct timespec ts;
	clockid_t clock;

	if (clock_getcpuclockid((pid_t)atoi(pid), &clock) || clock_gettime(clock, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t kernel_ns(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	uint64_t sum = 0;

	if (!proc)
		err(1, "/proc");
	while ((entry = readdir(proc))) {
		char path[sizeof(entry->d_name) + 16];
		char name[64] = "";
		FILE *comm;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		comm = fopen(path, "r");
		if (!comm)
			continue;
		if (fgets(name, sizeof(name), comm) &&
		    (!strncmp(name, "kworker/", 8) || !strncmp(name, "ksoftirqd/", 10)))
			sum += run_time_ns(entry->d_name);
		fclose(comm);
	}
	closedir(proc);
	return sum;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		printf("%" PRIu64 "%c",
		       strcmp(argv[i], "kernel") ? run_time_ns(argv[i]) : kernel_ns(),
		       i + 1 < argc ? ' ' : '\n');
	return 0;
}
