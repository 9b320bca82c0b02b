// SPDX-License-Identifier: MIT
/*
 * Servers that do anything behind block devices of the kernel, and a model of each disk: every
 * request ends, every read returns what the model holds, every acknowledged write is there.
 * tests/wire/test_wire_survives_evil_servers.c with ublk in the place of memory; runs in guests, by
 * tests/e2e/test-evil-servers-cost-no-byte.sh.
 *
 * Each seed is a process of its own with a server and a device, some of them at a time.
 */
#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "evil_server.h"
#include "handshake_server.h"
#include "live_device.h"
#include "nbd_wire.h"
#include "wire_rig.h"

#define BYTES	(512 * 1024)
#define SECTORS (BYTES / 512)
#define THREADS 15
#define MAX_IO	32768 /* of one request; of all, less than the disk */

/* What came of one seed, or of all; shared with the parent. */
struct outcome {
	unsigned int done[EVILS];
	pid_t pid;
	unsigned int ended;
	unsigned int failed;
	uint64_t reconnects;
	uint64_t replays;
	uint64_t timeouts;
	uint64_t bytes_direct;
};

struct model {
	struct evil_world world;
	struct live_device device;
	unsigned int seed;
	pthread_mutex_t lock; /* of all that follows but the disk */
	unsigned int n_threads;
	unsigned int n_left;
	unsigned int ended;
	unsigned int failed;
	unsigned int failed_flushes; /* of them: the kernel gives one FLUSH's outcome to all that wait */
	uint8_t disk[BYTES];      /* the servers' */
	uint8_t bytes[BYTES];     /* what is there when nothing is in flight */
	uint8_t locked[SECTORS];  /* a request in flight covers this sector */
	uint8_t unknown[SECTORS]; /* a write to it failed: old or new */
};

struct io {
	uint16_t type;
	uint32_t offset;
	uint32_t len;
	bool durable;
	uint8_t *data; /* MAX_IO */
};

static unsigned int pick(unsigned int *seed, unsigned int n)
{
	return (unsigned int)rand_r(seed) % n;
}

/* The next one, whose sectors no other one touches; false when there is none. */
static bool begin(struct model *m, unsigned int *seed, struct io *io)
{
	static const uint16_t types[] = {NBD_CMD_READ,	NBD_CMD_READ, NBD_CMD_READ, NBD_CMD_WRITE,
					 NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_FLUSH,
					 NBD_CMD_WRITE_ZEROES};
	unsigned int n;
	unsigned int first;

	pthread_mutex_lock(&m->lock);
	if (!m->n_left) {
		pthread_mutex_unlock(&m->lock);
		return false;
	}
	m->n_left--;
	io->type = types[pick(seed, sizeof(types) / sizeof(types[0]))];
	io->durable = !pick(seed, 4);
	io->offset = io->len = 0;
	if (io->type != NBD_CMD_FLUSH) {
		/* There is always room: what all threads can cover is less than the disk. */
		do {
			n = 1 + pick(seed, pick(seed, 2) ? 8 : MAX_IO / 512);
			first = pick(seed, SECTORS - n + 1);
		} while (memchr(m->locked + first, 1, n));
		memset(m->locked + first, 1, n);
		io->offset = first * 512;
		io->len = n * 512;
	}
	if (io->type == NBD_CMD_READ) {
		memset(io->data, 0x5a, io->len);
	} else if (io->type == NBD_CMD_WRITE) {
		rig_pattern(io->data, pick(seed, 10000), io->len, pick(seed, 200));
		memcpy(m->bytes + io->offset, io->data, io->len);
	} else {
		memset(m->bytes + io->offset, 0, io->len);
	}
	pthread_mutex_unlock(&m->lock);
	return true;
}

/* Whether it succeeded; what is neither that nor EIO ends the program. */
static bool carry_out(int fd, const struct io *io)
{
	struct iovec iov = {.iov_base = io->data, .iov_len = io->len};
	uint64_t range[2] = {io->offset, io->len};
	ssize_t r;

	switch (io->type) {
	case NBD_CMD_READ:
		r = preadv(fd, &iov, 1, io->offset);
		break;
	case NBD_CMD_WRITE:
		r = pwritev2(fd, &iov, 1, io->offset, io->durable ? RWF_DSYNC : 0);
		break;
	case NBD_CMD_TRIM:
		r = ioctl(fd, BLKDISCARD, range) < 0 ? -1 : (ssize_t)io->len;
		break;
	case NBD_CMD_WRITE_ZEROES:
		r = ioctl(fd, BLKZEROOUT, range) < 0 ? -1 : (ssize_t)io->len;
		break;
	default:
		r = fdatasync(fd);
	}
	if (r != (ssize_t)io->len && !(r < 0 && errno == EIO)) {
		fprintf(stderr, "type %u, %u bytes at %u: %zd, %s\n", io->type, io->len, io->offset,
			r, strerror(errno));
		exit(1);
	}
	return r >= 0;
}

