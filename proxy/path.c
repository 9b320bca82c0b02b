// SPDX-License-Identifier: MIT
#include "path.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gk_io_uring.h"
#include "loop.h"
#include "ublk_front.h"

static int tag_buf_in(struct gk_queue *queue, const struct gk_tag *tag, void *to, uint32_t offset,
		      uint32_t len)
{
	(void)queue;
	memcpy(to, tag->buf + offset, len);
	return 0;
}

static int tag_buf_out(struct gk_queue *queue, const struct gk_tag *tag, const void *from,
		       uint32_t offset, uint32_t len)
{
	(void)queue;
	memcpy(tag->buf + offset, from, len);
	return 0;
}

/* Where /dev/ublkcN shows the data of a request in flight (UBLK_F_USER_COPY). */
static off_t user_copy_offset(const struct gk_queue *queue, const struct gk_tag *tag,
			      uint32_t offset)
{
	return (off_t)(UBLKSRV_IO_BUF_OFFSET + ((uint64_t)queue->id << UBLK_QID_OFF) +
		       ((uint64_t)tag->id << UBLK_TAG_OFF) + offset);
}

static int user_copy_in(struct gk_queue *queue, const struct gk_tag *tag, void *to, uint32_t offset,
			uint32_t len)
{
	const struct gk_ublk_queue *uq = queue->front_data;
	ssize_t n = pread(uq->cdev_fd, to, len, user_copy_offset(queue, tag, offset));

	return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
}

static int user_copy_out(struct gk_queue *queue, const struct gk_tag *tag, const void *from,
			 uint32_t offset, uint32_t len)
{
	const struct gk_ublk_queue *uq = queue->front_data;
	ssize_t n = pwrite(uq->cdev_fd, from, len, user_copy_offset(queue, tag, offset));

	return n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
}

/* The SEND or RECV of a transfer; addr is an offset into the kernel buffer. */
static struct io_uring_sqe *socket_sqe(struct gk_queue *queue, const struct gk_transfer *transfer)
{
	struct io_uring_sqe *sqe = gk_queue_sqe(queue, transfer->key);

	sqe->opcode = !transfer->to_socket  ? IORING_OP_RECV
		      : transfer->zero_copy ? IORING_OP_SEND_ZC
					    : IORING_OP_SEND;
	sqe->fd = transfer->fd;
	sqe->addr = transfer->offset;
	sqe->len = transfer->len;
	sqe->msg_flags = (uint32_t)transfer->msg_flags;
	if (transfer->to_socket && transfer->zero_copy)
		sqe->ioprio = IORING_SEND_ZC_REPORT_USAGE;
	if (transfer->poll_first)
		sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
	return sqe;
}

static int registered_open(struct gk_queue *queue)
{
	/* ublk fills slot `tag` when the request is fetched and empties it at its commit. */
	return io_uring_register_buffers_sparse(&queue->ring, queue->depth);
}

static void registered_transfer(struct gk_queue *queue, const struct gk_tag *tag,
				const struct gk_transfer *transfer)
{
	struct io_uring_sqe *sqe = socket_sqe(queue, transfer);

	sqe->ioprio |= IORING_RECVSEND_FIXED_BUF;
	sqe->buf_index = tag->id;
	if (transfer->link)
		sqe->flags = IOSQE_IO_LINK;
}

static void group_transfer(struct gk_queue *queue, const struct gk_tag *tag,
			   const struct gk_transfer *transfer)
{
	const struct gk_ublk_queue *uq = queue->front_data;
	struct io_uring_sqe *leader = gk_queue_sqe(queue, transfer->leader_key);
	struct ublksrv_io_cmd cmd = {.q_id = (uint16_t)queue->id, .tag = tag->id};

	leader->opcode = IORING_OP_URING_CMD;
	leader->fd = uq->cdev_fd;
	leader->off = UBLK_U_IO_PROVIDE_IO_BUF;
	memcpy(leader->cmd, &cmd, sizeof(cmd));
	leader->flags = IOSQE_SQE_GROUP | (transfer->link ? IOSQE_IO_LINK : 0);
	/* The first SQE without the group flag is the group's last member. */
	socket_sqe(queue, transfer)->flags = IOSQE_GROUP_KBUF;
}

