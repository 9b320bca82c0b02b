// SPDX-License-Identifier: GPL-2.0
/* What PROVIDE and COMMIT of a ublk request answer, and what short results lead to. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "net.h"
#include "tap.h"
#include "ublk.h"

#define DEVICE_BYTES (1 << 20)
#define DATA	     3
#define DEPTH	     4

static struct ring_log events;

static int backing_file(void)
{
	int fd = (int)CHECK_SYS(memfd_create("ublk_basic", MFD_CLOEXEC));
	void *data = check_alloc(DEVICE_BYTES);

	pattern_fill(data, DATA, 0, DEVICE_BYTES);
	CHECK_EQ(write(fd, data, DEVICE_BYTES), DEVICE_BYTES);
	free(data);
	return fd;
}

/* The device is no file for its own pages: its data is for user memory only. */
static void check_own_device(struct ublk_server *server, uint16_t tag)
{
	struct ublksrv_io_cmd cmd = {.tag = tag};
	struct io_uring_sqe *sqe;
	struct ring ring;

	events.count = 0;
	ring_open(&ring, 4, 0);
	sqe = ring_sqe(&ring, IORING_OP_URING_CMD, 1, GROUP);
	sqe->fd = server->char_fd;
	sqe->cmd_op = UBLK_U_IO_PROVIDE_IO_BUF;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	ring_rw(&ring, IORING_OP_WRITE, 2, KBUF, server->char_fd, 0, 512,
		UBLKSRV_IO_BUF_OFFSET + ((uint64_t)tag << UBLK_TAG_OFF));
	CHECK_EQ(ring_submit(&ring), 2);
	ring_reap(&ring, &events, 2);
	ring_close(&ring);
	CHECK(log_res(&events, 1) > 0);
	CHECK_EQ(log_res(&events, 2), -EACCES);
}

struct other_thread {
	struct ublk_server *server;
	uint16_t tag;
	int res;
};

static void *provide_elsewhere(void *arg)
{
	struct other_thread *other = arg;

	other->res =
		ublk_try_provide(other->server, (struct ublksrv_io_cmd){.tag = other->tag}, GROUP);
	return NULL;
}