static void check_known_same(const struct model *m, const uint8_t *data, uint32_t offset,
			     uint32_t len, const char *what)
{
	for (uint32_t at = 0; at < len; at += 512) {
		if (m->unknown[(offset + at) / 512] ||
		    !memcmp(data + at, m->bytes + offset + at, 512))
			continue;
		fprintf(stderr, "%s: wrong bytes at %u, in a range of %u at %u\n", what,
			offset + at, len, offset);
		exit(1);
	}
}

static void end(struct model *m, const struct io *io, bool good)
{
	pthread_mutex_lock(&m->lock);
	m->ended++;
	m->failed += !good;
	m->failed_flushes += !good && (io->type == NBD_CMD_FLUSH ||
				       (io->type == NBD_CMD_WRITE && io->durable));
	if (io->type != NBD_CMD_READ)
		memset(m->unknown + io->offset / 512, !good, io->len / 512);
	else if (good)
		check_known_same(m, io->data, io->offset, io->len, "read");
	memset(m->locked + io->offset / 512, 0, io->len / 512);
	pthread_mutex_unlock(&m->lock);
}

static void *use(void *arg)
{
	struct model *m = arg;
	unsigned int seed;
	struct io io;

	pthread_mutex_lock(&m->lock);
	seed = m->seed + 500 + m->n_threads++;
	pthread_mutex_unlock(&m->lock);
	io.data = aligned_alloc(4096, MAX_IO);
	LIVE_CHECK(io.data);
	while (begin(m, &seed, &io))
		end(m, &io, carry_out(m->device.fd, &io));
	free(io.data);
	return NULL;
}

static void transmit(void *arg, unsigned int number, int fd)
{
	struct model *m = arg;
	struct evil_server server = {.world = &m->world, .fd = dup(fd)};

	LIVE_CHECK(server.fd >= 0);
	server.seed = m->seed + number;
	evil_server_serve(&server);
}

static struct live_device attach(unsigned int seed, const char *data_path, const char *port,
				 const char *socket, bool structured)
{
	/* Those of the native test, one after the other. */
	const char *const keys[] = {
		"data_path", data_path, "connections", seed % 2 ? "2" : "1",
		"queues", seed % 4 == 3 ? "2" : "1", "queue_depth", "16",
		"zero_copy_threshold", seed % 3 ? "4K" : "512",
		"structured_replies", structured ? "true" : "false",
		"request_timeout", "1", "fence", "strict", "unflushed", "ignore", NULL};
	char name[32];
	char uri[128];

	snprintf(name, sizeof(name), "evil%u", seed);
	if (port[0])
		snprintf(uri, sizeof(uri), "nbd://127.0.0.1:%s/", port);
	else
		snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", socket);
	return live_device_attach(name, uri, keys);
}

/* Each death was one that the server had asked for, and each failure one that it had told. */
static void check_counts(const struct model *m, const struct outcome *outcome)
{
	uint64_t poisoned = live_device_counter(&m->device, "poisoned");
	unsigned int told = m->world.done[EVIL_ERROR] + m->world.done[EVIL_GAP] +
			    m->world.done[EVIL_ERROR_DATA];
	unsigned int fatal = 0;

	for (unsigned int e = EVIL_FIRST_FATAL; e < EVILS; e++)
		fatal += m->world.done[e];
	LIVE_CHECK(outcome->reconnects <= fatal + outcome->timeouts);
	LIVE_CHECK(outcome->failed - m->failed_flushes <= told + poisoned);
	LIVE_CHECK(!m->failed_flushes || told + poisoned);
	LIVE_CHECK(live_device_counter(&m->device, "unfenced_replays") == 0);
	LIVE_CHECK(live_device_counter(&m->device, "unfenced_failures") == 0);
}

