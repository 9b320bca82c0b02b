// SPDX-License-Identifier: MIT
/*
 * TLS in user space below a session: what is TLS's own business leaves the stream in step, and
 * what breaks TLS ends the connection and nothing else.
 */
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls_peer.h"
#include "wire_rig.h"

#define KIB 1024

static void new_keys_in_the_middle_change_nothing(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.tls = true});
	for (uint16_t round = 0; round < 20; round++) {
		tls_peer_new_keys(rig.tls[0]);
		rig_in_step(&rig, 0, round % 8);
	}
	assert_true(rig.queue.sessions[0].tls->tls->rekeyed);
	assert_int_equal(rig.queue.counters.errors, 0);
	rig_end(&rig);
}

/* The server that takes a request, on a thread of its own: it must not wait for our turns. */
struct taker {
	int fd;
	uint8_t bytes[sizeof(struct nbd_request) + 512 * KIB];
	bool whole;
};

static void *take(void *arg)
{
	struct taker *taker = arg;

	taker->whole = fake_take_bytes(taker->fd, taker->bytes, sizeof(taker->bytes));
	return NULL;
}

/* Of a large request every byte arrives, in records that are full but for the last. */
static void large_payloads_fill_their_records(void **state)
{
	static uint8_t want[512 * KIB];
	static struct taker taker;
	pthread_t thread;
	struct gk_tls *tls;
	struct rig rig;
	uint64_t before;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.tls = true, .max_io_bytes = sizeof(want)});
	tls = rig.queue.sessions[0].tls->tls;
	before = tls->sent.records;
	rig_pattern(want, 0, sizeof(want), 7);
	memcpy(mem_front_data(&rig.queue, 0), want, sizeof(want));
	taker.fd = rig.peer[0];
	assert_int_equal(pthread_create(&thread, NULL, take, &taker), 0);
	mem_front_submit(&rig.queue, 0, NBD_CMD_WRITE, 0, 0, sizeof(want));
	rig_send_all(&rig);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(taker.whole);
	assert_memory_equal(taker.bytes + sizeof(struct nbd_request), want, sizeof(want));
	assert_int_equal(tls->sent.records - before,
			 sizeof(taker.bytes) / GK_TLS_PLAIN_BYTES + 1);
	rig_end(&rig);
}

static enum gk_session_end end_of(struct rig *rig, uint16_t tag)
{
	mem_front_submit(&rig->queue, tag, NBD_CMD_FLUSH, 0, 0, 0);
	rig_close_peer(rig, 0);
	rig_wait_dead(rig, 0);
	assert_int_equal(rig_result(rig, tag), -EIO);
	return rig->queue.sessions[0].end;
}

static void cut_or_closed_the_connection_is_dead(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.tls = true});
	rig_in_step(&rig, 0, 0);
	assert_int_not_equal(end_of(&rig, 1), GK_SESSION_END_UNKNOWN);
	rig_connect(&rig, 0);
	rig_in_step(&rig, 0, 0);
	tls_peer_cut(rig.tls[0]);
	assert_int_not_equal(end_of(&rig, 1), GK_SESSION_END_UNKNOWN);
	rig_connect(&rig, 0);
	rig_in_step(&rig, 0, 0);
	rig_end(&rig);
}

/* Bytes that somebody puts into the stream, in the clear or made up. */
static void what_does_not_decrypt_never_becomes_data(void **state)
{
	static const uint8_t made_up[][32] = {
		{23, 3, 3, 0, 27, 1, 2, 3},
		{0x67, 0x44, 0x66, 0x98},
		{21, 3, 3, 0, 2, 2, 40},
	};
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.tls = true});
	for (int i = 0; i < 3; i++) {
		rig_in_step(&rig, 0, 0);
		mem_front_submit(&rig.queue, 1, NBD_CMD_READ, 0, 0, 512);
		rig_send_all(&rig);
		assert_int_equal(send(tls_peer_raw(rig.tls[0]), made_up[i], sizeof(made_up[i]), 0),
				 sizeof(made_up[i]));
		rig_wait_dead(&rig, 0);
		assert_int_equal(rig_result(&rig, 1), -EIO);
		rig_connect(&rig, 0);
	}
	rig_in_step(&rig, 0, 0);
	rig_end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_keys_in_the_middle_change_nothing),
		cmocka_unit_test(large_payloads_fill_their_records),
		cmocka_unit_test(cut_or_closed_the_connection_is_dead),
		cmocka_unit_test(what_does_not_decrypt_never_becomes_data),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
