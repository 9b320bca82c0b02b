// SPDX-License-Identifier: MIT
/* A server that is dialled again: is its export still the one that was attached? */
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
#define SIZE (UINT64_C(1) << 30)
#define ALL                                                                                        \
	(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |      \
	 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN)

static const struct gk_device_config plain;
static const struct gk_device_config read_only = {.read_only = true};

static struct nbd_export_facts facts_of(uint16_t flags)
{
	struct nbd_export_facts facts;

	gk_nbd_export_facts_init(&facts);
	facts.size_bytes = SIZE;
	facts.flags = flags;
	facts.block_min = 512;
	facts.block_max = 1U << 20;
	return facts;
}

/* The sentence of a refusal; NULL: the export is taken. */
static const char *refusal(const struct gk_device_config *config,
			   const struct nbd_export_facts *old, const struct nbd_export_facts *now)
{
	static char why[256];
	struct gk_device_plan plan;
	int r;

	assert_int_equal(gk_plan_device(config, old, PAGE, why, sizeof(why), &plan), 0);
	why[0] = 0;
	r = gk_plan_compare(config, &plan, old, now, why, sizeof(why));
	if (!r) {
		assert_string_equal(why, "");
		return NULL;
	}
	assert_int_equal(r, -ESTALE);
	return why;
}

static void assert_refused(const struct gk_device_config *config,
			   const struct nbd_export_facts *old, const struct nbd_export_facts *now,
			   const char *names)
{
	const char *why = refusal(config, old, now);

	assert_non_null(why);
	if (!strstr(why, names))
		fail_msg("\"%s\" does not name \"%s\"", why, names);
}

static void the_same_export_is_taken(void **state)
{
	const struct nbd_export_facts facts = facts_of(ALL);
	const struct nbd_export_facts ro = facts_of(NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY);

	(void)state;
	assert_null(refusal(&plain, &facts, &facts));
	assert_null(refusal(&plain, &ro, &ro));
}

static void growth_is_taken_and_shrinking_refused(void **state)
{
	const struct nbd_export_facts old = facts_of(ALL);
	struct nbd_export_facts now = old;

	(void)state;
	now.size_bytes = SIZE + 512;
	assert_null(refusal(&plain, &old, &now));
	now.size_bytes = SIZE - 1;
	assert_refused(&plain, &old, &now, "shrank from 1073741824 to 1073741823");
	now.size_bytes = 0;
	assert_refused(&plain, &old, &now, "shrank");
}

/* Bytes at its end that fill no block were never part of the device. */
static void losing_a_tail_that_was_left_out_is_no_shrinking(void **state)
{
	struct nbd_export_facts old = facts_of(ALL);
	struct nbd_export_facts now;

	(void)state;
	old.size_bytes = SIZE + 100;
	now = old;
	now.size_bytes = SIZE;
	assert_null(refusal(&plain, &old, &now));
	now.size_bytes = SIZE - 1;
	assert_refused(&plain, &old, &now, "shrank");
}

static void blocks_must_still_fit(void **state)
{
	struct nbd_export_facts old = facts_of(ALL);
	struct nbd_export_facts now = old;

	(void)state;
	now.block_min = 1;
	assert_null(refusal(&plain, &old, &now));
	now.block_min = 1024;
	assert_refused(&plain, &old, &now, "1024");
	old.block_min = 4096;
	assert_null(refusal(&plain, &old, &now));
	/* A smaller maximum only means more parts, down to one block. */
	now.block_max = 4096;
	assert_null(refusal(&plain, &old, &now));
	now.block_max = 2048;
	assert_refused(&plain, &old, &now, "2048");
}

static void a_writable_export_must_stay_writable(void **state)
{
	const struct nbd_export_facts old = facts_of(ALL);
	const struct nbd_export_facts now = facts_of(ALL | NBD_FLAG_READ_ONLY);

	(void)state;
	assert_refused(&plain, &old, &now, "read-only");
	assert_null(refusal(&read_only, &old, &now));
	assert_null(refusal(&plain, &now, &old));
}

static void no_command_that_the_kernel_may_send_is_lost(void **state)
{
	static const struct {
		uint16_t flag;
		const char *name;
	} cases[] = {
		{NBD_FLAG_SEND_FLUSH, "NBD_CMD_FLUSH"},
		{NBD_FLAG_SEND_FUA, "NBD_CMD_FLAG_FUA"},
		{NBD_FLAG_SEND_TRIM, "NBD_CMD_TRIM"},
		{NBD_FLAG_SEND_WRITE_ZEROES, "NBD_CMD_WRITE_ZEROES"},
		{NBD_FLAG_CAN_MULTI_CONN, "NBD_FLAG_CAN_MULTI_CONN"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct nbd_export_facts all = facts_of(ALL);
		const struct nbd_export_facts less = facts_of(ALL & ~cases[i].flag);

		assert_refused(&plain, &all, &less, cases[i].name);
		assert_null(refusal(&plain, &less, &all));
		assert_null(refusal(&plain, &less, &less));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_export_is_taken),
		cmocka_unit_test(growth_is_taken_and_shrinking_refused),
		cmocka_unit_test(losing_a_tail_that_was_left_out_is_no_shrinking),
		cmocka_unit_test(blocks_must_still_fit),
		cmocka_unit_test(a_writable_export_must_stay_writable),
		cmocka_unit_test(no_command_that_the_kernel_may_send_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