static void run_seed(unsigned int seed, const char *data_path, struct outcome *ret_outcome)
{
	struct model *m = calloc(1, sizeof(*m));
	struct gk_handshake_server_script script = {
		.size_bytes = BYTES,
		.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			 NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN,
		.accepted_fd = -1,
		.max_payload = seed % 5 ? 0 : 8192,
		.transmit = transmit,
		.arg = m,
	};
	struct gk_handshake_server *server;
	pthread_t threads[THREADS];
	char socket[64];

	LIVE_CHECK(m);
	m->seed = seed * 1000;
	m->n_left = 120;
	pthread_mutex_init(&m->lock, NULL);
	evil_world_init(&m->world, m->disk, BYTES);
	m->world.structured = seed / 2 % 2;
	m->world.may_stall = true;
	/* As often for requests that leave in pieces. */
	m->world.one_in = script.max_payload ? 60 : 20;
	snprintf(socket, sizeof(socket), "/tmp/evil-%u", seed);
	server = gk_handshake_server_new(seed % 6 ? "127.0.0.1" : socket, &script);
	LIVE_CHECK(server);
	m->device = attach(seed, data_path, gk_handshake_server_port(server), socket,
			   m->world.structured);
	for (unsigned int i = 0; i < THREADS; i++)
		LIVE_CHECK(!pthread_create(&threads[i], NULL, use, m));
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);

	ret_outcome->ended = m->ended;
	ret_outcome->failed = m->failed;
	ret_outcome->reconnects = live_device_counter(&m->device, "reconnects");
	ret_outcome->replays = live_device_counter(&m->device, "replays");
	ret_outcome->timeouts = live_device_counter(&m->device, "timeouts");
	ret_outcome->bytes_direct = live_device_counter(&m->device, "bytes_direct");
	check_counts(m, ret_outcome);
	live_device_detach(&m->device);
	gk_handshake_server_free(server);
	check_known_same(m, m->disk, 0, BYTES, "disk");
	memcpy(ret_outcome->done, m->world.done, sizeof(ret_outcome->done));
}

static void add(struct outcome *sum, const struct outcome *one)
{
	for (unsigned int e = 0; e < EVILS; e++)
		sum->done[e] += one->done[e];
	sum->ended += one->ended;
	sum->failed += one->failed;
	sum->reconnects += one->reconnects;
	sum->replays += one->replays;
	sum->timeouts += one->timeouts;
	sum->bytes_direct += one->bytes_direct;
}

/* Prints what there was; false when there was too little of it to show anything. */
static bool tell(const struct outcome *sum, unsigned int n, const char *data_path)
{
	static const char *const names[EVILS] = {
		"none", "error", "gap", "drop", "stall", "cut-header", "cut-payload", "magic",
		"cookie", "twice", "late", "error-data", "other-kind", "oversize"};
	bool enough = sum->reconnects && sum->replays;

	printf("   %s: %u seeds, %u requests, %u failed, %llu reconnects, %llu replays, "
	       "%llu timeouts, %llu bytes direct\n  ", data_path, n, sum->ended, sum->failed,
	       (unsigned long long)sum->reconnects, (unsigned long long)sum->replays,
	       (unsigned long long)sum->timeouts, (unsigned long long)sum->bytes_direct);
	for (unsigned int e = 1; e < EVILS; e++) {
		printf(" %s %u", names[e], sum->done[e]);
		/* With fewer seeds one may be missing. */
		enough &= sum->done[e] || n < 50;
	}
	printf("\n");
	return enough && (sum->bytes_direct || !strcmp(data_path, "copy"));
}

int main(int argc, char **argv)
{
	unsigned int first = argc == 5 ? (unsigned int)atoi(argv[2]) : 0;
	unsigned int n = first ? (unsigned int)atoi(argv[3]) : 0;
	unsigned int at_a_time = n ? (unsigned int)atoi(argv[4]) : 0;
	struct outcome *outcomes;
	struct outcome sum = {0};
	unsigned int running = 0;
	int result = 0;

	if (!at_a_time) {
		fprintf(stderr, "usage: evil_device DATA_PATH FIRST_SEED SEEDS AT_A_TIME\n");
		return 2;
	}
	outcomes = mmap(NULL, n * sizeof(*outcomes), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	LIVE_CHECK(outcomes != MAP_FAILED);
	for (unsigned int i = 0; i < n || running;) {
		pid_t pid;
		int status;

		if (i < n && running < at_a_time) {
			outcomes[i].pid = fork();
			LIVE_CHECK(outcomes[i].pid >= 0);
			if (!outcomes[i].pid) {
				/* Whatever never ends: a request or a server. */
				alarm(240);
				run_seed(first + i, argv[1], &outcomes[i]);
				_exit(0);
			}
			i++;
			running++;
			continue;
		}
		pid = wait(&status);
		LIVE_CHECK(pid > 0);
		running--;
		result |= status;
		for (unsigned int j = 0; j < i && status; j++)
			if (outcomes[j].pid == pid)
				fprintf(stderr, "seed %u failed: status %x\n", first + j, status);
	}
	for (unsigned int i = 0; i < n; i++)
		add(&sum, &outcomes[i]);
	return tell(&sum, n, argv[1]) && !result ? 0 : 1;
}
