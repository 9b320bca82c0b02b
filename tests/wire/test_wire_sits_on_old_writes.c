// SPDX-License-Identifier: MIT
/*
 * A server may still hold a write of a connection that we have given up, and apply it after its
 * replay. The old connection is fenced: its end is awaited before a write is sent again.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "wire_rig.h"

#define MS   UINT64_C(1000000)
#define HOUR (UINT64_C(3600000) * MS)
#define YEAR (UINT64_C(8766) * HOUR)
#define LEN  4096

static const struct rig_options patient = {
	.retry = {.replay = true, .fence_timeout_ns = HOUR},
};
static const struct rig_options hasty = {.retry = {.replay = true, .fence_timeout_ns = MS}};
static const struct rig_options strict = {
	.retry = {.replay = true, .fence_strict = true, .fence_timeout_ns = MS},
};

static void submit_write(struct rig *rig, uint16_t tag, uint64_t offset)
{
	rig_pattern(mem_front_data(&rig->queue, tag), offset, LEN, tag);
	mem_front_submit(&rig->queue, tag, NBD_CMD_WRITE, 0, offset, LEN);
}

/* The server sees all that was sent, and then the half-close. */
static void assert_half_closed(int fd)
{
	uint8_t bytes[4096];
	ssize_t n;

	while ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		;
	assert_int_equal(n, 0);
}

static void assert_sent_again(struct rig *rig, uint16_t tag, uint64_t offset)
{
	struct fake_request request;
	uint8_t expected[LEN];
	uint8_t got[LEN];

	assert_true(fake_take(rig->peer[0], &request));
	assert_int_equal(request.type, NBD_CMD_WRITE);
	assert_int_equal(request.offset, offset);
	assert_true(fake_take_bytes(rig->peer[0], got, LEN));
	rig_pattern(expected, offset, LEN, tag);
	assert_memory_equal(got, expected, LEN);
	rig_answer(rig, 0, &request, NULL);
	assert_int_equal(rig_result(rig, tag), LEN);
}

static void a_server_that_closes_ends_the_fence(void **state)
{
	static const struct rig_options *options[] = {&patient, &strict};

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct rig rig;

		rig_begin(&rig, options[i]);
		submit_write(&rig, 3, 8192);
		rig_send_all(&rig);
		rig_babble(&rig, 0);
		assert_int_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
		assert_half_closed(rig.peer[0]);
		rig_close_peer(&rig, 0);
		rig_wait_dead(&rig, 0);
		assert_int_equal(rig.queue.sessions[0].end, GK_SESSION_END_OURS);
		rig_offer(&rig, 0);
		rig_send_all(&rig);
		assert_sent_again(&rig, 3, 8192);
		assert_int_equal(rig.queue.counters.replays, 1);
		assert_int_equal(rig.queue.counters.unfenced_replays, 0);
		rig_end(&rig);
	}
}

static void a_server_that_died_needs_no_fence(void **state)
{
	struct rig rig;

	(void)state;
	for (unsigned int unread = 0; unread < 2; unread++) {
		rig_begin(&rig, &strict);
		submit_write(&rig, 3, 8192);
		rig_send_all(&rig);
		/* A socket that is closed with bytes in it resets the connection. */
		if (!unread) {
			uint8_t bytes[sizeof(struct nbd_request) + LEN];

			assert_true(fake_take_bytes(rig.peer[0], bytes, sizeof(bytes)));
		}
		rig_close_peer(&rig, 0);
		assert_int_not_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
		rig_wait_dead(&rig, 0);
		assert_int_equal(rig.queue.sessions[0].end,
				 unread ? GK_SESSION_END_RESET : GK_SESSION_END_CLOSED);
		assert_int_equal(rig.queue.counters.unfenced_replays, 0);
		rig_offer(&rig, 0);
		rig_send_all(&rig);
		assert_sent_again(&rig, 3, 8192);
		rig_end(&rig);
	}
}

/* Every write that goes out again is counted, and nothing but writes. */
static void a_server_that_does_not_close_is_waited_for_and_counted(void **state)
{
	struct rig rig;
	int old;

	(void)state;
	rig_begin(&rig, &hasty);
	submit_write(&rig, 0, 0);
	mem_front_submit(&rig.queue, 1, NBD_CMD_READ, 0, 8192, 512);
	mem_front_submit(&rig.queue, 2, NBD_CMD_TRIM, 0, 16384, 512);
	mem_front_submit(&rig.queue, 3, NBD_CMD_FLUSH, 0, 0, 0);
	mem_front_submit(&rig.queue, 4, NBD_CMD_WRITE_ZEROES, 0, 32768, 512);
	rig_send_all(&rig);
	rig_babble(&rig, 0);
	assert_int_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
	assert_int_equal(rig.queue.counters.unfenced_replays, 0);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig.queue.sessions[0].end, GK_SESSION_END_UNKNOWN);
	assert_int_equal(rig.queue.counters.replays, 5);
	assert_int_equal(rig.queue.counters.unfenced_replays, 3);
	old = rig_take_peer(&rig, 0);
	rig_offer(&rig, 0);
	rig_send_all(&rig);
	assert_sent_again(&rig, 0, 0);
	rig_end(&rig);
	close(old);
}

