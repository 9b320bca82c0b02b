// SPDX-License-Identifier: GPL-2.0
/*
 * Guest instructions per NOP and per 4 KiB READ. It is the first and only process of a machine that
 * runs with QEMU's -icount shift=0: there the time stamp counter goes up by one per instruction, so
 * the numbers are exact and do not depend on the host. icount.sh boots it on two kernels.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>

#include "ring.h"
#include "tap.h"

#define BATCH	32
#define ROUNDS	200
#define REPEATS 25

enum kind { NOPS, LINKED_NOPS, READS };

static void one_batch(struct ring *ring, enum kind kind, int fd, char *buffer)
{
	struct ring_cqe cqe;

	for (int i = 0; i < BATCH; i++) {
		if (kind == READS)
			ring_rw(ring, IORING_OP_READ, 1, 0, fd, (uintptr_t)buffer, 4096,
				(uint64_t)i * 4096);
		else
			ring_nop(ring, 1, kind == LINKED_NOPS && i + 1 < BATCH ? LINK : 0);
	}
	CHECK_EQ(ring_submit_wait(ring, BATCH), BATCH);
	for (int i = 0; i < BATCH; i++) {
		CHECK(ring_peek(ring, &cqe));
		CHECK_EQ(cqe.res, kind == READS ? 4096 : 0);
	}
}

/* The least of several runs: the others were interrupted by the timer more often. */
static double instructions(unsigned int flags, enum kind kind, int fd)
{
	static char buffer[4096];
	uint64_t least = UINT64_MAX;
	struct ring ring;

	ring_open(&ring, BATCH, flags);
	one_batch(&ring, kind, fd, buffer);
	for (int repeat = 0; repeat < REPEATS; repeat++) {
		uint64_t start = __rdtsc(), used;

		for (int round = 0; round < ROUNDS; round++)
			one_batch(&ring, kind, fd, buffer);
		used = __rdtsc() - start;
		least = used < least ? used : least;
	}
	ring_close(&ring);
	return (double)least / (ROUNDS * BATCH);
}

static void measure(const char *name, unsigned int flags, enum kind kind, int fd)
{
	printf("RESULT %s %.2f\n", name, instructions(flags, kind, fd));
	fflush(stdout);
}

static int file_of_pages(void)
{
	char page[4096];
	int fd = (int)CHECK_SYS(memfd_create("hotpath", MFD_CLOEXEC));

	memset(page, 'x', sizeof(page));
	for (int i = 0; i < BATCH; i++)
		CHECK_EQ(write(fd, page, sizeof(page)), sizeof(page));
	return fd;
}

int main(void)
{
	const unsigned int defer = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
	int file;

	if (getpid() == 1) {
		mkdir("/dev", 0755);
		mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
		if (!freopen("/dev/console", "w", stdout))
			return 1;
	}
	file = file_of_pages();
	measure("NOP", 0, NOPS, -1);
	measure("NOP,DEFER_TASKRUN", defer, NOPS, -1);
	measure("NOP,linked", 0, LINKED_NOPS, -1);
	measure("READ", 0, READS, file);
	measure("READ,DEFER_TASKRUN", defer, READS, file);
	if (getpid() == 1)
		reboot(RB_AUTOBOOT);
	return 0;
}
