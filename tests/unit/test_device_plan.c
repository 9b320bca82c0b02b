// SPDX-License-Identifier: MIT
#include "device_plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "nbd_wire.h"

#define PAGE 4096U
#define SIZE (UINT64_C(10) << 30)

static const struct gk_device_config plain;

static struct nbd_export_facts facts_of(uint16_t flags)
{
	struct nbd_export_facts facts;

	gk_nbd_export_facts_init(&facts);
	facts.size_bytes = SIZE;
	facts.flags = NBD_FLAG_HAS_FLAGS | flags;
	return facts;
}

static struct gk_device_plan plan_of(const struct gk_device_config *config,
				     const struct nbd_export_facts *facts)
{
	struct gk_device_plan plan;
	char why[256] = "";

	assert_int_equal(gk_plan_device(config, facts, PAGE, why, sizeof(why), &plan), 0);
	assert_string_equal(why, "");
	return plan;
}

struct offer {
	uint32_t attrs;
	bool trim;
	bool write_zeroes;
};

static struct offer offer_of(const struct gk_device_config *config, uint16_t flags)
{
	struct nbd_export_facts facts = facts_of(flags);
	struct gk_device_plan plan = plan_of(config, &facts);
	bool discard = plan.params.types & UBLK_PARAM_TYPE_DISCARD;

	assert_true(plan.params.types & UBLK_PARAM_TYPE_BASIC);
	assert_int_equal(plan.params.types & ~(UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD), 0);
	/* What the kernel refuses, or takes as "everything", when the type is given. */
	if (discard) {
		assert_int_equal(plan.params.discard.discard_granularity, 512);
		assert_int_equal(plan.params.discard.max_discard_segments, 1);
	}
	return (struct offer){
		.attrs = plan.params.basic.attrs,
		.trim = discard && plan.params.discard.max_discard_sectors,
		.write_zeroes = discard && plan.params.discard.max_write_zeroes_sectors,
	};
}

/* All 128 combinations of what a server may advertise. */
static void each_feature_is_offered_exactly_when_the_server_advertises_it(void **state)
{
	static const uint16_t flags[] = {
		NBD_FLAG_READ_ONLY, NBD_FLAG_SEND_FLUSH,        NBD_FLAG_SEND_FUA,
		NBD_FLAG_ROTATIONAL, NBD_FLAG_SEND_TRIM,        NBD_FLAG_SEND_WRITE_ZEROES,
		NBD_FLAG_SEND_FAST_ZERO | NBD_FLAG_SEND_RESIZE | NBD_FLAG_SEND_CACHE,
	};

	(void)state;
	for (unsigned int set = 0; set < 1 << 7; set++) {
		uint16_t advertised = 0;
		struct offer offer;
		bool ro = set & 1;
		bool flush = set & 2;
		bool fua = set & 4;

		for (unsigned int i = 0; i < 7; i++)
			if (set & 1U << i)
				advertised |= flags[i];
		offer = offer_of(&plain, advertised);
		assert_int_equal(!!(offer.attrs & UBLK_ATTR_READ_ONLY), ro);
		assert_int_equal(!!(offer.attrs & UBLK_ATTR_VOLATILE_CACHE), flush);
		/* The kernel sends FUA only to a device with a cache to go through. */
		assert_int_equal(!!(offer.attrs & UBLK_ATTR_FUA), flush && fua);
		assert_int_equal(!!(offer.attrs & UBLK_ATTR_ROTATIONAL), !!(set & 8));
		assert_int_equal(offer.trim, !ro && set & 16);
		assert_int_equal(offer.write_zeroes, !ro && set & 32);
		assert_int_equal(offer.attrs & ~(uint32_t)(UBLK_ATTR_READ_ONLY | UBLK_ATTR_FUA |
							   UBLK_ATTR_VOLATILE_CACHE |
							   UBLK_ATTR_ROTATIONAL),
				 0);
	}
}

