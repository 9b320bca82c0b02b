// SPDX-License-Identifier: GPL-2.0
/* Group buffers on streams that give or take a little at a time, and that end too early. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"
#include "prov.h"
#include "ring.h"
#include "tap.h"

#define LEADER 1000
#define NEXT   2000
#define CANCEL 3000
#define OLD    9
#define DATA   3
#define MIB    (1u << 20)

static struct ring_log events;

/* Threads of this process that are io_uring workers. */
static int count_workers(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	int count = 0;

	CHECK(dir != NULL);
	while ((entry = readdir(dir))) {
		char path[300], name[32] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file) && strncmp(name, "iou-wrk", 7) == 0)
			count++;
		fclose(file);
	}
	closedir(dir);
	return count;
}

static void feed(int fds[2], size_t *position, size_t len)
{
	char data[1460];

	pattern_fill(data, DATA, *position, len);
	net_write(fds[1], data, len);
	*position += len;
	net_wait_acked(fds[1]);
	net_wait_received(fds[0]);
}

static void recv_in_pieces(bool tcp)
{
	int provider = prov_open_pages(MIB / 4096 + 2), fds[2];
	size_t position = 0, rest;
	struct ring_cqe cqe;
	struct ring ring;

	events.count = 0;
	prov_fill(provider, OLD, 0, prov_bytes(provider));
	if (tcp)
		net_tcp_pair(fds, 0, 0);
	else
		net_unix_pair(fds);
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_FILL);
	ring_msg(&ring, IORING_OP_RECV, 1, KBUF, fds[0], 100, MIB, MSG_WAITALL);
	CHECK_EQ(ring_submit(&ring), 2);
	/* Each piece is gone from the queue before the next one comes: a wake-up of its own. */
	feed(fds, &position, 1);
	for (int i = 0; i < 700; i++)
		feed(fds, &position, 1460);
	CHECK(!ring_peek(&ring, &cqe));
	/* Polling was given up after 128 arms: now a worker waits. */
	CHECK(count_workers() > 0);
	rest = MIB - position;
	peer_join(peer_write(fds[1], DATA, position, rest));
	ring_reap(&ring, &events, 2);
	CHECK_EQ(log_res(&events, 1), MIB);
	CHECK_EQ(log_res(&events, LEADER), prov_bytes(provider));
	prov_check_pattern(provider, DATA, 100, 0, MIB);
	prov_check_pattern(provider, OLD, 0, 0, 100);
	prov_check_pattern(provider, OLD, MIB + 100, MIB + 100, 8192 - 100);
	prov_check_returned(provider, 1);
	ring_close(&ring);
}

static void recv_over_many_wake_ups_is_exact(void)
{
	recv_in_pieces(false);
	recv_in_pieces(true);
}

enum end { END_OF_FILE, RESET, CANCELLED, RING_CLOSED };

static void early_end(enum end end, size_t received, uint8_t flags)
{
	enum { START = 1000, LEN = 65536, SIZE = 131072 };
	int provider = prov_open_pages(SIZE / 4096), fds[2], expected = (int)received;
	struct ring ring;

	events.count = 0;
	prov_fill(provider, OLD, 0, SIZE);
	net_tcp_pair(fds, 0, 0);
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP | LINK, provider, GKT_DIR_FILL);
	ring_msg(&ring, IORING_OP_RECV, 1, KBUF | flags, fds[0], START, LEN, MSG_WAITALL);
	ring_nop(&ring, NEXT, 0);
	CHECK_EQ(ring_submit(&ring), 3);
	peer_join(peer_write(fds[1], DATA, 0, received));
	net_wait_acked(fds[1]);
	net_wait_received(fds[0]);
	switch (end) {
	case END_OF_FILE:
		close(fds[1]);
		break;
	case RESET:
		net_reset(fds[1]);
		expected = received ? expected : -ECONNRESET;
		break;
	case CANCELLED:
		ring_cancel(&ring, CANCEL, 1);
		CHECK_EQ(ring_submit(&ring), 1);
		expected = received ? expected : -ECANCELED;
		break;
	case RING_CLOSED:
		ring_close(&ring);
		break;
	}
	if (end != RING_CLOSED) {
		ring_reap(&ring, &events, end == CANCELLED ? 4 : 3);
		CHECK_EQ(log_res(&events, 1), expected);
		CHECK_EQ(log_res(&events, LEADER), SIZE);
		CHECK_EQ(log_res(&events, NEXT), -ECANCELED);
		ring_close(&ring);
	}
	prov_check_returned(provider, 1);
	prov_check_pattern(provider, OLD, 0, 0, START);
	prov_check_pattern(provider, DATA, START, 0, received);
	prov_check_zero(provider, START + received, LEN - received);
	prov_check_pattern(provider, OLD, START + LEN, START + LEN, SIZE - START - LEN);
	close(fds[0]);
	close(provider);
}

static void short_receive_leaves_zeros(void)
{
	static const size_t sizes[] = {0, 1, 5000, 40000, 65535};

	for (enum end end = END_OF_FILE; end <= RING_CLOSED; end++)
		for (unsigned int s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
			early_end(end, sizes[s], 0);
			early_end(end, sizes[s], IOSQE_ASYNC);
		}
}

