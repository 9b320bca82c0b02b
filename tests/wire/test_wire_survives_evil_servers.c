// SPDX-License-Identifier: MIT
/*
 * Servers that do anything, one connection after the other, and a model of their disk: every
 * request ends, every READ returns what the model holds, every acknowledged write is there.
 *
 * GK_EVIL_SEEDS (50) seeds from GK_EVIL_FIRST (1) on.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evil_server.h"
#include "wire_rig.h"

#define BYTES	    (128 * 1024)
#define SECTORS	    (BYTES / 512)
#define DEPTH	    16
#define REQUESTS    80
#define CONNECTIONS 400
#define MS	    UINT64_C(1000000)

struct model {
	struct rig rig;
	struct evil_world world;
	struct evil_server servers[CONNECTIONS];
	unsigned int n_servers;
	uint8_t disk[BYTES];       /* the servers' */
	uint8_t bytes[BYTES];      /* what is there when nothing is in flight */
	uint8_t locked[SECTORS];   /* a request in flight covers this sector */
	uint8_t unknown[SECTORS];  /* a write to it failed: old or new */
	unsigned int seed;
	unsigned int n_left;
	unsigned int ended;
	unsigned int failed;
};

static unsigned int running_seed;
static uint64_t total_replays;

static unsigned int pick(struct model *m, unsigned int n)
{
	return (unsigned int)rand_r(&m->seed) % n;
}

static bool pick_range(struct model *m, uint64_t *ret_offset, uint32_t *ret_len)
{
	for (unsigned int attempt = 0; attempt < 20; attempt++) {
		unsigned int n = 1 + pick(m, pick(m, 2) ? 8 : m->rig.options.max_io_bytes / 512);
		unsigned int first = pick(m, SECTORS - n + 1);

		if (memchr(m->locked + first, 1, n))
			continue;
		*ret_offset = first * 512;
		*ret_len = n * 512;
		return true;
	}
	return false;
}

static bool submit(struct model *m, uint16_t tag)
{
	static const uint16_t types[] = {NBD_CMD_READ,	NBD_CMD_READ, NBD_CMD_READ, NBD_CMD_WRITE,
					 NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_FLUSH,
					 NBD_CMD_WRITE_ZEROES};
	uint16_t type = types[pick(m, sizeof(types) / sizeof(types[0]))];
	uint8_t *data = mem_front_data(&m->rig.queue, tag);
	uint64_t offset = 0;
	uint32_t len = 0;

	if (type != NBD_CMD_FLUSH) {
		if (!pick_range(m, &offset, &len))
			return false;
		memset(m->locked + offset / 512, 1, len / 512);
	}
	if (type == NBD_CMD_WRITE) {
		rig_pattern(data, pick(m, 10000), len, pick(m, 200));
		memcpy(m->bytes + offset, data, len);
	} else if (type == NBD_CMD_READ) {
		memset(data, 0x5a, len);
	} else if (len) {
		memset(m->bytes + offset, 0, len);
	}
	mem_front_submit(&m->rig.queue, tag, type, 0, offset, len);
	m->n_left--;
	return true;
}

static void assert_known_same(const struct model *m, const uint8_t *data, uint64_t offset,
			      uint32_t len)
{
	for (uint32_t at = 0; at < len; at += 512)
		if (!m->unknown[(offset + at) / 512])
			assert_memory_equal(data + at, m->bytes + offset + at, 512);
}

static void check_ended(struct model *m, uint16_t id, int32_t result)
{
	const struct gk_tag *tag = &m->rig.queue.tags[id];
	uint8_t *unknown = m->unknown + tag->offset / 512;

	m->ended++;
	m->failed += result < 0;
	if (result < 0)
		assert_int_equal(result, -EIO);
	else
		assert_int_equal(result, tag->len);
	if (tag->type != NBD_CMD_READ)
		memset(unknown, result < 0, tag->len / 512);
	else if (result >= 0)
		assert_known_same(m, mem_front_data(&m->rig.queue, id), tag->offset, tag->len);
	memset(m->locked + tag->offset / 512, 0, tag->len / 512);
}

static void start_server(struct model *m, unsigned int session)
{
	struct evil_server *server = &m->servers[m->n_servers++];

	assert_true(m->n_servers <= CONNECTIONS);
	*server = (struct evil_server){
		.world = &m->world,
		.fd = rig_take_peer(&m->rig, session),
		.seed = running_seed * 1000 + m->n_servers,
	};
	evil_server_start(server);
}

