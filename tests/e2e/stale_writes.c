// SPDX-License-Identifier: MIT
/*
 * A server that sits on the writes of a connection which has been given up, while the same blocks
 * are written anew over the next one: tests/wire/test_wire_sits_on_old_writes.c behind a device of
 * the kernel. Runs in guests, by tests/e2e/test-old-writes-never-come-back.sh.
 *
 * With a fence it applies them when its patience ends and closes; without one only after the blocks
 * have been rewritten, which proves that old bytes do come back when nothing keeps them.
 *
 * With a directory it does nothing to end the connection but makes the file `held` there: whoever
 * started this program then ends gkproxy, starts the next one, and makes `restarted`. "killed": and
 * then makes `waits` when the next one waits for the connections of the former one, which the server
 * does not end before. "unfenced": and sees to it that nothing fences, whatever the configuration says.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fake_server.h"
#include "handshake_server.h"
#include "live_device.h"

#define BLOCKS	   8
#define STEP	   (128 * 1024)
#define LARGE	   65536
#define PATIENCE_S 2

struct sitter {
	bool fenced;
	const char *dir; /* NULL: gkproxy lives on */
	bool killed;
	struct live_device device;
	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t changed;
	uint8_t disk[BLOCKS * STEP];
	struct fake_request held[BLOCKS];
	uint8_t payload[BLOCKS][LARGE];
	unsigned int n_held;
	bool rewritten;
	bool over; /* what was held is on the disk */
};

/* Small ones are staged, large ones sent from the kernel's pages, where the data path can. */
static uint32_t len_of(unsigned int block)
{
	return block % 2 ? LARGE : 4096;
}

static void drain(int fd)
{
	char bytes[65536];

	while (recv(fd, bytes, sizeof(bytes), 0) > 0)
		;
}

static void path_in(const struct sitter *s, const char *name, char *ret_path, size_t size)
{
	snprintf(ret_path, size, "%s/%s", s->dir, name);
}

/*
 * Whether the client, which has closed its half, listens on for as long as patience lasts: it fences.
 * A process that has ended resets us when we speak.
 */
