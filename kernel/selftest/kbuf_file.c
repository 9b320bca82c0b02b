// SPDX-License-Identifier: GPL-2.0
/* READ into a group buffer where there is less to read than asked for. */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "net.h"
#include "prov.h"
#include "ring.h"
#include "tap.h"

#define LEADER 1000
#define OLD    9
#define DATA   3
#define SIZE   65536

static struct ring_log events;

/* READ of len bytes at `position` of fd to `at` in the buffer, which gives `expected` bytes. */
static void short_read(struct ring *ring, int fd, uint8_t flags, size_t at, size_t len,
		       size_t position, size_t expected)
{
	int provider = prov_open_pages(SIZE / 4096);

	events.count = 0;
	prov_fill(provider, OLD, 0, SIZE);
	prov_lend(ring, LEADER, GROUP, provider, GKT_DIR_FILL);
	ring_rw(ring, IORING_OP_READ, 1, KBUF | flags, fd, at, (uint32_t)len, position);
	CHECK_EQ(ring_submit(ring), 2);
	ring_reap(ring, &events, 2);
	CHECK_EQ(log_res(&events, 1), expected);
	CHECK_EQ(log_res(&events, LEADER), SIZE);
	prov_check_pattern(provider, OLD, 0, 0, at);
	prov_check_pattern(provider, DATA, at, position, expected);
	prov_check_zero(provider, at + expected, len - expected);
	prov_check_pattern(provider, OLD, at + len, at + len, SIZE - at - len);
	prov_check_returned(provider, 1);
	close(provider);
}

static void write_pattern(int fd, size_t len)
{
	void *data = check_alloc(len);

	pattern_fill(data, DATA, 0, len);
	CHECK_EQ(write(fd, data, len), len);
	free(data);
}

static void short_pipe(void)
{
	static const uint8_t flags[] = {0, IOSQE_ASYNC};
	struct ring ring;

	ring_require(IORING_FEAT_GROUP_KBUF);
	ring_open(&ring, 16, 0);
	for (int f = 0; f < 2; f++) {
		int fds[2];

		CHECK_SYS(pipe2(fds, O_CLOEXEC));
		write_pattern(fds[1], 5000);
		short_read(&ring, fds[0], flags[f], 33, 9000, 0, 5000);
		close(fds[1]);
		short_read(&ring, fds[0], flags[f], 33, 9000, 0, 0);
		close(fds[0]);
	}
	ring_close(&ring);
}

/* A READ that waits in poll is issued twice, with one import. */
static void pipe_that_is_filled_later(void)
{
	int provider = prov_open_pages(SIZE / 4096), fds[2];
	struct ring ring;

	prov_fill(provider, OLD, 0, SIZE);
	CHECK_SYS(pipe2(fds, O_CLOEXEC));
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_FILL);
	ring_rw(&ring, IORING_OP_READ, 1, KBUF, fds[0], 5000, 9000, 0);
	CHECK_EQ(ring_submit(&ring), 2);
	prov_wait(provider, GKT_WAIT_LENT_MIN, 1);
	ring_check_quiet(&ring);
	write_pattern(fds[1], 4321);
	ring_reap(&ring, &events, 2);
	CHECK_EQ(log_res(&events, 1), 4321);
	prov_check_pattern(provider, OLD, 0, 0, 5000);
	prov_check_pattern(provider, DATA, 5000, 0, 4321);
	prov_check_zero(provider, 9321, 9000 - 4321);
	prov_check_pattern(provider, OLD, 14000, 14000, SIZE - 14000);
	prov_check_returned(provider, 1);
	ring_close(&ring);
}

static void past_the_end_of_a_file(void)
{
	static const uint8_t flags[] = {0, IOSQE_ASYNC};
	int file = (int)CHECK_SYS(memfd_create("kbuf_file", MFD_CLOEXEC));
	struct ring ring;

	ring_require(IORING_FEAT_GROUP_KBUF);
	write_pattern(file, 10000);
	ring_open(&ring, 16, 0);
	for (int f = 0; f < 2; f++) {
		short_read(&ring, file, flags[f], 1, 20000, 0, 10000);
		short_read(&ring, file, flags[f], 4097, 20000, 7777, 2223);
		short_read(&ring, file, flags[f], 0, 20000, 10000, 0);
		short_read(&ring, file, flags[f], 0, SIZE, 123456, 0);
	}
	ring_close(&ring);
}