static void reads_and_answered_writes_need_no_fence(void **state)
{
	struct fake_request request;
	uint8_t payload[LEN];
	struct rig rig;

	(void)state;
	rig_begin(&rig, &strict);
	submit_write(&rig, 0, 0);
	rig_send_all(&rig);
	assert_true(fake_take(rig.peer[0], &request));
	assert_true(fake_take_bytes(rig.peer[0], payload, LEN));
	rig_answer(&rig, 0, &request, NULL);
	assert_int_equal(rig_result(&rig, 0), LEN);
	rig_request(&rig, 0, 1, NBD_CMD_READ, 8192, 512);
	rig_request(&rig, 0, 2, NBD_CMD_FLUSH, 0, 0);
	rig_babble(&rig, 0);
	assert_int_not_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
	rig_wait_dead(&rig, 0);
	rig_offer(&rig, 0);
	assert_int_equal(rig.queue.counters.replays, 2);
	assert_int_equal(rig.queue.counters.unfenced_replays, 0);
	rig_end(&rig);
}

/* It has had its chance: after the half-close its answers come too late, right ones too. */
static void answers_behind_the_fence_are_not_heard(void **state)
{
	struct fake_request request;
	struct fake_request read;
	struct rig rig;
	uint8_t payload[LEN];

	(void)state;
	rig_begin(&rig, &strict);
	submit_write(&rig, 0, 0);
	rig_send_all(&rig);
	assert_true(fake_take(rig.peer[0], &request));
	assert_true(fake_take_bytes(rig.peer[0], payload, LEN));
	read = rig_request(&rig, 0, 1, NBD_CMD_READ, 8192, LEN);
	rig_babble(&rig, 0);
	assert_int_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
	rig_answer(&rig, 0, &request, NULL);
	rig_answer(&rig, 0, &read, payload);
	assert_half_closed(rig.peer[0]);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	assert_true(rig.front.slots[0].busy);
	assert_true(rig.front.slots[1].busy);
	rig_offer(&rig, 0);
	rig_send_all(&rig);
	assert_sent_again(&rig, 0, 0);
	rig_end(&rig);
}

/* Not even when it came in one piece with the lie. */
static void an_answer_right_behind_a_lie_is_not_heard(void **state)
{
	struct fake_bytes bytes = {0};
	struct fake_request request;
	struct rig rig;
	uint8_t payload[LEN];

	(void)state;
	rig_begin(&rig, &strict);
	submit_write(&rig, 0, 0);
	rig_send_all(&rig);
	assert_true(fake_take(rig.peer[0], &request));
	assert_true(fake_take_bytes(rig.peer[0], payload, LEN));
	fake_put_simple(&bytes, request.cookie ^ 1, 0);
	fake_put_simple(&bytes, request.cookie, 0);
	rig_say(&rig, 0, &bytes);
	fake_bytes_done(&bytes);
	assert_int_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	assert_true(rig.front.slots[0].busy);
	rig_end(&rig);
}

static void a_server_may_talk_on_behind_the_fence(void **state)
{
	static const uint8_t talk[65536];
	size_t said = 0;
	struct rig rig;

	(void)state;
	rig_begin(&rig, &strict);
	submit_write(&rig, 0, 0);
	rig_send_all(&rig);
	rig_babble(&rig, 0);
	assert_int_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
	while (said < 3 * GK_STAGING_BYTES) {
		ssize_t n = send(rig.peer[0], talk, sizeof(talk), MSG_DONTWAIT | MSG_NOSIGNAL);

		assert_true(n > 0);
		said += (size_t)n;
		rig_turn(&rig);
	}
	assert_int_equal(rig.queue.sessions[0].state, GK_SESSION_FENCING);
	assert_half_closed(rig.peer[0]);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig.queue.sessions[0].end, GK_SESSION_END_OURS);
	assert_true(rig.front.slots[0].busy);
	rig_end(&rig);
}

static void strict_waits_for_ever(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &strict);
	submit_write(&rig, 0, 0);
	rig_send_all(&rig);
	rig_babble(&rig, 0);
	assert_int_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
	assert_false(gk_session_needs_tick(&rig.queue));
	rig.queue.now_ns += YEAR;
	gk_session_tick(&rig.queue);
	assert_int_equal(rig.queue.sessions[0].state, GK_SESSION_FENCING);
	/* But the device can be removed. */
	gk_mail_order(&rig.queue.mail, false, true);
	assert_int_equal(rig_result(&rig, 0), -EIO);
	assert_int_equal(rig.queue.counters.unfenced_replays, 0);
	rig_end(&rig);
}

