// SPDX-License-Identifier: MIT
/*
 * An NBD server without a disk: reads return zeroes, writes are thrown away. It is meant not to be
 * the bottleneck of a client: everything that one recv brings is answered by one send, large
 * payload is sent from the page cache and discarded inside the kernel. Every export name exists; a
 * decimal one is the size of its export in bytes.
 *
 *   null_server [-p PORT | -u PATH]     127.0.0.1:PORT (0: a free one) or a Unix socket
 *
 * Prints "listening: URI" once it listens; SIGTERM ends it.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd_wire.h"

#define DEFAULT_BYTES (UINT64_C(1) << 40)
#define IN_BYTES      (256 * 1024)
#define OUT_IOVS      1024	  /* IOV_MAX */
#define ZERO_BYTES    (32 * 1024) /* stays in the first-level cache */
#define LARGE_BYTES   (32 * 1024) /* from here on sendfile() beats a copy */
#define PAGES_BYTES   (1024 * 1024)

static uint8_t zeroes[ZERO_BYTES];
static int pages_fd; /* PAGES_BYTES of zeroes in the page cache */

struct connection {
	int fd;
	bool tcp;
	bool large_writes; /* the last batch had some: take little more than headers */
	size_t rd;	   /* requests that wait are in[rd, wr) */
	size_t wr;
	size_t n_iov;
	size_t n_headers;
	uint8_t in[IN_BYTES];
	struct iovec iov[OUT_IOVS];
	struct nbd_simple_reply headers[OUT_IOVS];
};

static bool take(int fd, void *to, size_t len)
{
	return recv(fd, to, len, MSG_WAITALL) == (ssize_t)len;
}