static void a_device_can_be_made_read_only_here(void **state)
{
	const struct gk_device_config config = {.read_only = true};
	struct offer offer = offer_of(&config, NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES);

	(void)state;
	assert_true(offer.attrs & UBLK_ATTR_READ_ONLY);
	assert_false(offer.trim);
	assert_false(offer.write_zeroes);
}

static void the_logical_block_is_the_minimum_and_at_least_a_sector(void **state)
{
	static const struct {
		uint32_t min, preferred;
		unsigned int logical, physical, opt;
	} cases[] = {
		{1, 4096, 9, 12, 12},     {512, 512, 9, 9, 9},        {512, 4096, 9, 12, 12},
		{1024, 1024, 10, 10, 10}, {4096, 4096, 12, 12, 12},   {4096, 65536, 12, 12, 16},
		{1, 512, 9, 9, 9},        {1, 1U << 20, 9, 12, 20},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nbd_export_facts facts = facts_of(NBD_FLAG_SEND_TRIM);
		struct gk_device_plan plan;

		facts.block_min = cases[i].min;
		facts.block_preferred = cases[i].preferred;
		plan = plan_of(&plain, &facts);
		assert_int_equal(plan.params.basic.logical_bs_shift, cases[i].logical);
		assert_int_equal(plan.params.basic.physical_bs_shift, cases[i].physical);
		assert_int_equal(plan.params.basic.io_min_shift, cases[i].physical);
		assert_int_equal(plan.params.basic.io_opt_shift, cases[i].opt);
		assert_int_equal(plan.block_size, 1U << cases[i].logical);
		assert_int_equal(plan.params.discard.discard_granularity, plan.block_size);
		assert_int_equal(plan.params.basic.dev_sectors, SIZE >> 9);
	}
}

static void what_fills_no_block_is_left_out(void **state)
{
	static const struct {
		uint64_t size;
		uint32_t min;
		uint64_t used;
		uint32_t tail;
	} cases[] = {
		{1 << 20, 1, 1 << 20, 0},
		{(1 << 20) + 1, 1, 1 << 20, 1},
		{(1 << 20) + 511, 512, 1 << 20, 511},
		{(1 << 20) + 512, 4096, 1 << 20, 512},
		{(1 << 20) + 4095, 4096, 1 << 20, 4095},
		{512, 1, 512, 0},
		{INT64_MAX, 1, INT64_MAX / 512 * 512, 511},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nbd_export_facts facts = facts_of(0);
		struct gk_device_plan plan;

		facts.size_bytes = cases[i].size;
		facts.block_min = cases[i].min;
		plan = plan_of(&plain, &facts);
		assert_int_equal(plan.size_bytes, cases[i].used);
		assert_int_equal(plan.tail_bytes, cases[i].tail);
		assert_int_equal(plan.params.basic.dev_sectors, cases[i].used / 512);
	}
}

static void requests_are_split_at_the_maximum_of_the_server(void **state)
{
	static const struct {
		uint32_t min, max;
		uint32_t payload, io;
	} cases[] = {
		{1, 32U << 20, 32U << 20, GK_MAX_IO_BYTES},
		{1, UINT32_MAX, UINT32_MAX / 512 * 512, GK_MAX_IO_BYTES},
		{512, 65536, 65536, 65536},
		{1, 65536 + 513, 65536 + 512, 65536}, /* a part is whole blocks */
		{4096, 69632, 69632, 69632},
		{512, 10240, 10240, 8192}, /* the kernel splits at pages */
		{512, 512, 512, PAGE},     /* and cannot split below one: the rest is ours */
		{512, 3072, 3072, PAGE},
		{4096, 4096, 4096, PAGE},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nbd_export_facts facts = facts_of(0);
		struct gk_device_plan plan;

		facts.block_min = cases[i].min;
		facts.block_max = cases[i].max;
		plan = plan_of(&plain, &facts);
		assert_int_equal(plan.max_payload, cases[i].payload);
		assert_int_equal(plan.max_io_bytes, cases[i].io);
		assert_int_equal(plan.params.basic.max_sectors, cases[i].io / 512);
	}
}

