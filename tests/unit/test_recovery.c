// SPDX-License-Identifier: MIT
/* A device that a former daemon left: does the configuration, and the export, still fit it? */
#include "recovery.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "nbd_wire.h"

#define PAGE 4096U
#define SIZE (UINT64_C(1) << 30)
#define ALL                                                                                        \
	(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |      \
	 NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_CAN_MULTI_CONN)

static const struct gk_device_config plain = {.id = -1, .queue_depth = 128};

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

static struct gk_device_plan plan_of(const struct nbd_export_facts *facts)
{
	struct gk_device_plan plan;
	char why[256];

	assert_int_equal(gk_plan_device(&plain, facts, PAGE, why, sizeof(why), &plan), 0);
	return plan;
}

/* The device that the former daemon made of that export: number 3, two queues of 128. */
static struct gk_kept_device kept_of(const struct nbd_export_facts *facts)
{
	return (struct gk_kept_device){
		.info = {.dev_id = 3, .nr_hw_queues = 2, .queue_depth = 128},
		.params = plan_of(facts).params,
	};
}

/* NULL names: taken over; else refused, and the sentence names that. */
static void assert_outcome(const struct gk_device_config *config, const struct nbd_export_facts *old,
			   const struct nbd_export_facts *now, const char *names)
{
	struct gk_kept_device kept = kept_of(old);
	struct gk_device_plan plan = plan_of(now);
	char why[256] = "";
	int r = gk_recovery_compare(config, &kept, &plan, why, sizeof(why));

	assert_int_equal(r, names ? -ESTALE : 0);
	if (names && !strstr(why, names))
		fail_msg("'%s' does not say '%s'", why, names);
	if (!names)
		assert_string_equal(why, "");
}

static void the_same_is_taken_over(void **state)
{
	struct gk_device_config exact = {.id = 3, .queues = 2, .queue_depth = 128};
	struct nbd_export_facts facts = facts_of(ALL);

	(void)state;
	assert_outcome(&plain, &facts, &facts, NULL);
	assert_outcome(&exact, &facts, &facts, NULL);
}

static void what_was_changed_is_named(void **state)
{
	static const struct {
		struct gk_device_config config;
		const char *names;
	} changes[] = {
		{{.id = 4, .queue_depth = 128}, "id is 3 there and would be 4 now"},
		{{.id = 0, .queue_depth = 128}, "id is 3 there and would be 0 now"},
		{{.id = -1, .queues = 1, .queue_depth = 128}, "queues is 2 there and would be 1 now"},
		{{.id = -1, .queues = 4, .queue_depth = 128}, "queues is 2 there and would be 4 now"},
		{{.id = -1, .queue_depth = 64}, "queue_depth is 128 there and would be 64 now"},
	};
	struct nbd_export_facts facts = facts_of(ALL);

	(void)state;
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
		assert_outcome(&changes[i].config, &facts, &facts, changes[i].names);
}

static void an_export_may_have_grown_but_not_shrunk(void **state)
{
	struct nbd_export_facts old = facts_of(ALL);
	struct nbd_export_facts now = facts_of(ALL);

	(void)state;
	now.size_bytes += 512;
	assert_outcome(&plain, &old, &now, NULL);
	now.size_bytes = SIZE - 512;
	assert_outcome(&plain, &old, &now, "the size in sectors is 2097152 there and would be 2097151 now");
}

static void other_blocks_are_refused(void **state)
{
	struct nbd_export_facts old = facts_of(ALL);
	struct nbd_export_facts now = facts_of(ALL);

	(void)state;
	now.block_min = 4096;
	assert_outcome(&plain, &old, &now, "the block size is 512 there and would be 4096 now");
}

/* A file system that writes would be in for a surprise, and one that does not as well. */
static void a_flip_of_read_only_is_refused(void **state)
{
	struct nbd_export_facts writable = facts_of(ALL);
	struct nbd_export_facts read_only = facts_of(ALL | NBD_FLAG_READ_ONLY);

	(void)state;
	assert_outcome(&plain, &writable, &read_only, "read-only is 0 there and would be 1 now");
	assert_outcome(&plain, &read_only, &writable, "read-only is 1 there and would be 0 now");
}