static bool give(int fd, const void *from, size_t len)
{
	return send(fd, from, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* ---- handshake ---- */

struct option_header {
	uint64_t magic;
	uint32_t option;
	uint32_t length;
} __attribute__((packed));

struct option_reply {
	uint64_t magic;
	uint32_t option;
	uint32_t type;
	uint32_t length;
} __attribute__((packed));

struct info_export {
	uint16_t type;
	uint64_t size;
	uint16_t flags;
} __attribute__((packed));

static const uint16_t export_flags =
	NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN;

static bool answer(int fd, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
	struct option_reply reply = {
		.magic = htobe64(NBD_REP_MAGIC),
		.option = htobe32(option),
		.type = htobe32(type),
		.length = htobe32(len),
	};

	return give(fd, &reply, sizeof(reply)) && (!len || give(fd, data, len));
}

static uint64_t size_of(const char *name, size_t len)
{
	char digits[21] = "";
	uint64_t size;
	char *end;

	if (!len || len >= sizeof(digits))
		return DEFAULT_BYTES;
	memcpy(digits, name, len);
	size = strtoull(digits, &end, 10);
	return *end || size > INT64_MAX ? DEFAULT_BYTES : size;
}

static bool go(int fd, uint32_t option, const char *data, uint32_t len)
{
	uint32_t name_len;
	struct info_export info = {.type = htobe16(NBD_INFO_EXPORT),
				   .flags = htobe16(export_flags)};

	if (len < sizeof(name_len))
		return false;
	memcpy(&name_len, data, sizeof(name_len));
	name_len = be32toh(name_len);
	if (name_len > len - sizeof(name_len))
		return false;
	info.size = htobe64(size_of(data + sizeof(name_len), name_len));
	return answer(fd, option, NBD_REP_INFO, &info, sizeof(info)) &&
	       answer(fd, option, NBD_REP_ACK, NULL, 0);
}

static bool export_name(int fd, const char *name, uint32_t len, bool no_zeroes)
{
	uint8_t reply[10 + 124] = {0};
	uint64_t size = htobe64(size_of(name, len));
	uint16_t flags = htobe16(export_flags);

	memcpy(reply, &size, sizeof(size));
	memcpy(reply + 8, &flags, sizeof(flags));
	return give(fd, reply, no_zeroes ? 10 : sizeof(reply));
}

/* True when the transmission phase begins. */
static bool handshake(int fd)
{
	struct {
		uint64_t magic;
		uint64_t option_magic;
		uint16_t flags;
	} __attribute__((packed)) hello = {
		.magic = htobe64(NBD_MAGIC),
		.option_magic = htobe64(NBD_OPTION_MAGIC),
		.flags = htobe16(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
	};
	char data[NBD_MAX_STRING + 1024];
	struct option_header header;
	uint32_t client_flags;

	if (!give(fd, &hello, sizeof(hello)) || !take(fd, &client_flags, sizeof(client_flags)))
		return false;
	while (take(fd, &header, sizeof(header))) {
		uint32_t option = be32toh(header.option);
		uint32_t len = be32toh(header.length);

		if (be64toh(header.magic) != NBD_OPTION_MAGIC || len > sizeof(data) ||
		    (len && !take(fd, data, len)))
			return false;
		switch (option) {
		case NBD_OPT_EXPORT_NAME:
			return export_name(fd, data, len,
					   be32toh(client_flags) & NBD_FLAG_C_NO_ZEROES);
		case NBD_OPT_GO:
			return go(fd, option, data, len);
		case NBD_OPT_INFO:
			if (!go(fd, option, data, len))
				return false;
			break;
		case NBD_OPT_ABORT:
			answer(fd, option, NBD_REP_ACK, NULL, 0);
			return false;
		default:
			if (!answer(fd, option, NBD_REP_ERR_UNSUP, NULL, 0))
				return false;
		}
	}
	return false;
}

/* ---- transmission ---- */

/* Sends the replies that have gathered. */
static bool flush(struct connection *c, int more)
{
	struct msghdr msg = {.msg_iov = c->iov, .msg_iovlen = c->n_iov};

	while (msg.msg_iovlen) {
		ssize_t sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL | more);

		if (sent < 0)
			return false;
		while (msg.msg_iovlen && (size_t)sent >= msg.msg_iov->iov_len) {
			sent -= (ssize_t)msg.msg_iov->iov_len;
			msg.msg_iov++;
			msg.msg_iovlen--;
		}
		if (msg.msg_iovlen) {
			msg.msg_iov->iov_base = (uint8_t *)msg.msg_iov->iov_base + sent;
			msg.msg_iov->iov_len -= (size_t)sent;
		}
	}
	c->n_iov = 0;
	c->n_headers = 0;
	return true;
}

static bool send_pages(struct connection *c, uint32_t len)
{
	while (len) {
		off_t offset = 0;
		ssize_t sent =
			sendfile(c->fd, pages_fd, &offset, len < PAGES_BYTES ? len : PAGES_BYTES);

		if (sent <= 0)
			return false;
		len -= (uint32_t)sent;
	}
	return true;
}

static void add(struct connection *c, void *base, size_t len)
{
	struct iovec *last = c->n_iov ? &c->iov[c->n_iov - 1] : NULL;

	if (last && (uint8_t *)last->iov_base + last->iov_len == base)
		last->iov_len += len;
	else
		c->iov[c->n_iov++] = (struct iovec){.iov_base = base, .iov_len = len};
}

static bool reply(struct connection *c, const struct nbd_request *request, uint32_t payload)
{
	struct nbd_simple_reply *header;

	if ((c->n_iov + 2 > OUT_IOVS || c->n_headers == OUT_IOVS) && !flush(c, 0))
		return false;
	header = &c->headers[c->n_headers++];
	header->magic = htobe32(NBD_SIMPLE_REPLY_MAGIC);
	header->error = 0;
	header->cookie = request->cookie;
	add(c, header, sizeof(*header));
	if (payload >= LARGE_BYTES)
		return flush(c, MSG_MORE) && send_pages(c, payload);
	if (payload)
		add(c, zeroes, payload);
	return true;
}

/* The payload of a WRITE: what of it is here, and the rest from the socket. */
static bool discard(struct connection *c, uint32_t len)
{
	size_t here = c->wr - c->rd < len ? c->wr - c->rd : len;

	c->rd += here;
	len -= (uint32_t)here;
	if (!len)
		return true;
	if (!flush(c, 0))
		return false;
	c->rd = 0;
	c->wr = 0;
	while (len) {
		/* TCP throws it away and writes nothing; the buffer is for other sockets. */
		size_t want = c->tcp || len < sizeof(c->in) ? len : sizeof(c->in);
		ssize_t n = recv(c->fd, c->in, want, c->tcp ? MSG_TRUNC | MSG_WAITALL : 0);

		if (n <= 0)
			return false;
		len -= (uint32_t)n;
	}
	return true;
}

/* Acts on every request that is here whole. */
static bool consume(struct connection *c)
{
	c->large_writes = false;
	while (c->wr - c->rd >= sizeof(struct nbd_request)) {
		struct nbd_request request;
		uint32_t len;
		bool ok = true;

		memcpy(&request, c->in + c->rd, sizeof(request));
		c->rd += sizeof(request);
		len = be32toh(request.length);
		if (be32toh(request.magic) != NBD_REQUEST_MAGIC)
			return false;
		switch (be16toh(request.type)) {
		case NBD_CMD_READ:
			ok = reply(c, &request, len);
			break;
		case NBD_CMD_WRITE:
			c->large_writes |= len >= LARGE_BYTES;
			ok = discard(c, len) && reply(c, &request, 0);
			break;
		case NBD_CMD_FLUSH:
			ok = reply(c, &request, 0);
			break;
		default: /* NBD_CMD_DISC, or something that was not offered */
			return false;
		}
		if (!ok)
			return false;
	}
	return true;
}

static void *serve(void *arg)
{
	struct connection *c = arg;
	bool ok = handshake(c->fd);

	while (ok) {
		size_t room;
		ssize_t n;

		memmove(c->in, c->in + c->rd, c->wr - c->rd);
		c->wr -= c->rd;
		c->rd = 0;
		room = c->large_writes ? sizeof(struct nbd_request) : sizeof(c->in) - c->wr;
		n = recv(c->fd, c->in + c->wr, room, 0);
		if (n <= 0)
			break;
		c->wr += (size_t)n;
		ok = consume(c) && flush(c, 0);
	}
	close(c->fd);
	free(c);
	return NULL;
}

static int listen_tcp(const char *port)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(port)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(fd, (struct sockaddr *)&addr, len) || listen(fd, 64) ||
	    getsockname(fd, (struct sockaddr *)&addr, &len))
		err(1, "127.0.0.1:%s", port);
	printf("listening: nbd://127.0.0.1:%u/\n", ntohs(addr.sin_port));
	return fd;
}

