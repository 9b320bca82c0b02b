// SPDX-License-Identifier: GPL-2.0
/* Group buffers: every byte goes where it belongs, and nowhere else. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"
#include "prov.h"
#include "ring.h"
#include "tap.h"

#define LEADER 1000
#define OLD    9 /* the pattern that is in the buffer before a member fills it */
#define DATA   3

static struct ring_log events;

struct layout {
	const char *name;
	struct gkt_seg segs[8];
	unsigned int count;
	unsigned int repeat; /* the last segment is there so many times more */
};

static const struct layout layouts[] = {
	{"one page", {{.kind = GKT_SEG_PAGE, .len = 4096}}, 1, 0},
	{"256 pages", {{.kind = GKT_SEG_PAGE, .len = 4096}}, 1, 255},
	{"one folio of 64 KiB", {{.kind = GKT_SEG_FOLIO, .order = 4, .len = 65536}}, 1, 0},
	{"part of a folio", {{.kind = GKT_SEG_FOLIO, .order = 4, .off = 5000, .len = 50001}}, 1, 0},
	{"first and last page in part",
	 {{.kind = GKT_SEG_PAGE, .off = 3585, .len = 511},
	  {.kind = GKT_SEG_PAGE, .len = 4096},
	  {.kind = GKT_SEG_FOLIO, .order = 2, .len = 16384},
	  {.kind = GKT_SEG_PAGE, .len = 77}},
	 4,
	 0},
	/* As a request of several bios has it: partial segments in the middle. */
	{"odd segments",
	 {{.kind = GKT_SEG_PAGE, .off = 512, .len = 1536},
	  {.kind = GKT_SEG_FOLIO, .order = 1, .off = 4095, .len = 4097},
	  {.kind = GKT_SEG_SLAB, .off = 24, .len = 1000},
	  {.kind = GKT_SEG_TAIL, .order = 2, .off = 100, .len = 9000},
	  {.kind = GKT_SEG_PAGE, .off = 1, .len = 1}},
	 5,
	 30},
};
#define NR_LAYOUTS (sizeof(layouts) / sizeof(layouts[0]))

static int open_layout(const struct layout *layout)
{
	unsigned int total = layout->count + layout->repeat;
	struct gkt_seg *segs = check_alloc(total * sizeof(*segs));
	int fd = prov_open();

	for (unsigned int i = 0; i < total; i++)
		segs[i] = layout->segs[i < layout->count ? i : layout->count - 1];
	prov_layout(fd, segs, total);
	free(segs);
	return fd;
}

struct window {
	size_t at, len;
};

/* A provide of the buffer with one member on it; the member's result. */
static int run_member(struct ring *ring, int provider, uint8_t dir, uint8_t opcode, int fd,
		      struct window window, unsigned int msg_flags)
{
	events.count = 0;
	prov_lend(ring, LEADER, GROUP, provider, dir);
	if (opcode == IORING_OP_SEND || opcode == IORING_OP_RECV)
		ring_msg(ring, opcode, 1, KBUF, fd, window.at, (uint32_t)window.len, msg_flags);
	else
		ring_rw(ring, opcode, 1, KBUF, fd, window.at, (uint32_t)window.len, 0);
	CHECK_EQ(ring_submit(ring), 2);
	ring_reap(ring, &events, 2);
	CHECK_EQ(events.cqe[1].user_data, LEADER);
	CHECK_EQ(log_res(&events, LEADER), prov_bytes(provider));
	return log_res(&events, 1);
}

static void check_only_window_filled(int provider, struct window window)
{
	size_t end = window.at + window.len;

	prov_check_pattern(provider, OLD, 0, 0, window.at);
	prov_check_pattern(provider, DATA, window.at, 0, window.len);
	prov_check_pattern(provider, OLD, end, end, prov_bytes(provider) - end);
}

static int pattern_file(unsigned int stream, size_t len)
{
	int fd = (int)CHECK_SYS(memfd_create("kbuf_data", MFD_CLOEXEC));
	void *data = check_alloc(len);

	pattern_fill(data, stream, 0, len);
	CHECK_EQ(pwrite(fd, data, len, 0), len);
	free(data);
	return fd;
}

static void check_file(int fd, unsigned int stream, size_t position, size_t len)
{
	void *data = check_alloc(len);

	CHECK_EQ(lseek(fd, 0, SEEK_END), len);
	CHECK_EQ(pread(fd, data, len, 0), len);
	CHECK_EQ(pattern_differs(data, stream, position, len), -1);
	free(data);
}

