// SPDX-License-Identifier: MIT
/* A server that went away and comes back: what was out is sent again, what came meanwhile waits. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"

static void what_was_out_is_sent_again_in_its_order(void **state)
{
	(void)state;
	for (size_t p = 0; p < PATHS; p++) {
		struct fake_request old[N];
		struct fake_request again[N];
		struct rig rig;

		rig_begin(&rig, &all_paths[p]);
		for (size_t i = 0; i < N; i++)
			submit(&rig, &commands[i]);
		rig_send_all(&rig);
		for (size_t i = 0; i < N; i++)
			old[i] = take(&rig, 0, &commands[i]);
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		assert_int_equal(rig.front.n_busy, N);
		rig_offer(&rig, 0);
		rig_send_all(&rig);
		for (size_t i = 0; i < N; i++) {
			again[i] = take(&rig, 0, &commands[i]);
			assert_int_not_equal(again[i].cookie, old[i].cookie);
		}
		for (size_t i = N; i-- > 0;)
			answer(&rig, 0, &again[i], 9);
		for (size_t i = 0; i < N; i++)
			assert_ended(&rig, &commands[i], 9);
		assert_int_equal(rig.queue.counters.replays, N);
		assert_int_equal(rig.queue.counters.unfenced_replays, 0);
		assert_int_equal(rig.queue.counters.errors, 0);
		rig_in_step(&rig, 0, 1);
		rig_end(&rig);
	}
}

/* Requests take turns on the two; those of the dead one go behind those of the other. */
static void another_connection_takes_over_at_once(void **state)
{
	static const size_t order[N] = {1, 3, 5, 0, 2, 4};
	struct fake_request request[N];
	struct rig_options options = all_paths[0];
	struct rig rig;

	(void)state;
	options.sessions = 2;
	rig_begin(&rig, &options);
	for (size_t i = 0; i < N; i++)
		submit(&rig, &commands[i]);
	rig_send_all(&rig);
	for (size_t i = 0; i < N; i += 2)
		take(&rig, 0, &commands[i]);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	rig_send_all(&rig);
	for (size_t i = 0; i < N; i++)
		request[i] = take(&rig, 1, &commands[order[i]]);
	for (size_t i = 0; i < N; i++)
		answer(&rig, 1, &request[i], 4);
	for (size_t i = 0; i < N; i++)
		assert_ended(&rig, &commands[i], 4);
	assert_int_equal(rig.queue.counters.replays, N / 2);
	rig_end(&rig);
}

static void requests_that_come_while_it_is_away_wait_in_order(void **state)
{
	struct fake_request request[N];
	struct rig rig;

	(void)state;
	rig_begin(&rig, &all_paths[0]);
	submit(&rig, &commands[0]);
	rig_send_all(&rig);
	take(&rig, 0, &commands[0]);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	for (size_t i = 1; i < N; i++)
		submit(&rig, &commands[i]);
	assert_int_equal(rig.front.n_busy, N);
	/* Nothing limits the wait, so nothing wakes the loop up for them. */
	assert_false(gk_session_needs_tick(&rig.queue));
	rig_offer(&rig, 0);
	rig_send_all(&rig);
	for (size_t i = 0; i < N; i++)
		request[i] = take(&rig, 0, &commands[i]);
	for (size_t i = 0; i < N; i++)
		answer(&rig, 0, &request[i], 2);
	for (size_t i = 0; i < N; i++)
		assert_ended(&rig, &commands[i], 2);
	assert_int_equal(rig.queue.counters.replays, 1);
	rig_end(&rig);
}

/* However often it goes: the request ends once, with what the last connection said. */
static void it_may_go_again_and_again(void **state)
{
	struct fake_request request;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &all_paths[0]);
	submit(&rig, &commands[0]);
	for (unsigned int i = 0; i < 20; i++) {
		rig_send_all(&rig);
		take(&rig, 0, &commands[0]);
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		rig_offer(&rig, 0);
	}
	rig_send_all(&rig);
	request = take(&rig, 0, &commands[0]);
	answer(&rig, 0, &request, 0);
	assert_ended(&rig, &commands[0], 0);
	assert_int_equal(rig.queue.counters.replays, 20);
	rig_end(&rig);
}

