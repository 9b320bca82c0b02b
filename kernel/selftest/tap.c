// SPDX-License-Identifier: GPL-2.0
#include "tap.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_LIMIT_S 60
#define EXIT_SKIP	77

static char *skip_reason; /* shared between the test's process and ours */

static int time_scale(void)
{
	const char *text = getenv("GK_TIME_SCALE");
	int scale = text ? atoi(text) : 1;

	return scale > 0 ? scale : 1;
}

int tap_patience_ms(void)
{
	return 30000 * time_scale();
}

uint64_t tap_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void tap_fail(const char *file, int line, const char *format, ...)
{
	va_list args;

	printf("# %s:%d: ", file, line);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	_exit(EXIT_FAILURE);
}

void tap_note(const char *format, ...)
{
	va_list args;

	printf("# ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
}

void tap_skip(const char *reason)
{
	snprintf(skip_reason, 4096, "%s", reason);
	_exit(EXIT_SKIP);
}

long tap_check_sys(long result, const char *what, const char *file, int line)
{
	if (result < 0)
		tap_fail(file, line, "%s: %s", what, strerror(errno));
	return result;
}

static int pidfd_open(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* Exit status of the test, or -1 when it had to be killed. */
static int wait_for(pid_t pid, int limit_s)
{
	struct pollfd pollfd = {.fd = pidfd_open(pid), .events = POLLIN};
	int status, r;

	r = poll(&pollfd, 1, limit_s * 1000);
	if (r == 0) {
		tap_note("the test did not end within %d s", limit_s);
		kill(-pid, SIGKILL);
		kill(pid, SIGKILL);
		if (poll(&pollfd, 1, limit_s * 1000) == 0) {
			tap_note("and cannot be killed");
			close(pollfd.fd);
			return -1;
		}
	}
	close(pollfd.fd);
	waitpid(pid, &status, 0);
	if (r == 0)
		return -1;
	if (WIFSIGNALED(status)) {
		tap_note("killed by signal %d", WTERMSIG(status));
		return -1;
	}
	return WEXITSTATUS(status);
}

static int run_test(const struct tap_test *test)
{
	int status, limit_s = (test->limit_s ? test->limit_s : DEFAULT_LIMIT_S) * time_scale();
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		test->run();
		fflush(stdout);
		_exit(EXIT_SUCCESS);
	}
	status = wait_for(pid, limit_s);
	/* A test that failed may have left children of its own. */
	kill(-pid, SIGKILL);
	return status;
}

int tap_main(int argc, char **argv, const struct tap_test *tests)
{
	int number = 0, failed = 0;

	skip_reason = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	signal(SIGPIPE, SIG_IGN);
	for (const struct tap_test *test = tests; test->name; test++) {
		uint64_t start = tap_now_ms();
		int status;

		if (argc > 1 && !strstr(test->name, argv[1]))
			continue;
		number++;
		status = run_test(test);
		if (status == EXIT_SKIP) {
			printf("ok %d - %s # SKIP %s\n", number, test->name, skip_reason);
			continue;
		}
		printf("%sok %d - %s (%llu ms)\n", status == 0 ? "" : "not ", number, test->name,
		       (unsigned long long)(tap_now_ms() - start));
		failed += status != 0;
	}
	printf("1..%d\n", number);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
