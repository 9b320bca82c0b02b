// SPDX-License-Identifier: MIT
#include "evil_server.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fake_server.h"

#define PENDING_MAX 64

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: evil server: not so: %s\n", __FILE__, __LINE__,    \
				#condition);                                                       \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct pending {
	struct fake_request request;
	uint8_t *payload; /* WRITE */
};

struct run {
	struct evil_server *server;
	struct evil_world *world;
	struct pending pending[PENDING_MAX];
	unsigned int n_pending;
};

static unsigned int pick(struct run *run, unsigned int n)
{
	return (unsigned int)rand_r(&run->server->seed) % n;
}

void evil_world_init(struct evil_world *world, uint8_t *disk, size_t size)
{
	*world = (struct evil_world){.disk = disk, .size = size, .one_in = 12};
	pthread_mutex_init(&world->lock, NULL);
}

/* Takes the next request into the list; false when there will be none. */
static bool receive(struct run *run)
{
	struct evil_world *world = run->world;
	struct pending *pending = &run->pending[run->n_pending];
	struct fake_request *request = &pending->request;

	if (!fake_take(run->server->fd, request) || request->type == NBD_CMD_DISC)
		return false;
	CHECK(run->n_pending < PENDING_MAX);
	CHECK(request->type <= NBD_CMD_WRITE_ZEROES && request->length <= world->size &&
	      request->offset <= world->size - request->length);
	CHECK(request->length || request->type == NBD_CMD_FLUSH);
	pending->payload = NULL;
	if (request->type == NBD_CMD_WRITE) {
		pending->payload = malloc(request->length);
		CHECK(pending->payload);
		/* Half a write is none. */
		if (!fake_take_bytes(run->server->fd, pending->payload, request->length)) {
			free(pending->payload);
			return false;
		}
	}
	run->n_pending++;
	return true;
}

static void apply(struct evil_world *world, const struct pending *pending)
{
	uint8_t *at = world->disk + pending->request.offset;

	if (pending->request.type == NBD_CMD_WRITE)
		memcpy(at, pending->payload, pending->request.length);
	else if (pending->request.type == NBD_CMD_TRIM ||
		 pending->request.type == NBD_CMD_WRITE_ZEROES)
		memset(at, 0, pending->request.length);
}

static void put_error(struct run *run, struct fake_bytes *reply, const struct fake_request *request)
{
	if (run->world->structured && request->type == NBD_CMD_READ)
		fake_put_error(reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, request->cookie,
			       NBD_EIO, "out of spite", 0);
	else
		fake_put_simple(reply, request->cookie, NBD_EIO);
}

/* What a good server answers; a READ in two chunks, the second one first. */
static void put_answer(struct run *run, struct fake_bytes *reply, const struct fake_request *request)
{
	const uint8_t *data = run->world->disk + request->offset;
	uint32_t half = request->length / 2;

	if (request->type != NBD_CMD_READ || !run->world->structured) {
		fake_put_simple(reply, request->cookie, 0);
		if (request->type == NBD_CMD_READ)
			fake_put(reply, data, request->length);
		return;
	}
	fake_put_data(reply, 0, request->cookie, request->offset + half, data + half,
		      request->length - half);
	fake_put_data(reply, NBD_REPLY_FLAG_DONE, request->cookie, request->offset, data, half);
}

static void put_oversize(struct run *run, struct fake_bytes *reply,
			 const struct fake_request *request)
{
	uint32_t lens[] = {request->length + 1, 1U << 25, UINT32_MAX - 8};

	fake_put_chunk(reply, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA, request->cookie,
		       8 + lens[pick(run, 3)]);
	fake_put64(reply, request->offset);
	fake_put(reply, run->world->disk, 4096);
}

/* Bytes in the place of the answer. EVIL_DROP and EVIL_STALL have none. */
static void put_evil(struct run *run, struct fake_bytes *reply, const struct fake_request *request,
		     enum evil evil)
{
	struct evil_world *world = run->world;
	struct fake_request other = *request;
	size_t header = world->structured && request->type == NBD_CMD_READ ? 28 : 16;

