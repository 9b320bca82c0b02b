// SPDX-License-Identifier: MIT
/*
 * A connection breaks in the middle of a chain, or of a payload for a request's own pages; what it
 * carried is sent again, from the same pages, on the next one.
 */
#include <errno.h>
#include <string.h>

#include "fake_kernel.h"

#define THRESHOLD 64
#define LEN	  150
#define SMALL	  30
#define N	  4

static const struct gk_path *const paths[] = {&mem_path_single, &mem_path_paired};

/* In the order in which they are submitted, and in which they must come again. */
static const struct {
	uint16_t type;
	uint32_t len;
} requests[N] = {
	{NBD_CMD_WRITE, LEN}, {NBD_CMD_READ, LEN}, {NBD_CMD_WRITE, SMALL}, {NBD_CMD_WRITE, LEN}};

#define STREAM_BYTES (N * sizeof(struct nbd_request) + LEN + SMALL + LEN)

static void begin(struct fake_kernel *kernel, unsigned int i)
{
	rig_quiet();
	fake_kernel_begin(kernel, &(struct rig_options){
					  .path = paths[i / 2],
					  .no_wait_all = i % 2,
					  .threshold_bytes = THRESHOLD,
					  .max_io_bytes = 8192,
					  .retry = {.replay = true},
				  });
}

static void submit_all(struct fake_kernel *kernel, unsigned int salt)
{
	for (uint16_t t = 0; t < N; t++) {
		uint8_t *data = mem_front_data(&kernel->rig.queue, t);

		if (requests[t].type == NBD_CMD_WRITE)
			rig_pattern(data, t * 512, requests[t].len, salt);
		else
			memset(data, 0x5a, requests[t].len);
		mem_front_submit(&kernel->rig.queue, t, requests[t].type, 0, t * 512,
				 requests[t].len);
	}
}

/* The next connection: all requests come again, whole, in order, and end once. */
static void serve_again(struct fake_kernel *kernel, unsigned int salt, unsigned int commits)
{
	struct fake_bytes replies = {0};
	uint8_t expected[LEN];
	uint8_t payload[LEN];

	rig_offer(&kernel->rig, 0);
	for (uint16_t t = 0; t < N; t++) {
		struct fake_request request = fake_kernel_take(kernel);

		assert_int_equal(request.type, requests[t].type);
		assert_int_equal(request.offset, t * 512);
		assert_int_equal(request.length, requests[t].len);
		rig_pattern(expected, request.offset, request.length, salt);
		fake_put_simple(&replies, request.cookie, 0);
		if (request.type == NBD_CMD_READ) {
			fake_put(&replies, expected, request.length);
			continue;
		}
		fake_kernel_take_bytes(kernel, payload, request.length);
		assert_memory_equal(payload, expected, request.length);
	}
	rig_say(&kernel->rig, 0, &replies);
	fake_bytes_done(&replies);
	fake_kernel_run(kernel);
	for (uint16_t t = 0; t < N; t++) {
		assert_int_equal(kernel->rig.front.slots[t].result, requests[t].len);
		assert_int_equal(kernel->rig.front.slots[t].commits, commits);
	}
	rig_pattern(expected, 512, LEN, salt);
	assert_memory_equal(mem_front_data(&kernel->rig.queue, 1), expected, LEN);
	assert_int_equal(kernel->rig.queue.counters.errors, 0);
}

/* Sends fail from this byte of the stream on, as on a connection that the server has reset. */
static void break_at(struct fake_kernel *kernel, size_t at)
{
	kernel->cut_send = at;
	kernel->cut_send_again = 0;
	kernel->interruption = -EPIPE;
}

static void mend(struct fake_kernel *kernel)
{
	kernel->cut_send = NEVER;
	kernel->cut_send_again = NEVER;
}

static void a_chain_that_broke_at_any_byte_is_sent_again(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;

		begin(&kernel, i);
		for (unsigned int at = 0; at < STREAM_BYTES; at++) {
			break_at(&kernel, at);
			submit_all(&kernel, at);
			while (kernel.rig.queue.sessions[0].state != GK_SESSION_DEAD)
				fake_kernel_turn(&kernel);
			mend(&kernel);
			serve_again(&kernel, at, at + 1);
		}
		assert_int_equal(kernel.rig.queue.counters.replays, N * STREAM_BYTES);
		rig_end(&kernel.rig);
	}
}

static void a_payload_that_broke_off_is_asked_for_again(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;

		begin(&kernel, i);
		for (unsigned int at = 0; at < LEN; at++) {
			struct fake_bytes reply = {0};
			uint8_t wrong[LEN];
			uint64_t cookie = 0;

			submit_all(&kernel, at);
			for (uint16_t t = 0; t < N; t++) {
				struct fake_request request = fake_kernel_take(&kernel);

				if (request.type == NBD_CMD_READ)
					cookie = request.cookie;
				else
					fake_kernel_take_bytes(&kernel, wrong, request.length);
			}
			memset(wrong, 0xee, sizeof(wrong));
			fake_put_simple(&reply, cookie, 0);
			fake_put(&reply, wrong, at);
			rig_say(&kernel.rig, 0, &reply);
			fake_bytes_done(&reply);
			if (at % 2)
				fake_kernel_settle(&kernel);
			rig_close_peer(&kernel.rig, 0);
			rig_wait_dead(&kernel.rig, 0);
			serve_again(&kernel, at, at + 1);
		}
		rig_end(&kernel.rig);
	}
}

/* Their pages are still with the network: they are not sent again before they are back. */
static void what_the_network_refers_to_waits(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct fake_kernel kernel;
		struct gk_session *session;

		begin(&kernel, i);
		session = &kernel.rig.queue.sessions[0];
		for (unsigned int at = 1; at <= STREAM_BYTES; at += 9) {
			kernel.withhold = true;
			session->send_zc = true;
			break_at(&kernel, at);
			submit_all(&kernel, at);
			/* The server closes what is whole by then; the rest has failed already. */
			fake_kernel_settle(&kernel);
			rig_close_peer(&kernel.rig, 0);
			fake_kernel_settle(&kernel);
			for (uint16_t t = 0; t < N; t++) {
				if (!kernel.rig.queue.tags[t].lent)
					continue;
				assert_int_equal(session->state, GK_SESSION_DRAINING);
				assert_true(session->reset);
				fake_kernel_notify(&kernel, t);
			}
			assert_int_equal(session->state, GK_SESSION_DEAD);
			fake_kernel_notify_cancelled(&kernel);
			mend(&kernel);
			kernel.withhold = false;
			serve_again(&kernel, at, (at + 8) / 9);
		}
		assert_true(kernel.rig.queue.counters.zc_sends > STREAM_BYTES / 9);
		rig_end(&kernel.rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_chain_that_broke_at_any_byte_is_sent_again),
		cmocka_unit_test(a_payload_that_broke_off_is_asked_for_again),
		cmocka_unit_test(what_the_network_refers_to_waits),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
