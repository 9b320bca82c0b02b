// SPDX-License-Identifier: GPL-2.0
/* SEND_ZC of a group buffer: the pages are lent until the notification, not until the result. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net.h"
#include "prov.h"
#include "ring.h"
#include "tap.h"

#define LEADER 1000
#define NEXT   2000
#define DATA   3
#define SIZE   262144

static struct ring_log events;

static const unsigned int modes[] = {
	0,
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
};

static int filled_provider(void)
{
	int provider = prov_open_pages(SIZE / 4096);

	prov_fill(provider, DATA, 0, SIZE);
	return provider;
}

/*
 * The peer does not read: its small window closes, most of the data stays unacknowledged in our
 * socket, and with it our pages. So there is a result but no notification, and the buffer is out.
 */
static void buffer_is_out_until_the_notification(void)
{
	for (unsigned int m = 0; m < 2; m++) {
		int provider = filled_provider(), fds[2];
		struct ring ring;

		events.count = 0;
		net_tcp_pair(fds, 4 * SIZE, 4096);
		ring_open(&ring, 16, modes[m]);
		prov_lend(&ring, LEADER, GROUP | LINK, provider, GKT_DIR_TAKE);
		ring_msg(&ring, IORING_OP_SEND_ZC, 1, KBUF, fds[0], 0, SIZE, MSG_WAITALL);
		ring_nop(&ring, NEXT, 0);
		CHECK_EQ(ring_submit(&ring), 3);
		ring_reap(&ring, &events, 1);
		CHECK_EQ(log_res(&events, 1), SIZE);
		CHECK(events.cqe[0].flags & IORING_CQE_F_MORE);
		ring_check_quiet(&ring);
		CHECK_EQ(prov_stats(provider).provided, 1);
		CHECK_EQ(prov_stats(provider).released, 0);

		peer_join(peer_read(fds[1], DATA, 0, SIZE));
		ring_reap(&ring, &events, 3);
		CHECK_EQ(log_notif(&events, 1), 1);
		CHECK_EQ(log_index(&events, LEADER), 2);
		CHECK_EQ(log_index(&events, NEXT), 3);
		CHECK_EQ(log_res(&events, LEADER), SIZE);
		CHECK_EQ(log_res(&events, NEXT), 0);
		prov_check_returned(provider, 1);
		ring_close(&ring);
		close(fds[0]);
		close(fds[1]);
		close(provider);
	}
}

static void several_zero_copy_members(void)
{
	for (unsigned int m = 0; m < 2; m++) {
		int provider = filled_provider(), fds[3][2];
		struct ring ring;

		events.count = 0;
		ring_open(&ring, 16, modes[m]);
		prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
		for (uint64_t i = 0; i < 3; i++) {
			struct io_uring_sqe *sqe;

			net_tcp_pair(fds[i], 4 * SIZE, 0);
			sqe = ring_msg(&ring, IORING_OP_SEND_ZC, i, KBUF | (i < 2 ? GROUP : 0),
				       fds[i][0], 1000 * i, SIZE / 4, MSG_WAITALL);
			sqe->ioprio = IORING_SEND_ZC_REPORT_USAGE;
		}
		CHECK_EQ(ring_submit(&ring), 4);
		ring_run(&ring);
		for (uint64_t i = 0; i < 3; i++)
			peer_join(peer_read(fds[i][1], DATA, 1000 * i, SIZE / 4));
		ring_reap(&ring, &events, 7);
		CHECK_EQ(log_index(&events, LEADER), 6);
		for (uint64_t i = 0; i < 3; i++) {
			unsigned int usage = (unsigned int)events.cqe[log_notif(&events, i)].res;

			CHECK_EQ(log_res(&events, i), SIZE / 4);
			CHECK(log_notif(&events, i) > log_index(&events, i));
			CHECK(usage == 0 || usage == IORING_NOTIF_USAGE_ZC_COPIED);
		}
		prov_check_returned(provider, 1);
		ring_close(&ring);
	}
}