/* Without MSG_WAITALL what is there is the result; the rest of the window is still zero. */
static void recv_takes_what_is_there(void)
{
	int provider = prov_open_pages(2), fds[2];
	struct ring ring;

	prov_fill(provider, OLD, 0, 8192);
	net_unix_pair(fds);
	peer_join(peer_write(fds[1], DATA, 0, 1234));
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP | LINK, provider, GKT_DIR_FILL);
	ring_msg(&ring, IORING_OP_RECV, 1, KBUF, fds[0], 10, 8000, 0);
	ring_nop(&ring, NEXT, 0);
	CHECK_EQ(ring_submit(&ring), 3);
	ring_reap(&ring, &events, 3);
	CHECK_EQ(log_res(&events, 1), 1234);
	CHECK_EQ(log_res(&events, NEXT), 0);
	prov_check_pattern(provider, OLD, 0, 0, 10);
	prov_check_pattern(provider, DATA, 10, 0, 1234);
	prov_check_zero(provider, 1244, 8000 - 1234);
	prov_check_pattern(provider, OLD, 8010, 8010, 182);
	prov_check_returned(provider, 1);
	ring_close(&ring);
}

enum { SEND_SIZE = 512 * 1024 };

static void slow_reader(unsigned int mode)
{
	int provider = prov_open_pages(SEND_SIZE / 4096), fds[2];
	struct ring ring;
	pid_t peer;

	events.count = 0;
	prov_fill(provider, DATA, 0, SEND_SIZE);
	net_tcp_pair(fds, 4096, 4096);
	ring_open(&ring, 16, mode);
	prov_lend(&ring, LEADER, GROUP | LINK, provider, GKT_DIR_TAKE);
	ring_msg(&ring, IORING_OP_SEND, 1, KBUF, fds[0], 0, SEND_SIZE, MSG_WAITALL);
	/* The next request's header follows on the stream. */
	ring_msg(&ring, IORING_OP_SEND, NEXT, 0, fds[0], (uintptr_t) "h", 1, 0);
	CHECK_EQ(ring_submit(&ring), 3);
	peer = peer_read(fds[1], DATA, 0, SEND_SIZE);
	ring_reap(&ring, &events, 3);
	CHECK_EQ(log_res(&events, 1), SEND_SIZE);
	CHECK_EQ(log_res(&events, LEADER), SEND_SIZE);
	CHECK_EQ(log_res(&events, NEXT), 1);
	peer_join(peer);
	prov_check_returned(provider, 1);
	ring_close(&ring);
	close(fds[0]);
	close(fds[1]);
	close(provider);
}

static void send_to_a_slow_reader_is_exact(void)
{
	slow_reader(0);
	slow_reader(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}

static void cancelled_send_says_what_went_out(void)
{
	int provider = prov_open_pages(SEND_SIZE / 4096), fds[2], sent;
	char *received = check_alloc(SEND_SIZE);
	struct ring ring;

	prov_fill(provider, DATA, 0, SEND_SIZE);
	net_tcp_pair(fds, 4096, 4096);
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP | LINK, provider, GKT_DIR_TAKE);
	ring_msg(&ring, IORING_OP_SEND, 1, KBUF, fds[0], 0, SEND_SIZE, MSG_WAITALL);
	ring_nop(&ring, NEXT, 0);
	CHECK_EQ(ring_submit(&ring), 3);
	net_read(fds[1], received, 10000);
	ring_cancel(&ring, CANCEL, 1);
	CHECK_EQ(ring_submit(&ring), 1);
	ring_reap(&ring, &events, 4);
	sent = log_res(&events, 1);
	CHECK(sent >= 10000 && sent < SEND_SIZE);
	CHECK_EQ(log_res(&events, LEADER), SEND_SIZE);
	CHECK_EQ(log_res(&events, NEXT), -ECANCELED);
	prov_check_returned(provider, 1);

	/* The stream goes on where the result says: the rest, provided again at that offset. */
	events.count = 0;
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
	ring_msg(&ring, IORING_OP_SEND, 1, KBUF, fds[0], (uint64_t)sent,
		 (uint32_t)(SEND_SIZE - sent), MSG_WAITALL);
	CHECK_EQ(ring_submit(&ring), 2);
	net_read(fds[1], received + 10000, SEND_SIZE - 10000);
	ring_reap(&ring, &events, 2);
	CHECK_EQ(log_res(&events, 1), SEND_SIZE - sent);
	CHECK_EQ(pattern_differs(received, DATA, 0, SEND_SIZE), -1);
	ring_close(&ring);
	close(fds[0]);
	CHECK_EQ(net_read_all(fds[1], received, 1), 0);
	prov_check_returned(provider, 2);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"22: RECV with MSG_WAITALL over more than 128 poll wake-ups is exact",
		 recv_over_many_wake_ups_is_exact, 240},
		{"23: a short receive leaves zeros, not old memory", short_receive_leaves_zeros,
		 240},
		{"23: without MSG_WAITALL, RECV takes what is there", recv_takes_what_is_there, 0},
		{"24: SEND to a slow reader is exact", send_to_a_slow_reader_is_exact, 120},
		{"24: a cancelled SEND says what went out", cancelled_send_says_what_went_out, 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
