// SPDX-License-Identifier: MIT
/*
 * A server that is restarted may lose writes that it had acknowledged and not flushed. The next
 * flush must say so, once, and none that has nothing to tell.
 */
#include <errno.h>

#include "wire_rig.h"

#define LEN 4096

struct device {
	struct rig rig;
	struct gk_flush_track track;
};

static void begin(struct device *device, bool force_fua)
{
	device->track = (struct gk_flush_track){0};
	rig_begin(&device->rig, &(struct rig_options){
					.retry = {.replay = true},
					.unflushed = &device->track,
					.force_fua = force_fua,
				});
}

static bool dirty(const struct device *device)
{
	return gk_unflushed_is_dirty(&device->track, &device->rig.queue.dirty);
}

/* Submits, and lets the server take it with its payload. */
static struct fake_request ask(struct device *device, uint16_t tag, uint16_t type, uint16_t flags)
{
	struct fake_request request;
	uint8_t payload[LEN];

	mem_front_submit(&device->rig.queue, tag, type, flags, 0,
			 type == NBD_CMD_FLUSH ? 0 : LEN);
	rig_send_all(&device->rig);
	assert_true(fake_take(device->rig.peer[0], &request));
	assert_int_equal(request.type, type);
	if (type == NBD_CMD_WRITE)
		assert_true(fake_take_bytes(device->rig.peer[0], payload, LEN));
	return request;
}

static void ask_and_answer(struct device *device, uint16_t type, uint16_t flags)
{
	struct fake_request request = ask(device, 0, type, flags);
	uint8_t content[LEN] = {0};

	rig_answer(&device->rig, 0, &request, content);
	assert_int_equal(rig_result(&device->rig, 0), request.length);
}

static void stop_server(struct device *device)
{
	rig_close_peer(&device->rig, 0);
	rig_wait_dead(&device->rig, 0);
}

/* As the redialling thread does it, before it hands the socket over. */
static void start_server(struct device *device)
{
	if (dirty(device))
		gk_unflushed_owe(&device->track);
	rig_offer(&device->rig, 0);
}

static void a_restart_costs_one_flush(void **state)
{
	static const uint16_t types[] = {NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		struct device device;

		begin(&device, false);
		ask_and_answer(&device, types[i], 0);
		assert_true(dirty(&device));
		stop_server(&device);
		start_server(&device);
		/* It never gets as far as the server. */
		mem_front_submit(&device.rig.queue, 1, NBD_CMD_FLUSH, 0, 0, 0);
		assert_false(device.rig.front.slots[1].busy);
		assert_int_equal(device.rig.front.slots[1].result, -EIO);
		ask_and_answer(&device, NBD_CMD_FLUSH, 0);
		assert_false(dirty(&device));
		/* Nothing is owed for what has been told and is flushed. */
		stop_server(&device);
		start_server(&device);
		ask_and_answer(&device, NBD_CMD_FLUSH, 0);
		rig_end(&device.rig);
	}
}

static void what_is_durable_or_was_never_acknowledged_owes_nothing(void **state)
{
	struct fake_bytes refusal = {0};
	struct fake_request request;
	struct device device;

	(void)state;
	begin(&device, false);
	ask_and_answer(&device, NBD_CMD_READ, 0);
	ask_and_answer(&device, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA);
	ask_and_answer(&device, NBD_CMD_TRIM, NBD_CMD_FLAG_FUA);
	ask_and_answer(&device, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FUA);
	assert_false(dirty(&device));
	request = ask(&device, 0, NBD_CMD_WRITE, 0);
	fake_put_simple(&refusal, request.cookie, NBD_ENOSPC);
	rig_say(&device.rig, 0, &refusal);
	fake_bytes_done(&refusal);
	assert_int_equal(rig_result(&device.rig, 0), -ENOSPC);
	assert_false(dirty(&device));
	ask_and_answer(&device, NBD_CMD_WRITE, 0);
	ask_and_answer(&device, NBD_CMD_FLUSH, 0);
	assert_false(dirty(&device));
	/* This one is out when the server dies: it is sent again, and lost with nobody's word. */
	ask(&device, 1, NBD_CMD_WRITE, 0);
	stop_server(&device);
	assert_false(dirty(&device));
	start_server(&device);
	rig_send_all(&device.rig);
	assert_true(fake_take(device.rig.peer[0], &request));
	assert_int_equal(request.type, NBD_CMD_WRITE);
	rig_answer(&device.rig, 0, &request, NULL);
	assert_int_equal(rig_result(&device.rig, 1), LEN);
	assert_true(dirty(&device));
	rig_end(&device.rig);
}

