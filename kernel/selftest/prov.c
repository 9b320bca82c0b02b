// SPDX-License-Identifier: GPL-2.0
#include "prov.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net.h"
#include "tap.h"

int prov_open(void)
{
	int fd;

	ring_require(IORING_FEAT_SQE_GROUP | IORING_FEAT_GROUP_KBUF);
	fd = open(GKT_PATH, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		tap_skip("no " GKT_PATH);
	return fd;
}

void prov_layout(int fd, const struct gkt_seg *segs, unsigned int count)
{
	struct gkt_layout layout = {.nr_segs = count, .segs = (uintptr_t)segs};

	CHECK_SYS(ioctl(fd, GKT_IOC_LAYOUT, &layout));
}

int prov_open_pages(unsigned int pages)
{
	struct gkt_seg *segs = check_alloc(pages * sizeof(*segs));
	int fd = prov_open();

	for (unsigned int i = 0; i < pages; i++)
		segs[i] = (struct gkt_seg){.kind = GKT_SEG_PAGE, .len = 4096};
	prov_layout(fd, segs, pages);
	free(segs);
	return fd;
}

size_t prov_bytes(int fd)
{
	return prov_stats(fd).total_bytes;
}

void prov_write(int fd, size_t position, const void *data, size_t len)
{
	CHECK_EQ(pwrite(fd, data, len, (off_t)position), len);
}

void prov_read(int fd, size_t position, void *data, size_t len)
{
	CHECK_EQ(pread(fd, data, len, (off_t)position), len);
}

void prov_fill(int fd, unsigned int stream, size_t position, size_t len)
{
	void *data = check_alloc(len);

	pattern_fill(data, stream, position, len);
	prov_write(fd, position, data, len);
	free(data);
}

void prov_check_pattern(int fd, unsigned int stream, size_t at, size_t position, size_t len)
{
	void *data = check_alloc(len);
	ssize_t wrong;

	prov_read(fd, at, data, len);
	wrong = pattern_differs(data, stream, position, len);
	if (wrong >= 0)
		FAIL("byte %zd of %zu, at %zu in the buffer, is wrong", wrong, len, at);
	free(data);
}

void prov_check_zero(int fd, size_t at, size_t len)
{
	void *data = check_alloc(len);
	ssize_t wrong;

	prov_read(fd, at, data, len);
	wrong = zero_differs(data, len);
	if (wrong >= 0)
		FAIL("byte %zd of %zu, at %zu in the buffer, is not zero", wrong, len, at);
	free(data);
}

static struct gkt_cmd *command(struct ring *ring, uint64_t user_data, uint8_t flags, int fd,
			       uint32_t op)
{
	struct io_uring_sqe *sqe = ring_sqe(ring, IORING_OP_URING_CMD, user_data, flags);

	sqe->fd = fd;
	sqe->cmd_op = op;
	return (struct gkt_cmd *)sqe->cmd;
}

struct gkt_cmd *prov_lend(struct ring *ring, uint64_t user_data, uint8_t flags, int fd, uint8_t dir)
{
	struct gkt_cmd *cmd = command(ring, user_data, flags, fd, GKT_CMD_PROVIDE);

	cmd->dir = dir;
	return cmd;
}

struct gkt_cmd *prov_echo(struct ring *ring, uint64_t user_data, uint8_t flags, int fd, int res)
{
	struct gkt_cmd *cmd = command(ring, user_data, flags, fd, GKT_CMD_ECHO);

	cmd->res = res;
	return cmd;
}

struct gkt_stats prov_stats(int fd)
{
	struct gkt_stats stats;

	CHECK_SYS(ioctl(fd, GKT_IOC_STATS, &stats));
	return stats;
}

void prov_wait(int fd, unsigned int what, unsigned int count)
{
	struct gkt_wait wait = {
		.what = what,
		.count = count,
		.timeout_ms = (uint32_t)tap_patience_ms(),
	};

	int r;

	/* Task work of a ring of ours interrupts. */
	do
		r = ioctl(fd, GKT_IOC_WAIT, &wait);
	while (r < 0 && errno == EINTR);
	CHECK_SYS(r);
}

int prov_go(int fd, unsigned int count)
{
	return (int)CHECK_SYS(ioctl(fd, GKT_IOC_GO, count));
}

void prov_check_returned(int fd, int provided)
{
	struct gkt_stats stats;

	prov_wait(fd, GKT_WAIT_LENT_MAX, 0);
	stats = prov_stats(fd);
	CHECK_EQ(stats.released, stats.provided);
	if (provided >= 0)
		CHECK_EQ(stats.provided, provided);
}
