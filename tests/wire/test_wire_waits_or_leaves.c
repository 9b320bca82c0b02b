// SPDX-License-Identifier: MIT
/* A server that is away or silent: how long requests wait for it, and what ends the waiting. */
#include <errno.h>
#include <string.h>

#include "commands.h"

/* Each absence has its own time, however long ago the one before it was. */
static void an_earlier_absence_does_not_shorten_the_wait(void **state)
{
	const struct rig_options options = {
		.retry = {.replay = true, .reconnect_timeout_ns = HOUR},
	};
	struct fake_request request;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &options);
	for (unsigned int i = 0; i < 2; i++) {
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		rig.queue.now_ns += i * (HOUR + MS);
		submit(&rig, &commands[i]);
		gk_session_tick(&rig.queue);
		assert_true(rig.front.slots[commands[i].tag].busy);
		rig_offer(&rig, 0);
		rig_send_all(&rig);
		request = take(&rig, 0, &commands[i]);
		answer(&rig, 0, &request, 1);
		assert_ended(&rig, &commands[i], 1);
	}
	rig_end(&rig);
}

static void reconnect_timeout_ends_the_wait_until_it_is_back(void **state)
{
	const struct rig_options options = {
		.retry = {.replay = true, .reconnect_timeout_ns = MS},
	};
	struct rig rig;

	(void)state;
	rig_begin(&rig, &options);
	submit(&rig, &commands[1]);
	rig_send_all(&rig);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	submit(&rig, &commands[0]);
	assert_int_equal(rig.front.n_busy, 2);
	assert_int_equal(rig_result(&rig, commands[1].tag), -EIO);
	assert_int_equal(rig_result(&rig, commands[0].tag), -EIO);
	/* From now on nobody waits. */
	submit(&rig, &commands[2]);
	assert_false(rig.front.slots[commands[2].tag].busy);
	assert_int_equal(rig.front.slots[commands[2].tag].result, -EIO);
	rig_offer(&rig, 0);
	rig_in_step(&rig, 0, 1);
	/* And the next time there is patience again. */
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	submit(&rig, &commands[3]);
	assert_true(rig.front.slots[commands[3].tag].busy);
	assert_int_equal(rig_result(&rig, commands[3].tag), -EIO);
	rig_end(&rig);
}

/* Other answers do not help the one that does not come. */
static void a_server_that_keeps_an_answer_back_is_given_up(void **state)
{
	const struct rig_options options = {
		.retry = {.replay = true, .request_timeout_ns = HOUR},
	};
	struct fake_request request;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &options);
	assert_false(gk_session_needs_tick(&rig.queue));
	submit(&rig, &commands[1]);
	submit(&rig, &commands[4]);
	rig_send_all(&rig);
	take(&rig, 0, &commands[1]);
	request = take(&rig, 0, &commands[4]);
	answer(&rig, 0, &request, 0);
	assert_ended(&rig, &commands[4], 0);
	assert_true(gk_session_needs_tick(&rig.queue));
	gk_session_tick(&rig.queue);
	assert_int_equal(rig.queue.sessions[0].state, GK_SESSION_UP);
	rig.queue.now_ns += HOUR + MS;
	gk_session_tick(&rig.queue);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig.queue.counters.timeouts, 1);
	assert_true(rig.front.slots[commands[1].tag].busy);
	rig_offer(&rig, 0);
	rig_send_all(&rig);
	request = take(&rig, 0, &commands[1]);
	answer(&rig, 0, &request, 6);
	assert_ended(&rig, &commands[1], 6);
	rig_end(&rig);
}

/* ... not even those that come later and later. */
static void younger_answers_do_not_help_either(void **state)
{
	const struct rig_options options = {
		.retry = {.replay = true, .request_timeout_ns = HOUR},
	};
	struct fake_request request;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &options);
	submit(&rig, &commands[1]);
	rig_send_all(&rig);
	take(&rig, 0, &commands[1]);
	gk_session_tick(&rig.queue);
	submit(&rig, &commands[4]);
	rig_send_all(&rig);
	request = take(&rig, 0, &commands[4]);
	answer(&rig, 0, &request, 0);
	assert_ended(&rig, &commands[4], 0);
	rig.queue.now_ns = rig.queue.tags[commands[1].tag].wire_ns + HOUR;
	gk_session_tick(&rig.queue);
	assert_int_equal(rig.queue.sessions[0].state, GK_SESSION_UP);
	rig.queue.now_ns++;
	gk_session_tick(&rig.queue);
	assert_int_equal(rig.queue.counters.timeouts, 1);
	rig_wait_dead(&rig, 0);
	rig_end(&rig);
}