	switch (evil) {
	case EVIL_ERROR:
		put_error(run, reply, request);
		break;
	case EVIL_GAP:
		fake_put_data(reply, NBD_REPLY_FLAG_DONE, request->cookie, request->offset,
			      world->disk + request->offset, request->length - 1);
		break;
	case EVIL_CUT_HEADER:
		put_answer(run, reply, request);
		reply->n = pick(run, (unsigned int)header);
		break;
	case EVIL_CUT_PAYLOAD:
		put_answer(run, reply, request);
		reply->n = header + pick(run, (unsigned int)(reply->n - header));
		break;
	case EVIL_MAGIC:
		put_answer(run, reply, request);
		reply->p[pick(run, 4)] ^= (uint8_t)(1 + pick(run, 255));
		break;
	case EVIL_COOKIE:
		/* Not another tag's: no client could tell that from an answer. */
		other.cookie ^= UINT64_C(1) << (16 + pick(run, 48));
		put_answer(run, reply, &other);
		break;
	case EVIL_TWICE:
		put_answer(run, reply, request);
		put_answer(run, reply, request);
		break;
	case EVIL_LATE:
		other.cookie = world->cookies[pick(run, world->n_cookies < EVIL_COOKIES
								? world->n_cookies
								: EVIL_COOKIES)];
		put_answer(run, reply, &other);
		break;
	case EVIL_ERROR_DATA:
		put_error(run, reply, request);
		put_answer(run, reply, request);
		break;
	case EVIL_OTHER_KIND:
		if (world->structured)
			fake_put_simple(reply, request->cookie, 0);
		else
			fake_put_none(reply, request->cookie);
		break;
	case EVIL_OVERSIZE:
		put_oversize(run, reply, request);
		break;
	default:
		break;
	}
}

/* Whether this evil means something for this request, here and now. */
static bool fits(const struct evil_world *world, const struct fake_request *request, enum evil evil)
{
	bool read = request->type == NBD_CMD_READ;

	switch (evil) {
	case EVIL_GAP:
		return read && world->structured;
	case EVIL_CUT_PAYLOAD:
	case EVIL_ERROR_DATA:
		return read;
	case EVIL_OTHER_KIND:
		return read || !world->structured;
	case EVIL_LATE:
		return world->n_cookies > 0;
	case EVIL_STALL:
		return world->may_stall && !world->stalls;
	default:
		return true;
	}
}

static enum evil choose(struct run *run, const struct fake_request *request)
{
	enum evil evil;

	if (pick(run, run->world->one_in))
		return EVIL_NONE;
	do
		evil = (enum evil)(1 + pick(run, EVILS - 1));
	while (!fits(run->world, request, evil));
	return evil;
}

/* Answers one of those that wait, well or not. Whether the connection goes on. */
static bool answer(struct run *run, enum evil *ret_evil)
{
	struct evil_world *world = run->world;
	unsigned int i = pick(run, run->n_pending);
	struct pending chosen = run->pending[i];
	struct fake_bytes reply = {0};
	bool keep;
	bool sent;

	pthread_mutex_lock(&world->lock);
	*ret_evil = choose(run, &chosen.request);
	world->done[*ret_evil]++;
	world->stalls += *ret_evil == EVIL_STALL;
	/* Two evils answer the request well before they do worse. */
	if (*ret_evil == EVIL_NONE || *ret_evil == EVIL_TWICE) {
		apply(world, &chosen);
		world->cookies[world->n_cookies++ % EVIL_COOKIES] = chosen.request.cookie;
	}
	if (*ret_evil == EVIL_NONE)
		put_answer(run, &reply, &chosen.request);
	else
		put_evil(run, &reply, &chosen.request, *ret_evil);
	pthread_mutex_unlock(&world->lock);

	keep = *ret_evil >= EVIL_FIRST_FATAL && *ret_evil != EVIL_TWICE;
	if (!keep) {
		run->pending[i] = run->pending[--run->n_pending];
		free(chosen.payload);
	}
	sent = fake_send(run->server->fd, reply.p, reply.n, 0);
	fake_bytes_done(&reply);
	return sent && *ret_evil < EVIL_FIRST_FATAL;
}

/* Writes that nobody was told of: some of them reach the disk, in any order, in their own time. */
static void apply_some(struct run *run)
{
	struct timespec moment = {.tv_nsec = (long)pick(run, 500000)};

	nanosleep(&moment, NULL);
	pthread_mutex_lock(&run->world->lock);
	for (unsigned int i = run->n_pending; i-- > 0;) {
		if (pick(run, 2))
			apply(run->world, &run->pending[i]);
		free(run->pending[i].payload);
	}
	pthread_mutex_unlock(&run->world->lock);
}

static bool readable(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	return poll(&pfd, 1, 0) == 1;
}

void evil_server_serve(struct evil_server *server)
{
	struct run run = {.server = server, .world = server->world};
	enum evil evil = EVIL_NONE;
	bool go_on = true;

	/* Receives as long as there is something, so that there is a choice of what to answer. */
	while (go_on) {
		if (!run.n_pending || readable(server->fd))
			go_on = receive(&run);
		else
			go_on = answer(&run, &evil);
	}
	/* It falls silent, or it has said what no client can bear: this client half-closes. */
	if (evil == EVIL_STALL || evil > EVIL_CUT_PAYLOAD)
		while (receive(&run))
			;
	apply_some(&run);
	close(server->fd);
}

static void *serve(void *arg)
{
	evil_server_serve(arg);
	return NULL;
}

void evil_server_start(struct evil_server *server)
{
	CHECK(!pthread_create(&server->thread, NULL, serve, server));
}

void evil_server_join(struct evil_server *server)
{
	CHECK(!pthread_join(server->thread, NULL));
}
