// SPDX-License-Identifier: MIT
/*
 * A good server with awkward habits, and a model of its disk: random READs, WRITEs, TRIMs and
 * WRITE_ZEROES of mixed sizes in flight together, every byte of every READ and at last the whole
 * disk compared with the model.
 */
#include <stdlib.h>
#include <string.h>

#include "wire_rig.h"

#define DISK_BYTES (256 * 1024)
#define DEPTH      32

struct model {
	struct rig rig;
	struct fake_disk_server servers[RIG_SESSIONS];
	uint8_t disk[DISK_BYTES];  /* the servers' */
	uint8_t bytes[DISK_BYTES]; /* what must be there, once everything in flight has ended */
	uint8_t locked[DISK_BYTES / 512]; /* a request in flight covers this sector */
	unsigned int seed;
	unsigned int n_left;
};

static unsigned int pick(struct model *m, unsigned int n)
{
	return (unsigned int)rand_r(&m->seed) % n;
}

/* A range of whole sectors that no request in flight touches; false after some vain attempts. */
static bool pick_range(struct model *m, uint64_t *ret_offset, uint32_t *ret_len)
{
	for (unsigned int attempt = 0; attempt < 20; attempt++) {
		/* Half of them small, the others up to the longest that there may be. */
		unsigned int max = pick(m, 2) ? 8 : m->rig.options.max_io_bytes / 512;
		unsigned int n = 1 + pick(m, max);
		unsigned int first = pick(m, DISK_BYTES / 512 - n + 1);

		if (memchr(m->locked + first, 1, n))
			continue;
		*ret_offset = first * 512;
		*ret_len = n * 512;
		return true;
	}
	return false;
}

static bool submit_random(struct model *m, uint16_t tag)
{
	static const uint16_t types[] = {NBD_CMD_READ,  NBD_CMD_READ,         NBD_CMD_READ,
					 NBD_CMD_WRITE, NBD_CMD_WRITE,        NBD_CMD_WRITE,
					 NBD_CMD_TRIM,  NBD_CMD_WRITE_ZEROES, NBD_CMD_FLUSH};
	uint16_t type = types[pick(m, sizeof(types) / sizeof(types[0]))];
	uint8_t *buf = m->rig.queue.tags[tag].buf;
	uint64_t offset = 0;
	uint32_t len = 0;

	if (type != NBD_CMD_FLUSH) {
		if (!pick_range(m, &offset, &len))
			return false;
		memset(m->locked + offset / 512, 1, len / 512);
	}
	if (type == NBD_CMD_WRITE) {
		rig_pattern(buf, pick(m, 10000), len, pick(m, 200));
		memcpy(m->bytes + offset, buf, len);
	} else if (type == NBD_CMD_READ) {
		memset(buf, 0x5a, len);
	} else if (len) {
		memset(m->bytes + offset, 0, len);
	}
	mem_front_submit(&m->rig.queue, tag, type, 0, offset, len);
	m->n_left--;
	return true;
}

static void check_ended(struct model *m, uint16_t id, int32_t result)
{
	const struct gk_tag *tag = &m->rig.queue.tags[id];

	assert_int_equal(result, tag->len);
	if (tag->type == NBD_CMD_READ)
		assert_memory_equal(tag->buf, m->bytes + tag->offset, tag->len);
	memset(m->locked + tag->offset / 512, 0, tag->len / 512);
}

static void run(struct model *m)
{
	while (m->n_left || m->rig.front.n_busy) {
		uint16_t tag;
		int32_t result;

		for (tag = 0; tag < DEPTH && m->n_left; tag++)
			if (!m->rig.front.slots[tag].busy && !submit_random(m, tag))
				break;
		rig_turn(&m->rig);
		while (mem_front_next(&m->rig.front, &tag, &result))
			check_ended(m, tag, result);
	}
}

static struct model *begin(const struct rig_options *rig, const struct fake_disk_options *options,
			   unsigned int n_requests)
{
	struct model *m = calloc(1, sizeof(*m));
	struct rig_options with_depth = *rig;

	assert_non_null(m);
	with_depth.depth = DEPTH;
	m->seed = 1;
	m->n_left = n_requests;
	rig_pattern(m->disk, 0, DISK_BYTES / 2, 3);
	memcpy(m->bytes, m->disk, DISK_BYTES);
	rig_begin(&m->rig, &with_depth);
	for (unsigned int i = 0; i < m->rig.options.sessions; i++) {
		m->servers[i] = (struct fake_disk_server){
			.fd = m->rig.peer[i],
			.disk = m->disk,
			.size = DISK_BYTES,
			.options = *options,
		};
		m->servers[i].options.structured = rig->structured;
		m->servers[i].options.max_payload = rig->max_payload;
		m->servers[i].options.seed = i;
		m->rig.peer[i] = -1;
		fake_disk_start(&m->servers[i]);
	}
	return m;
}

/* Returns the counters of the run. */
static struct gk_counters end(struct model *m)
{
	struct gk_counters counters = m->rig.queue.counters;

