// SPDX-License-Identifier: GPL-2.0
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

void net_unix_pair(int ret_fds[2])
{
	CHECK_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_fds));
}

static void set_int(int fd, int level, int option, int value)
{
	CHECK_SYS(setsockopt(fd, level, option, &value, sizeof(value)));
}

void net_tcp_pair(int ret_fds[2], int sndbuf, int rcvbuf)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int listener = (int)CHECK_SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

	ret_fds[0] = (int)CHECK_SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	/* Buffer sizes have to be there before the connection, for the window to follow them. */
	if (sndbuf)
		set_int(ret_fds[0], SOL_SOCKET, SO_SNDBUFFORCE, sndbuf);
	if (rcvbuf)
		set_int(listener, SOL_SOCKET, SO_RCVBUF, rcvbuf);
	CHECK_SYS(bind(listener, (struct sockaddr *)&addr, sizeof(addr)));
	CHECK_SYS(listen(listener, 1));
	CHECK_SYS(getsockname(listener, (struct sockaddr *)&addr, &len));
	CHECK_SYS(connect(ret_fds[0], (struct sockaddr *)&addr, sizeof(addr)));
	ret_fds[1] = (int)CHECK_SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
	set_int(ret_fds[0], IPPROTO_TCP, TCP_NODELAY, 1);
	set_int(ret_fds[1], IPPROTO_TCP, TCP_NODELAY, 1);
	close(listener);
}

void net_write(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		CHECK_SYS(n);
		at += n;
		len -= (size_t)n;
	}
}

size_t net_read_all(int fd, void *data, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read(fd, (char *)data + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		CHECK_SYS(n);
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return done;
}

void net_read(int fd, void *data, size_t len)
{
	CHECK_EQ(net_read_all(fd, data, len), len);
}

void net_reset(int fd)
{
	struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

	/* Not by closing: a child may have the socket, too. */
	CHECK_SYS(connect(fd, &nowhere, sizeof(nowhere)));
	close(fd);
}

static void wait_queue_empty(int fd, unsigned long request)
{
	uint64_t end = tap_now_ms() + (uint64_t)tap_patience_ms();
	int left;

	do {
		CHECK_SYS(ioctl(fd, request, &left));
		if (left == 0)
			return;
		sched_yield();
	} while (tap_now_ms() < end);
	FAIL("%d bytes stay in the socket's queue", left);
}

void net_wait_acked(int fd)
{
	wait_queue_empty(fd, SIOCOUTQ);
}

void net_wait_received(int fd)
{
	wait_queue_empty(fd, SIOCINQ);
}

uint8_t pattern_byte(unsigned int stream, size_t position)
{
	uint64_t word = (position / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15) + stream * 0x85ebca6bu;

	word ^= word >> 29;
	/* Never 0, so that a byte that was not written cannot pass for one that was. */
	return (uint8_t)(word >> (position % 8 * 8)) | 1;
}

void pattern_fill(void *data, unsigned int stream, size_t position, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)data)[i] = pattern_byte(stream, position + i);
}

ssize_t pattern_differs(const void *data, unsigned int stream, size_t position, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (((const uint8_t *)data)[i] != pattern_byte(stream, position + i))
			return (ssize_t)i;
	return -1;
}

ssize_t zero_differs(const void *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (((const uint8_t *)data)[i] != 0)
			return (ssize_t)i;
	return -1;
}

void *check_alloc(size_t len)
{
	void *data = calloc(1, len ? len : 1);

	CHECK(data != NULL);
	return data;
}

pid_t peer_write(int fd, unsigned int stream, size_t position, size_t len)
{
	pid_t child = (pid_t)CHECK_SYS(fork());

	if (child == 0) {
		void *data = check_alloc(len);

		pattern_fill(data, stream, position, len);
		net_write(fd, data, len);
		_exit(0);
	}
	return child;
}

pid_t peer_read(int fd, unsigned int stream, size_t position, size_t len)
{
	pid_t child = (pid_t)CHECK_SYS(fork());

	if (child == 0) {
		void *data = check_alloc(len);
		ssize_t wrong;

		net_read(fd, data, len);
		wrong = pattern_differs(data, stream, position, len);
		if (wrong >= 0)
			FAIL("received byte %zd of %zu is wrong", wrong, len);
		_exit(0);
	}
	return child;
}

void peer_join(pid_t peer)
{
	int status;

	CHECK_SYS(waitpid(peer, &status, 0));
	CHECK_EQ(status, 0);
}

void wait_asleep(pid_t tid)
{
	uint64_t end = tap_now_ms() + (uint64_t)tap_patience_ms();
	char path[64], text[512];

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	do {
		int fd = (int)CHECK_SYS(open(path, O_RDONLY | O_CLOEXEC));
		ssize_t n = read(fd, text, sizeof(text) - 1);
		const char *state;

		close(fd);
		CHECK(n > 0);
		text[n] = '\0';
		state = strrchr(text, ')');
		CHECK(state != NULL);
		if (state[2] == 'S' || state[2] == 'D')
			return;
		sched_yield();
	} while (tap_now_ms() < end);
	FAIL("task %d does not go to sleep", tid);
}
