// SPDX-License-Identifier: MIT
/*
 * What a server says of its export, and the device that is made of it: first of one set of facts,
 * then of another one that a reconnect brings. Two times 22 bytes as NBD sends them, and a byte of
 * configuration.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "device_plan.h"
#include "fuzz.h"
#include "nbd_export.h"

#define FACTS_BYTES 22
#define PAGE	    4096U

static struct nbd_export_facts read_facts(const uint8_t *p, bool structured)
{
	struct nbd_export_facts facts;
	uint64_t size;
	uint32_t block[3];
	uint16_t flags;

	gk_nbd_export_facts_init(&facts);
	memcpy(&size, p, sizeof(size));
	memcpy(&flags, p + 8, sizeof(flags));
	memcpy(block, p + 10, sizeof(block));
	facts.size_bytes = be64toh(size);
	facts.flags = be16toh(flags);
	facts.structured = structured;
	facts.has_block_size = true;
	facts.block_min = be32toh(block[0]);
	facts.block_preferred = be32toh(block[1]);
	facts.block_max = be32toh(block[2]);
	return facts;
}

static void check_plan(const struct nbd_export_facts *facts, const struct gk_device_plan *plan)
{
	const struct ublk_param_basic *basic = &plan->params.basic;

	CHECK(plan->block_size >= 512 && plan->block_size <= PAGE);
	CHECK(plan->block_size % facts->block_min == 0);
	CHECK(1U << basic->logical_bs_shift == plan->block_size);
	CHECK(basic->physical_bs_shift >= basic->logical_bs_shift);
	CHECK(plan->size_bytes && plan->size_bytes % plan->block_size == 0);
	CHECK(plan->size_bytes + plan->tail_bytes == facts->size_bytes);
	CHECK(basic->dev_sectors == plan->size_bytes >> 9);
	CHECK(plan->max_io_bytes && plan->max_io_bytes <= GK_MAX_IO_BYTES);
	CHECK(plan->max_io_bytes % PAGE == 0 && basic->max_sectors == plan->max_io_bytes >> 9);
	CHECK(plan->max_payload && plan->max_payload % plan->block_size == 0);
	CHECK(plan->max_payload <= facts->block_max);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gk_device_config config = {0};
	struct nbd_export_facts old, now;
	struct gk_device_plan plan, next;
	char why[GK_NBD_EXPORT_WHY_BYTES] = "";
	int r;

	if (size < 1 + 2 * FACTS_BYTES)
		return 0;
	config.read_only = data[0] & 1;
	config.connections = data[0] >> 4;
	old = read_facts(data + 1, data[0] & 2);
	now = read_facts(data + 1 + FACTS_BYTES, data[0] & 4);
	r = gk_nbd_export_facts_check(&old, why, sizeof(why));
	if (!r)
		r = gk_plan_device(&config, &old, PAGE, why, sizeof(why), &plan);
	if (r) {
		CHECK(r == -EOVERFLOW || r == -EPROTO || r == -EINVAL);
		CHECK(why[0]);
		return 0;
	}
	check_plan(&old, &plan);
	if (gk_nbd_export_facts_check(&now, why, sizeof(why)))
		return 0;
	r = gk_plan_compare(&config, &plan, &old, &now, why, sizeof(why));
	CHECK(r == 0 || r == -ESTALE);
	if (r)
		return 0;
	/* What is taken back fits the device that is there. */
	CHECK(now.size_bytes >= plan.size_bytes && now.block_min <= plan.block_size);
	CHECK(now.block_max >= plan.block_size);
	CHECK(gk_plan_device(&config, &now, PAGE, why, sizeof(why), &next) == 0);
	CHECK(next.size_bytes >= plan.size_bytes || next.block_size != plan.block_size);
	return 0;
}
