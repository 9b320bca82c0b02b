// SPDX-License-Identifier: GPL-2.0
#include "nbd_pair.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nbd_wire.h"
#include "net.h"
#include "tap.h"

/* Replies are held back until there are so many, and go out in reverse order. */
#define MAX_PENDING 4

struct nbd_memory *nbd_memory_new(size_t size)
{
	struct nbd_memory *memory = mmap(NULL, sizeof(*memory) + size, PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(memory != MAP_FAILED);
	memory->size = size;
	return memory;
}

/* The peer may be killed at any byte: then this process has nothing left to do. */
static void must(ssize_t done, size_t len)
{
	if (done != (ssize_t)len)
		_exit(0);
}

static void reply(struct nbd_memory *memory, int fd, const struct nbd_request *request)
{
	struct nbd_simple_reply header = {
		.magic = htobe32(NBD_SIMPLE_REPLY_MAGIC),
		.cookie = request->cookie,
	};
	uint64_t offset = be64toh(request->offset);
	uint32_t len = be32toh(request->length);
	int more = be16toh(request->type) == NBD_CMD_READ ? MSG_MORE : 0;

	__atomic_add_fetch(&memory->served, 1, __ATOMIC_RELAXED);
	must(send(fd, &header, sizeof(header), MSG_NOSIGNAL | more), sizeof(header));
	if (more)
		must(send(fd, memory->data + offset, len, MSG_NOSIGNAL), len);
}

static void serve_connection(struct nbd_memory *memory, int fd)
{
	struct nbd_request pending[MAX_PENDING];
	unsigned int count = 0;

	for (;;) {
		struct pollfd pollfd = {.fd = fd, .events = POLLIN};
		struct nbd_request *request = &pending[count];
		uint64_t end;

		if (count == MAX_PENDING || (count > 0 && poll(&pollfd, 1, 0) == 0)) {
			while (count > 0)
				reply(memory, fd, &pending[--count]);
			continue;
		}
		must(recv(fd, request, sizeof(*request), MSG_WAITALL), sizeof(*request));
		CHECK_EQ(be32toh(request->magic), NBD_REQUEST_MAGIC);
		end = be64toh(request->offset) + be32toh(request->length);
		CHECK(end <= memory->size);
		if (be16toh(request->type) == NBD_CMD_WRITE)
			must(recv(fd, memory->data + be64toh(request->offset),
				  be32toh(request->length), MSG_WAITALL),
			     be32toh(request->length));
		count++;
	}
}

static int listen_on(struct nbd_memory *memory)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_port = memory->port,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int fd = (int)CHECK_SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

	CHECK_SYS(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
	CHECK_SYS(bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	CHECK_SYS(listen(fd, 8));
	CHECK_SYS(getsockname(fd, (struct sockaddr *)&addr, &len));
	memory->port = addr.sin_port;
	return fd;
}

pid_t nbd_server_start(struct nbd_memory *memory)
{
	int listener = listen_on(memory);
	pid_t server = (pid_t)CHECK_SYS(fork());

	if (server == 0) {
		setpgid(0, 0);
		signal(SIGCHLD, SIG_IGN);
		for (;;) {
			int fd = (int)CHECK_SYS(accept4(listener, NULL, NULL, SOCK_CLOEXEC));

			if (CHECK_SYS(fork()) == 0) {
				close(listener);
				CHECK_SYS(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1},
						     sizeof(int)));
				serve_connection(memory, fd);
			}
			close(fd);
		}
	}
	setpgid(server, server);
	close(listener);
	return server;
}

void nbd_server_kill(pid_t server)
{
	CHECK_SYS(kill(-server, SIGKILL));
	CHECK_SYS(waitpid(server, NULL, 0));
}

int nbd_connect(const struct nbd_memory *memory)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_port = memory->port,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	uint64_t end = tap_now_ms() + (uint64_t)tap_patience_ms();

	for (;;) {
		int fd = (int)CHECK_SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

		if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
			CHECK_SYS(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)));
			return fd;
		}
		CHECK(errno == ECONNREFUSED);
		CHECK(tap_now_ms() < end);
		close(fd);
		sched_yield();
	}
}
