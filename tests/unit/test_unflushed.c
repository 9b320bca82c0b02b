// SPDX-License-Identifier: MIT
#include "unflushed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void nothing_written_is_nothing_to_lose(void **state)
{
	struct gk_flush_track track = {0};
	uint64_t dirty = 0;

	(void)state;
	assert_false(gk_unflushed_is_dirty(&track, &dirty));
	gk_unflushed_end(&track, gk_unflushed_begin(&track), true);
	assert_false(gk_unflushed_is_dirty(&track, &dirty));
}

static void a_write_is_safe_after_a_flush_that_began_later(void **state)
{
	struct gk_flush_track track = {0};
	uint64_t dirty = 0;
	uint64_t flush;

	(void)state;
	gk_unflushed_write(&track, &dirty);
	assert_true(gk_unflushed_is_dirty(&track, &dirty));
	flush = gk_unflushed_begin(&track);
	assert_true(gk_unflushed_is_dirty(&track, &dirty));
	gk_unflushed_end(&track, flush, true);
	assert_false(gk_unflushed_is_dirty(&track, &dirty));
}

/* The server may have looked for dirty blocks before it took this one. */
static void a_flush_under_way_does_not_cover_a_write_answered_meanwhile(void **state)
{
	struct gk_flush_track track = {0};
	uint64_t dirty = 0;
	uint64_t flush = gk_unflushed_begin(&track);

	(void)state;
	gk_unflushed_write(&track, &dirty);
	gk_unflushed_end(&track, flush, true);
	assert_true(gk_unflushed_is_dirty(&track, &dirty));
	gk_unflushed_end(&track, gk_unflushed_begin(&track), true);
	assert_false(gk_unflushed_is_dirty(&track, &dirty));
}

static void flushes_may_end_in_any_order(void **state)
{
	struct gk_flush_track track = {0};
	uint64_t dirty = 0;
	uint64_t first;
	uint64_t second;

	(void)state;
	first = gk_unflushed_begin(&track);
	gk_unflushed_write(&track, &dirty);
	second = gk_unflushed_begin(&track);
	assert_true(second > first);
	gk_unflushed_end(&track, second, true);
	assert_false(gk_unflushed_is_dirty(&track, &dirty));
	gk_unflushed_end(&track, first, true);
	assert_false(gk_unflushed_is_dirty(&track, &dirty));
}

/* One flush of the device covers what all its queues wrote, and each is dirty by itself. */
static void queues_share_their_flushes(void **state)
{
	struct gk_flush_track track = {0};
	uint64_t dirty[2] = {0};
	uint64_t flush;

	(void)state;
	gk_unflushed_write(&track, &dirty[0]);
	assert_false(gk_unflushed_is_dirty(&track, &dirty[1]));
	flush = gk_unflushed_begin(&track);
	gk_unflushed_write(&track, &dirty[1]);
	gk_unflushed_end(&track, flush, true);
	assert_false(gk_unflushed_is_dirty(&track, &dirty[0]));
	assert_true(gk_unflushed_is_dirty(&track, &dirty[1]));
}

static void a_flush_that_never_ended_covers_nothing(void **state)
{
	struct gk_flush_track track = {0};
	uint64_t dirty = 0;

	(void)state;
	gk_unflushed_write(&track, &dirty);
	gk_unflushed_begin(&track);
	gk_unflushed_begin(&track);
	assert_true(gk_unflushed_is_dirty(&track, &dirty));
}

static bool next_flush_owes(struct gk_flush_track *track)
{
	uint64_t number = gk_unflushed_begin(track);
	bool owes = gk_unflushed_owes(track, number);

	gk_unflushed_end(track, number, !owes);
	return owes;
}

static void a_debt_is_paid_once(void **state)
{
	struct gk_flush_track track = {0};

	(void)state;
	assert_false(next_flush_owes(&track));
	gk_unflushed_owe(&track);
	gk_unflushed_owe(&track);
	assert_true(next_flush_owes(&track));
	assert_false(next_flush_owes(&track));
	gk_unflushed_owe(&track);
	assert_true(next_flush_owes(&track));
}

static void every_flush_that_waits_owes(void **state)
{
	struct gk_flush_track track = {0};
	uint64_t ended = gk_unflushed_begin(&track);
	uint64_t first = gk_unflushed_begin(&track);
	uint64_t second = gk_unflushed_begin(&track);

	(void)state;
	gk_unflushed_end(&track, ended, true);
	gk_unflushed_owe(&track);
	assert_true(gk_unflushed_owes(&track, second));
	gk_unflushed_end(&track, second, false);
	assert_true(gk_unflushed_owes(&track, first));
	gk_unflushed_end(&track, first, false);
	assert_false(next_flush_owes(&track));
}

static void a_flush_that_failed_covers_nothing(void **state)
{
	struct gk_flush_track track = {0};
	uint64_t dirty = 0;

	(void)state;
	gk_unflushed_write(&track, &dirty);
	gk_unflushed_end(&track, gk_unflushed_begin(&track), false);
	assert_true(gk_unflushed_is_dirty(&track, &dirty));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_written_is_nothing_to_lose),
		cmocka_unit_test(a_write_is_safe_after_a_flush_that_began_later),
		cmocka_unit_test(a_flush_under_way_does_not_cover_a_write_answered_meanwhile),
		cmocka_unit_test(flushes_may_end_in_any_order),
		cmocka_unit_test(queues_share_their_flushes),
		cmocka_unit_test(a_flush_that_never_ended_covers_nothing),
		cmocka_unit_test(a_debt_is_paid_once),
		cmocka_unit_test(every_flush_that_waits_owes),
		cmocka_unit_test(a_flush_that_failed_covers_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
