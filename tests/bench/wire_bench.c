// SPDX-License-Identifier: MIT
/*
 * The proxy's queue loop at native speed: the real loop, sessions and data path copy, with the
 * user-memory front in ublk's place, against any NBD server. Prints one line of JSON.
 *
 *   wire_bench -u URI | -f FD -s BYTES [-o read|write] [-b BYTES] [-d DEPTH] [-c CONNECTIONS] [-S]
 *              [-t SECONDS] [-w SECONDS] [-n REQUESTS] [-z BYTES]
 *
 *   -f  a connected socket past the handshake, as nbd-client hands one to the kernel; of an export of
 *       -s bytes
 *   -S  sequential offsets, else random ones
 *   -t  how long to measure, 5       -w  before that, to warm up, 0.5
 *   -n  so many requests instead, all of them measured: for counting system calls and instructions
 *   -z  payload of this size and more takes the way of data path registered, but from and to
 *       user memory
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "dial.h"
#include "loop.h"
#include "mem_front.h"
#include "nbd_uri.h"

#define NS_PER_S UINT64_C(1000000000)

/* Latencies in nanoseconds: each power of two in 32 steps, so a step is at most 3 % wide. */
#define STEPS	 32
#define BUCKETS	 (60 * STEPS)

struct options {
	const char *uri;
	int fd; /* instead of uri; -1: none */
	uint64_t export_bytes; /* of fd */
	uint16_t type;
	uint32_t block_bytes;
	unsigned int depth;
	unsigned int connections;
	bool sequential;
	double seconds;
	double warm_up;
	uint64_t requests; /* 0: by time */
	bool zero_copy;
	uint32_t threshold_bytes;
};

struct bench {
	struct options options;
	struct gk_queue queue;
	struct mem_front front;
	uint64_t n_blocks;
	uint64_t next_block;
	uint64_t random;
	uint64_t *began_ns; /* per tag */
	uint64_t submitted;
	uint64_t ended;
	uint64_t histogram[BUCKETS];
};