/* Many requests went out at once, and their answers take their time, one after the other. */
static void a_slow_network_is_no_dead_server(void **state)
{
	const struct rig_options options = {
		.retry = {.replay = true, .request_timeout_ns = HOUR},
	};
	const unsigned int order[] = {1, 4, 2};
	struct fake_request requests[3];
	struct gk_session *session;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &options);
	session = &rig.queue.sessions[0];
	for (unsigned int i = 0; i < 3; i++)
		submit(&rig, &commands[order[i]]);
	rig_send_all(&rig);
	for (unsigned int i = 0; i < 3; i++)
		requests[i] = take(&rig, 0, &commands[order[i]]);
	for (unsigned int i = 0; i < 3; i++) {
		answer(&rig, 0, &requests[i], i);
		assert_ended(&rig, &commands[order[i]], i);
		assert_true(session->answered_ns >= rig.queue.tags[commands[order[i]].tag].wire_ns);
		/* As if it had come two hours after the one before. */
		rig.queue.now_ns += (i + 1) * 2 * HOUR;
		session->answered_ns = rig.queue.now_ns;
		gk_session_tick(&rig.queue);
		assert_int_equal(session->state, GK_SESSION_UP);
	}
	assert_int_equal(rig.queue.counters.timeouts, 0);
	rig_end(&rig);
}

/*
 * It refuses a WRITE upon its header and reads no further: nothing is unanswered, but the send
 * never ends, and neither would the request, nor those behind it.
 */
static void a_server_that_answers_early_and_reads_no_further_is_given_up(void **state)
{
	const struct rig_options options = {
		.sndbuf_bytes = 4096,
		.retry = {.replay = true, .request_timeout_ns = HOUR},
	};
	struct fake_bytes refusal = {0};
	struct fake_request request;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &options);
	mem_front_submit(&rig.queue, 1, NBD_CMD_WRITE, 0, 0, 65536);
	do
		rig_turn(&rig);
	while (!rig.queue.counters.sends);
	assert_true(fake_take(rig.peer[0], &request));
	fake_put_simple(&refusal, request.cookie, NBD_ENOSPC);
	rig_say(&rig, 0, &refusal);
	fake_bytes_done(&refusal);
	while (rig.queue.sessions[0].in_flight)
		rig_turn(&rig);
	assert_true(rig.front.slots[1].busy);
	assert_true(gk_session_needs_tick(&rig.queue));
	submit(&rig, &commands[1]);
	rig.queue.now_ns += HOUR + MS;
	gk_session_tick(&rig.queue);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig.queue.counters.timeouts, 1);
	assert_int_equal(rig_result(&rig, 1), -ENOSPC);
	rig_offer(&rig, 0);
	rig_send_all(&rig);
	request = take(&rig, 0, &commands[1]);
	answer(&rig, 0, &request, 2);
	assert_ended(&rig, &commands[1], 2);
	rig_end(&rig);
}

/* The loop wakes up by itself for that. */
static void silence_is_noticed_without_a_completion(void **state)
{
	const struct rig_options options = {
		.retry = {.replay = true, .request_timeout_ns = MS},
	};
	struct rig rig;

	(void)state;
	rig_begin(&rig, &options);
	submit(&rig, &commands[1]);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig.queue.counters.timeouts, 1);
	rig_end(&rig);
}

static void a_device_that_goes_waits_for_no_connection(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &all_paths[0]);
	submit(&rig, &commands[0]);
	rig_send_all(&rig);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	submit(&rig, &commands[1]);
	gk_mail_order(&rig.queue.mail, false, true);
	assert_int_equal(rig_result(&rig, commands[0].tag), -EIO);
	assert_int_equal(rig_result(&rig, commands[1].tag), -EIO);
	submit(&rig, &commands[2]);
	assert_int_equal(rig.front.slots[commands[2].tag].result, -EIO);
	rig_end(&rig);
}