static bool has_bytes(int fd)
{
	uint8_t byte;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1;
}

static const struct command *command_at(uint64_t offset)
{
	for (size_t i = 0; i < N; i++)
		if (commands[i].offset == offset && commands[i].len)
			return &commands[i];
	fail_msg("no such request");
	return NULL;
}

/*
 * The server hangs up on one of several requests, before it has answered any. They are tried one
 * by one, and when as many connections were lost as the policy allows, that one alone fails.
 */
static void only_the_request_that_the_server_hangs_up_on_fails(void **state)
{
	(void)state;
	for (size_t poison = 0; poison < N; poison++) {
		struct rig_options options = all_paths[poison % PATHS];
		unsigned int drops = 0;
		struct rig rig;

		options.retry.drops_max = 5;
		rig_begin(&rig, &options);
		for (size_t i = 0; i < N; i++)
			submit(&rig, &commands[i]);
		while (rig.front.n_busy) {
			struct fake_request request;
			const struct command *command;

			while (drops < GK_SUSPECT_DROPS ? rig.queue.sessions[0].in_flight < N ||
								  rig.queue.sessions[0].send_owed ||
								  rig.queue.sessions[0].fifo
							: !has_bytes(rig.peer[0]))
				rig_turn(&rig);
			assert_true(fake_take(rig.peer[0], &request));
			command = request.type == NBD_CMD_FLUSH ? &commands[4]
								: command_at(request.offset);
			if (drops >= GK_SUSPECT_DROPS) {
				uint8_t payload[LEN];

				if (request.type == NBD_CMD_WRITE)
					assert_true(fake_take_bytes(rig.peer[0], payload,
								    request.length));
				assert_false(has_bytes(rig.peer[0]));
				assert_int_equal(rig.queue.sessions[0].in_flight, 1);
			}
			if (drops >= GK_SUSPECT_DROPS && command != &commands[poison]) {
				answer(&rig, 0, &request, 6);
				assert_ended(&rig, command, 6);
				continue;
			}
			rig_close_peer(&rig, 0);
			rig_wait_dead(&rig, 0);
			rig_offer(&rig, 0);
			drops++;
		}
		assert_int_equal(drops, 5);
		assert_int_equal(rig_result(&rig, commands[poison].tag), -EIO);
		assert_int_equal(rig.queue.counters.poisoned, 1);
		assert_int_equal(rig.queue.counters.errors, 1);
		assert_int_equal(rig.queue.suspects, 0);
		/* And the next ones go out together again. */
		for (size_t i = 0; i < N; i++)
			submit(&rig, &commands[i]);
		rig_send_all(&rig);
		assert_int_equal(rig.queue.sessions[0].in_flight, N);
		rig_end(&rig);
	}
}

/* Silence, a broken network, a server that answers in between: none of it is the request's fault. */
static void connections_that_time_out_or_bring_answers_do_not_count(void **state)
{
	struct rig_options options = all_paths[0];
	struct fake_request request;
	struct rig rig;

	(void)state;
	options.retry.drops_max = 5;
	rig_begin(&rig, &options);
	submit(&rig, &commands[1]);
	for (unsigned int i = 0; i < 20; i++) {
		rig_send_all(&rig);
		take(&rig, 0, &commands[1]);
		gk_session_fail(&rig.queue.sessions[0], i % 2 ? -EAGAIN : -ETIMEDOUT, "the test says so");
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		rig_offer(&rig, 0);
	}
	rig_send_all(&rig);
	request = take(&rig, 0, &commands[1]);
	answer(&rig, 0, &request, 0);
	assert_ended(&rig, &commands[1], 0);
	for (unsigned int i = 0; i < 20; i++) {
		submit(&rig, &commands[i % 2]);
		rig_send_all(&rig);
		take(&rig, 0, &commands[i % 2]);
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		rig_offer(&rig, 0);
		rig_send_all(&rig);
		request = take(&rig, 0, &commands[i % 2]);
		answer(&rig, 0, &request, 0);
		assert_int_equal(rig_result(&rig, commands[i % 2].tag), LEN);
	}
	assert_int_equal(rig.queue.counters.errors, 0);
	rig_end(&rig);
}