static void an_order_to_abort_waits_for_no_fence(void **state)
{
	struct rig rig;

	(void)state;
	rig_begin(&rig, &patient);
	submit_write(&rig, 0, 0);
	rig_send_all(&rig);
	rig_babble(&rig, 0);
	assert_int_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
	gk_mail_order(&rig.queue.mail, true, true);
	assert_int_equal(rig_result(&rig, 0), -EIO);
	rig_wait_dead(&rig, 0);
	rig_end(&rig);
}

/* Other connections of the queue work on; what the fence holds back goes nowhere meanwhile. */
static void a_fence_holds_up_only_its_own_requests(void **state)
{
	struct rig_options options = patient;
	struct fake_request request;
	struct rig rig;

	(void)state;
	options.sessions = 2;
	rig_begin(&rig, &options);
	submit_write(&rig, 0, 0);
	rig_send_all(&rig);
	rig_babble(&rig, 0);
	assert_int_equal(rig_wait_down(&rig, 0), GK_SESSION_FENCING);
	for (uint16_t tag = 1; tag < 5; tag++)
		rig_in_step(&rig, 1, tag);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	rig_send_all(&rig);
	assert_true(fake_take(rig.peer[1], &request));
	assert_int_equal(request.type, NBD_CMD_WRITE);
	rig_end(&rig);
}

/* Two TCP sockets of which the second receives next to nothing; the first gives up soon. */
static void tcp_pair(int fds[2])
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int bytes = 1;
	int user_timeout_ms = 1;

	assert_true(listener >= 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fds[0], (struct sockaddr *)&address, len), 0);
	fds[1] = accept(listener, NULL, NULL);
	assert_true(fds[1] >= 0);
	assert_int_equal(setsockopt(fds[0], IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms,
				    sizeof(user_timeout_ms)),
			 0);
	close(listener);
}

/*
 * Our kernel gives the connection up, with TCP_USER_TIMEOUT: the server may still hold all of it.
 * Writes go again and are counted, or with a strict fence fail, and that is counted.
 */
static void our_own_kernel_gives_up(const struct rig_options *options)
{
	struct gk_session_facts facts = {.max_payload = 65536};
	bool is_strict = options->retry.fence_strict;
	struct rig rig;
	int fds[2];

	rig_begin(&rig, options);
	rig_close_peer(&rig, 0);
	rig_wait_dead(&rig, 0);
	tcp_pair(fds);
	gk_session_up(&rig.queue.sessions[0], 0, fds[0], &facts);
	for (uint16_t tag = 0; tag < 4; tag++)
		mem_front_submit(&rig.queue, tag, NBD_CMD_WRITE, 0, tag * 65536, 65536);
	while (!rig.queue.counters.sends)
		rig_turn(&rig);
	gk_session_fail(&rig.queue.sessions[0], -EAGAIN, "the test says so");
	assert_int_equal(rig.queue.sessions[0].state, GK_SESSION_FENCING);
	while (rig.queue.sessions[0].state == GK_SESSION_FENCING && !rig.queue.sessions[0].blind)
		rig_turn(&rig);
	assert_int_equal(rig.queue.sessions[0].state, GK_SESSION_FENCING);
	assert_true(gk_session_needs_tick(&rig.queue));
	rig.queue.now_ns += YEAR;
	gk_session_tick(&rig.queue);
	rig_wait_dead(&rig, 0);
	assert_int_equal(rig.queue.sessions[0].end, GK_SESSION_END_UNKNOWN);
	assert_int_equal(rig.queue.counters.unfenced_replays > 0, !is_strict);
	assert_int_equal(rig.queue.counters.unfenced_failures > 0, is_strict);
	assert_int_equal(rig.queue.counters.errors, rig.queue.counters.unfenced_failures);
	assert_int_equal(rig.queue.counters.errors + rig.queue.counters.replays, 4);
	rig_end(&rig);
	close(fds[1]);
}

static void a_time_out_of_the_network_is_not_the_servers_end(void **state)
{
	(void)state;
	our_own_kernel_gives_up(&patient);
}

static void a_strict_fence_fails_writes_when_our_own_kernel_gives_up(void **state)
{
	(void)state;
	our_own_kernel_gives_up(&strict);
}

/*
 * A server that holds a write of the old connection, its last chance to harm: it is applied when
 * the block has been written anew, or, as that does not come, when patience ends after the
 * half-close.
 */
struct sitter {
	int fd;
	uint8_t *block;
	unsigned int patience_ms; /* 0: no end */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool rewritten;
	bool applied_last; /* after the block had been rewritten */
};