static bool is_waited_for(const struct sitter *s, int fd)
{
	const struct timespec pause = {.tv_nsec = 10000000};
	char path[256];

	path_in(s, "waits", path, sizeof(path));
	for (int i = 0; s->killed ? access(path, F_OK) : i < PATIENCE_S * 100; i++) {
		if (send(fd, "", 1, MSG_NOSIGNAL) < 0)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

/* The client has closed its half: it will hear nothing more. */
static void sit_on(struct sitter *s, int fd)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	if (s->dir)
		until.tv_sec += is_waited_for(s, fd) ? 0 : 3600;
	else
		until.tv_sec += s->fenced ? PATIENCE_S : 3600;
	pthread_mutex_lock(&s->lock);
	while (!s->rewritten && !pthread_cond_timedwait(&s->changed, &s->lock, &until))
		;
	for (unsigned int i = 0; i < BLOCKS; i++)
		memcpy(s->disk + s->held[i].offset, s->payload[i], s->held[i].length);
	s->over = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* All writes are here: now the connection has to end. */
static void end_connection(const struct sitter *s, int fd)
{
	char path[256];
	int file;

	if (!s->dir) {
		LIVE_CHECK(fake_send(fd, "nonsense, not replies", 21, 0));
		return;
	}
	path_in(s, "held", path, sizeof(path));
	file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	LIVE_CHECK(file >= 0);
	close(file);
}

/* Whether this write is one that is never answered. */
static bool hold(struct sitter *s, int fd, const struct fake_request *request)
{
	LIVE_CHECK(request->length <= LARGE);
	LIVE_CHECK(fake_take_bytes(fd, s->payload[s->n_held], request->length));
	s->held[s->n_held++] = *request;
	if (s->n_held < BLOCKS)
		return true;
	end_connection(s, fd);
	drain(fd);
	sit_on(s, fd);
	return false;
}

static bool answer(struct sitter *s, int fd, const struct fake_request *request)
{
	struct fake_bytes reply = {0};
	uint8_t *at = s->disk + request->offset;
	bool good = true;

	fake_put_simple(&reply, request->cookie, 0);
	if (request->type == NBD_CMD_WRITE) {
		uint8_t *data = malloc(request->length);

		good = fake_take_bytes(fd, data, request->length);
		pthread_mutex_lock(&s->lock);
		if (good)
			memcpy(at, data, request->length);
		pthread_mutex_unlock(&s->lock);
		free(data);
	} else if (request->type == NBD_CMD_READ) {
		pthread_mutex_lock(&s->lock);
		fake_put(&reply, at, request->length);
		pthread_mutex_unlock(&s->lock);
	}
	good = good && fake_send(fd, reply.p, reply.n, 0);
	fake_bytes_done(&reply);
	return good;
}

static void transmit(void *arg, unsigned int number, int fd)
{
	struct sitter *s = arg;
	struct fake_request request;
	bool go_on = true;

	while (go_on && fake_take(fd, &request) && request.type != NBD_CMD_DISC) {
		LIVE_CHECK(request.offset + request.length <= sizeof(s->disk));
		/* The first connection is the one that dies. */
		if (!number && request.type == NBD_CMD_WRITE)
			go_on = hold(s, fd, &request);
		else
			go_on = answer(s, fd, &request);
	}
}

struct writer {
	struct sitter *sitter;
	unsigned int block;
	uint8_t byte;
	pthread_t thread;
};

static void *write_block(void *arg)
{
	struct writer *writer = arg;
	uint32_t len = len_of(writer->block);
	uint8_t *data = aligned_alloc(4096, len);

	LIVE_CHECK(data);
	memset(data, writer->byte, len);
	LIVE_CHECK(pwrite(writer->sitter->device.fd, data, len, writer->block * STEP) == (ssize_t)len);
	free(data);
	return NULL;
}

/* All blocks at once. */
static void write_blocks(struct sitter *s, uint8_t byte)
{
	struct writer writers[BLOCKS];

	for (unsigned int i = 0; i < BLOCKS; i++) {
		writers[i] = (struct writer){.sitter = s, .block = i, .byte = byte};
		LIVE_CHECK(!pthread_create(&writers[i].thread, NULL, write_block, &writers[i]));
	}
	for (unsigned int i = 0; i < BLOCKS; i++)
		pthread_join(writers[i].thread, NULL);
}

/* How many blocks are not what was written last. */
static unsigned int count_stale(struct sitter *s)
{
	uint8_t *data = aligned_alloc(4096, LARGE);
	unsigned int n = 0;

	for (unsigned int i = 0; i < BLOCKS; i++) {
		ssize_t len = len_of(i);

		LIVE_CHECK(pread(s->device.fd, data, (size_t)len, i * STEP) == len);
		LIVE_CHECK(data[0] == 'A' || data[0] == 'B');
		LIVE_CHECK(!memcmp(data, data + 1, (size_t)len - 1));
		n += data[0] == 'A';
	}
	free(data);
	return n;
}

struct successor {
	struct sitter *sitter;
	const char *uri;
	const char *const *keys;
	pthread_t thread;
};

/* The next gkproxy takes the device over when it is attached by its name. */
static void *take_over(void *arg)
{
	const struct successor *successor = arg;
	const struct timespec pause = {.tv_nsec = 5000000};
	struct live_device again;
	char path[256];

	path_in(successor->sitter, "restarted", path, sizeof(path));
	while (access(path, F_OK))
		nanosleep(&pause, NULL);
	again = live_device_attach("stale", successor->uri, successor->keys);
	close(again.fd);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sitter *s = calloc(1, sizeof(*s));
	struct gk_handshake_server_script script = {
		.size_bytes = sizeof(s->disk),
		.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA,
		.accepted_fd = -1,
		.transmit = transmit,
		.arg = s,
	};
	struct gk_handshake_server *server;
	uint64_t unfenced;
	unsigned int stale;
	bool good;
	char uri[64];

	if (argc < 4 || argc > 6 || !s) {
		fprintf(stderr, "usage: stale_writes DATA_PATH FENCE FENCE_TIMEOUT [DIRECTORY "
				"[killed|unfenced]]\n");
		return 2;
	}
	const char *const keys[] = {"data_path", argv[1], "fence", argv[2], "fence_timeout", argv[3],
				    "zero_copy_threshold", "16K", "unflushed", "ignore", "on_exit",
				    argc > 4 ? "keep" : "remove", NULL};
	struct successor successor = {.sitter = s, .uri = uri, .keys = keys};

	/* Nobody has less patience than the server but who does without a fence. */
	s->killed = argc > 5 && !strcmp(argv[5], "killed");
	s->fenced = (argc < 6 || s->killed) && (!strcmp(argv[2], "strict") || atof(argv[3]) > PATIENCE_S);
	s->dir = argv[4];
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	server = gk_handshake_server_new("127.0.0.1", &script);
	LIVE_CHECK(server);
	snprintf(uri, sizeof(uri), "nbd://127.0.0.1:%s/", gk_handshake_server_port(server));
	alarm(120);
	s->device = live_device_attach("stale", uri, keys);

	if (s->dir)
		LIVE_CHECK(!pthread_create(&successor.thread, NULL, take_over, &successor));
	write_blocks(s, 'A');
	pthread_mutex_lock(&s->lock);
	LIVE_CHECK(s->n_held == BLOCKS && s->over == s->fenced);
	pthread_mutex_unlock(&s->lock);
	write_blocks(s, 'B');
	pthread_mutex_lock(&s->lock);
	s->rewritten = true;
	pthread_cond_broadcast(&s->changed);
	while (!s->over)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
	stale = count_stale(s);
	unfenced = live_device_counter(&s->device, "unfenced_replays");
	printf("   %s, fence %s, %s s: %u writes held, %llu replayed, %llu of them unfenced, "
	       "%u of %u blocks stale\n", argv[1], argv[2], argv[3], s->n_held,
	       (unsigned long long)live_device_counter(&s->device, "replays"),
	       (unsigned long long)unfenced, stale, BLOCKS);
	/* Another gkproxy counts from 0. */
	good = s->fenced ? !stale && !unfenced : stale == BLOCKS && unfenced == (s->dir ? 0 : BLOCKS);
	if (s->dir)
		pthread_join(successor.thread, NULL);
	live_device_detach(&s->device);
	gk_handshake_server_free(server);
	return good ? 0 : 1;
}