const struct gk_path gk_path_copy = {
	.name = "copy",
	.copy_in = tag_buf_in,
	.copy_out = tag_buf_out,
};

const struct gk_path gk_path_group = {
	.name = "group",
	.ublk_flags = UBLK_F_GROUP_KBUF | UBLK_F_USER_COPY,
	.kernel_buffers = true,
	.threshold_bytes = 32 * 1024,
	.transfer_cqes = 2,
	.transfer = group_transfer,
	.copy_in = user_copy_in,
	.copy_out = user_copy_out,
};

const struct gk_path gk_path_registered = {
	.name = "registered",
	.ublk_flags = UBLK_F_AUTO_BUF_REG | UBLK_F_USER_COPY,
	.kernel_buffers = true,
	/* Lending costs more here: the pages are registered and released with every request. */
	.threshold_bytes = 64 * 1024,
	.transfer_cqes = 1,
	.open = registered_open,
	.transfer = registered_transfer,
	.copy_in = user_copy_in,
	.copy_out = user_copy_out,
};

const struct gk_path *gk_path_of_flags(uint64_t ublk_flags)
{
	if ((ublk_flags & gk_path_group.ublk_flags) == gk_path_group.ublk_flags)
		return &gk_path_group;
	if ((ublk_flags & gk_path_registered.ublk_flags) == gk_path_registered.ublk_flags)
		return &gk_path_registered;
	return &gk_path_copy;
}

/* The first thing that group needs and the host lacks, or NULL. */
static const char *group_lacks(const struct gk_probe *probe)
{
	if (probe->sqe_group)
		return "io_uring has no SQE groups (IORING_FEAT_SQE_GROUP, Linux 6.12 with the series "
		       "in kernel/)";
	if (probe->group_kbuf)
		return "io_uring has no group kernel buffer (IORING_FEAT_GROUP_KBUF)";
	if (probe->ublk_group_kbuf)
		return "ublk does not provide its buffers to SQE groups (UBLK_F_GROUP_KBUF)";
	return NULL;
}

static const char *registered_lacks(const struct gk_probe *probe)
{
	if (probe->ublk_auto_buf_reg)
		return "ublk has no automatic buffer registration (UBLK_F_AUTO_BUF_REG, Linux 6.16)";
	if (probe->ublk_user_copy)
		return "ublk has no UBLK_F_USER_COPY";
	if (probe->fixed_buf_sendrecv)
		return "plain SEND and RECV take no registered buffer (IORING_RECVSEND_FIXED_BUF, "
		       "Linux 7.2)";
	return NULL;
}

const struct gk_path *gk_path_choose(enum gk_data_path wanted, const struct gk_probe *probe,
					  char *why, size_t why_size)
{
	const char *no_group = group_lacks(probe);
	const char *no_registered = registered_lacks(probe);

	why[0] = '\0';
	switch (wanted) {
	case GK_PATH_GROUP:
		snprintf(why, why_size, "%s", no_group ? no_group : "");
		return no_group ? NULL : &gk_path_group;
	case GK_PATH_REGISTERED:
		snprintf(why, why_size, "%s", no_registered ? no_registered : "");
		return no_registered ? NULL : &gk_path_registered;
	case GK_PATH_COPY:
		return &gk_path_copy;
	case GK_PATH_AUTO:
		break;
	}
	if (!no_group)
		return &gk_path_group;
	if (!no_registered)
		return &gk_path_registered;
	snprintf(why, why_size, "not group: %s; not registered: %s", no_group, no_registered);
	return &gk_path_copy;
}