static void a_page_of_another_size_is_respected(void **state)
{
	struct nbd_export_facts facts = facts_of(0);
	struct gk_device_plan plan;
	char why[256] = "";

	(void)state;
	facts.block_min = 16384;
	facts.block_preferred = 65536;
	facts.block_max = 65536 + 16384;
	assert_int_equal(gk_plan_device(&plain, &facts, 65536, why, sizeof(why), &plan), 0);
	assert_int_equal(plan.max_io_bytes, 65536);
	assert_int_equal(plan.params.basic.logical_bs_shift, 14);
	assert_int_equal(plan.params.basic.physical_bs_shift, 16);
}

static void what_cannot_be_a_disk_is_refused_with_a_sentence(void **state)
{
	static const struct {
		uint64_t size;
		uint32_t min, max;
		const char *names;
	} cases[] = {
		{0, 1, 1 << 20, "0 bytes"},
		{511, 1, 1 << 20, "511 bytes"},
		{4095, 4096, 1 << 20, "4095 bytes"},
		{1 << 20, 8192, 1 << 20, "page size of 4096"},
		{1 << 20, 65536, 1 << 20, "65536 bytes"},
		{1 << 20, 1, 511, "at most 511"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nbd_export_facts facts = facts_of(0);
		struct gk_device_plan plan;
		struct gk_device_plan untouched;
		char why[256] = "";

		facts.size_bytes = cases[i].size;
		facts.block_min = cases[i].min;
		facts.block_preferred = 65536;
		facts.block_max = cases[i].max;
		memset(&untouched, 0x5c, sizeof(untouched));
		plan = untouched;
		assert_int_equal(gk_plan_device(&plain, &facts, PAGE, why, sizeof(why), &plan),
				 -EINVAL);
		assert_non_null(strstr(why, cases[i].names));
		assert_memory_equal(&plan, &untouched, sizeof(plan));
	}
}

static void connections_and_queues_follow_the_configuration_and_the_cpus(void **state)
{
	static const struct {
		unsigned int queues, connections, cpus; /* 0: automatic */
		unsigned int dialled, allowed;          /* allowed: what the server let us have */
		unsigned int used;
	} cases[] = {
		{0, 0, 1, 1, 1, 1},
		{0, 0, 2, 2, 2, 2},
		{0, 0, 64, 4, 4, 4},
		{0, 0, 64, 4, 1, 1}, /* no CAN_MULTI_CONN */
		{8, 0, 2, 8, 8, 8},
		{8, 0, 2, 8, 1, 1},
		{0, 6, 2, 6, 6, 2},
		{0, 6, 16, 6, 6, 6},
		{2, 6, 16, 6, 6, 2},
		{6, 2, 16, 2, 2, 2},
		{1, 0, 16, 1, 1, 1},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct gk_device_config config = {
			.queues = cases[i].queues,
			.connections = cases[i].connections,
		};

		assert_int_equal(gk_plan_connections(&config, cases[i].cpus), cases[i].dialled);
		assert_int_equal(gk_plan_queues(&config, cases[i].allowed, cases[i].cpus),
				 cases[i].used);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_feature_is_offered_exactly_when_the_server_advertises_it),
		cmocka_unit_test(a_device_can_be_made_read_only_here),
		cmocka_unit_test(the_logical_block_is_the_minimum_and_at_least_a_sector),
		cmocka_unit_test(what_fills_no_block_is_left_out),
		cmocka_unit_test(requests_are_split_at_the_maximum_of_the_server),
		cmocka_unit_test(a_page_of_another_size_is_respected),
		cmocka_unit_test(what_cannot_be_a_disk_is_refused_with_a_sentence),
		cmocka_unit_test(connections_and_queues_follow_the_configuration_and_the_cpus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
