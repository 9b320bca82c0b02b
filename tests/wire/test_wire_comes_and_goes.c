// SPDX-License-Identifier: MIT
/*
 * A server that ends its connections again and again: after each the requests that were out are
 * sent again, and neither descriptors nor memory have grown. And queues that are made and ended, as
 * those of a device that comes and goes. 10,000 of each, fewer with a sanitizer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "commands.h"
#include "dial.h"
#include "growth.h"
#include "handshake_server.h"

#define A_SERVER 32 /* dials to one server, which keeps what it accepted until its end */

/* The connection ends with requests out; on the next one they are answered. */
static void lose_a_connection(struct rig *rig)
{
	struct fake_request request[N];

	for (size_t i = 0; i < N; i++)
		submit(rig, &commands[i]);
	rig_send_all(rig);
	for (size_t i = 0; i < N; i++)
		take(rig, 0, &commands[i]);
	rig_close_peer(rig, 0);
	rig_wait_dead(rig, 0);
	rig_offer(rig, 0);
	rig_send_all(rig);
	for (size_t i = 0; i < N; i++)
		request[i] = take(rig, 0, &commands[i]);
	for (size_t i = 0; i < N; i++)
		answer(rig, 0, &request[i], 3);
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(rig_result(rig, commands[i].tag), commands[i].len);
		assert_int_equal(rig->front.slots[commands[i].tag].busy, false);
	}
}

static void a_queue_that_reconnects(void **state)
{
	(void)state;
	rig_quiet();
	for (size_t p = 0; p < PATHS; p++) {
		struct growth_holdings before = {0};
		struct rig rig;

		rig_begin(&rig, &all_paths[p]);
		for (unsigned int i = 0; i < GROWTH_WARM_UP + GROWTH_ROUNDS; i++) {
			if (i == GROWTH_WARM_UP)
				before = growth_measure();
			lose_a_connection(&rig);
		}
		growth_assert_none("a connection lost with six requests out", before);
		assert_int_equal(rig.queue.counters.replays, N * (GROWTH_WARM_UP + GROWTH_ROUNDS));
		assert_int_equal(rig.queue.counters.errors, 0);
		rig_end(&rig);
	}
}

/* What attaching a device makes beside ublk's part, and detaching frees. */
static void a_queue_that_is_made_and_ended(void **state)
{
	const struct rig_options options = {.sessions = 2, .max_io_bytes = 16384};
	struct growth_holdings before = {0};

	(void)state;
	for (unsigned int i = 0; i < GROWTH_WARM_UP + GROWTH_ROUNDS; i++) {
		struct rig rig;

		if (i == GROWTH_WARM_UP)
			before = growth_measure();
		rig_begin(&rig, &options);
		rig_in_step(&rig, 0, 1);
		rig_end(&rig);
	}
	growth_assert_none("a queue made and ended", before);
}

static void dial_and_hang_up(const char *where, unsigned int n)
{
	const struct gk_handshake_server_script script = {
		.size_bytes = 1 << 20,
		.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH,
		.accepted_fd = -1,
	};
	const struct gk_dial_options options = {
		.mode = GK_NBD_HANDSHAKE_GO,
		.connect_timeout_s = 30,
		.cancel_fd = -1,
	};

	while (n) {
		struct gk_handshake_server *server = gk_handshake_server_new(where, &script);
		char text[64], why[GK_DIAL_WHY_BYTES];
		struct gk_nbd_uri uri;

		assert_non_null(server);
		snprintf(text, sizeof(text), "nbd://%s:%s/", where,
			 gk_handshake_server_port(server));
		assert_int_equal(gk_nbd_uri_parse(text, why, sizeof(why), &uri), 0);
		for (unsigned int i = 0; i < A_SERVER && n; i++, n--) {
			struct gk_dialled dialled;

			if (gk_dial(&uri, &options, why, sizeof(why), &dialled))
				fail_msg("%s: %s", text, why);
			assert_int_equal(dialled.facts.size_bytes, 1 << 20);
			gk_dial_done(&dialled);
		}
		gk_nbd_uri_done(&uri);
		gk_handshake_server_free(server);
	}
}

static void dialling(void **state)
{
	struct growth_holdings before;

	(void)state;
	dial_and_hang_up("127.0.0.1", GROWTH_WARM_UP);
	before = growth_measure();
	dial_and_hang_up("127.0.0.1", GROWTH_ROUNDS);
	growth_assert_none("dialled and hung up", before);
}

/* The test would see it: a descriptor, and memory. */
static void growth_is_seen(void **state)
{
	struct growth_holdings before = growth_measure(), after;
	int fd = dup(0);
	void *volatile memory = malloc(100);

	(void)state;
	after = growth_measure();
	assert_int_equal(after.descriptors, before.descriptors + 1);
	close(fd);
	if (!GROWTH_SANITIZED)
		assert_in_range(after.heap_bytes - before.heap_bytes, 100, 200);
	free(memory);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(growth_is_seen),
		cmocka_unit_test(a_queue_that_reconnects),
		cmocka_unit_test(a_queue_that_is_made_and_ended),
		cmocka_unit_test(dialling),
	};

	(void)argc;
	growth_prepare(argv);
	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
