// SPDX-License-Identifier: MIT
/*
 * The request leaves: COMMIT_AND_FETCH ends it in the kernel and asks for the next one of this
 * tag. The commands of one loop turn share one enter.
 */
#include <string.h>

#include "datapath.h"
#include "ublk_front.h"

static void command(struct gk_queue *queue, struct gk_tag *tag, uint32_t op, int32_t result)
{
	const struct gk_ublk_queue *uq = queue->front_data;
	struct io_uring_sqe *sqe = gk_queue_sqe(queue, gk_cqe_key(GK_CQE_FRONT, tag->id));
	struct ublksrv_io_cmd cmd = {
		.q_id = (uint16_t)queue->id,
		.tag = tag->id,
		.result = result,
		.addr = queue->path->kernel_buffers ? 0 : (uintptr_t)tag->buf,
	};

	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = uq->cdev_fd;
	sqe->off = op; /* cmd_op, and its padding 0 */
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	/* Where the next request's pages are to be registered; no slot: the request is copied. */
	if (queue->path->ublk_flags & UBLK_F_AUTO_BUF_REG)
		sqe->addr = tag->id | (uint64_t)UBLK_AUTO_BUF_REG_FALLBACK << 16;
	tag->front_op = op;
	tag->front_result = result;
}

void gk_ublk_commit(struct gk_queue *queue, struct gk_tag *tag, int32_t result)
{
	command(queue, tag, UBLK_U_IO_COMMIT_AND_FETCH_REQ, result);
}

void gk_ublk_repeat(struct gk_queue *queue, struct gk_tag *tag)
{
	command(queue, tag, tag->front_op, tag->front_result);
}

static int start(struct gk_queue *queue)
{
	for (unsigned int i = 0; i < queue->depth; i++)
		command(queue, &queue->tags[i], UBLK_U_IO_FETCH_REQ, 0);
	queue->front_live = queue->depth;
	return 0;
}

const struct gk_front gk_ublk_front = {
	.start = start,
	.complete = gk_ublk_fetch,
	.commit = gk_ublk_commit,
};
