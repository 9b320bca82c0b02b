// SPDX-License-Identifier: MIT
#include "handshake_server.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd_wire.h"

#define MAX_CONNECTIONS 256

struct connection {
	struct gk_handshake_server *server;
	pthread_t thread;
	unsigned int number;
	int fd;
	unsigned int said; /* bytes */
	bool open;
};

struct gk_handshake_server {
	struct gk_handshake_server_script script;
	int listen_fd, stop_fd;
	char port[8], path[108];
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stopping; /* under lock, as all below */
	unsigned int n;
	struct connection connection[MAX_CONNECTIONS];
};

static enum gk_handshake_server_manner manner_of(const struct connection *c)
{
	const struct gk_handshake_server_script *script = &c->server->script;

	if (script->odd_one && c->number == (unsigned int)script->odd_one)
		return script->odd_manner;
	return c->number ? script->later_manner : script->manner;
}

static bool say(struct connection *c, const void *bytes, size_t len)
{
	size_t piece = manner_of(c) == GK_HANDSHAKE_SERVER_TRICKLE ? 1 : len;
	unsigned int limit = c->server->script.silent_after;
	bool silent = limit && len > limit - c->said;
	const char *p = bytes;

	if (silent)
		len = limit - c->said;
	c->said += (unsigned int)len;

	while (len > 0) {
		ssize_t n = send(c->fd, p, piece < len ? piece : len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return !silent;
}

static bool hear(struct connection *c, void *bytes, size_t len)
{
	return len == 0 || recv(c->fd, bytes, len, MSG_WAITALL) == (ssize_t)len;
}

static size_t put(unsigned char *at, uint64_t v, size_t bytes)
{
	uint64_t be = htobe64(v);

	memcpy(at, (unsigned char *)&be + 8 - bytes, bytes);
	return bytes;
}

static size_t put_header(unsigned char *at, uint32_t option, uint32_t type, uint32_t len)
{
	put(at, NBD_REP_MAGIC, 8);
	put(at + 8, option, 4);
	put(at + 12, type, 4);
	put(at + 16, len, 4);
	return 20;
}

static bool say_facts(struct connection *c, uint32_t option)
{
	const struct gk_handshake_server_script *script = &c->server->script;
	bool odd = script->odd_one && c->number == (unsigned int)script->odd_one;
	unsigned char out[128];
	size_t n = 0;

	if (script->max_payload) {
		n += put_header(out + n, option, NBD_REP_INFO, 14);
		n += put(out + n, NBD_INFO_BLOCK_SIZE, 2);
		n += put(out + n, 512, 4);
		n += put(out + n, 4096, 4);
		n += put(out + n, script->max_payload, 4);
	}
	n += put_header(out + n, option, NBD_REP_INFO, 12);
	n += put(out + n, NBD_INFO_EXPORT, 2);
	n += put(out + n, odd ? script->odd_size_bytes : script->size_bytes, 8);
	n += put(out + n, script->flags, 2);
	n += put_header(out + n, option, NBD_REP_ACK, 0);
	if (manner_of(c) == GK_HANDSHAKE_SERVER_TALKS)
		n += put(out + n, NBD_SIMPLE_REPLY_MAGIC, 4);
	return say(c, out, n);
}

static bool say_list(struct connection *c)
{
	unsigned char out[64];
	size_t n = 0;

	n += put_header(out, NBD_OPT_LIST, NBD_REP_SERVER, 8);
	n += put(out + n, 4, 4);
	memcpy(out + n, "vol0", 4);
	n += 4;
	n += put_header(out + n, NBD_OPT_LIST, NBD_REP_ACK, 0);
	return say(c, out, n);
}

/* One option; false when the client is through with us. */
static bool serve_option(struct connection *c)
{
	unsigned char header[16], data[8192], out[20];
	uint32_t option, len;

	if (!hear(c, header, sizeof(header)))
		return false;
	memcpy(&option, header + 8, 4);
	memcpy(&len, header + 12, 4);
	option = be32toh(option);
	len = be32toh(len);
	if (len > sizeof(data) || !hear(c, data, len))
		return false;
	switch (option) {
	case NBD_OPT_STRUCTURED_REPLY:
		put_header(out, option, NBD_REP_ACK, 0);
		return say(c, out, sizeof(out));
	case NBD_OPT_LIST:
		return say_list(c);
	case NBD_OPT_GO:
		if (manner_of(c) == GK_HANDSHAKE_SERVER_STALLS)
			return true;
		if (!say_facts(c, option))
			return false;
		if (c->server->script.transmit)
			c->server->script.transmit(c->server->script.arg, c->number, c->fd);
		return !c->server->script.transmit;
	case NBD_OPT_INFO:
		return say_facts(c, option);
	default:
		return false;
	}
}

static void wait_for_company(struct connection *c)
{
	struct gk_handshake_server *s = c->server;

	if (c->number == 0 || s->script.together == 0)
		return;
	pthread_mutex_lock(&s->lock);
	while (!s->stopping && s->n < s->script.together + 1)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static void converse(struct connection *c)
{
	unsigned char greeting[18], flags[4];

	wait_for_company(c);
	put(greeting, NBD_MAGIC, 8);
	put(greeting + 8, NBD_OPTION_MAGIC, 8);
	put(greeting + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES, 2);
	switch (manner_of(c)) {
	case GK_HANDSHAKE_SERVER_CLOSES:
		return;
	case GK_HANDSHAKE_SERVER_SILENT:
		break;
	case GK_HANDSHAKE_SERVER_BANNER:
		say(c, "SSH-2.0-OpenSSH_9.2\r\n", 21);
		break;
	default:
		if (!say(c, greeting, sizeof(greeting)) || !hear(c, flags, sizeof(flags)))
			break;
		while (serve_option(c))
			;
		/* How a connection ends is then up to what came last. */
		if (c->server->script.transmit)
			return;
	}
	/* To the client's end, whatever it still says. */
	while (recv(c->fd, flags, sizeof(flags), 0) > 0)
		;
}

static void *serve(void *arg)
{
	struct connection *c = arg;
	struct gk_handshake_server *s = c->server;

	converse(c);
	pthread_mutex_lock(&s->lock);
	c->open = false;
	close(c->fd);
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void take_connection(struct gk_handshake_server *s)
{
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC), one = 1;
	struct connection *c;

	if (fd < 0)
		return;
	if (s->port[0])
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	pthread_mutex_lock(&s->lock);
	if (s->n == MAX_CONNECTIONS)
		abort();
	c = &s->connection[s->n];
	*c = (struct connection){.server = s, .number = s->n, .fd = fd, .open = true};
	if (pthread_create(&c->thread, NULL, serve, c))
		abort();
	s->n++;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (s->script.accepted_fd >= 0)
		eventfd_write(s->script.accepted_fd, 1);
}

static void *listen_on(void *arg)
{
	struct gk_handshake_server *s = arg;
	struct pollfd fds[2] = {
		{.fd = s->stop_fd, .events = POLLIN},
		{.fd = s->listen_fd, .events = POLLIN},
	};

	while (poll(fds, 2, -1) > 0 && !fds[0].revents)
		take_connection(s);
	return NULL;
}

static int listen_at(struct gk_handshake_server *s, const char *where)
{
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} a = {0};
	socklen_t len = sizeof(a);

	if (inet_pton(AF_INET, where, &a.in.sin_addr) == 1) {
		a.any.sa_family = AF_INET;
		len = sizeof(a.in);
	} else if (inet_pton(AF_INET6, where, &a.in6.sin6_addr) == 1) {
		a.any.sa_family = AF_INET6;
		len = sizeof(a.in6);
	} else {
		a.un.sun_family = AF_UNIX;
		snprintf(a.un.sun_path, sizeof(a.un.sun_path), "%s", where);
		snprintf(s->path, sizeof(s->path), "%s", where);
		len = sizeof(a.un);
	}
	s->listen_fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s->listen_fd < 0 || bind(s->listen_fd, &a.any, len) < 0 ||
	    listen(s->listen_fd, MAX_CONNECTIONS) < 0 ||
	    getsockname(s->listen_fd, &a.any, &len) < 0)
		return -1;
	if (a.any.sa_family != AF_UNIX) /* the port is at the same place in both families */
		snprintf(s->port, sizeof(s->port), "%u", ntohs(a.in.sin_port));
	return 0;
}

struct gk_handshake_server *gk_handshake_server_new(const char *where,
						    const struct gk_handshake_server_script *script)
{
	struct gk_handshake_server *s = calloc(1, sizeof(*s));
	int error;

	if (!s)
		return NULL;
	s->script = *script;
	s->listen_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	s->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (s->stop_fd < 0 || listen_at(s, where) < 0)
		goto fail;
	errno = pthread_create(&s->thread, NULL, listen_on, s);
	if (errno)
		goto fail;
	return s;
fail:
	error = errno;
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	if (s->stop_fd >= 0)
		close(s->stop_fd);
	free(s);
	errno = error;
	return NULL;
}

const char *gk_handshake_server_port(const struct gk_handshake_server *server)
{
	return server->port;
}

unsigned int gk_handshake_server_accepted(struct gk_handshake_server *server)
{
	unsigned int n;

	pthread_mutex_lock(&server->lock);
	n = server->n;
	pthread_mutex_unlock(&server->lock);
	return n;
}

void gk_handshake_server_free(struct gk_handshake_server *server)
{
	if (!server)
		return;
	eventfd_write(server->stop_fd, 1);
	pthread_join(server->thread, NULL);
	pthread_mutex_lock(&server->lock);
	server->stopping = true;
	for (unsigned int i = 0; i < server->n; i++)
		if (server->connection[i].open)
			shutdown(server->connection[i].fd, SHUT_RDWR);
	pthread_cond_broadcast(&server->changed);
	pthread_mutex_unlock(&server->lock);
	for (unsigned int i = 0; i < server->n; i++)
		pthread_join(server->connection[i].thread, NULL);
	close(server->listen_fd);
	close(server->stop_fd);
	if (server->path[0])
		unlink(server->path);
	pthread_mutex_destroy(&server->lock);
	pthread_cond_destroy(&server->changed);
	free(server);
}