static void run(struct model *m)
{
	while (m->n_left || m->rig.front.n_busy) {
		uint16_t tag;
		int32_t result;

		for (tag = 0; tag < DEPTH && m->n_left; tag++)
			if (!m->rig.front.slots[tag].busy && !submit(m, tag))
				break;
		rig_turn(&m->rig);
		for (unsigned int i = 0; i < m->rig.options.sessions; i++) {
			if (m->rig.queue.sessions[i].state != GK_SESSION_DEAD)
				continue;
			rig_offer(&m->rig, i);
			start_server(m, i);
		}
		while (mem_front_next(&m->rig.front, &tag, &result))
			check_ended(m, tag, result);
	}
}

/* Each evil that no client can bear ended a connection, and nothing else but time-outs did. */
static void check_deaths(const struct model *m)
{
	unsigned int deaths = m->n_servers - m->rig.options.sessions;
	unsigned int fatal = 0;

	for (unsigned int e = EVIL_FIRST_FATAL; e < EVILS; e++)
		fatal += m->world.done[e];
	/* The last ones may be on their way when the last request ends. */
	assert_in_range(deaths + m->rig.options.sessions, fatal, UINT32_MAX);
	assert_true(deaths <= fatal + m->rig.queue.counters.timeouts);
	/* Not in each seed: a connection may die when nothing is in flight on it. */
	total_replays += m->rig.queue.counters.replays;
	assert_true(m->failed <= m->world.done[EVIL_ERROR] + m->world.done[EVIL_GAP] +
					 m->world.done[EVIL_ERROR_DATA]);
	assert_int_equal(m->rig.queue.counters.unfenced_replays, 0);
}

static void run_seed(unsigned int seed, unsigned int done[EVILS])
{
	static const struct gk_path *const paths[] = {NULL, &mem_path_single, &mem_path_paired};
	struct rig_options options = {
		.depth = DEPTH,
		.sessions = 1 + seed % 2,
		.max_io_bytes = 32768,
		.max_payload = seed % 5 ? 0 : 8192,
		.sndbuf_bytes = seed % 7 ? 0 : 1,
		.structured = seed / 2 % 2,
		.path = paths[seed % 3],
		.threshold_bytes = 4096,
		.retry = {
			.replay = true,
			.fence_strict = true,
			.request_timeout_ns = seed % 8 ? 0 : 50 * MS,
		},
	};
	struct model *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	running_seed = seed;
	m->seed = seed;
	m->n_left = REQUESTS;
	evil_world_init(&m->world, m->disk, BYTES);
	m->world.structured = options.structured;
	m->world.may_stall = options.retry.request_timeout_ns;
	rig_begin(&m->rig, &options);
	for (unsigned int i = 0; i < options.sessions; i++)
		start_server(m, i);
	run(m);
	rig_end(&m->rig);
	for (unsigned int i = 0; i < m->n_servers; i++)
		evil_server_join(&m->servers[i]);
	assert_int_equal(m->ended, REQUESTS);
	assert_known_same(m, m->disk, 0, BYTES);
	check_deaths(m);
	for (unsigned int e = 0; e < EVILS; e++)
		done[e] += m->world.done[e];
	free(m);
	running_seed = 0;
}

static unsigned int number(const char *name, unsigned int otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned int)strtoul(text, NULL, 10) : otherwise;
}

static void no_evil_costs_a_byte(void **state)
{
	unsigned int first = number("GK_EVIL_FIRST", 1);
	unsigned int n = number("GK_EVIL_SEEDS", 50);
	unsigned int done[EVILS] = {0};

	(void)state;
	for (unsigned int i = 0; i < n; i++)
		run_seed(first + i, done);
	print_message("%u seeds; evil by kind:", n);
	for (unsigned int e = 1; e < EVILS; e++)
		print_message(" %u", done[e]);
	print_message("; %llu replays\n", (unsigned long long)total_replays);
	/* Each of them has been seen at least once. */
	for (unsigned int e = 1; e < EVILS && n >= 50; e++)
		assert_int_not_equal(done[e], 0);
	assert_true(total_replays > 0);
}

static int tell_seed(void **state)
{
	(void)state;
	if (running_seed)
		print_error("the seed was %u\n", running_seed);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(no_evil_costs_a_byte, tell_seed),
	};

	if (rig_unavailable())
		return 77;
	rig_quiet();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