/* What a live server still answers is not lost, and what it does not is not sent again. */
static void a_device_that_goes_takes_the_answers_that_come(void **state)
{
	struct fake_request request;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &all_paths[0]);
	submit(&rig, &commands[1]);
	submit(&rig, &commands[0]);
	rig_send_all(&rig);
	request = take(&rig, 0, &commands[1]);
	gk_mail_order(&rig.queue.mail, false, true);
	while (!rig.queue.stopping)
		rig_turn(&rig);
	answer(&rig, 0, &request, 5);
	assert_ended(&rig, &commands[1], 5);
	assert_int_equal(rig.queue.sessions[0].state, GK_SESSION_UP);
	rig_close_peer(&rig, 0);
	assert_int_equal(rig_result(&rig, commands[0].tag), -EIO);
	assert_int_equal(rig.queue.counters.replays, 0);
	rig_end(&rig);
}

/* The server is given up, the requests are not: they wait for the next one. */
static void an_order_to_leave_takes_the_requests_along(void **state)
{
	struct rig_options options = all_paths[0];
	struct fake_request request;
	struct rig rig;

	(void)state;
	options.sessions = 2;
	rig_begin(&rig, &options);
	submit(&rig, &commands[1]);
	rig_send_all(&rig);
	gk_mail_leave(&rig.queue.mail);
	for (unsigned int i = 0; i < 2; i++)
		rig_wait_dead(&rig, i);
	assert_true(rig.front.slots[commands[1].tag].busy);
	rig_offer(&rig, 1);
	rig_send_all(&rig);
	request = take(&rig, 1, &commands[1]);
	answer(&rig, 1, &request, 3);
	assert_ended(&rig, &commands[1], 3);
	assert_int_equal(rig.queue.sessions[1].state, GK_SESSION_UP);
	rig_end(&rig);
}

/*
 * The next daemon takes over: what the server may still hold is fenced, what comes meanwhile waits,
 * and nothing fails, however long it takes.
 */
static void a_hand_over_ends_no_request(void **state)
{
	const struct rig_options options = {
		.sessions = 2,
		.retry = {.replay = true, .fence_timeout_ns = HOUR, .reconnect_timeout_ns = MS},
	};
	struct rig rig;

	(void)state;
	rig_begin(&rig, &options);
	submit(&rig, &commands[0]);
	rig_send_all(&rig);
	submit(&rig, &commands[1]);
	rig_send_all(&rig);
	gk_mail_hand_over(&rig.queue.mail);
	/* Only a READ was on the second one. */
	assert_int_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
	rig_wait_dead(&rig, 1);
	submit(&rig, &commands[3]);
	rig.queue.now_ns += HOUR + MS;
	gk_session_tick(&rig.queue);
	assert_int_equal(rig.queue.counters.unfenced_replays, 1);
	rig_wait_dead(&rig, 0);
	rig.queue.now_ns += HOUR;
	gk_session_tick(&rig.queue);
	assert_int_equal(rig.front.n_busy, 3);
	assert_int_equal(rig.queue.counters.errors, 0);
	rig_end(&rig);
}

static void an_order_to_abort_cuts_a_live_connection(void **state)
{
	struct rig_options options = all_paths[0];
	struct rig rig;

	(void)state;
	options.sessions = 2;
	rig_begin(&rig, &options);
	submit(&rig, &commands[0]);
	submit(&rig, &commands[1]);
	rig_send_all(&rig);
	gk_mail_order(&rig.queue.mail, true, true);
	assert_int_equal(rig_result(&rig, commands[0].tag), -EIO);
	assert_int_equal(rig_result(&rig, commands[1].tag), -EIO);
	for (unsigned int i = 0; i < 2; i++)
		rig_wait_dead(&rig, i);
	assert_int_equal(rig.queue.counters.replays, 0);
	assert_int_equal(rig.queue.counters.unfenced_replays, 0);
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_earlier_absence_does_not_shorten_the_wait),
		cmocka_unit_test(reconnect_timeout_ends_the_wait_until_it_is_back),
		cmocka_unit_test(a_server_that_keeps_an_answer_back_is_given_up),
		cmocka_unit_test(younger_answers_do_not_help_either),
		cmocka_unit_test(a_slow_network_is_no_dead_server),
		cmocka_unit_test(a_server_that_answers_early_and_reads_no_further_is_given_up),
		cmocka_unit_test(silence_is_noticed_without_a_completion),
		cmocka_unit_test(a_device_that_goes_waits_for_no_connection),
		cmocka_unit_test(a_device_that_goes_takes_the_answers_that_come),
		cmocka_unit_test(an_order_to_leave_takes_the_requests_along),
		cmocka_unit_test(a_hand_over_ends_no_request),
		cmocka_unit_test(an_order_to_abort_cuts_a_live_connection),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
