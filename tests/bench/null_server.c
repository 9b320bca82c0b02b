// SPDX-License-Identifier: MIT
/*
 * An NBD server without a disk: reads return zeroes, writes are thrown away. It is meant not to be
 * the bottleneck of a client: everything that one recv brings is answered by one send, large
 * payload is sent from the page cache and discarded inside the kernel. Every export name exists; a
 * decimal one is the size of its export in bytes. With TLS (OpenSSL), clients must ask for it; the
 * records of all replies to one receive go out by one send.
 *
 *   null_server [-p PORT | -u PATH] [-c CERT -k KEY]
 *
 * at 127.0.0.1:PORT (0: a free one) or a Unix socket, over TLS with this chain and key (PEM).
 * Prints "listening: URI" once it listens; SIGTERM ends it.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
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
#define TLS_IN_BYTES  (128 * 1024) /* that one receive takes: more leaves the cache */
#define TLS_OUT_BYTES (512 * 1024) /* ... send */

static uint8_t zeroes[ZERO_BYTES];
static int pages_fd; /* PAGES_BYTES of zeroes in the page cache */
static SSL_CTX *tls; /* NULL: in the clear */

/* A reply in one piece, for as few records as can be. */
struct page {
	struct nbd_simple_reply header;
	uint8_t zeroes[PAGES_BYTES];
};

struct connection {
	int fd;
	bool tcp;
	SSL *ssl;	   /* from STARTTLS on */
	BIO *out;	   /* its buffer */
	struct page *page; /* with TLS */
	bool large_writes; /* the last batch had some: take little more than headers */
	size_t rd;	   /* requests that wait are in[rd, wr) */
	size_t wr;
	size_t n_iov;
	size_t n_headers;
	uint8_t in[IN_BYTES];
	struct iovec iov[OUT_IOVS];
	struct nbd_simple_reply headers[OUT_IOVS];
};

static bool take(struct connection *c, void *to, size_t len)
{
	size_t n;

	if (!c->ssl)
		return recv(c->fd, to, len, MSG_WAITALL) == (ssize_t)len;
	for (uint8_t *p = to; len; p += n, len -= n)
		if (!SSL_read_ex(c->ssl, p, len, &n))
			return false;
	return true;
}

static bool give(struct connection *c, const void *from, size_t len)
{
	size_t n;

	if (!c->ssl)
		return send(c->fd, from, len, MSG_NOSIGNAL) == (ssize_t)len;
	return SSL_write_ex(c->ssl, from, len, &n) && BIO_flush(c->out) == 1;
}

/* ---- TLS ---- */

static bool start_tls(struct connection *c)
{
	BIO *in = BIO_new_socket(c->fd, BIO_NOCLOSE);
	BIO *socket = BIO_new_socket(c->fd, BIO_NOCLOSE);
	SSL *ssl = SSL_new(tls);

	c->out = BIO_new(BIO_f_buffer());
	c->page = calloc(1, sizeof(*c->page));
	if (!in || !socket || !ssl || !c->out || !c->page)
		errx(1, "memory");
	BIO_set_write_buffer_size(c->out, TLS_OUT_BYTES);
	SSL_set_bio(ssl, in, BIO_push(c->out, socket));
	c->ssl = ssl;
	return SSL_accept(ssl) == 1 && BIO_flush(c->out) == 1;
}