	rig_end(&m->rig);
	for (unsigned int i = 0; i < m->rig.options.sessions; i++) {
		fake_disk_join(&m->servers[i]);
		assert_true(m->servers[i].disc);
		assert_true(m->servers[i].requests > 0);
	}
	assert_memory_equal(m->disk, m->bytes, DISK_BYTES);
	assert_int_equal(counters.errors, 0);
	free(m);
	return counters;
}

static struct gk_counters serve(const struct rig_options *rig,
				const struct fake_disk_options *options, unsigned int n_requests)
{
	struct model *m = begin(rig, options, n_requests);

	run(m);
	return end(m);
}

static void in_order_and_whole(void **state)
{
	struct gk_counters counters;

	(void)state;
	counters = serve(&(struct rig_options){0}, &(struct fake_disk_options){0}, 1000);
	/* What gathered left together, and what came together was taken together. */
	assert_true(counters.sends < 1000);
	assert_true(counters.requests[GK_OP_READ] > 100 && counters.requests[GK_OP_WRITE] > 100);
	assert_true(counters.requests[GK_OP_TRIM] > 50 && counters.requests[GK_OP_FLUSH] > 50);
	assert_true(counters.requests[GK_OP_WRITE_ZEROES] > 50);
}

static void in_random_order(void **state)
{
	(void)state;
	serve(&(struct rig_options){0}, &(struct fake_disk_options){.random_order = true}, 1000);
}

static void in_random_chunks_with_holes(void **state)
{
	(void)state;
	serve(&(struct rig_options){.structured = true},
	      &(struct fake_disk_options){.chunk_bytes = 5000, .random_order = true}, 1000);
}

static void in_one_chunk_as_df_demands(void **state)
{
	(void)state;
	serve(&(struct rig_options){.structured = true, .df = true},
	      &(struct fake_disk_options){.chunk_bytes = 5000}, 1000);
}

static void in_tiny_writes(void **state)
{
	(void)state;
	serve(&(struct rig_options){0}, &(struct fake_disk_options){.piece = 97}, 200);
}

static void in_tiny_writes_of_chunks(void **state)
{
	(void)state;
	serve(&(struct rig_options){.structured = true},
	      &(struct fake_disk_options){.piece = 31, .chunk_bytes = 3000, .random_order = true},
	      100);
}

/* A socket that takes a few KiB at a time: sends end early wherever they happen to. */
static void through_a_small_send_buffer(void **state)
{
	struct gk_counters counters;

	(void)state;
	counters = serve(&(struct rig_options){.sndbuf_bytes = 1},
			 &(struct fake_disk_options){.random_order = true}, 1000);
	assert_true(counters.partial_sends > 0);
}

static void through_a_small_send_buffer_in_random_chunks(void **state)
{
	struct gk_counters counters;

	(void)state;
	counters = serve(&(struct rig_options){.sndbuf_bytes = 1, .structured = true},
			 &(struct fake_disk_options){.random_order = true, .chunk_bytes = 4096},
			 1000);
	assert_true(counters.partial_sends > 0);
}

static void over_three_sessions(void **state)
{
	(void)state;
	serve(&(struct rig_options){.sessions = 3, .sndbuf_bytes = 1},
	      &(struct fake_disk_options){.random_order = true}, 1000);
}

/* Requests in parts: up to 22 of them, and other requests between them. */
static void with_a_small_maximum(void **state)
{
	(void)state;
	serve(&(struct rig_options){.max_payload = 3072, .sessions = 2},
	      &(struct fake_disk_options){.random_order = true}, 1000);
}

/* Requests on both sides of the size from which payload goes straight to its buffer. */
static void with_large_requests(void **state)
{
	(void)state;
	serve(&(struct rig_options){.max_io_bytes = 3 * GK_LARGE_READ_BYTES},
	      &(struct fake_disk_options){.random_order = true}, 1000);
}

/* With nothing but large READs in flight, no byte of payload is copied out of staging. */
static void large_reads_pass_staging_by(void **state)
{
	(void)state;
	for (unsigned int structured = 0; structured < 2; structured++) {
		struct model *m = begin(&(struct rig_options){.structured = structured},
					&(struct fake_disk_options){0}, 0);

		for (uint16_t tag = 0; tag < 4; tag++)
			mem_front_submit(&m->rig.queue, tag, NBD_CMD_READ, 0, tag * 65536, 65536);
		rig_run(&m->rig);
		for (uint16_t tag = 0; tag < 4; tag++) {
			assert_int_equal(m->rig.front.slots[tag].result, 65536);
			assert_memory_equal(m->rig.queue.tags[tag].buf, m->bytes + tag * 65536,
					    65536);
		}
		assert_int_equal(end(m).staged_bytes, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order_and_whole),
		cmocka_unit_test(in_random_order),
		cmocka_unit_test(in_random_chunks_with_holes),
		cmocka_unit_test(in_one_chunk_as_df_demands),
		cmocka_unit_test(in_tiny_writes),
		cmocka_unit_test(in_tiny_writes_of_chunks),
		cmocka_unit_test(through_a_small_send_buffer),
		cmocka_unit_test(through_a_small_send_buffer_in_random_chunks),
		cmocka_unit_test(over_three_sessions),
		cmocka_unit_test(with_a_small_maximum),
		cmocka_unit_test(with_large_requests),
		cmocka_unit_test(large_reads_pass_staging_by),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
