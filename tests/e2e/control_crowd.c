// SPDX-License-Identifier: MIT
/*
 * A hundred clients of the control socket at once: sixty that ask and listen, twenty that are slow
 * to say what they want, twenty that ask and never listen. Runs in guests, by
 * tests/e2e/test-devices-come-and-go-at-run-time.sh, while a device is at work.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "control.h"
#include "control_ask.h"
#include "live_device.h"

#define CLIENTS	   100
#define ROUNDS	   10
#define DEAF_ASKS  100 /* more than a socket holds the answers of */
#define IS_SLOW(i) ((i) % 5 == 3)
#define IS_DEAF(i) ((i) % 5 == 4)

static int dial(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = GK_DEFAULT_SOCKET};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	LIVE_CHECK(fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(address)));
	return fd;
}

static bool try_to_say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

static void say(int fd, const char *text)
{
	LIVE_CHECK(try_to_say(fd, text));
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* One line, which is a good answer. */
static void hear(int fd)
{
	static const char good[] = "{\"protocol\":1,\"ok\":true,";
	char bytes[65536];
	size_t n = 0;

	while (!n || bytes[n - 1] != '\n') {
		ssize_t got = recv(fd, bytes + n, sizeof(bytes) - n, 0);

		LIVE_CHECK(got > 0);
		n += (size_t)got;
	}
	LIVE_CHECK(!strncmp(bytes, good, strlen(good)) && memchr(bytes, '\n', n) == bytes + n - 1);
}

int main(void)
{
	static const char status[] = "{\"command\":\"status\"}\n";
	int64_t begun_ms = now_ms();
	unsigned int answers = 0;
	unsigned int cut_off = 0;
	int fds[CLIENTS];

	alarm(120);
	for (unsigned int i = 0; i < CLIENTS; i++) {
		fds[i] = dial();
		if (IS_SLOW(i))
			say(fds[i], "{\"command\":");
		/* As many as fit; the daemon carries out one, and waits for us to take its answer. */
		for (unsigned int n = 0; IS_DEAF(i) && n < DEAF_ASKS; n++)
			(void)!send(fds[i], status, strlen(status), MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	for (unsigned int round = 0; round < ROUNDS; round++) {
		for (unsigned int i = 0; i < CLIENTS; i++)
			if (!IS_SLOW(i) && !IS_DEAF(i))
				say(fds[i], status);
		for (unsigned int i = 0; i < CLIENTS; i++) {
			if (IS_SLOW(i) || IS_DEAF(i))
				continue;
			hear(fds[i]);
			answers++;
		}
	}
	for (unsigned int i = 0; i < CLIENTS; i++) {
		if (IS_SLOW(i) && try_to_say(fds[i], "\"log-level\"}\n")) {
			hear(fds[i]);
			answers++;
		} else if (IS_SLOW(i)) {
			/* On a machine so slow, it is cut off as it should be. */
			LIVE_CHECK(now_ms() - begun_ms > GK_CONTROL_PATIENCE_MS);
			cut_off++;
		}
		close(fds[i]);
	}
	printf("   %u clients, %u answers, %u cut off\n", CLIENTS, answers, cut_off);
	return 0;
}