static void recv_and_send(struct ring *ring, int provider, struct window window, bool tcp)
{
	int fds[2];
	pid_t peer;

	if (tcp)
		net_tcp_pair(fds, 0, 0);
	else
		net_unix_pair(fds);
	prov_fill(provider, OLD, 0, prov_bytes(provider));
	peer = peer_write(fds[1], DATA, 0, window.len);
	CHECK_EQ(run_member(ring, provider, GKT_DIR_FILL, IORING_OP_RECV, fds[0], window,
			    MSG_WAITALL),
		 window.len);
	peer_join(peer);
	check_only_window_filled(provider, window);

	peer = peer_read(fds[1], DATA, 0, window.len);
	CHECK_EQ(run_member(ring, provider, GKT_DIR_TAKE, IORING_OP_SEND, fds[0], window,
			    MSG_WAITALL),
		 window.len);
	peer_join(peer);
	check_only_window_filled(provider, window);
	close(fds[0]);
	close(fds[1]);
}

static void read_and_write(struct ring *ring, int provider, struct window window)
{
	int file = pattern_file(DATA, window.len), copy = pattern_file(OLD, 0);

	prov_fill(provider, OLD, 0, prov_bytes(provider));
	CHECK_EQ(run_member(ring, provider, GKT_DIR_FILL, IORING_OP_READ, file, window, 0),
		 window.len);
	check_only_window_filled(provider, window);
	CHECK_EQ(run_member(ring, provider, GKT_DIR_TAKE, IORING_OP_WRITE, copy, window, 0),
		 window.len);
	check_file(copy, DATA, 0, window.len);
	close(file);
	close(copy);
}

static void every_byte_of_every_layout(void)
{
	static const unsigned int modes[] = {0, IORING_SETUP_SINGLE_ISSUER |
							IORING_SETUP_DEFER_TASKRUN};

	for (unsigned int l = 0; l < NR_LAYOUTS; l++) {
		int provider = open_layout(&layouts[l]);
		size_t size = prov_bytes(provider);
		const struct window windows[] = {
			{0, size},     {0, 1},
			{size - 1, 1}, {size / 3, size / 2},
			{1, size - 1}, {size > 600 ? 510 : 0, size > 600 ? 4 : size},
		};
		int provides = 0;

		tap_note("%s, %zu bytes", layouts[l].name, size);
		for (unsigned int m = 0; m < 2; m++) {
			struct ring ring;

			ring_open(&ring, 16, modes[m]);
			for (unsigned int w = 0; w < sizeof(windows) / sizeof(windows[0]); w++) {
				recv_and_send(&ring, provider, windows[w], m == 0);
				read_and_write(&ring, provider, windows[w]);
				provides += 4;
			}
			ring_close(&ring);
		}
		prov_check_returned(provider, provides);
		close(provider);
	}
}

/* What is lent may start inside the first segment and end before the last. */
static void lent_part_of_the_buffer(void)
{
	int provider = open_layout(&layouts[4]), copy = pattern_file(OLD, 0);
	struct gkt_cmd *cmd;
	struct ring ring;
	const size_t start = 300, len = 18000;

	ring_open(&ring, 16, 0);
	prov_fill(provider, DATA, 0, prov_bytes(provider));
	cmd = prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
	cmd->offset = start;
	cmd->len = len;
	ring_rw(&ring, IORING_OP_WRITE, 1, KBUF | GROUP, copy, 100, len - 100, 0);
	ring_rw(&ring, IORING_OP_WRITE, 2, KBUF, copy, 100, len - 99, 0);
	CHECK_EQ(ring_submit(&ring), 3);
	ring_reap(&ring, &events, 3);
	CHECK_EQ(log_res(&events, LEADER), len);
	CHECK_EQ(log_res(&events, 1), len - 100);
	CHECK_EQ(log_res(&events, 2), -EFAULT);
	check_file(copy, DATA, start + 100, len - 100);
	prov_check_returned(provider, 1);
	ring_close(&ring);
}

