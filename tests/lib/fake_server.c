// SPDX-License-Identifier: MIT
#include "fake_server.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PENDING_MAX 256

/* Also on threads other than the test's own, where no cmocka assertion can be raised. */
#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: fake server: not so: %s\n", __FILE__, __LINE__,    \
				#condition);                                                       \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

void fake_bytes_done(struct fake_bytes *bytes)
{
	free(bytes->p);
	*bytes = (struct fake_bytes){0};
}

void fake_put(struct fake_bytes *bytes, const void *data, size_t len)
{
	if (bytes->n + len > bytes->room) {
		bytes->room = 2 * (bytes->n + len);
		bytes->p = realloc(bytes->p, bytes->room);
		CHECK(bytes->p);
	}
	if (len)
		memcpy(bytes->p + bytes->n, data, len);
	bytes->n += len;
}

void fake_put16(struct fake_bytes *bytes, uint16_t v)
{
	v = htobe16(v);
	fake_put(bytes, &v, sizeof(v));
}

void fake_put32(struct fake_bytes *bytes, uint32_t v)
{
	v = htobe32(v);
	fake_put(bytes, &v, sizeof(v));
}

void fake_put64(struct fake_bytes *bytes, uint64_t v)
{
	v = htobe64(v);
	fake_put(bytes, &v, sizeof(v));
}

void fake_put_simple(struct fake_bytes *bytes, uint64_t cookie, uint32_t error)
{
	fake_put32(bytes, NBD_SIMPLE_REPLY_MAGIC);
	fake_put32(bytes, error);
	fake_put64(bytes, cookie);
}

void fake_put_chunk(struct fake_bytes *bytes, uint16_t flags, uint16_t type, uint64_t cookie,
		    uint32_t length)
{
	fake_put32(bytes, NBD_STRUCTURED_REPLY_MAGIC);
	fake_put16(bytes, flags);
	fake_put16(bytes, type);
	fake_put64(bytes, cookie);
	fake_put32(bytes, length);
}

void fake_put_none(struct fake_bytes *bytes, uint64_t cookie)
{
	fake_put_chunk(bytes, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, cookie, 0);
}

void fake_put_data(struct fake_bytes *bytes, uint16_t flags, uint64_t cookie, uint64_t offset,
		   const void *data, uint32_t len)
{
	fake_put_chunk(bytes, flags, NBD_REPLY_TYPE_OFFSET_DATA, cookie, 8 + len);
	fake_put64(bytes, offset);
	fake_put(bytes, data, len);
}

void fake_put_hole(struct fake_bytes *bytes, uint16_t flags, uint64_t cookie, uint64_t offset,
		   uint32_t len)
{
	fake_put_chunk(bytes, flags, NBD_REPLY_TYPE_OFFSET_HOLE, cookie, 12);
	fake_put64(bytes, offset);
	fake_put32(bytes, len);
}

void fake_put_error(struct fake_bytes *bytes, uint16_t flags, uint16_t type, uint64_t cookie,
		    uint32_t error, const char *message, uint64_t offset)
{
	size_t len = strlen(message);
	bool has_offset = type == NBD_REPLY_TYPE_ERROR_OFFSET;

	fake_put_chunk(bytes, flags, type, cookie, (uint32_t)(6 + len + (has_offset ? 8 : 0)));
	fake_put32(bytes, error);
	fake_put16(bytes, (uint16_t)len);
	fake_put(bytes, message, len);
	if (has_offset)
		fake_put64(bytes, offset);
}

/* How many of len bytes came before the end of the stream. */
static size_t take(int fd, void *buf, size_t len)
{
	size_t n = 0;

	while (n < len) {
		ssize_t r = recv(fd, (uint8_t *)buf + n, len - n, 0);

		if (r < 0 && errno == EINTR)
			continue;
		CHECK(r >= 0 || errno == ECONNRESET);
		if (r <= 0)
			break;
		n += (size_t)r;
	}
	return n;
}

struct fake_request fake_parse(const uint8_t *bytes)
{
	struct nbd_request header;

	memcpy(&header, bytes, sizeof(header));
	CHECK(be32toh(header.magic) == NBD_REQUEST_MAGIC);
	return (struct fake_request){
		.flags = be16toh(header.flags),
		.type = be16toh(header.type),
		.cookie = be64toh(header.cookie),
		.offset = be64toh(header.offset),
		.length = be32toh(header.length),
	};
}

bool fake_take(int fd, struct fake_request *ret_request)
{
	uint8_t header[sizeof(struct nbd_request)];

	/* A client that fails a connection may do so in the middle of a header. */
	if (take(fd, header, sizeof(header)) != sizeof(header))
		return false;
	*ret_request = fake_parse(header);
	return true;
}

bool fake_take_bytes(int fd, void *buf, size_t len)
{
	return take(fd, buf, len) == len;
}

bool fake_send(int fd, const void *data, size_t len, size_t piece)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t r = send(fd, p, piece && piece < len ? piece : len, MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			CHECK(errno == EPIPE || errno == ECONNRESET);
			return false;
		}
		p += r;
		len -= (size_t)r;
	}
	return true;
}

/* A request that was received and not answered. */
struct pending {
	struct fake_request request;
	uint8_t *payload; /* WRITE */
};

struct disk_run {
	struct fake_disk_server *server;
	struct pending pending[PENDING_MAX]; /* oldest first */
	unsigned int n_pending;
};

static unsigned int pick(struct disk_run *run, unsigned int n)
{
	return (unsigned int)rand_r(&run->server->options.seed) % n;
}

