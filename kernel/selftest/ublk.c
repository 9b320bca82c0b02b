// SPDX-License-Identifier: GPL-2.0
#include "ublk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net.h"
#include "probe.h"
#include "tap.h"

void ublk_require(void)
{
	struct gk_probe probe;

	gk_probe_run(&probe);
	if (probe.ublk_group_kbuf < 0)
		tap_skip("this kernel does not lend ublk requests to groups");
}

static void command(struct ublk_dev *dev, uint32_t op, struct ublksrv_ctrl_cmd cmd)
{
	struct io_uring_sqe *sqe = ring_sqe(&dev->ctrl, IORING_OP_URING_CMD, op, 0);

	cmd.dev_id = (uint32_t)dev->id;
	cmd.queue_id = UINT16_MAX;
	sqe->fd = dev->ctrl_fd;
	sqe->cmd_op = op;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	CHECK_EQ(ring_submit(&dev->ctrl), 1);
}

int ublk_control_end(struct ublk_dev *dev)
{
	struct ring_cqe cqe;

	if (!ring_wait(&dev->ctrl, &cqe, tap_patience_ms()))
		FAIL("a control command is not answered");
	return cqe.res;
}

void ublk_control_begin(struct ublk_dev *dev, uint32_t op, uint64_t data)
{
	command(dev, op, (struct ublksrv_ctrl_cmd){.data = {data}});
}

int ublk_control(struct ublk_dev *dev, uint32_t op, uint64_t data)
{
	ublk_control_begin(dev, op, data);
	return ublk_control_end(dev);
}

static int control_buffer(struct ublk_dev *dev, uint32_t op, void *data, size_t len)
{
	command(dev, op, (struct ublksrv_ctrl_cmd){.addr = (uintptr_t)data, .len = (uint16_t)len});
	return ublk_control_end(dev);
}

int ublk_try_add(struct ublk_dev *dev, uint64_t flags, unsigned int depth)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = 1,
		.queue_depth = (uint16_t)depth,
		.max_io_buf_bytes = 1 << 20,
		.dev_id = UINT32_MAX,
		.flags = flags,
	};
	int r;

	*dev = (struct ublk_dev){.id = -1, .depth = depth};
	dev->ctrl_fd = (int)CHECK_SYS(open(UBLK_CONTROL_PATH, O_RDWR | O_CLOEXEC));
	ring_open(&dev->ctrl, 4, IORING_SETUP_SQE128);
	r = control_buffer(dev, UBLK_U_CMD_ADD_DEV, &info, sizeof(info));
	if (r < 0) {
		ring_close(&dev->ctrl);
		close(dev->ctrl_fd);
		return r;
	}
	dev->id = (int)info.dev_id;
	dev->flags = info.flags;
	return r;
}

void ublk_add(struct ublk_dev *dev, uint64_t flags, unsigned int depth, uint64_t bytes)
{
	struct ublk_params params = {
		.len = sizeof(params),
		.types = UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD,
		.basic =
			{
				.attrs = UBLK_ATTR_VOLATILE_CACHE,
				.logical_bs_shift = 9,
				.physical_bs_shift = 12,
				.io_opt_shift = 12,
				.io_min_shift = 9,
				.max_sectors = (1 << 20) >> 9,
				.dev_sectors = bytes >> 9,
			},
	};

	params.discard = (struct ublk_param_discard){
		.discard_granularity = 4096,
		.max_discard_sectors = 2048,
		.max_write_zeroes_sectors = 2048,
		.max_discard_segments = 1,
	};
	CHECK_EQ(ublk_try_add(dev, flags, depth), 0);
	CHECK_EQ(dev->flags & flags, flags);
	dev->bytes = bytes;
	CHECK_EQ(control_buffer(dev, UBLK_U_CMD_SET_PARAMS, &params, sizeof(params)), 0);
}

int ublk_state(struct ublk_dev *dev)
{
	struct ublksrv_ctrl_dev_info info;
	int r = control_buffer(dev, UBLK_U_CMD_GET_DEV_INFO, &info, sizeof(info));

	return r < 0 ? r : info.state;
}

void ublk_remove(struct ublk_dev *dev)
{
	CHECK_EQ(ublk_control(dev, UBLK_U_CMD_STOP_DEV, 0), 0);
	CHECK_EQ(ublk_control(dev, UBLK_U_CMD_DEL_DEV, 0), 0);
	ring_close(&dev->ctrl);
	close(dev->ctrl_fd);
}

pid_t ublk_fork(struct ublk_dev *dev, void (*run)(struct ublk_dev *dev, void *arg), void *arg)
{
	pid_t child = (pid_t)CHECK_SYS(fork());

	if (child == 0) {
		run(dev, arg);
		_exit(0);
	}
	return child;
}

pid_t ublk_start(struct ublk_dev *dev, void (*run)(struct ublk_dev *dev, void *arg), void *arg)
{
	pid_t server = ublk_fork(dev, run, arg);

	CHECK_EQ(ublk_control(dev, UBLK_U_CMD_START_DEV, (uint64_t)server), 0);
	return server;
}

static int open_block(const struct ublk_dev *dev)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/ublkb%d", dev->id);
	return (int)CHECK_SYS(open(path, O_RDWR | O_DIRECT | O_CLOEXEC));
}

static void *aligned(size_t len)
{
	void *data;

	CHECK_EQ(posix_memalign(&data, 4096, len), 0);
	return data;
}

static void check_transfer(ssize_t done, size_t len, int error)
{
	if (error)
		CHECK(done < 0 && errno == error);
	else
		CHECK_EQ(done, len);
}

pid_t block_read(const struct ublk_dev *dev, unsigned int stream, size_t position, size_t len,
		 int error)
{
	pid_t child = (pid_t)CHECK_SYS(fork());

	if (child == 0) {
		char *data = aligned(len);
		ssize_t wrong;

		check_transfer(pread(open_block(dev), data, len, (off_t)position), len, error);
		wrong = error ? -1 : pattern_differs(data, stream, position, len);
		if (wrong >= 0)
			FAIL("byte %zd of %zu at %zu of the device is wrong", wrong, len, position);
		_exit(0);
	}
	return child;
}

pid_t block_write(const struct ublk_dev *dev, unsigned int stream, size_t position, size_t len,
		  int error)
{
	pid_t child = (pid_t)CHECK_SYS(fork());

	if (child == 0) {
		char *data = aligned(len);

		pattern_fill(data, stream, position, len);
		check_transfer(pwrite(open_block(dev), data, len, (off_t)position), len, error);
		_exit(0);
	}
	return child;
}