/* A loop device of `bytes`; its I/O completes in a worker, long after it was submitted. */
static int loop_device(size_t bytes)
{
	struct loop_config config = {.block_size = 512, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
	int control = (int)CHECK_SYS(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
	int backing = (int)CHECK_SYS(memfd_create("loop", MFD_CLOEXEC)), loop;
	char path[32];

	write_pattern(backing, bytes);
	snprintf(path, sizeof(path), "/dev/loop%d",
		 (int)CHECK_SYS(ioctl(control, LOOP_CTL_GET_FREE)));
	loop = (int)CHECK_SYS(open(path, O_RDWR | O_DIRECT | O_CLOEXEC));
	config.fd = (uint32_t)backing;
	CHECK_SYS(ioctl(loop, LOOP_CONFIGURE, &config));
	close(backing);
	close(control);
	return loop;
}

static void direct_read_at_the_end_of_a_device(void)
{
	static const uint8_t flags[] = {0, IOSQE_ASYNC};
	struct ring ring;
	int loop;

	ring_require(IORING_FEAT_GROUP_KBUF);
	loop = loop_device(20480);
	ring_open(&ring, 16, 0);
	for (int f = 0; f < 2; f++) {
		short_read(&ring, loop, flags[f], 0, SIZE, 0, 20480);
		short_read(&ring, loop, flags[f], 512, 16384, 512, 16384);
		short_read(&ring, loop, flags[f], 4096, 32768, 8192, 12288);
		short_read(&ring, loop, flags[f], 512, 8192, 19968, 512);
		short_read(&ring, loop, flags[f], 0, 4096, 20480, 0);
	}
	ring_close(&ring);
	close(loop);
}

static void failing_read_leaves_zeros(void)
{
	int provider = prov_open_pages(SIZE / 4096);
	int fd = (int)CHECK_SYS(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)), fds[2];
	struct ring ring;

	CHECK_SYS(pipe2(fds, O_CLOEXEC));
	prov_fill(provider, OLD, 0, SIZE);
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_FILL);
	ring_rw(&ring, IORING_OP_READ, 1, KBUF | GROUP, fds[1], 100, 1000, 0);
	ring_rw(&ring, IORING_OP_READ, 2, KBUF | GROUP, fd, 2000, 1000, 0);
	ring_rw(&ring, IORING_OP_READ, 3, KBUF, 9999, 4000, 1000, 0);
	CHECK_EQ(ring_submit(&ring), 4);
	ring_reap(&ring, &events, 4);
	CHECK_EQ(log_res(&events, 1), -EBADF);
	CHECK(log_res(&events, 2) < 0);
	CHECK_EQ(log_res(&events, 3), -EBADF);
	CHECK_EQ(log_res(&events, LEADER), SIZE);
	prov_check_pattern(provider, OLD, 0, 0, 100);
	prov_check_zero(provider, 100, 1000);
	prov_check_pattern(provider, OLD, 1100, 1100, 900);
	prov_check_zero(provider, 2000, 1000);
	prov_check_pattern(provider, OLD, 3000, 3000, 1000);
	prov_check_zero(provider, 4000, 1000);
	prov_check_pattern(provider, OLD, 5000, 5000, SIZE - 5000);
	prov_check_returned(provider, 1);
	ring_close(&ring);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"25: a pipe with less in it", short_pipe, 0},
		{"25: a pipe that is filled later", pipe_that_is_filled_later, 0},
		{"25: past the end of a file", past_the_end_of_a_file, 0},
		{"25: a direct read at the end of a device", direct_read_at_the_end_of_a_device, 0},
		{"25: a read that fails leaves zeros", failing_read_leaves_zeros, 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
