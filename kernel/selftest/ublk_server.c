// SPDX-License-Identifier: GPL-2.0
#include "ublk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "net.h"
#include "tap.h"

void ublk_server_open(struct ublk_server *server, struct ublk_dev *dev, unsigned int ring_flags)
{
	char path[32];
	size_t len = (dev->depth * sizeof(struct ublksrv_io_desc) + 4095) & ~(size_t)4095;

	server->dev = dev;
	server->aborted = 0;
	server->tags = check_alloc(dev->depth * sizeof(*server->tags));
	snprintf(path, sizeof(path), "/dev/ublkc%d", dev->id);
	server->char_fd = (int)CHECK_SYS(open(path, O_RDWR | O_CLOEXEC));
	server->iods = mmap(NULL, len, PROT_READ, MAP_SHARED | MAP_POPULATE, server->char_fd,
			    UBLKSRV_CMD_BUF_OFFSET);
	CHECK(server->iods != MAP_FAILED);
	ring_open(&server->ring, 4 * dev->depth < 64 ? 64 : 4 * dev->depth, ring_flags);
}

static struct io_uring_sqe *io_command(struct ublk_server *server, enum ublk_kind kind, uint32_t op,
				       unsigned int tag, int result)
{
	struct io_uring_sqe *sqe =
		ring_sqe(&server->ring, IORING_OP_URING_CMD, ublk_key(kind, tag), 0);
	struct ublksrv_io_cmd cmd = {.tag = (uint16_t)tag, .result = result};

	sqe->fd = server->char_fd;
	sqe->cmd_op = op;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	return sqe;
}

struct io_uring_sqe *ublk_server_provide(struct ublk_server *server, unsigned int tag)
{
	struct io_uring_sqe *sqe =
		io_command(server, UBLK_KIND_PROVIDE, UBLK_U_IO_PROVIDE_IO_BUF, tag, 0);

	sqe->flags = GROUP;
	return sqe;
}

struct io_uring_sqe *ublk_server_commit(struct ublk_server *server, unsigned int tag, int result)
{
	return io_command(server, UBLK_KIND_COMMAND, UBLK_U_IO_COMMIT_AND_FETCH_REQ, tag, result);
}

int ublk_try_provide(struct ublk_server *server, struct ublksrv_io_cmd cmd, uint8_t flags)
{
	static struct ring_log events;
	struct io_uring_sqe *sqe;
	struct ring ring;

	events.count = 0;
	ring_open(&ring, 4, 0);
	sqe = ring_sqe(&ring, IORING_OP_URING_CMD, 1, flags);
	sqe->fd = server->char_fd;
	sqe->cmd_op = UBLK_U_IO_PROVIDE_IO_BUF;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	ring_nop(&ring, 2, 0);
	CHECK_EQ(ring_submit(&ring), 2);
	ring_reap(&ring, &events, 2);
	ring_close(&ring);
	CHECK_EQ(log_res(&events, 2), (flags & GROUP) && log_res(&events, 1) < 0 ? -ECANCELED : 0);
	return log_res(&events, 1);
}

void ublk_server_fetch(struct ublk_server *server)
{
	for (unsigned int tag = 0; tag < server->dev->depth; tag++)
		io_command(server, UBLK_KIND_COMMAND, UBLK_U_IO_FETCH_REQ, tag, 0);
}

static void dispatch(struct ublk_server *server, const struct ring_cqe *cqe)
{
	unsigned int tag = (uint16_t)cqe->user_data;

	if (cqe->user_data >> 16 != UBLK_KIND_COMMAND) {
		server->completed(server, cqe);
		return;
	}
	if (cqe->res == UBLK_IO_RES_OK)
		server->request(server, tag);
	else if (cqe->res == UBLK_IO_RES_ABORT)
		server->aborted++;
	else
		FAIL("tag %u: %s", tag, strerror(-cqe->res));
}

static void one_turn(struct ublk_server *server)
{
	struct ring_cqe cqe;
	int r = ring_submit_wait(&server->ring, 1);

	if (r < 0 && r != -ETIME && r != -EINTR)
		FAIL("io_uring_enter: %s", strerror(-r));
	while (ring_peek(&server->ring, &cqe))
		dispatch(server, &cqe);
}

void ublk_server_run(struct ublk_server *server)
{
	ublk_server_fetch(server);
	while (server->aborted < server->dev->depth)
		one_turn(server);
}

void ublk_server_until(struct ublk_server *server, const bool *flag)
{
	while (!*flag)
		one_turn(server);
}

void ublk_loop_request(struct ublk_server *server, unsigned int tag)
{
	const struct ublksrv_io_desc *iod = &server->iods[tag];
	struct ublk_tag *state = &server->tags[tag];
	uint64_t offset = iod->start_sector << 9;
	uint32_t len = iod->nr_sectors << 9;
	uint8_t op = (uint8_t)iod->op_flags;

	switch (op) {
	case UBLK_IO_OP_READ:
	case UBLK_IO_OP_WRITE:
		*state = (struct ublk_tag){.left = 2};
		ublk_server_provide(server, tag);
		ring_rw(&server->ring, op == UBLK_IO_OP_READ ? IORING_OP_READ : IORING_OP_WRITE,
			ublk_key(UBLK_KIND_MEMBER, tag), KBUF, server->file, 0, len, offset);
		break;
	case UBLK_IO_OP_FLUSH:
		*state = (struct ublk_tag){.left = 1};
		ring_rw(&server->ring, IORING_OP_FSYNC, ublk_key(UBLK_KIND_MEMBER, tag), 0,
			server->file, 0, 0, 0);
		break;
	case UBLK_IO_OP_DISCARD:
	case UBLK_IO_OP_WRITE_ZEROES:
		CHECK_SYS(fallocate(server->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    (off_t)offset, len));
		ublk_server_commit(server, tag, 0);
		break;
	default:
		ublk_server_commit(server, tag, -EOPNOTSUPP);
	}
}

void ublk_loop_completed(struct ublk_server *server, const struct ring_cqe *cqe)
{
	unsigned int tag = (uint16_t)cqe->user_data;
	struct ublk_tag *state = &server->tags[tag];
	const struct ublksrv_io_desc *iod = &server->iods[tag];

	if (cqe->user_data >> 16 == UBLK_KIND_MEMBER) {
		CHECK(cqe->res == -ECANCELED || (uint8_t)iod->op_flags == UBLK_IO_OP_FLUSH ||
		      cqe->res == (int)(iod->nr_sectors << 9));
		if (state->result == 0)
			state->result = cqe->res;
	} else if (cqe->res < 0) {
		FAIL("PROVIDE of tag %u: %s", tag, strerror(-cqe->res));
	} else {
		CHECK_EQ(cqe->res, iod->nr_sectors << 9);
	}
	if (--state->left == 0)
		ublk_server_commit(server, tag, state->result);
}

void ublk_loop_run(struct ublk_dev *dev, void *arg)
{
	const int *setting = arg;
	struct ublk_server server = {
		.file = setting[0],
		.request = ublk_loop_request,
		.completed = ublk_loop_completed,
	};

	ublk_server_open(&server, dev, (unsigned int)setting[1]);
	ublk_server_run(&server);
}