static void check_request(const struct fake_disk_server *server, const struct fake_request *request)
{
	bool payload = request->type == NBD_CMD_READ || request->type == NBD_CMD_WRITE;

	if (request->type == NBD_CMD_FLUSH) {
		CHECK(!request->offset && !request->length && !request->flags);
		return;
	}
	CHECK(payload || request->type == NBD_CMD_TRIM || request->type == NBD_CMD_WRITE_ZEROES);
	CHECK(request->length && request->length <= server->size &&
	      request->offset <= server->size - request->length);
	CHECK(!payload || !server->options.max_payload ||
	      request->length <= server->options.max_payload);
}

/* Takes the next request into the list; false when there will be none. */
static bool receive(struct disk_run *run)
{
	struct fake_disk_server *server = run->server;
	struct pending *pending = &run->pending[run->n_pending];

	if (!fake_take(server->fd, &pending->request))
		return false;
	if (pending->request.type == NBD_CMD_DISC) {
		server->disc = true;
		return false;
	}
	check_request(server, &pending->request);
	pending->payload = NULL;
	run->n_pending++;
	server->requests++;
	if (pending->request.type != NBD_CMD_WRITE)
		return true;
	pending->payload = malloc(pending->request.length);
	CHECK(pending->payload);
	return fake_take_bytes(server->fd, pending->payload, pending->request.length);
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

/* The content of a READ, cut into chunks that leave in random order; zeroes become holes. */
static void put_chunks(struct disk_run *run, struct fake_bytes *reply,
		       const struct fake_request *request)
{
	const uint8_t *disk = run->server->disk;
	uint32_t size = run->server->options.chunk_bytes;
	uint32_t n;
	uint32_t *order;

	if (!size || request->flags & NBD_CMD_FLAG_DF)
		size = request->length;
	n = (request->length + size - 1) / size;
	order = malloc(n * sizeof(*order));
	CHECK(order);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = pick(run, i + 1);

		order[i] = order[j];
		order[j] = i;
	}
	for (uint32_t i = 0; i < n; i++) {
		uint64_t offset = request->offset + (uint64_t)order[i] * size;
		uint64_t left = request->offset + request->length - offset;
		uint32_t len = left < size ? (uint32_t)left : size;
		/* The end may come with the last chunk or alone. */
		uint16_t flags = i == n - 1 && n % 2 ? NBD_REPLY_FLAG_DONE : 0;

		if (is_zero(disk + offset, len) && !(request->flags & NBD_CMD_FLAG_DF))
			fake_put_hole(reply, flags, request->cookie, offset, len);
		else
			fake_put_data(reply, flags, request->cookie, offset, disk + offset, len);
	}
	if (n % 2 == 0)
		fake_put_none(reply, request->cookie);
	free(order);
}

static void apply(struct fake_disk_server *server, const struct pending *pending)
{
	uint8_t *disk = server->disk + pending->request.offset;

	switch (pending->request.type) {
	case NBD_CMD_WRITE:
		memcpy(disk, pending->payload, pending->request.length);
		break;
	case NBD_CMD_TRIM:
	case NBD_CMD_WRITE_ZEROES:
		memset(disk, 0, pending->request.length);
		break;
	}
}

/* Servers that share a disk are in order for us, by way of the client, but not for TSan. */
static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;

static void put_reply(struct disk_run *run, struct fake_bytes *reply, const struct pending *pending)
{
	struct fake_disk_server *server = run->server;
	const struct fake_request *request = &pending->request;
	uint32_t error = server->options.fail ? server->options.fail(request) : 0;

	if (!error)
		apply(server, pending);
	if (request->type != NBD_CMD_READ) {
		fake_put_simple(reply, request->cookie, error);
	} else if (!server->options.structured) {
		fake_put_simple(reply, request->cookie, error);
		if (!error)
			fake_put(reply, server->disk + request->offset, request->length);
	} else if (error) {
		fake_put_error(reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR_OFFSET,
			       request->cookie, error, "as told", request->offset);
	} else {
		put_chunks(run, reply, request);
	}
}

static bool answer(struct disk_run *run)
{
	unsigned int i = run->server->options.random_order ? pick(run, run->n_pending) : 0;
	struct pending chosen = run->pending[i];
	struct fake_bytes reply = {0};
	bool sent;

	run->server->overtaken += i > 0;
	run->n_pending--;
	memmove(&run->pending[i], &run->pending[i + 1],
		(run->n_pending - i) * sizeof(run->pending[0]));
	pthread_mutex_lock(&disk_lock);
	put_reply(run, &reply, &chosen);
	pthread_mutex_unlock(&disk_lock);
	sent = fake_send(run->server->fd, reply.p, reply.n, run->server->options.piece);
	fake_bytes_done(&reply);
	free(chosen.payload);
	return sent;
}

static bool readable(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	return poll(&pfd, 1, 0) == 1;
}

static void *serve(void *arg)
{
	struct fake_disk_server *server = arg;
	struct disk_run run = {.server = server};
	bool go_on = true;

	/* Receives as long as there is something, so that there is a choice of what to answer. */
	while (go_on) {
		if (!run.n_pending || (run.n_pending < PENDING_MAX && readable(server->fd)))
			go_on = receive(&run);
		else
			go_on = answer(&run);
	}
	for (unsigned int i = 0; i < run.n_pending; i++)
		free(run.pending[i].payload);
	close(server->fd);
	return NULL;
}

void fake_disk_start(struct fake_disk_server *server)
{
	server->requests = 0;
	server->overtaken = 0;
	server->disc = false;
	CHECK(!pthread_create(&server->thread, NULL, serve, server));
}

void fake_disk_join(struct fake_disk_server *server)
{
	CHECK(!pthread_join(server->thread, NULL));
}