/* Three completions, of which the last two come from one piece of task work. */
static void waiter_is_woken_by_the_notification(void)
{
	int provider = filled_provider(), fds[2], status;
	pid_t self = getpid(), peer;
	struct ring ring;
	uint64_t start;

	net_tcp_pair(fds, 4 * SIZE, 4096);
	ring_open(&ring, 16, modes[1]);
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
	ring_msg(&ring, IORING_OP_SEND_ZC, 1, KBUF, fds[0], 0, SIZE, MSG_WAITALL);
	peer = (pid_t)CHECK_SYS(fork());
	if (peer == 0) {
		char *data = check_alloc(SIZE);

		wait_asleep(self);
		net_read(fds[1], data, SIZE);
		CHECK_EQ(pattern_differs(data, DATA, 0, SIZE), -1);
		_exit(0);
	}
	start = tap_now_ms();
	CHECK_EQ(ring_submit_wait(&ring, 3), 2);
	CHECK(tap_now_ms() - start < (uint64_t)tap_patience_ms() / 2);
	for (int i = 0; i < 3; i++)
		CHECK(ring_peek(&ring, &events.cqe[i]));
	events.count = 3;
	CHECK_EQ(log_index(&events, 1), 0);
	CHECK_EQ(log_notif(&events, 1), 1);
	CHECK_EQ(log_index(&events, LEADER), 2);
	CHECK_SYS(waitpid(peer, &status, 0));
	CHECK_EQ(status, 0);
	prov_check_returned(provider, 1);
}

static void failing_zero_copy_members(void)
{
	int provider = filled_provider(), fds[2];
	struct ring ring;

	/* Not TCP: no zero copy. A closed connection. A window behind the end. */
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
	net_unix_pair(fds);
	ring_msg(&ring, IORING_OP_SEND_ZC, 1, KBUF | GROUP, fds[0], 0, SIZE, 0);
	net_tcp_pair(fds, 0, 0);
	shutdown(fds[0], SHUT_WR);
	ring_msg(&ring, IORING_OP_SEND_ZC, 2, KBUF | GROUP, fds[0], 0, SIZE, MSG_NOSIGNAL);
	ring_msg(&ring, IORING_OP_SEND_ZC, 3, KBUF, fds[0], 1, SIZE, 0);
	CHECK_EQ(ring_submit(&ring), 4);
	ring_reap_ended(&ring, &events, 4);
	CHECK_EQ(log_res(&events, 1), -EOPNOTSUPP);
	CHECK_EQ(log_res(&events, 2), -EPIPE);
	CHECK_EQ(log_res(&events, 3), -EFAULT);
	for (uint64_t i = 1; i <= 3; i++)
		if (events.cqe[log_index(&events, i)].flags & IORING_CQE_F_MORE)
			CHECK(log_notif(&events, i) < log_index(&events, LEADER));
	CHECK_EQ(log_res(&events, LEADER), SIZE);
	ring_check_quiet(&ring);
	prov_check_returned(provider, 1);
	ring_close(&ring);
}

/* A connection that is reset gives its pages back. */
static void reset_returns_the_buffer(void)
{
	int provider = filled_provider(), fds[2];
	struct ring ring;

	net_tcp_pair(fds, 4 * SIZE, 4096);
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
	ring_msg(&ring, IORING_OP_SEND_ZC, 1, KBUF, fds[0], 0, SIZE, MSG_WAITALL);
	CHECK_EQ(ring_submit(&ring), 2);
	ring_reap(&ring, &events, 1);
	CHECK_EQ(prov_stats(provider).released, 0);
	net_reset(fds[1]);
	ring_reap(&ring, &events, 2);
	CHECK_EQ(log_notif(&events, 1), 1);
	CHECK_EQ(log_res(&events, LEADER), SIZE);
	prov_check_returned(provider, 1);
	ring_close(&ring);
}

