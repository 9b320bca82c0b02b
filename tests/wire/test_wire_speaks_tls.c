// SPDX-License-Identifier: MIT
/*
 * TLS in user space below a session: what is TLS's own business leaves the stream in step, and
 * what breaks TLS ends the connection and nothing else.
 */
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "taker.h"
#include "tls_peer.h"
#include "tls_records.h"
#include "wire_rig.h"

#define KIB 1024

/* Each time in front of the answer to a READ, while the server takes no more of a large WRITE. */
static void new_keys_under_a_write_change_nothing(void **state)
{
	static struct taker taker;
	struct gk_session *session;
	struct fake_request reads[4];
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.tls = true,
					      .max_io_bytes = TAKER_BYTES,
					      .sndbuf_bytes = 16 * KIB});
	session = &rig.queue.sessions[0];
	for (uint16_t i = 0; i < 4; i++)
		reads[i] = rig_request(&rig, 0, (uint16_t)(i + 1), NBD_CMD_READ, i * 512, 512);
	tls_peer_hold(rig.tls[0], true);
	rig_pattern(mem_front_data(&rig.queue, 0), 0, TAKER_BYTES, 7);
	mem_front_submit(&rig.queue, 0, NBD_CMD_WRITE, 0, 0, TAKER_BYTES);
	while (!session->tls->sent)
		rig_turn(&rig);
	for (uint16_t i = 0; i < 4; i++) {
		uint8_t content[512];

		rig_pattern(content, i * 512, sizeof(content), 5);
		tls_peer_new_keys(rig.tls[0]);
		rig_answer(&rig, 0, &reads[i], content);
		assert_int_equal(rig_result(&rig, (uint16_t)(i + 1)), 512);
		assert_memory_equal(mem_front_data(&rig.queue, (uint16_t)(i + 1)), content, 512);
		assert_true(session->send_owed && session->tls->sent < session->tls->tls->out_len);
	}
	/* Ours follow behind what is in flight: the fifth pair of keys is for the next record. */
	assert_int_equal(session->tls->tls->records->seal.n, 0);
	taker_start(&taker, &rig, 0);
	tls_peer_hold(rig.tls[0], false);
	taker_check(&taker, &rig, 0, 7);
	rig_run(&rig);
	assert_int_equal(session->tls->tls->out_len, 0);
	rig_in_step(&rig, 0, 1);
	assert_int_equal(rig.queue.counters.errors, 0);
	rig_end(&rig);
}

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

/* Ours are used up now and then. */
static void keys_of_our_own_renewal_change_nothing(void **state)
{
	struct gk_tls_records *records;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.tls = true});
	records = rig.queue.sessions[0].tls->tls->records;
	records->renew_after = 3;
	for (uint16_t round = 0; round < 20; round++) {
		rig_in_step(&rig, 0, round % 8);
		assert_true(records->seal.n <= 3);
	}
	assert_int_equal(rig.queue.counters.errors, 0);
	rig_end(&rig);
}

/* Of a large request every byte arrives, in records that are full but for the last. */
static void large_payloads_fill_their_records(void **state)
{
	static struct taker taker;
	struct gk_tls *tls;
	struct rig rig;
	uint64_t before;

	(void)state;
	rig_begin(&rig, &(struct rig_options){.tls = true, .max_io_bytes = TAKER_BYTES});
	tls = rig.queue.sessions[0].tls->tls;
	before = tls->sent.records;
	rig_pattern(mem_front_data(&rig.queue, 0), 0, TAKER_BYTES, 7);
	taker_start(&taker, &rig, 0);
	mem_front_submit(&rig.queue, 0, NBD_CMD_WRITE, 0, 0, TAKER_BYTES);
	taker_check(&taker, &rig, 0, 7);
	rig_run(&rig);
	assert_int_equal(tls->sent.records - before, sizeof(taker.bytes) / GK_TLS_PLAIN_BYTES + 1);
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

/* Until the other end has taken what was sent to it: false when it is gone. */
static bool is_taken(int fd)
{
	for (;;) {
		struct pollfd end = {.fd = fd};
		int n;

		assert_int_equal(ioctl(fd, SIOCOUTQ, &n), 0);
		if (poll(&end, 1, 0) > 0)
			return false;
		if (!n)
			return true;
		sched_yield();
	}
}

/*
 * Of the relay that these tests stand on. Who half-closes a connection (a fence) takes its end for
 * the server's: it must not come while the server still works off what it holds.
 */
static void the_end_of_a_connection_is_that_of_its_server(void **state)
{
	struct tls_peer *peer;
	struct gk_tls *tls;
	int fds[2], server;
	char byte;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	peer = tls_peer_new(fds[1], "1.3");
	server = tls_peer_fd(peer);
	tls = tls_peer_connect(fds[0]);
	assert_int_equal(shutdown(fds[0], SHUT_WR), 0);
	assert_int_equal(recv(server, &byte, 1, 0), 0);
	for (int answer = 0; answer < 3; answer++) {
		assert_int_equal(send(server, "x", 1, MSG_NOSIGNAL), 1);
		assert_true(is_taken(server));
	}
	close(server);
	while (recv(fds[0], &byte, 1, 0) > 0)
		;
	tls_peer_forget(peer);
	gk_tls_free(tls);
	close(fds[0]);
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
		cmocka_unit_test(new_keys_under_a_write_change_nothing),
		cmocka_unit_test(new_keys_in_the_middle_change_nothing),
		cmocka_unit_test(keys_of_our_own_renewal_change_nothing),
		cmocka_unit_test(large_payloads_fill_their_records),
		cmocka_unit_test(cut_or_closed_the_connection_is_dead),
		cmocka_unit_test(the_end_of_a_connection_is_that_of_its_server),
		cmocka_unit_test(what_does_not_decrypt_never_becomes_data),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