static void load_tls(const char *cert, const char *key)
{
	tls = SSL_CTX_new(TLS_server_method());
	if (!tls || SSL_CTX_use_certificate_chain_file(tls, cert) != 1 ||
	    SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1)
		errx(1, "%s, %s: %s", cert, key, ERR_reason_error_string(ERR_peek_last_error()));
	SSL_CTX_set_read_ahead(tls, 1);
	SSL_CTX_set_default_read_buffer_len(tls, TLS_IN_BYTES);
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

static bool answer(struct connection *c, uint32_t option, uint32_t type, const void *data,
		   uint32_t len)
{
	struct option_reply reply = {
		.magic = htobe64(NBD_REP_MAGIC),
		.option = htobe32(option),
		.type = htobe32(type),
		.length = htobe32(len),
	};

	return give(c, &reply, sizeof(reply)) && (!len || give(c, data, len));
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

static bool go(struct connection *c, uint32_t option, const char *data, uint32_t len)
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
	return answer(c, option, NBD_REP_INFO, &info, sizeof(info)) &&
	       answer(c, option, NBD_REP_ACK, NULL, 0);
}

static bool export_name(struct connection *c, const char *name, uint32_t len, bool no_zeroes)
{
	uint8_t reply[10 + 124] = {0};
	uint64_t size = htobe64(size_of(name, len));
	uint16_t flags = htobe16(export_flags);

	memcpy(reply, &size, sizeof(size));
	memcpy(reply + 8, &flags, sizeof(flags));
	return give(c, reply, no_zeroes ? 10 : sizeof(reply));
}

/* True when the transmission phase begins. */
static bool handshake(struct connection *c)
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

	if (!give(c, &hello, sizeof(hello)) || !take(c, &client_flags, sizeof(client_flags)))
		return false;
	while (take(c, &header, sizeof(header))) {
		uint32_t option = be32toh(header.option);
		uint32_t len = be32toh(header.length);

		if (be64toh(header.magic) != NBD_OPTION_MAGIC || len > sizeof(data) ||
		    (len && !take(c, data, len)))
			return false;
		if (tls && !c->ssl && option != NBD_OPT_STARTTLS) {
			if (!answer(c, option, NBD_REP_ERR_TLS_REQD, NULL, 0))
				return false;
			continue;
		}
		switch (option) {
		case NBD_OPT_EXPORT_NAME:
			return export_name(c, data, len,
					   be32toh(client_flags) & NBD_FLAG_C_NO_ZEROES);
		case NBD_OPT_GO:
			return go(c, option, data, len);
		case NBD_OPT_INFO:
			if (!go(c, option, data, len))
				return false;
			break;
		case NBD_OPT_STARTTLS:
			if (!answer(c, option, tls && !c->ssl ? NBD_REP_ACK : NBD_REP_ERR_UNSUP,
				    NULL, 0) ||
			    (tls && !c->ssl && !start_tls(c)))
				return false;
			break;
		case NBD_OPT_ABORT:
			answer(c, option, NBD_REP_ACK, NULL, 0);
			return false;
		default:
			if (!answer(c, option, NBD_REP_ERR_UNSUP, NULL, 0))
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

	if (c->ssl)
		return BIO_flush(c->out) == 1;
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

/* A reply as records, which gather until there is no more room, or flush(). */
static bool encrypt(struct connection *c, const struct nbd_simple_reply *header, uint32_t payload)
{
	size_t room = sizeof(c->page->zeroes), n;

	c->page->header = *header;
	n = payload < room ? payload : room;
	if (!SSL_write_ex(c->ssl, c->page, sizeof(*header) + n, &(size_t){0}))
		return false;
	for (payload -= (uint32_t)n; payload; payload -= (uint32_t)n) {
		n = payload < room ? payload : room;
		if (!SSL_write_ex(c->ssl, c->page->zeroes, n, &(size_t){0}))
			return false;
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
	if (c->ssl) {
		c->n_headers = 0;
		return encrypt(c, header, payload);
	}
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
	if (!c->ssl && !flush(c, 0))
		return false;
	c->rd = 0;
	c->wr = 0;
	while (c->ssl && len) {
		size_t n;

		if (!SSL_read_ex(c->ssl, c->in, len < sizeof(c->in) ? len : sizeof(c->in), &n))
			return false;
		len -= (uint32_t)n;
	}
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
			ok = discard(c, len) && reply(c, &request, 0) &&
			     (!c->ssl || len < LARGE_BYTES || flush(c, 0));
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

/* More bytes, at most room; with TLS what a record brings, after the replies that wait are out. */
static ssize_t receive(struct connection *c, size_t room)
{
	size_t n;

	if (!c->ssl)
		return recv(c->fd, c->in + c->wr, room, 0);
	if (!SSL_has_pending(c->ssl) && !flush(c, 0))
		return -1;
	return SSL_read_ex(c->ssl, c->in + c->wr, room, &n) ? (ssize_t)n : -1;
}

static void *serve(void *arg)
{
	struct connection *c = arg;
	bool ok = handshake(c);

	while (ok) {
		size_t room;
		ssize_t n;

		memmove(c->in, c->in + c->rd, c->wr - c->rd);
		c->wr -= c->rd;
		c->rd = 0;
		room = c->large_writes ? sizeof(struct nbd_request) : sizeof(c->in) - c->wr;
		n = receive(c, room);
		if (n <= 0)
			break;
		c->wr += (size_t)n;
		ok = consume(c) && (c->ssl || flush(c, 0));
	}
	SSL_free(c->ssl);
	close(c->fd);
	free(c->page);
	free(c);
	return NULL;
}

static int listen_tcp(const char *port, const char *scheme)
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
	printf("listening: %s://127.0.0.1:%u/\n", scheme, ntohs(addr.sin_port));
	return fd;
}

static int listen_unix(const char *path, const char *scheme)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path))
		errx(1, "%s: too long for a Unix socket", path);
	strcpy(addr.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 64))
		err(1, "%s", path);
	printf("listening: %s+unix:///?socket=%s\n", scheme, path);
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
	const char *cert = NULL;
	const char *key = NULL;
	const char *scheme = "nbd";
	int listener;
	int option;

	while ((option = getopt(argc, argv, "p:u:c:k:")) != -1) {
		if (option == 'p')
			port = optarg;
		else if (option == 'u')
			path = optarg;
		else if (option == 'c')
			cert = optarg;
		else if (option == 'k')
			key = optarg;
		else
			errx(2, "usage: null_server [-p PORT | -u PATH] [-c CERT -k KEY]");
	}
	if (!cert != !key)
		errx(2, "-c and -k go together");
	if (cert) {
		load_tls(cert, key);
		scheme = "nbds";
	}
	/* sendfile() has no MSG_NOSIGNAL. */
	signal(SIGPIPE, SIG_IGN);
	make_pages();
	listener = path ? listen_unix(path, scheme) : listen_tcp(port, scheme);
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