static void windows_outside_the_buffer(void)
{
	static const struct {
		uint64_t at;
		uint32_t len;
		int res;
	} cases[] = {
		{0, 8192, 8192},
		{8191, 1, 1},
		{0, 0, 0},
		{8192, 0, 0},
		{0, 8193, -EFAULT},
		{1, 8192, -EFAULT},
		{8191, 2, -EFAULT},
		{8192, 1, -EFAULT},
		{8193, 0, -EFAULT},
		{UINT64_MAX, 1, -EFAULT},
		{UINT64_MAX, 0, -EFAULT},
		{UINT64_MAX - 4095, 4096, -EFAULT},
		{UINT64_MAX - 4095, 8192, -EFAULT},
		{0, INT32_MAX, -EFAULT},
		{4096, INT32_MAX, -EFAULT},
		{0, UINT32_MAX, -EFAULT},
		{UINT64_C(1) << 32, 1, -EFAULT},
	};
	int provider = prov_open_pages(2), fds[2];
	struct ring ring;

	net_unix_pair(fds);
	ring_open(&ring, 16, 0);
	prov_fill(provider, DATA, 0, 8192);
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct window window = {cases[i].at, cases[i].len};
		int file = pattern_file(OLD, 0);

		CHECK_EQ(
			run_member(&ring, provider, GKT_DIR_TAKE, IORING_OP_WRITE, file, window, 0),
			cases[i].res);
		check_file(file, DATA, window.at, cases[i].res > 0 ? (size_t)cases[i].res : 0);

		if (cases[i].len <= INT32_MAX)
			CHECK_EQ(run_member(&ring, provider, GKT_DIR_TAKE, IORING_OP_SEND, fds[0],
					    window, 0),
				 cases[i].res);
		if (cases[i].res > 0)
			peer_join(peer_read(fds[1], DATA, window.at, (size_t)cases[i].res));

		if (cases[i].res < 0) {
			if (cases[i].len <= INT32_MAX)
				CHECK_EQ(run_member(&ring, provider, GKT_DIR_FILL, IORING_OP_RECV,
						    fds[0], window, 0),
					 cases[i].res);
			CHECK_EQ(run_member(&ring, provider, GKT_DIR_FILL, IORING_OP_READ, file,
					    window, 0),
				 cases[i].res);
		}
		close(file);
	}
	prov_check_pattern(provider, DATA, 0, 0, 8192);
	prov_check_returned(provider, -1);
	/* Nothing but the good windows went out. */
	ring_close(&ring);
	close(fds[0]);
	CHECK_EQ(net_read_all(fds[1], (char[1]){0}, 1), 0);
}

static void members_and_groups_share_one_buffer(void)
{
	enum { SIZE = 65536 };
	int provider = prov_open_pages(SIZE / 4096), files[4];
	struct ring ring;

	prov_fill(provider, DATA, 0, SIZE);
	ring_open(&ring, 16, 0);
	for (int i = 0; i < 4; i++)
		files[i] = pattern_file(OLD, 0);
	for (uint64_t g = 0; g < 2; g++) {
		prov_lend(&ring, LEADER + g, GROUP, provider, GKT_DIR_TAKE);
		ring_rw(&ring, IORING_OP_WRITE, 2 * g, KBUF | GROUP | IOSQE_ASYNC, files[2 * g], 0,
			SIZE, 0);
		ring_rw(&ring, IORING_OP_WRITE, 2 * g + 1, KBUF | IOSQE_ASYNC, files[2 * g + 1],
			777, SIZE - 777, 0);
	}
	CHECK_EQ(ring_submit(&ring), 6);
	ring_reap(&ring, &events, 6);
	for (uint64_t g = 0; g < 2; g++) {
		CHECK_EQ(log_res(&events, LEADER + g), SIZE);
		CHECK_EQ(log_res(&events, 2 * g), SIZE);
		CHECK_EQ(log_res(&events, 2 * g + 1), SIZE - 777);
		check_file(files[2 * g], DATA, 0, SIZE);
		check_file(files[2 * g + 1], DATA, 777, SIZE - 777);
	}
	prov_check_returned(provider, 2);
	ring_close(&ring);
}

/* Two groups hold the buffer at the same time; it is back only after the second. */
static void one_buffer_lent_twice_at_once(void)
{
	int provider = prov_open_pages(2), fds[2][2];
	struct ring ring;

	ring_open(&ring, 16, 0);
	for (uint64_t g = 0; g < 2; g++) {
		net_unix_pair(fds[g]);
		prov_lend(&ring, LEADER + g, GROUP, provider, GKT_DIR_FILL);
		ring_msg(&ring, IORING_OP_RECV, g, KBUF, fds[g][0], 4096 * g, 4096, MSG_WAITALL);
	}
	CHECK_EQ(ring_submit(&ring), 4);
	prov_wait(provider, GKT_WAIT_LENT_MIN, 2);
	for (uint64_t g = 0; g < 2; g++) {
		CHECK_EQ(prov_stats(provider).released, g);
		peer_join(peer_write(fds[g][1], DATA, 4096 * g, 4096));
		ring_reap(&ring, &events, 2);
		CHECK_EQ(log_res(&events, g), 4096);
		CHECK_EQ(log_res(&events, LEADER + g), 8192);
	}
	prov_check_pattern(provider, DATA, 0, 0, 8192);
	prov_check_returned(provider, 2);
	ring_close(&ring);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"16: every byte of every layout, by SEND, RECV, READ and WRITE",
		 every_byte_of_every_layout, 240},
		{"16: only a part of the buffer is lent", lent_part_of_the_buffer, 0},
		{"17: windows that end at or behind the end of the buffer",
		 windows_outside_the_buffer, 0},
		{"27: members and groups share one buffer", members_and_groups_share_one_buffer, 0},
		{"27: one buffer lent twice at once", one_buffer_lent_twice_at_once, 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
