// SPDX-License-Identifier: MIT
#include "notify.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 1

/* The service manager may itself wait for a disk of ours: detaching that must not wait for it. */
void gk_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = PATIENCE_S};
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (!len || len >= sizeof(addr.sun_path))
		return;
	memcpy(addr.sun_path, path, len);
	/* '@' stands for the NUL of the abstract namespace. */
	if (addr.sun_path[0] == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	(void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&addr,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	close(fd);
}

/* 0: none, or it is meant for another process. */
static int64_t watchdog_ms(void)
{
	const char *usec = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");
	int64_t ms;

	if (!usec || (pid && strtoll(pid, NULL, 10) != getpid()))
		return 0;
	ms = strtoll(usec, NULL, 10) / 1000;
	return ms < 0 ? 0 : ms > INT_MAX ? INT_MAX : ms;
}

int gk_notify_alive(void)
{
	static int64_t last_ms = INT64_MIN / 2;
	int64_t interval_ms = watchdog_ms() / 4;
	struct timespec now;
	int64_t now_ms;

	if (interval_ms <= 0)
		return -1;
	clock_gettime(CLOCK_MONOTONIC, &now);
	now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
	if (now_ms - last_ms >= interval_ms) {
		gk_notify("WATCHDOG=1");
		last_ms = now_ms;
	}
	return (int)(last_ms + interval_ms - now_ms);
}
