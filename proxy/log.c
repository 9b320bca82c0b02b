// SPDX-License-Identifier: MIT
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define WINDOW_NS    UINT64_C(10000000000)
#define WINDOW_LINES 5

static int log_level = GK_LOG_INFO;
static unsigned int lost; /* lines, since the last one that was written */

/* Where this thread's lines go as well. */
static __thread struct {
	enum gk_log_level level;
	char *text;
	size_t size;
} told;

void gk_log_set_level(enum gk_log_level level)
{
	__atomic_store_n(&log_level, (int)level, __ATOMIC_RELAXED);
}

enum gk_log_level gk_log_get_level(void)
{
	return (enum gk_log_level)__atomic_load_n(&log_level, __ATOMIC_RELAXED);
}

void gk_log_tell(enum gk_log_level level, char *text, size_t size)
{
	told.level = level;
	told.text = text;
	told.size = size;
	if (text)
		text[0] = '\0';
}

static void tell(enum gk_log_level level, const char *line)
{
	size_t n;

	if (!told.text || level > told.level)
		return;
	n = strlen(told.text);
	snprintf(told.text + n, told.size - n, "%s%s", n ? "; " : "", line);
}

/* Whether the line is out. Waits for no reader. */
static bool put(char *line, size_t len)
{
	struct iovec iov = {.iov_base = line, .iov_len = len};
	struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
	ssize_t n = pwritev2(STDERR_FILENO, &iov, 1, -1, RWF_NOWAIT);

	if (n == (ssize_t)len)
		return true;
	if (n < 0)
		n = 0;
	/* Not every kernel and kind of file knows that; a regular file is written in any case. */
	return poll(&out, 1, 0) > 0 && out.revents & POLLOUT &&
	       write(STDERR_FILENO, line + n, len - (size_t)n) > 0;
}

/*
 * What reads the log may itself wait for a disk of ours: a thread that waited for it in turn, to tell
 * that a connection was lost, would never get the next one.
 */
static void put_or_lose(char *line, size_t len)
{
	unsigned int n = __atomic_exchange_n(&lost, 0, __ATOMIC_RELAXED);
	char notice[128];

	if (n && !put(notice, (size_t)snprintf(notice, sizeof(notice), "gkproxy: warning: the log was not "
					       "read in time: lost lines: %u\n", n)))
		n++;
	else
		n = !put(line, len);
	__atomic_fetch_add(&lost, n, __ATOMIC_RELAXED);
}

void gk_log(enum gk_log_level level, const char *format, ...)
{
	static const char *const names[] = {"error: ", "warning: ", "", "debug: "};
	char line[1024];
	va_list args;
	size_t begin;
	size_t len;
	int n;

	if ((int)level > __atomic_load_n(&log_level, __ATOMIC_RELAXED) && !told.text)
		return;
	len = (size_t)snprintf(line, sizeof(line), "gkproxy: %s", names[level]);
	begin = len;
	va_start(args, format);
	n = vsnprintf(line + len, sizeof(line) - len - 1, format, args);
	va_end(args);
	if (n > 0)
		len += (size_t)n < sizeof(line) - len - 1 ? (size_t)n : sizeof(line) - len - 2;
	tell(level, line + begin);
	if ((int)level > __atomic_load_n(&log_level, __ATOMIC_RELAXED))
		return;
	line[len++] = '\n';
	put_or_lose(line, len);
}

const char *gk_strerror(int error)
{
	const char *text = strerrordesc_np(error < 0 ? -error : error);

	/* It comes from many places, and each time this is what to do. */
	if (error == -EMFILE || error == EMFILE)
		return "Too many open files: raise LimitNOFILE (ulimit -n)";
	return text ? text : "unknown error";
}

int gk_log_limit_pass(struct gk_log_limit *limit, unsigned int *ret_dropped)
{
	struct timespec ts;
	uint64_t now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	*ret_dropped = 0;
	if (!limit->window_ns || now - limit->window_ns > WINDOW_NS) {
		*ret_dropped = limit->dropped;
		*limit = (struct gk_log_limit){.window_ns = now};
	}
	if (limit->lines == WINDOW_LINES) {
		limit->dropped++;
		return 0;
	}
	limit->lines++;
	return 1;
}
