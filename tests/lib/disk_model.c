// SPDX-License-Identifier: MIT
#include "disk_model.h"

#include <stdlib.h>
#include <string.h>

static unsigned int pick(struct disk_model *m, unsigned int n)
{
	return (unsigned int)rand_r(&m->seed) % n;
}

/* A range of whole sectors that no request in flight touches; false after some vain attempts. */
static bool pick_range(struct disk_model *m, uint64_t *ret_offset, uint32_t *ret_len)
{
	for (unsigned int attempt = 0; attempt < 20; attempt++) {
		/* Half of them small, the others up to the longest that there may be. */
		unsigned int max = pick(m, 2) ? 8 : m->rig.options.max_io_bytes / 512;
		unsigned int n = 1 + pick(m, max);
		unsigned int first = pick(m, DISK_MODEL_BYTES / 512 - n + 1);

		if (memchr(m->locked + first, 1, n))
			continue;
		*ret_offset = first * 512;
		*ret_len = n * 512;
		return true;
	}
	return false;
}

static bool submit_random(struct disk_model *m, uint16_t tag)
{
	static const uint16_t types[] = {NBD_CMD_READ,	NBD_CMD_READ,	      NBD_CMD_READ,
					 NBD_CMD_WRITE, NBD_CMD_WRITE,	      NBD_CMD_WRITE,
					 NBD_CMD_TRIM,	NBD_CMD_WRITE_ZEROES, NBD_CMD_FLUSH};
	uint16_t type = types[pick(m, sizeof(types) / sizeof(types[0]))];
	uint8_t *buf = mem_front_data(&m->rig.queue, tag);
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

static void check_ended(struct disk_model *m, uint16_t id, int32_t result)
{
	const struct gk_tag *tag = &m->rig.queue.tags[id];

	assert_int_equal(result, tag->len);
	if (tag->type == NBD_CMD_READ)
		assert_memory_equal(mem_front_data(&m->rig.queue, id), m->bytes + tag->offset,
				    tag->len);
	memset(m->locked + tag->offset / 512, 0, tag->len / 512);
}

void disk_model_run(struct disk_model *m)
{
	while (m->n_left || m->rig.front.n_busy) {
		uint16_t tag;
		int32_t result;

		for (tag = 0; tag < DISK_MODEL_DEPTH && m->n_left; tag++)
			if (!m->rig.front.slots[tag].busy && !submit_random(m, tag))
				break;
		rig_turn(&m->rig);
		while (mem_front_next(&m->rig.front, &tag, &result))
			check_ended(m, tag, result);
	}
}

struct disk_model *disk_model_begin(const struct rig_options *rig,
				    const struct fake_disk_options *options,
				    unsigned int n_requests)
{
	struct disk_model *m = calloc(1, sizeof(*m));
	struct rig_options with_depth = *rig;

	assert_non_null(m);
	with_depth.depth = DISK_MODEL_DEPTH;
	m->seed = 1;
	m->n_left = n_requests;
	rig_pattern(m->disk, 0, DISK_MODEL_BYTES / 2, 3);
	memcpy(m->bytes, m->disk, DISK_MODEL_BYTES);
	rig_begin(&m->rig, &with_depth);
	for (unsigned int i = 0; i < m->rig.options.sessions; i++) {
		m->servers[i] = (struct fake_disk_server){
			.fd = m->rig.peer[i],
			.disk = m->disk,
			.size = DISK_MODEL_BYTES,
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

struct gk_counters disk_model_end(struct disk_model *m)
{
	struct gk_counters counters = m->rig.queue.counters;

	rig_end(&m->rig);
	for (unsigned int i = 0; i < m->rig.options.sessions; i++) {
		fake_disk_join(&m->servers[i]);
		assert_true(m->servers[i].disc);
		assert_true(m->servers[i].requests > 0);
	}
	assert_memory_equal(m->disk, m->bytes, DISK_MODEL_BYTES);
	assert_int_equal(counters.errors, 0);
	free(m);
	return counters;
}

struct gk_counters disk_model_serve(const struct rig_options *rig,
				    const struct fake_disk_options *options,
				    unsigned int n_requests)
{
	struct disk_model *m = disk_model_begin(rig, options, n_requests);

	disk_model_run(m);
	return disk_model_end(m);
}