static void check_refusals(struct ublk_server *server, uint16_t tag)
{
	int len = (int)(server->iods[tag].nr_sectors << 9);
	struct other_thread other = {.server = server, .tag = tag};
	pthread_t thread;

	CHECK_EQ(ublk_try_provide(server, (struct ublksrv_io_cmd){.tag = tag}, GROUP), len);
	CHECK_EQ(ublk_try_provide(server, (struct ublksrv_io_cmd){.tag = tag}, GROUP | IOSQE_ASYNC),
		 len);
	CHECK_EQ(ublk_try_provide(server, (struct ublksrv_io_cmd){.tag = tag}, 0), -EINVAL);
	CHECK_EQ(ublk_try_provide(server, (struct ublksrv_io_cmd){.tag = tag, .q_id = 1}, GROUP),
		 -EINVAL);
	CHECK_EQ(ublk_try_provide(server, (struct ublksrv_io_cmd){.tag = DEPTH}, GROUP), -EINVAL);
	CHECK_EQ(ublk_try_provide(server, (struct ublksrv_io_cmd){.tag = UINT16_MAX}, GROUP),
		 -EINVAL);
	CHECK_EQ(ublk_try_provide(server, (struct ublksrv_io_cmd){.tag = tag, .result = 1}, GROUP),
		 -EINVAL);
	CHECK_EQ(ublk_try_provide(server, (struct ublksrv_io_cmd){.tag = tag, .addr = 1}, GROUP),
		 -EINVAL);
	/* The other tags wait for a request. */
	for (uint16_t i = 0; i < DEPTH; i++)
		if (i != tag)
			CHECK_EQ(ublk_try_provide(server, (struct ublksrv_io_cmd){.tag = i}, GROUP),
				 -EBUSY);
	CHECK_EQ(pthread_create(&thread, NULL, provide_elsewhere, &other), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(other.res, -EINVAL);
	check_own_device(server, tag);
	CHECK_EQ(ublk_try_provide(server, (struct ublksrv_io_cmd){.tag = tag}, GROUP), len);
}

/* Shared with the server: what it is to do with the next write, flush or discard, and its count. */
struct order {
	volatile int what;
	volatile int done;
};

static void refusing_request(struct ublk_server *server, unsigned int tag)
{
	struct order *order = server->priv;
	uint8_t op = (uint8_t)server->iods[tag].op_flags;
	struct ublksrv_io_cmd cmd = {.tag = (uint16_t)tag};

	if (!order->what) {
		ublk_loop_request(server, tag);
		return;
	}
	if (!(server->dev->flags & UBLK_F_GROUP_KBUF)) {
		CHECK_EQ(ublk_try_provide(server, cmd, GROUP), -EOPNOTSUPP);
	} else if (op == UBLK_IO_OP_READ || op == UBLK_IO_OP_WRITE) {
		check_refusals(server, (uint16_t)tag);
	} else {
		CHECK_EQ(ublk_try_provide(server, cmd, GROUP), -EINVAL);
	}
	order->done++;
	ublk_server_commit(server, tag, (int)(server->iods[tag].nr_sectors << 9));
	CHECK_EQ(ring_submit(&server->ring), 1);
	/* The tag is given back. (There is no other request that could be in it after the write.)
	 */
	if (op == UBLK_IO_OP_WRITE && server->dev->flags & UBLK_F_GROUP_KBUF)
		CHECK_EQ(ublk_try_provide(server, cmd, GROUP), -EBUSY);
}

/* Without groups: the partition scan and the like are answered with nothing. */
static void plain_request(struct ublk_server *server, unsigned int tag)
{
	struct order *order = server->priv;

	if (order->what)
		refusing_request(server, tag);
	else
		ublk_server_commit(server, tag, (int)(server->iods[tag].nr_sectors << 9));
}

static void refusing_server(struct ublk_dev *dev, void *arg)
{
	struct ublk_server server = {
		.file = backing_file(),
		.request = dev->flags & UBLK_F_GROUP_KBUF ? refusing_request : plain_request,
		.completed = ublk_loop_completed,
		.priv = arg,
	};

	ublk_server_open(&server, dev, 0);
	ublk_server_run(&server);
}

static void flush_and_discard(const struct ublk_dev *dev)
{
	uint64_t range[2] = {65536, 65536};
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/ublkb%d", dev->id);
	fd = (int)CHECK_SYS(open(path, O_RDWR | O_CLOEXEC));
	CHECK_SYS(fsync(fd));
	CHECK_SYS(ioctl(fd, BLKDISCARD, range));
	CHECK_SYS(ioctl(fd, BLKZEROOUT, range));
	close(fd);
}

static struct order *new_order(void)
{
	struct order *order =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(order != MAP_FAILED);
	return order;
}

static void provide_answers(uint64_t flags)
{
	struct order *order = new_order();
	struct ublk_dev dev;
	pid_t server;

	ublk_add(&dev, flags, DEPTH, DEVICE_BYTES);
	server = ublk_start(&dev, refusing_server, order);
	order->what = 1;
	peer_join(block_write(&dev, DATA, 4096, 8192, 0));
	CHECK_EQ(order->done, 1);
	if (flags & UBLK_F_GROUP_KBUF) {
		flush_and_discard(&dev);
		CHECK_EQ(order->done, 4);
	}
	order->what = 0;
	ublk_remove(&dev);
	peer_join(server);
}

static void provide_is_refused_with_the_right_errno(void)
{
	ublk_require();
	provide_answers(UBLK_FLAGS);
	provide_answers(UBLK_FLAGS & ~UBLK_F_GROUP_KBUF);
}

/* With CAP_SYS_ADMIN the flag for unprivileged devices is dropped. */
static void add_as_nobody(struct ublk_dev *dev, void *arg)
{
	(void)arg;
	CHECK_SYS(chmod(UBLK_CONTROL_PATH, 0666));
	CHECK_SYS(setresuid(65534, 65534, 0));
	CHECK_EQ(ublk_try_add(dev, UBLK_FLAGS | UBLK_F_UNPRIVILEGED_DEV, DEPTH), -EINVAL);
	CHECK_EQ(ublk_try_add(dev, UBLK_F_UNPRIVILEGED_DEV | UBLK_F_GROUP_KBUF, DEPTH), -EINVAL);
	CHECK_SYS(setresuid(0, 0, 0));
	CHECK_SYS(chmod(UBLK_CONTROL_PATH, 0600));
}

static void devices_that_cannot_lend_are_refused(void)
{
	struct ublk_dev dev;

	ublk_require();
	CHECK_EQ(ublk_try_add(&dev, UBLK_F_GROUP_KBUF, DEPTH), -EINVAL);
	peer_join(ublk_fork(&dev, add_as_nobody, NULL));
	/* A kernel without zoned devices has another errno for the flag itself. */
	CHECK(ublk_try_add(&dev, UBLK_FLAGS | UBLK_F_ZONED, DEPTH) < 0);
}

struct borrow {
	int fds[2];
	bool held;
};

static void commit_by_hand(struct ublk_server *server, unsigned int tag, int result)
{
	ublk_server_commit(server, tag, result)->user_data = ublk_key(UBLK_KIND_OTHER, tag);
}

static void borrowing_request(struct ublk_server *server, unsigned int tag)
{
	struct borrow *borrow = server->priv;
	const struct ublksrv_io_desc *iod = &server->iods[tag];

	if ((uint8_t)iod->op_flags != UBLK_IO_OP_READ || iod->start_sector != 1024) {
		ublk_loop_request(server, tag);
		return;
	}
	borrow->held = true;
	server->tags[tag] = (struct ublk_tag){.left = 2};
	ublk_server_provide(server, tag);
	ring_msg(&server->ring, IORING_OP_RECV, ublk_key(UBLK_KIND_MEMBER, tag), KBUF,
		 borrow->fds[0], 0, iod->nr_sectors << 9, MSG_WAITALL);
	commit_by_hand(server, tag, (int)(iod->nr_sectors << 9));
}

static void borrowing_completed(struct ublk_server *server, const struct ring_cqe *cqe)
{
	struct borrow *borrow = server->priv;
	unsigned int tag = (uint16_t)cqe->user_data;

	if (cqe->user_data >> 16 != UBLK_KIND_OTHER) {
		/* The leader's completion: from now on COMMIT works. */
		if (borrow->held && cqe->user_data >> 16 == UBLK_KIND_PROVIDE)
			CHECK_EQ(server->tags[tag].left, 1);
		ublk_loop_completed(server, cqe);
		return;
	}
	CHECK_EQ(cqe->res, -EBUSY);
	CHECK_EQ(server->tags[tag].left, 2);
	peer_write(borrow->fds[1], DATA, (size_t)server->iods[tag].start_sector << 9,
		   server->iods[tag].nr_sectors << 9);
}

static void borrowing_server(struct ublk_dev *dev, void *arg)
{
	struct borrow borrow = {.held = false};
	struct ublk_server server = {
		.file = backing_file(),
		.request = borrowing_request,
		.completed = borrowing_completed,
		.priv = &borrow,
	};

	(void)arg;
	net_unix_pair(borrow.fds);
	ublk_server_open(&server, dev, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	ublk_server_run(&server);
	CHECK(borrow.held);
}

static void commit_while_borrowed_is_busy(void)
{
	struct ublk_dev dev;
	pid_t server;

	ublk_require();
	ublk_add(&dev, UBLK_FLAGS, DEPTH, DEVICE_BYTES);
	server = ublk_start(&dev, borrowing_server, NULL);
	peer_join(block_read(&dev, DATA, 524288, 65536, 0));
	peer_join(block_read(&dev, DATA, 0, 65536, 0));
	ublk_remove(&dev);
	peer_join(server);
}

/* Fills or takes the first half only, and says so. Then the rest comes again, on its own. */
static void halving_request(struct ublk_server *server, unsigned int tag)
{
	const struct ublksrv_io_desc *iod = &server->iods[tag];
	uint32_t len = iod->nr_sectors << 9;

	if (len < 1024 || (uint8_t)iod->op_flags > UBLK_IO_OP_WRITE) {
		ublk_loop_request(server, tag);
		return;
	}
	server->tags[tag] = (struct ublk_tag){.left = 2};
	ublk_server_provide(server, tag);
	ring_rw(&server->ring,
		(uint8_t)iod->op_flags == UBLK_IO_OP_READ ? IORING_OP_READ : IORING_OP_WRITE,
		ublk_key(UBLK_KIND_OTHER, tag), KBUF, server->file, 0, len / 1024 * 512,
		iod->start_sector << 9);
}

static void halving_completed(struct ublk_server *server, const struct ring_cqe *cqe)
{
	unsigned int tag = (uint16_t)cqe->user_data;
	struct ublk_tag *state = &server->tags[tag];
	struct order *order = server->priv;

	if (cqe->user_data >> 16 == UBLK_KIND_OTHER) {
		CHECK_EQ(cqe->res, (server->iods[tag].nr_sectors << 9) / 1024 * 512);
		state->result = cqe->res;
		order->done++;
		if (--state->left == 0)
			ublk_server_commit(server, tag, state->result);
	} else {
		ublk_loop_completed(server, cqe);
	}
}

static void halving_server(struct ublk_dev *dev, void *arg)
{
	struct ublk_server server = {
		.file = backing_file(),
		.request = halving_request,
		.completed = halving_completed,
		.priv = arg,
	};

	ublk_server_open(&server, dev, 0);
	ublk_server_run(&server);
}

static void short_results_bring_the_rest_again(void)
{
	struct order *order = new_order();
	struct ublk_dev dev;
	pid_t server;
	int done;

	ublk_require();
	ublk_add(&dev, UBLK_FLAGS, DEPTH, DEVICE_BYTES);
	server = ublk_start(&dev, halving_server, order);
	done = order->done;
	peer_join(block_read(&dev, DATA, 8192, 4096, 0));
	/* 4096 = 2048 + 1024 + 512 + a whole request of 512. */
	CHECK_EQ(order->done - done, 3);
	peer_join(block_write(&dev, DATA + 1, 12288, 4096, 0));
	CHECK_EQ(order->done - done, 6);
	peer_join(block_write(&dev, DATA + 1, 65536, 262144, 0));
	peer_join(block_read(&dev, DATA + 1, 12288, 4096, 0));
	peer_join(block_read(&dev, DATA + 1, 65536, 262144, 0));
	peer_join(block_read(&dev, DATA, 327680, 327680, 0));
	ublk_remove(&dev);
	peer_join(server);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"33: PROVIDE is refused with the right errno",
		 provide_is_refused_with_the_right_errno, 0},
		{"33: devices that cannot lend are refused", devices_that_cannot_lend_are_refused,
		 0},
		{"34: COMMIT while borrowed is -EBUSY", commit_while_borrowed_is_busy, 0},
		{"35: short results bring the rest again", short_results_bring_the_rest_again, 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