static int listen_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path))
		errx(1, "%s: too long for a Unix socket", path);
	strcpy(addr.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 64))
		err(1, "%s", path);
	printf("listening: nbd+unix:///?socket=%s\n", path);
	return fd;
}

static void make_pages(void)
{
	pages_fd = memfd_create("zeroes", MFD_CLOEXEC);
	if (pages_fd < 0)
		err(1, "memfd_create");
	for (size_t i = 0; i < PAGES_BYTES; i += sizeof(zeroes))
		if (write(pages_fd, zeroes, sizeof(zeroes)) != sizeof(zeroes))
			err(1, "memfd");
}

int main(int argc, char **argv)
{
	const char *port = "10809";
	const char *path = NULL;
	int listener;
	int option;

	while ((option = getopt(argc, argv, "p:u:")) != -1) {
		if (option == 'p')
			port = optarg;
		else if (option == 'u')
			path = optarg;
		else
			errx(2, "usage: null_server [-p PORT | -u PATH]");
	}
	/* sendfile() has no MSG_NOSIGNAL. */
	signal(SIGPIPE, SIG_IGN);
	make_pages();
	listener = path ? listen_unix(path) : listen_tcp(port);
	fflush(stdout);
	for (;;) {
		struct connection *c = calloc(1, sizeof(*c));
		pthread_t thread;
		int on = 1;

		if (!c)
			err(1, "memory");
		c->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (c->fd < 0)
			err(1, "accept");
		c->tcp = setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0;
		errno = pthread_create(&thread, NULL, serve, c);
		if (errno)
			err(1, "thread");
		pthread_detach(thread);
	}
}