/* The flush that was asked for before the restart is the one that has to tell. */
static void a_flush_that_was_out_fails(void **state)
{
	struct device device;

	(void)state;
	begin(&device, false);
	ask_and_answer(&device, NBD_CMD_WRITE, 0);
	ask(&device, 1, NBD_CMD_FLUSH, 0);
	stop_server(&device);
	assert_true(device.rig.front.slots[1].busy);
	start_server(&device);
	assert_int_equal(rig_result(&device.rig, 1), -EIO);
	ask_and_answer(&device, NBD_CMD_FLUSH, 0);
	rig_end(&device.rig);
}

/* Each may be the flush of another file system, and all were asked for before the restart. */
static void every_flush_that_was_out_fails(void **state)
{
	struct device device;

	(void)state;
	begin(&device, false);
	ask_and_answer(&device, NBD_CMD_WRITE, 0);
	ask(&device, 1, NBD_CMD_FLUSH, 0);
	ask(&device, 2, NBD_CMD_FLUSH, 0);
	stop_server(&device);
	/* One that arrives while it is away. */
	mem_front_submit(&device.rig.queue, 3, NBD_CMD_FLUSH, 0, 0, 0);
	start_server(&device);
	for (uint16_t tag = 1; tag < 4; tag++)
		assert_int_equal(rig_result(&device.rig, tag), -EIO);
	ask_and_answer(&device, NBD_CMD_FLUSH, 0);
	rig_end(&device.rig);
}

/* It went to the new server before all had seen that it is a new one. */
static void a_flush_that_is_out_when_the_restart_is_noticed_fails(void **state)
{
	struct fake_request request;
	struct device device;

	(void)state;
	begin(&device, false);
	ask_and_answer(&device, NBD_CMD_WRITE, 0);
	request = ask(&device, 1, NBD_CMD_FLUSH, 0);
	gk_unflushed_owe(&device.track);
	rig_answer(&device.rig, 0, &request, NULL);
	assert_int_equal(rig_result(&device.rig, 1), -EIO);
	assert_true(dirty(&device));
	ask_and_answer(&device, NBD_CMD_FLUSH, 0);
	rig_end(&device.rig);
}

/* Its answer is lost with the server: what it would have covered counts as not flushed. */
static void a_flush_without_an_answer_covers_nothing(void **state)
{
	struct device device;

	(void)state;
	begin(&device, false);
	ask_and_answer(&device, NBD_CMD_WRITE, 0);
	ask(&device, 1, NBD_CMD_FLUSH, 0);
	assert_true(dirty(&device));
	stop_server(&device);
	assert_true(dirty(&device));
	rig_end(&device.rig);
}

static void with_force_fua_all_that_changes_the_export_is_durable(void **state)
{
	static const struct {
		uint16_t type;
		uint16_t flags;
	} cases[] = {
		{NBD_CMD_READ, 0},
		{NBD_CMD_FLUSH, 0},
		{NBD_CMD_WRITE, NBD_CMD_FLAG_FUA},
		{NBD_CMD_TRIM, NBD_CMD_FLAG_FUA},
		{NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FUA},
	};
	struct device device;

	(void)state;
	begin(&device, true);
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct fake_request request = ask(&device, 0, cases[i].type, 0);
		uint8_t content[LEN] = {0};

		assert_int_equal(request.flags, cases[i].flags);
		rig_answer(&device.rig, 0, &request, content);
		assert_int_equal(rig_result(&device.rig, 0), request.length);
		assert_false(dirty(&device));
	}
	rig_end(&device.rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_restart_costs_one_flush),
		cmocka_unit_test(what_is_durable_or_was_never_acknowledged_owes_nothing),
		cmocka_unit_test(a_flush_that_was_out_fails),
		cmocka_unit_test(every_flush_that_was_out_fails),
		cmocka_unit_test(a_flush_that_is_out_when_the_restart_is_noticed_fails),
		cmocka_unit_test(a_flush_without_an_answer_covers_nothing),
		cmocka_unit_test(with_force_fua_all_that_changes_the_export_is_durable),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
