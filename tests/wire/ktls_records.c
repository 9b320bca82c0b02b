// SPDX-License-Identifier: MIT
/*
 * TLS by the kernel below a session: records that are no data. Needs a kernel with TLS, so it runs
 * in guests, by tests/e2e/test-tls-records-that-are-no-data.sh.
 */
#include <string.h>

#include "taker.h"
#include "tls_peer.h"
#include "wire_rig.h"

#define HOUR_NS UINT64_C(3600000000000)

static void tickets_are_dropped(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.ktls = true});
	for (uint16_t round = 0; round < 20; round++) {
		tls_peer_ticket(rig.tls[0]);
		rig_in_step(&rig, 0, round % 8);
	}
	assert_int_equal(rig.queue.counters.errors, 0);
	rig_end(&rig);
}

/* In front of every answer, while large payloads are received straight to their place. */
static void tickets_between_payloads_are_dropped(void **state)
{
	static const struct gk_path *const paths[] = {&mem_path_single, &mem_path_paired};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct rig rig;

		rig_begin(&rig, &(struct rig_options){
					.ktls = true, .path = paths[i], .threshold_bytes = 512});
		for (uint16_t round = 0; round < 20; round++) {
			tls_peer_ticket(rig.tls[0]);
			rig_in_step(&rig, 0, round % 8);
		}
		assert_true(rig.queue.counters.direct_receives >= 20);
		assert_int_equal(rig.queue.counters.errors, 0);
		rig_end(&rig);
	}
}

/* The kernel cannot follow: the connection ends, and what it carried goes to the next one. */
static void change_keys(bool only_send)
{
	struct rig rig;

	rig_begin(&rig, &(struct rig_options){
				.ktls = true, .ktls_send = only_send, .retry = {.replay = true}});
	for (int round = 0; round < 3; round++) {
		struct fake_request request = rig_request(&rig, 0, 1, NBD_CMD_READ, 4096, 512);
		uint8_t content[512];

		rig_pattern(content, 4096, sizeof(content), 5);
		tls_peer_new_keys(rig.tls[0]);
		rig_answer(&rig, 0, &request, content);
		rig_wait_dead(&rig, 0);
		assert_true(rig.front.slots[1].busy);
		rig_offer(&rig, 0);
		rig_send_all(&rig);
		assert_true(fake_take(rig.peer[0], &request));
		rig_answer(&rig, 0, &request, content);
		assert_int_equal(rig_result(&rig, 1), 512);
		assert_memory_equal(mem_front_data(&rig.queue, 1), content, sizeof(content));
	}
	assert_int_equal(rig.queue.counters.errors, 0);
	rig_end(&rig);
}

static void new_keys_end_the_connection_and_nothing_else(void **state)
{
	(void)state;
	change_keys(false);
	/* OpenSSL receives and could go on, but not answer: the kernel has the keys to send with. */
	change_keys(true);
}

/*
 * In front of the answer to a READ, while the server takes no more of a large WRITE: that goes
 * whole to the next connection, once the server has ended the old one. Where the kernel receives, it
 * decrypts nothing more without the new keys, and the end shows only below TLS.
 */
static void new_keys_under_a_write_cost_no_byte(void **state)
{
	static struct taker taker;

	(void)state;
	for (int only_send = 0; only_send < 2; only_send++) {
		struct fake_request request;
		uint8_t content[512];
		struct rig rig;

		rig_begin(&rig, &(struct rig_options){.ktls = true, .ktls_send = only_send,
						      .max_io_bytes = TAKER_BYTES,
						      .sndbuf_bytes = 16 * 1024,
						      .retry = {.replay = true,
								.fence_strict = true,
								.fence_timeout_ns = HOUR_NS}});
		request = rig_request(&rig, 0, 1, NBD_CMD_READ, 4096, 512);
		tls_peer_hold(rig.tls[0], true);
		rig_pattern(mem_front_data(&rig.queue, 0), 0, TAKER_BYTES, 7);
		mem_front_submit(&rig.queue, 0, NBD_CMD_WRITE, 0, 0, TAKER_BYTES);
		rig_pattern(content, 4096, sizeof(content), 5);
		tls_peer_new_keys(rig.tls[0]);
		rig_answer(&rig, 0, &request, content);
		assert_int_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
		/* That nothing more can be read is no end. */
		while (!only_send && !rig.queue.sessions[0].blind &&
		       rig.queue.sessions[0].state == GK_SESSION_FENCING)
			rig_turn(&rig);
		assert_int_equal(rig.queue.sessions[0].state, GK_SESSION_FENCING);
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		rig_offer(&rig, 0);
		/* The READ, whose answer came behind the new keys, is asked for again as well. */
		taker.is_second = true;
		taker_start(&taker, &rig, 0);
		taker_check(&taker, &rig, 0, 7);
		assert_int_equal(taker.first.type, NBD_CMD_READ);
		rig_answer(&rig, 0, &taker.first, content);
		rig_run(&rig);
		assert_memory_equal(mem_front_data(&rig.queue, 1), content, sizeof(content));
		assert_int_equal(rig.queue.counters.errors, 0);
		assert_int_equal(rig.queue.counters.unfenced_replays, 0);
		rig_end(&rig);
	}
}

static void cut_or_closed_the_connection_is_dead(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.ktls = true});
	for (int cut = 0; cut < 2; cut++) {
		rig_in_step(&rig, 0, 0);
		if (cut)
			tls_peer_cut(rig.tls[0]);
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		assert_int_equal(rig.queue.sessions[0].end, GK_SESSION_END_CLOSED);
		rig_connect(&rig, 0);
	}
	rig_in_step(&rig, 0, 0);
	rig_end(&rig);
}

/* Bytes that somebody puts into the stream. */
static void what_does_not_decrypt_never_becomes_data(void **state)
{
	static const uint8_t made_up[32] = {23, 3, 3, 0, 27, 1, 2, 3};
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.ktls = true});
	rig_in_step(&rig, 0, 0);
	mem_front_submit(&rig.queue, 1, NBD_CMD_READ, 0, 0, 512);
	rig_send_all(&rig);
	assert_int_equal(send(tls_peer_raw(rig.tls[0]), made_up, sizeof(made_up), 0),
			 sizeof(made_up));
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig_result(&rig, 1), -EIO);
	rig_connect(&rig, 0);
	rig_in_step(&rig, 0, 0);
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tickets_are_dropped),
		cmocka_unit_test(tickets_between_payloads_are_dropped),
		cmocka_unit_test(new_keys_end_the_connection_and_nothing_else),
		cmocka_unit_test(new_keys_under_a_write_cost_no_byte),
		cmocka_unit_test(cut_or_closed_the_connection_is_dead),
		cmocka_unit_test(what_does_not_decrypt_never_becomes_data),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