/* An answer to what was asked on the old connection is a lie on the new one. */
static void an_old_cookie_ends_nothing_on_the_new_connection(void **state)
{
	static const struct command *asked[] = {&commands[0], &commands[1]};

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_request old;
		struct fake_request again;
		struct rig rig;

		rig_begin(&rig, &all_paths[0]);
		submit(&rig, asked[i]);
		rig_send_all(&rig);
		old = take(&rig, 0, asked[i]);
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		rig_offer(&rig, 0);
		rig_send_all(&rig);
		take(&rig, 0, asked[i]);
		answer(&rig, 0, &old, 1);
		assert_int_not_equal(rig_wait_down(&rig, 0), GK_SESSION_UP);
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		assert_true(rig.front.slots[asked[i]->tag].busy);
		rig_offer(&rig, 0);
		rig_send_all(&rig);
		again = take(&rig, 0, asked[i]);
		answer(&rig, 0, &again, 2);
		assert_ended(&rig, asked[i], 2);
		rig_end(&rig);
	}
}

/* Whatever part of the payload had come, what counts is what the new connection says. */
static void a_read_that_came_in_part_is_read_again(void **state)
{
	static const uint32_t cuts[] = {0, 1, 4096, LEN - 1};

	(void)state;
	for (size_t i = 0; i < PATHS * 4; i++) {
		const struct command *read = &commands[1];
		struct fake_bytes reply = {0};
		struct fake_request request;
		uint8_t content[LEN];
		struct rig rig;

		rig_begin(&rig, &all_paths[i / 4]);
		memset(mem_front_data(&rig.queue, read->tag), 0, LEN);
		submit(&rig, read);
		rig_send_all(&rig);
		request = take(&rig, 0, read);
		memset(content, 0xee, LEN);
		if (rig.options.structured)
			fake_put_data(&reply, NBD_REPLY_FLAG_DONE, request.cookie, read->offset,
				      content, LEN);
		else
			fake_put_simple(&reply, request.cookie, 0);
		reply.n = rig.options.structured ? reply.n - LEN : reply.n;
		fake_put(&reply, content, cuts[i % 4]);
		rig_say(&rig, 0, &reply);
		fake_bytes_done(&reply);
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		assert_true(rig.front.slots[read->tag].busy);
		rig_offer(&rig, 0);
		rig_send_all(&rig);
		request = take(&rig, 0, read);
		answer(&rig, 0, &request, 3);
		assert_ended(&rig, read, 3);
		rig_end(&rig);
	}
}

/* Parts that came whole need not come again. */
static void a_read_in_parts_goes_on_with_the_part_that_was_cut(void **state)
{
	struct rig_options options = all_paths[0];
	uint8_t content[3 * 4096];
	struct fake_bytes reply = {0};
	struct fake_request request;
	struct rig rig;

	(void)state;
	options.max_payload = 4096;
	rig_begin(&rig, &options);
	rig_pattern(content, 0, sizeof(content), 1);
	mem_front_submit(&rig.queue, 0, NBD_CMD_READ, 0, 0, sizeof(content));
	for (unsigned int part = 0; part < 2; part++) {
		rig_send_all(&rig);
		assert_true(fake_take(rig.peer[0], &request));
		assert_int_equal(request.offset, part * 4096);
		fake_put_simple(&reply, request.cookie, 0);
		fake_put(&reply, content + part * 4096, part ? 100 : 4096);
		rig_say(&rig, 0, &reply);
		reply.n = 0;
		while (!part && rig.queue.tags[0].done < 4096)
			rig_turn(&rig);
	}
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	rig_offer(&rig, 0);
	for (unsigned int part = 1; part < 3; part++) {
		rig_send_all(&rig);
		assert_true(fake_take(rig.peer[0], &request));
		assert_int_equal(request.offset, part * 4096);
		assert_int_equal(request.length, 4096);
		rig_answer(&rig, 0, &request, content + part * 4096);
		while (rig.front.n_busy && rig.queue.tags[0].done < (part + 1) * 4096)
			rig_turn(&rig);
	}
	assert_int_equal(rig_result(&rig, 0), sizeof(content));
	assert_memory_equal(mem_front_data(&rig.queue, 0), content, sizeof(content));
	fake_bytes_done(&reply);
	rig_end(&rig);
}

