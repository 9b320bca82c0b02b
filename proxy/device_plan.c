// SPDX-License-Identifier: MIT
#include "device_plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define AUTO_CONNECTIONS 4

/* Bounds on what one TRIM or WRITE_ZEROES covers, so that one request is not minutes of work. */
#define TRIM_BYTES         (1U << 30)
#define WRITE_ZEROES_BYTES (64U << 20)

#define MIN(a, b) ((a) < (b) ? (a) : (b))

unsigned int gk_plan_connections(const struct gk_device_config *config, unsigned int n_cpus)
{
	if (config->connections)
		return config->connections;
	return config->queues ? config->queues : MIN(n_cpus, AUTO_CONNECTIONS);
}

unsigned int gk_plan_queues(const struct gk_device_config *config, unsigned int n_connections,
			    unsigned int n_cpus)
{
	unsigned int queues = config->queues ? config->queues : n_cpus;

	return MIN(queues, n_connections);
}

static unsigned int shift_of(uint32_t power_of_two)
{
	return (unsigned int)__builtin_ctz(power_of_two);
}

static uint32_t attributes(const struct gk_device_config *config, uint16_t flags)
{
	uint32_t attrs = 0;

	if (config->read_only || flags & NBD_FLAG_READ_ONLY)
		attrs |= UBLK_ATTR_READ_ONLY;
	if (flags & NBD_FLAG_ROTATIONAL)
		attrs |= UBLK_ATTR_ROTATIONAL;
	/*
	 * The kernel sends FLUSH and FUA only to a device with a volatile cache, and a cache that
	 * cannot be flushed would make every fsync fail: FUA alone is not offered.
	 */
	if (flags & NBD_FLAG_SEND_FLUSH) {
		attrs |= UBLK_ATTR_VOLATILE_CACHE;
		if (flags & NBD_FLAG_SEND_FUA)
			attrs |= UBLK_ATTR_FUA;
	}
	return attrs;
}

static void plan_discard(struct gk_device_plan *plan, uint16_t flags)
{
	struct ublk_param_discard *discard = &plan->params.discard;

	if (plan->params.basic.attrs & UBLK_ATTR_READ_ONLY)
		return;
	if (!(flags & (NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES)))
		return;
	plan->params.types |= UBLK_PARAM_TYPE_DISCARD;
	discard->discard_granularity = plan->block_size;
	discard->max_discard_segments = 1;
	if (flags & NBD_FLAG_SEND_TRIM)
		discard->max_discard_sectors = TRIM_BYTES >> 9;
	if (flags & NBD_FLAG_SEND_WRITE_ZEROES)
		discard->max_write_zeroes_sectors = WRITE_ZEROES_BYTES >> 9;
}

int gk_plan_device(const struct gk_device_config *config, const struct nbd_export_facts *facts,
		   uint32_t page_size, char *why, size_t why_size, struct gk_device_plan *ret_plan)
{
	uint32_t block = facts->block_min < 512 ? 512 : facts->block_min;
	struct gk_device_plan plan = {.block_size = block};
	struct ublk_param_basic *basic = &plan.params.basic;
	uint32_t physical = facts->block_preferred;

	if (block > page_size) {
		snprintf(why, why_size,
			 "the server wants blocks of at least %u bytes, and the kernel cannot do "
			 "more than its page size of %u: export it with smaller blocks",
			 block, page_size);
		return -EINVAL;
	}
	if (facts->block_max < block) {
		snprintf(why, why_size, "the server takes at most %u bytes a request, less than a "
			 "block of %u: it cannot be a disk", facts->block_max, block);
		return -EINVAL;
	}
	plan.size_bytes = facts->size_bytes / block * block;
	plan.tail_bytes = (uint32_t)(facts->size_bytes - plan.size_bytes);
	if (!plan.size_bytes) {
		snprintf(why, why_size, "the export has %" PRIu64 " bytes, not one block of %u: "
			 "there is no disk to attach", facts->size_bytes, block);
		return -EINVAL;
	}
	plan.max_payload = facts->block_max / block * block;
	/* The kernel splits for us down to a page; below that a request goes out in parts. */
	plan.max_io_bytes = MIN(plan.max_payload, GK_MAX_IO_BYTES) / page_size * page_size;
	if (!plan.max_io_bytes)
		plan.max_io_bytes = page_size;

	/* A hint beyond a page would only mislead file systems about what a write costs. */
	physical = physical > page_size ? page_size : physical < block ? block : physical;
	plan.params.types = UBLK_PARAM_TYPE_BASIC;
	basic->attrs = attributes(config, facts->flags);
	basic->logical_bs_shift = (uint8_t)shift_of(block);
	basic->physical_bs_shift = (uint8_t)shift_of(physical);
	basic->io_min_shift = basic->physical_bs_shift;
	basic->io_opt_shift =
		(uint8_t)shift_of(facts->block_preferred < physical ? physical : facts->block_preferred);
	basic->max_sectors = plan.max_io_bytes >> 9;
	basic->dev_sectors = plan.size_bytes >> 9;
	plan_discard(&plan, facts->flags);
	*ret_plan = plan;
	return 0;
}

int gk_plan_compare(const struct gk_device_config *config, const struct gk_device_plan *plan,
		    const struct nbd_export_facts *old, const struct nbd_export_facts *now,
		    char *why, size_t why_size)
{
	static const struct {
		uint16_t flag;
		const char *name;
	} commands[] = {
		{NBD_FLAG_CAN_MULTI_CONN, "several connections (NBD_FLAG_CAN_MULTI_CONN)"},
		{NBD_FLAG_SEND_FLUSH, "NBD_CMD_FLUSH"},
		{NBD_FLAG_SEND_FUA, "NBD_CMD_FLAG_FUA"},
		{NBD_FLAG_SEND_TRIM, "NBD_CMD_TRIM"},
		{NBD_FLAG_SEND_WRITE_ZEROES, "NBD_CMD_WRITE_ZEROES"},
	};

	if (now->size_bytes < plan->size_bytes) {
		snprintf(why, why_size, "the export shrank from %" PRIu64 " to %" PRIu64 " bytes",
			 plan->size_bytes, now->size_bytes);
		return -ESTALE;
	}
	if (now->block_min > plan->block_size || now->block_max < plan->block_size) {
		snprintf(why, why_size, "it wants requests of %u to %u bytes now, not blocks of %u",
			 now->block_min, now->block_max, plan->block_size);
		return -ESTALE;
	}
	if (now->flags & NBD_FLAG_READ_ONLY && !config->read_only &&
	    !(old->flags & NBD_FLAG_READ_ONLY)) {
		snprintf(why, why_size, "the export became read-only");
		return -ESTALE;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (old->flags & ~now->flags & commands[i].flag) {
			snprintf(why, why_size, "the export no longer has %s", commands[i].name);
			return -ESTALE;
		}
	}
	return 0;
}