static void zero_copy_from(uint16_t kind, uint16_t order, int zc_res)
{
	const struct gkt_seg segs[] = {
		{.kind = GKT_SEG_PAGE, .len = 4096},
		{.kind = kind, .order = order, .len = 3000},
	};
	int provider = prov_open(), fds[2];
	struct ring ring;

	events.count = 0;
	prov_layout(provider, segs, 2);
	prov_fill(provider, DATA, 0, 7096);
	net_tcp_pair(fds, 0, 0);
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
	ring_msg(&ring, IORING_OP_SEND_ZC, 1, KBUF, fds[0], 0, 7096, MSG_WAITALL);
	CHECK_EQ(ring_submit(&ring), 2);
	ring_reap_ended(&ring, &events, 2);
	CHECK_EQ(log_res(&events, 1), zc_res);
	prov_check_returned(provider, 1);
	if (zc_res > 0)
		peer_join(peer_read(fds[1], DATA, 0, 7096));

	/* The part of the buffer that can be referenced goes out, and all of it with SEND. */
	events.count = 0;
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
	ring_msg(&ring, IORING_OP_SEND_ZC, 1, KBUF, fds[0], 0, 4096, MSG_WAITALL);
	CHECK_EQ(ring_submit(&ring), 2);
	ring_reap(&ring, &events, 3);
	CHECK_EQ(log_res(&events, 1), 4096);
	peer_join(peer_read(fds[1], DATA, 0, 4096));
	events.count = 0;
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
	ring_msg(&ring, IORING_OP_SEND, 1, KBUF, fds[0], 0, 7096, MSG_WAITALL);
	CHECK_EQ(ring_submit(&ring), 2);
	ring_reap(&ring, &events, 2);
	CHECK_EQ(log_res(&events, 1), 7096);
	peer_join(peer_read(fds[1], DATA, 0, 7096));
	prov_check_returned(provider, 3);
	ring_close(&ring);
	close(provider);
}

static void pages_that_cannot_be_referenced_are_refused(void)
{
	zero_copy_from(GKT_SEG_PAGE, 0, 7096);
	zero_copy_from(GKT_SEG_FOLIO, 2, 7096);
	zero_copy_from(GKT_SEG_SLAB, 0, -EOPNOTSUPP);
	zero_copy_from(GKT_SEG_TAIL, 2, -EOPNOTSUPP);
}

/* Kernel TLS takes references to the pages as SEND_ZC does, and it does so in plain SEND. */
static void upper_layer_from(uint16_t kind, uint16_t order, int res)
{
	const struct gkt_seg segs[] = {
		{.kind = GKT_SEG_PAGE, .len = 4096},
		{.kind = kind, .order = order, .len = 3000},
	};
	int provider = prov_open(), fds[2], file;
	struct ring ring;

	events.count = 0;
	prov_layout(provider, segs, 2);
	prov_fill(provider, DATA, 0, 7096);
	net_tcp_pair(fds, 0, 0);
	CHECK_SYS(setsockopt(fds[0], IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")));
	file = (int)CHECK_SYS(dup(fds[0]));
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP | LINK, provider, GKT_DIR_TAKE);
	ring_msg(&ring, IORING_OP_SEND, 1, KBUF, fds[0], 0, 7096, MSG_WAITALL);
	prov_lend(&ring, LEADER + 1, GROUP, provider, GKT_DIR_TAKE);
	ring_rw(&ring, IORING_OP_WRITE, 2, KBUF, file, 4096, 3000, 0);
	CHECK_EQ(ring_submit(&ring), 4);
	ring_reap(&ring, &events, 4);
	CHECK_EQ(log_res(&events, 1), res < 0 ? res : 7096);
	CHECK_EQ(log_res(&events, 2), res < 0 ? -ECANCELED : 3000);
	if (res == 0) {
		peer_join(peer_read(fds[1], DATA, 0, 7096));
		peer_join(peer_read(fds[1], DATA, 4096, 3000));
	}
	prov_check_returned(provider, -1);
	ring_close(&ring);
	close(provider);
}

static void pages_for_kernel_tls(void)
{
	upper_layer_from(GKT_SEG_PAGE, 0, 0);
	upper_layer_from(GKT_SEG_FOLIO, 2, 0);
	upper_layer_from(GKT_SEG_SLAB, 0, -EOPNOTSUPP);
	upper_layer_from(GKT_SEG_TAIL, 2, -EOPNOTSUPP);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"28: the buffer is out until the notification",
		 buffer_is_out_until_the_notification, 0},
		{"28: several zero-copy members", several_zero_copy_members, 0},
		{"28: zero-copy members that fail", failing_zero_copy_members, 0},
		{"28: a reset returns the buffer", reset_returns_the_buffer, 0},
		{"11: a waiter is woken by the notification", waiter_is_woken_by_the_notification,
		 0},
		{"29: pages that cannot be referenced are refused",
		 pages_that_cannot_be_referenced_are_refused, 0},
		{"29: nor are they given to a socket with kernel TLS", pages_for_kernel_tls, 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