/* A server that was restarted may have lost the parts that it had acknowledged. */
static void a_write_in_parts_begins_again_from_its_first_byte(void **state)
{
	struct rig_options options = all_paths[0];
	struct fake_request request;
	uint8_t payload[4096];
	struct rig rig;

	(void)state;
	options.max_payload = 4096;
	rig_begin(&rig, &options);
	rig_pattern(mem_front_data(&rig.queue, 0), 0, 3 * 4096, 1);
	mem_front_submit(&rig.queue, 0, NBD_CMD_WRITE, 0, 0, 3 * 4096);
	rig_send_all(&rig);
	assert_true(fake_take(rig.peer[0], &request));
	assert_true(fake_take_bytes(rig.peer[0], payload, sizeof(payload)));
	rig_answer(&rig, 0, &request, NULL);
	while (rig.queue.tags[0].done < 4096)
		rig_turn(&rig);
	rig_send_all(&rig);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	rig_offer(&rig, 0);
	for (unsigned int part = 0; part < 3; part++) {
		uint8_t expected[4096];

		rig_send_all(&rig);
		assert_true(fake_take(rig.peer[0], &request));
		assert_int_equal(request.offset, part * 4096);
		assert_true(fake_take_bytes(rig.peer[0], payload, sizeof(payload)));
		rig_pattern(expected, part * 4096, sizeof(expected), 1);
		assert_memory_equal(payload, expected, sizeof(expected));
		rig_answer(&rig, 0, &request, NULL);
		while (rig.front.n_busy && rig.queue.tags[0].done < (part + 1) * 4096)
			rig_turn(&rig);
	}
	assert_int_equal(rig_result(&rig, 0), 3 * 4096);
	rig_end(&rig);
}

static void a_write_that_was_cut_is_sent_whole(void **state)
{
	static uint8_t payload[65536];

	(void)state;
	for (size_t p = 0; p < PATHS; p++) {
		struct rig_options options = all_paths[p];
		struct fake_request request;
		uint8_t *data;
		struct rig rig;

		options.sndbuf_bytes = 1;
		rig_begin(&rig, &options);
		data = mem_front_data(&rig.queue, 4);
		rig_pattern(data, 0, sizeof(payload), 8);
		mem_front_submit(&rig.queue, 4, NBD_CMD_WRITE, 0, 0, sizeof(payload));
		/* Some of it has gone, and the rest finds no room. */
		while (rig.queue.counters.sends < 1 || io_uring_cq_ready(&rig.queue.ring))
			rig_turn(&rig);
		assert_int_equal(rig.queue.tags[4].state, GK_TAG_SENDING);
		assert_true(fake_take(rig.peer[0], &request));
		assert_true(fake_take_bytes(rig.peer[0], payload, 1000));
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		rig.options.sndbuf_bytes = 0;
		rig_offer(&rig, 0);
		rig_send_all(&rig);
		assert_true(fake_take(rig.peer[0], &request));
		assert_int_equal(request.length, sizeof(payload));
		assert_true(fake_take_bytes(rig.peer[0], payload, sizeof(payload)));
		assert_memory_equal(payload, data, sizeof(payload));
		rig_answer(&rig, 0, &request, NULL);
		assert_int_equal(rig_result(&rig, 4), sizeof(payload));
		rig_end(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_out_is_sent_again_in_its_order),
		cmocka_unit_test(another_connection_takes_over_at_once),
		cmocka_unit_test(requests_that_come_while_it_is_away_wait_in_order),
		cmocka_unit_test(it_may_go_again_and_again),
		cmocka_unit_test(only_the_request_that_the_server_hangs_up_on_fails),
		cmocka_unit_test(connections_that_time_out_or_bring_answers_do_not_count),
		cmocka_unit_test(an_old_cookie_ends_nothing_on_the_new_connection),
		cmocka_unit_test(a_read_that_came_in_part_is_read_again),
		cmocka_unit_test(a_read_in_parts_goes_on_with_the_part_that_was_cut),
		cmocka_unit_test(a_write_in_parts_begins_again_from_its_first_byte),
		cmocka_unit_test(a_write_that_was_cut_is_sent_whole),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
