// SPDX-License-Identifier: MIT
/*
 * A server that sends each reply by itself: with many requests in flight a turn of the loop takes
 * several replies, with few it takes each at once.
 */
#include "wire_rig.h"

#define DEPTH 64
#define TRIAL 17 /* answers after which it knows that they come one by one */

/* So many small READs in flight, their headers taken by the server. */
static void begin(struct rig *rig, unsigned int n, struct fake_request *ret_requests)
{
	rig_begin(rig, &(struct rig_options){.depth = DEPTH});
	for (uint16_t t = 0; t < n; t++)
		ret_requests[t] = rig_request(rig, 0, t, NBD_CMD_READ, t * 512, 512);
}

static void answer(struct rig *rig, const struct fake_request *request)
{
	uint8_t content[65536];

	rig_pattern(content, request->offset, request->length, 1);
	rig_answer(rig, 0, request, content);
}

static void many_requests_in_flight_are_taken_together(void **state)
{
	struct fake_request requests[DEPTH];
	uint64_t waits = 0;
	struct rig rig;
	uint16_t t;

	(void)state;
	begin(&rig, DEPTH, requests);
	/* Each wakes the loop for itself, until it waits a moment for more, ... */
	for (t = 0; t < TRIAL; t++) {
		answer(&rig, &requests[t]);
		assert_int_equal(rig_result(&rig, t), 512);
	}
	/* ... and from then on it does each time. */
	for (; t < TRIAL + 8; t++) {
		uint64_t before = rig.queue.counters.coalesced_loops;

		answer(&rig, &requests[t]);
		assert_int_equal(rig_result(&rig, t), 512);
		assert_true(rig.queue.counters.coalesced_loops > before);
	}
	/* Nobody else is there who could answer: a whole moment passes in vain, and no second one. */
	waits = rig.queue.counters.coalesced_loops;
	rig_turn(&rig);
	assert_int_equal(rig.queue.counters.coalesced_loops, waits + 1);
	answer(&rig, &requests[t]);
	rig_turn(&rig);
	assert_int_equal(rig.queue.counters.coalesced_loops, waits + 1);
	assert_int_equal(rig.front.slots[t].result, 512);
	rig_end(&rig);
}

static void few_are_not(void **state)
{
	struct fake_request requests[DEPTH];
	struct rig rig;

	(void)state;
	begin(&rig, GK_COALESCE_DEPTH - 1, requests);
	for (unsigned int i = 0; i < GK_COALESCE_DEPTH - 1; i++) {
		answer(&rig, &requests[i]);
		assert_int_equal(rig_result(&rig, (uint16_t)i), 512);
	}
	assert_int_equal(rig.queue.counters.coalesced_loops, 0);
	rig_end(&rig);
}

/* One large payload among many small ones, in either direction. */
static void none_beside_a_large_payload(void **state)
{
	static const uint16_t types[] = {NBD_CMD_READ, NBD_CMD_WRITE};

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_request requests[DEPTH];
		struct fake_request large;
		uint8_t payload[GK_LARGE_BYTES];
		struct rig rig;
		uint16_t t;

		begin(&rig, DEPTH - 1, requests);
		large = rig_request(&rig, 0, DEPTH - 1, types[i], 0, GK_LARGE_BYTES);
		if (types[i] == NBD_CMD_WRITE)
			assert_true(fake_take_bytes(rig.peer[0], payload, sizeof(payload)));
		for (t = 0; t < TRIAL; t++) {
			answer(&rig, &requests[t]);
			assert_int_equal(rig_result(&rig, t), 512);
		}
		assert_int_equal(rig.queue.counters.coalesced_loops, 0);
		answer(&rig, &large);
		assert_int_equal(rig_result(&rig, DEPTH - 1), GK_LARGE_BYTES);
		/* It is gone, and the others are still many. */
		for (; t < 2 * TRIAL + 1; t++) {
			answer(&rig, &requests[t]);
			assert_int_equal(rig_result(&rig, t), 512);
		}
		assert_true(rig.queue.counters.coalesced_loops > 0);
		rig_end(&rig);
	}
}

/* What a dead connection had in flight does not count. */
static void nor_beside_a_dead_connection(void **state)
{
	enum { EACH = GK_COALESCE_DEPTH };

	struct fake_request requests[2 * EACH];
	uint64_t before;
	struct rig rig;

	(void)state;
	rig_quiet();
	rig_begin(&rig, &(struct rig_options){.depth = DEPTH, .sessions = 2});
	/* The connection with the least in flight is next: they alternate. */
	for (uint16_t t = 0; t < 2 * EACH; t++)
		requests[t] = rig_request(&rig, t % 2, t, NBD_CMD_READ, t * 512, 512);
	rig_close_peer(&rig, 1);
	rig_wait_dead(&rig, 1);
	answer(&rig, &requests[0]);
	assert_int_equal(rig_result(&rig, 0), 512);
	before = rig.queue.counters.coalesced_loops;
	for (uint16_t t = 2; t < 2 * EACH; t += 2) {
		answer(&rig, &requests[t]);
		assert_int_equal(rig_result(&rig, t), 512);
	}
	assert_int_equal(rig.queue.counters.coalesced_loops, before);
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_requests_in_flight_are_taken_together),
		cmocka_unit_test(few_are_not),
		cmocka_unit_test(none_beside_a_large_payload),
		cmocka_unit_test(nor_beside_a_dead_connection),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