static void what_the_kernel_may_send_the_server_must_take(void **state)
{
	static const struct {
		uint16_t flag;
		const char *names;
	} commands[] = {
		{NBD_FLAG_SEND_FLUSH, "support of flush and FUA"},
		{NBD_FLAG_SEND_FUA, "support of flush and FUA"},
		{NBD_FLAG_SEND_TRIM, "support of trim and zeroes"},
		{NBD_FLAG_SEND_WRITE_ZEROES, "support of trim and zeroes"},
	};
	struct nbd_export_facts all = facts_of(ALL);

	(void)state;
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		struct nbd_export_facts fewer = facts_of(ALL & ~commands[i].flag);

		assert_outcome(&plain, &all, &fewer, commands[i].names);
		/* A server that can more than before is welcome. */
		assert_outcome(&plain, &fewer, &all, NULL);
	}
}

static void a_cookie_says_whose_device_it_is(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 100; i++)
		assert_true(gk_recovery_is_cookie(gk_recovery_cookie()));
	assert_int_not_equal(gk_recovery_cookie(), gk_recovery_cookie());
	assert_false(gk_recovery_is_cookie(0));
	assert_false(gk_recovery_is_cookie(UINT64_MAX));
}

/* -- the note of a device, and what the kernel says of it -- */

#define COOKIE UINT64_C(0x676b123456789abc)

static int info_error, params_error;
static struct ublksrv_ctrl_dev_info there;

int __wrap_gk_ublk_ctrl_get_info(struct gk_ublk_ctrl *ctrl, struct ublksrv_ctrl_dev_info *info);
int __wrap_gk_ublk_ctrl_get_params(struct gk_ublk_ctrl *ctrl, uint32_t dev_id,
				   struct ublk_params *ret_params);

int __wrap_gk_ublk_ctrl_get_info(struct gk_ublk_ctrl *ctrl, struct ublksrv_ctrl_dev_info *info)
{
	(void)ctrl;
	assert_int_equal(info->dev_id, 3);
	if (!info_error)
		*info = there;
	return info_error;
}

int __wrap_gk_ublk_ctrl_get_params(struct gk_ublk_ctrl *ctrl, uint32_t dev_id,
				   struct ublk_params *ret_params)
{
	(void)ctrl;
	(void)dev_id;
	(void)ret_params;
	return params_error;
}

/* What a note leads to, and whether it is there afterwards. */
static void note_leads_to(int want, bool stays)
{
	char dir[] = "/tmp/gk-test-recovery-XXXXXX", path[64];
	char name[] = "vol0";
	struct gk_nbd_uri remote = {.export_name = (char[]){"x"}};
	struct gk_device_config config = {.name = name, .remotes = &remote, .n_remotes = 1};
	struct gk_kept_device kept;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/vol0.json", dir);
	assert_int_equal(gk_recovery_save(dir, &config, 3, COOKIE), 0);
	assert_int_equal(gk_recovery_find(NULL, dir, &config, &kept), want);
	assert_int_equal(access(path, F_OK) == 0, stays);
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
}

/* Else there would be a second device, and two that write to one export. */
static void a_device_of_which_nothing_can_be_learnt_is_not_forgotten(void **state)
{
	(void)state;
	there = (struct ublksrv_ctrl_dev_info){
		.dev_id = 3, .state = UBLK_S_DEV_QUIESCED, .ublksrv_flags = COOKIE};
	info_error = params_error = 0;
	note_leads_to(1, true);
	info_error = -ENOMEM;
	note_leads_to(-ENOMEM, true);
	info_error = 0;
	params_error = -EINTR;
	note_leads_to(-EINTR, true);
	/* It is gone, or it is another one. */
	params_error = 0;
	info_error = -ENODEV;
	note_leads_to(0, false);
	info_error = -EINVAL;
	note_leads_to(0, false);
	info_error = 0;
	there.ublksrv_flags = COOKIE + 1;
	note_leads_to(0, false);
	there.ublksrv_flags = COOKIE;
	there.state = UBLK_S_DEV_DEAD;
	note_leads_to(0, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_is_taken_over),
		cmocka_unit_test(what_was_changed_is_named),
		cmocka_unit_test(an_export_may_have_grown_but_not_shrunk),
		cmocka_unit_test(other_blocks_are_refused),
		cmocka_unit_test(a_flip_of_read_only_is_refused),
		cmocka_unit_test(what_the_kernel_may_send_the_server_must_take),
		cmocka_unit_test(a_device_of_which_nothing_can_be_learnt_is_not_forgotten),
		cmocka_unit_test(a_cookie_says_whose_device_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