/* What is subtracted to get the measured stretch alone. */
struct mark {
	uint64_t ns;
	uint64_t cpu_ns;
	uint64_t ended;
	struct gk_counters counters;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* User and system time of all threads, the kernel's for this ring included. */
static uint64_t cpu_ns(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * NS_PER_S +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static struct mark mark(const struct bench *bench)
{
	return (struct mark){
		.ns = now_ns(),
		.cpu_ns = cpu_ns(),
		.ended = bench->ended,
		.counters = bench->queue.counters,
	};
}

static unsigned int bucket_of(uint64_t ns)
{
	unsigned int bits = 64 - (unsigned int)__builtin_clzll(ns | 1);
	unsigned int shift = bits > 6 ? bits - 6 : 0;

	/* From 64 ns on, ns >> shift is in [32, 64). */
	return shift * STEPS + (unsigned int)(ns >> shift);
}

static double bucket_us(unsigned int bucket)
{
	unsigned int shift = bucket < 2 * STEPS ? 0 : bucket / STEPS - 1;

	return (double)((uint64_t)(bucket - shift * STEPS) << shift) / 1000;
}

static double percentile_us(const struct bench *bench, double part)
{
	uint64_t total = 0;
	uint64_t seen = 0;
	unsigned int i;

	for (i = 0; i < BUCKETS; i++)
		total += bench->histogram[i];
	for (i = 0; i < BUCKETS - 1; i++) {
		seen += bench->histogram[i];
		if ((double)seen >= part * (double)total)
			break;
	}
	return bucket_us(i);
}

static uint64_t next_offset(struct bench *bench)
{
	uint64_t block;

	if (bench->options.sequential) {
		block = bench->next_block++ % bench->n_blocks;
	} else {
		/* xorshift64 */
		bench->random ^= bench->random << 13;
		bench->random ^= bench->random >> 7;
		bench->random ^= bench->random << 17;
		block = bench->random % bench->n_blocks;
	}
	return block * bench->options.block_bytes;
}

static void submit(struct bench *bench, uint16_t tag, uint64_t now)
{
	bench->began_ns[tag] = now;
	bench->submitted++;
	mem_front_submit(&bench->queue, tag, bench->options.type, 0, next_offset(bench),
			 bench->options.block_bytes);
}

static bool enough(const struct bench *bench, uint64_t end_ns, uint64_t now)
{
	if (bench->options.requests)
		return bench->submitted >= bench->options.requests;
	return now >= end_ns;
}

/*
 * Keeps depth requests in flight until it is enough. The clock is read once per turn: what ended
 * in it ended then, and what follows began then.
 */
static void run(struct bench *bench, uint64_t end_ns)
{
	uint64_t now = now_ns();

	while (!enough(bench, end_ns, now)) {
		uint16_t tag;
		int32_t result;
		int r = gk_queue_turn(&bench->queue);

		if (r)
			errx(1, "io_uring: %s", gk_strerror(r));
		now = now_ns();
		while (mem_front_next(&bench->front, &tag, &result)) {
			if (result < 0)
				errx(1, "a request failed: %s", gk_strerror(result));
			bench->histogram[bucket_of(now - bench->began_ns[tag])]++;
			bench->ended++;
			if (!enough(bench, UINT64_MAX, now))
				submit(bench, tag, now);
		}
	}
}

static void drain(struct bench *bench)
{
	uint16_t tag;
	int32_t result;

	while (bench->front.n_busy) {
		int r = gk_queue_turn(&bench->queue);

		if (r)
			errx(1, "io_uring: %s", gk_strerror(r));
	}
	while (mem_front_next(&bench->front, &tag, &result)) {
		if (result < 0)
			errx(1, "a request failed: %s", gk_strerror(result));
		bench->ended++;
	}
}

static double per(uint64_t n, uint64_t requests)
{
	return (double)n / (double)requests;
}

static void print(const struct bench *bench, const struct mark *from, const struct mark *to)
{
	const struct options *options = &bench->options;
	const struct gk_counters *a = &from->counters;
	const struct gk_counters *b = &to->counters;
	uint64_t n = to->ended - from->ended;
	double seconds = (double)(to->ns - from->ns) / (double)NS_PER_S;

	if (!n)
		errx(1, "no request ended");
	printf("{\"iops\": %.1f, \"mbps\": %.2f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
	       "\"cpu_us_per_io\": %.4f, \"cpu_share\": %.3f, \"requests\": %" PRIu64 ", "
	       "\"enters_per_io\": %.5f, \"sends_per_io\": %.5f, \"receives_per_io\": %.5f, "
	       "\"staged_share\": %.4f}\n",
	       (double)n / seconds, (double)n * options->block_bytes / seconds / 1e6,
	       percentile_us(bench, 0.5), percentile_us(bench, 0.99),
	       per(to->cpu_ns - from->cpu_ns, n) / 1000,
	       (double)(to->cpu_ns - from->cpu_ns) / (double)(to->ns - from->ns), n,
	       per(b->loops - a->loops, n), per(b->sends - a->sends, n),
	       per(b->receives - a->receives, n),
	       per(b->staged_bytes - a->staged_bytes, n) / options->block_bytes);
}

/* The connections of a URI, dialled. Returns the size of the export. */
static uint64_t dial(const struct options *options, struct gk_dialled *dialled)
{
	struct gk_dial_options dial = {
		.mode = GK_NBD_HANDSHAKE_GO, .connect_timeout_s = 10, .cancel_fd = -1};
	char why[GK_DIAL_WHY_BYTES];
	struct gk_nbd_uri uri;
	int n;

	if (gk_nbd_uri_parse(options->uri, why, sizeof(why), &uri))
		errx(1, "%s: %s", options->uri, why);
	n = gk_dial_parallel(&uri, &dial, options->connections, why, sizeof(why), dialled);
	if (n < 0)
		errx(1, "%s", why);
	if ((unsigned int)n < options->connections)
		errx(1, "%s takes only one connection", options->uri);
	gk_nbd_uri_done(&uri);
	return dialled[0].facts.size_bytes;
}

static void set_up(struct bench *bench)
{
	const struct options *options = &bench->options;
	struct gk_dialled *dialled = calloc(options->connections, sizeof(*dialled));
	struct gk_queue_params params = {
		.front = &mem_front_ops,
		.front_data = &bench->front,
		.depth = options->depth,
		.n_sessions = options->connections,
		.max_io_bytes = options->block_bytes,
		.path = options->zero_copy ? &mem_path_single : NULL,
		.threshold_bytes = options->threshold_bytes,
	};
	uint64_t export_bytes = options->export_bytes;

	if (!dialled)
		errx(1, "out of memory");
	if (options->fd < 0) {
		export_bytes = dial(options, dialled);
	} else {
		dialled[0].fd = options->fd;
		dialled[0].facts.block_max = UINT32_C(32) << 20;
	}
	bench->n_blocks = export_bytes / options->block_bytes;
	if (!bench->n_blocks)
		errx(1, "the export is smaller than a block");
	bench->random = UINT64_C(0x9e3779b97f4a7c15);
	bench->began_ns = calloc(options->depth, sizeof(*bench->began_ns));
	if (!bench->began_ns ||
	    mem_front_init(&bench->front, options->depth,
			   options->zero_copy ? options->block_bytes : 0) ||
	    gk_queue_init(&bench->queue, &params) || gk_queue_open(&bench->queue))
		errx(1, "cannot set up the queue");
	/* Not the zero page: a disk's pages are memory of their own. */
	for (unsigned int i = 0; i < options->depth; i++)
		memset(mem_front_data(&bench->queue, (uint16_t)i), (int)i + 1,
		       options->block_bytes);
	for (unsigned int i = 0; i < options->connections; i++) {
		struct gk_session_facts facts = {
			.max_payload = dialled[i].facts.block_max,
			.tls = dialled[i].tls,
			.ktls = dialled[i].ktls,
			.tls_version = dialled[i].tls_version,
			.tls_cipher = dialled[i].tls_cipher,
		};

		gk_session_up(&bench->queue.sessions[i], i, dialled[i].fd, &facts);
		dialled[i].fd = -1;
		dialled[i].tls = NULL;
		gk_dial_done(&dialled[i]);
	}
	free(dialled);
}

static struct options parse(int argc, char **argv)
{
	struct options options = {
		.fd = -1,
		.type = NBD_CMD_READ,
		.block_bytes = 4096,
		.depth = 128,
		.connections = 1,
		.seconds = 5,
		.warm_up = 0.5,
	};
	int option;

	while ((option = getopt(argc, argv, "u:f:s:o:b:d:c:St:w:n:z:")) != -1) {
		switch (option) {
		case 'u':
			options.uri = optarg;
			break;
		case 'f':
			options.fd = (int)strtol(optarg, NULL, 10);
			break;
		case 's':
			options.export_bytes = strtoull(optarg, NULL, 10);
			break;
		case 'o':
			options.type = strcmp(optarg, "write") ? NBD_CMD_READ : NBD_CMD_WRITE;
			break;
		case 'b':
			options.block_bytes = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'd':
			options.depth = (unsigned int)strtoul(optarg, NULL, 10);
			break;
		case 'c':
			options.connections = (unsigned int)strtoul(optarg, NULL, 10);
			break;
		case 'S':
			options.sequential = true;
			break;
		case 't':
			options.seconds = strtod(optarg, NULL);
			break;
		case 'w':
			options.warm_up = strtod(optarg, NULL);
			break;
		case 'n':
			options.requests = strtoull(optarg, NULL, 10);
			break;
		case 'z':
			options.zero_copy = true;
			options.threshold_bytes = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		default:
			exit(2);
		}
	}
	if (!options.uri == (options.fd < 0) || !options.block_bytes || !options.depth || options.depth > 4096 ||
	    !options.connections || (options.fd >= 0 && options.connections > 1))
		errx(2, "usage: wire_bench -u URI | -f FD -s BYTES [-o read|write] [-b BYTES] [-d DEPTH] "
			"[-c CONNECTIONS] [-S] [-t SECONDS] [-w SECONDS] [-n REQUESTS] [-z BYTES]");
	return options;
}

int main(int argc, char **argv)
{
	static struct bench bench;
	struct mark from;
	struct mark to;

	bench.options = parse(argc, argv);
	set_up(&bench);
	from = mark(&bench);
	for (unsigned int i = 0; i < bench.options.depth && !enough(&bench, UINT64_MAX, 0); i++)
		submit(&bench, (uint16_t)i, from.ns);
	if (bench.options.requests) {
		run(&bench, UINT64_MAX);
		drain(&bench);
		to = mark(&bench);
	} else {
		run(&bench, now_ns() + (uint64_t)(bench.options.warm_up * (double)NS_PER_S));
		memset(bench.histogram, 0, sizeof(bench.histogram));
		from = mark(&bench);
		run(&bench, from.ns + (uint64_t)(bench.options.seconds * (double)NS_PER_S));
		to = mark(&bench);
		drain(&bench);
	}
	print(&bench, &from, &to);
	gk_queue_close(&bench.queue);
	gk_queue_done(&bench.queue);
	mem_front_done(&bench.front);
	free(bench.began_ns);
	return 0;
}