static void *sit(void *arg)
{
	struct sitter *sitter = arg;
	struct fake_request request;
	struct timespec until;
	uint8_t payload[LEN];
	uint8_t byte;

	if (!fake_take(sitter->fd, &request) || !fake_take_bytes(sitter->fd, payload, LEN))
		return NULL;
	/* The write is there, but says nothing: what ends the connection is this. */
	(void)fake_send(sitter->fd, "nonsense, not replies", 21, 0);
	(void)fake_take_bytes(sitter->fd, &byte, 1);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += sitter->patience_ms * (long)MS;
	until.tv_sec += sitter->patience_ms ? until.tv_nsec / (1000 * (long)MS) : 3600;
	until.tv_nsec %= 1000 * (long)MS;
	pthread_mutex_lock(&sitter->lock);
	while (!sitter->rewritten &&
	       !pthread_cond_timedwait(&sitter->changed, &sitter->lock, &until))
		;
	memcpy(sitter->block, payload, LEN);
	sitter->applied_last = sitter->rewritten;
	pthread_mutex_unlock(&sitter->lock);
	close(sitter->fd);
	return NULL;
}

/* The block is written with A, replayed, then with B: what is there in the end? */
static void write_twice(const struct rig_options *options, unsigned int patience_ms, uint8_t *block,
			bool *ret_stale)
{
	struct sitter sitter = {
		.block = block,
		.patience_ms = patience_ms,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER,
	};
	pthread_t thread;
	struct rig rig;

	rig_begin(&rig, options);
	sitter.fd = rig_take_peer(&rig, 0);
	assert_int_equal(pthread_create(&thread, NULL, sit, &sitter), 0);
	memset(mem_front_data(&rig.queue, 0), 'A', LEN);
	mem_front_submit(&rig.queue, 0, NBD_CMD_WRITE, 0, 0, LEN);
	rig_wait_dead(&rig, 0);
	rig_offer(&rig, 0);
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_request request;

		if (i) {
			memset(mem_front_data(&rig.queue, 0), 'B', LEN);
			mem_front_submit(&rig.queue, 0, NBD_CMD_WRITE, 0, 0, LEN);
		}
		rig_send_all(&rig);
		assert_true(fake_take(rig.peer[0], &request));
		pthread_mutex_lock(&sitter.lock);
		assert_true(fake_take_bytes(rig.peer[0], block, LEN));
		pthread_mutex_unlock(&sitter.lock);
		rig_answer(&rig, 0, &request, NULL);
		assert_int_equal(rig_result(&rig, 0), LEN);
	}
	pthread_mutex_lock(&sitter.lock);
	sitter.rewritten = true;
	pthread_cond_signal(&sitter.changed);
	pthread_mutex_unlock(&sitter.lock);
	pthread_join(thread, NULL);
	assert_int_equal(rig.queue.counters.unfenced_replays, sitter.applied_last);
	*ret_stale = sitter.applied_last;
	rig_end(&rig);
}

static void an_old_write_never_overtakes_a_new_one(void **state)
{
	static const struct rig_options *options[] = {&patient, &strict};
	uint8_t block[LEN];
	uint8_t b[LEN];
	bool stale;

	(void)state;
	memset(b, 'B', LEN);
	for (unsigned int i = 0; i < 2; i++) {
		write_twice(options[i], 100, block, &stale);
		assert_false(stale);
		assert_memory_equal(block, b, LEN);
	}
}

/* So much for what the fence is for: the test before this one can fail. */
static void without_a_fence_it_does(void **state)
{
	uint8_t block[LEN];
	uint8_t a[LEN];
	bool stale;

	(void)state;
	memset(a, 'A', LEN);
	write_twice(&hasty, 0, block, &stale);
	assert_true(stale);
	assert_memory_equal(block, a, LEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_server_that_closes_ends_the_fence),
		cmocka_unit_test(a_server_that_died_needs_no_fence),
		cmocka_unit_test(a_server_that_does_not_close_is_waited_for_and_counted),
		cmocka_unit_test(reads_and_answered_writes_need_no_fence),
		cmocka_unit_test(answers_behind_the_fence_are_not_heard),
		cmocka_unit_test(an_answer_right_behind_a_lie_is_not_heard),
		cmocka_unit_test(a_server_may_talk_on_behind_the_fence),
		cmocka_unit_test(strict_waits_for_ever),
		cmocka_unit_test(an_order_to_abort_waits_for_no_fence),
		cmocka_unit_test(a_fence_holds_up_only_its_own_requests),
		cmocka_unit_test(a_time_out_of_the_network_is_not_the_servers_end),
		cmocka_unit_test(a_strict_fence_fails_writes_when_our_own_kernel_gives_up),
		cmocka_unit_test(an_old_write_never_overtakes_a_new_one),
		cmocka_unit_test(without_a_fence_it_does),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
