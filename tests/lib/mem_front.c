// SPDX-License-Identifier: MIT
#include "mem_front.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int mem_front_init(struct mem_front *front, unsigned int depth, uint32_t max_io_bytes)
{
	*front = (struct mem_front){.depth = depth};
	front->slots = calloc(depth, sizeof(*front->slots));
	front->ended = calloc(depth, sizeof(*front->ended));
	front->pages = calloc(depth, max_io_bytes ? max_io_bytes : 1);
	if (!front->slots || !front->ended || !front->pages) {
		mem_front_done(front);
		return -ENOMEM;
	}
	return 0;
}

void mem_front_done(struct mem_front *front)
{
	free(front->slots);
	free(front->ended);
	free(front->pages);
	*front = (struct mem_front){0};
}

void mem_front_submit(struct gk_queue *queue, uint16_t tag, uint16_t type, uint16_t flags,
		      uint64_t offset, uint32_t len)
{
	struct mem_front *front = queue->front_data;
	struct mem_slot *slot = &front->slots[tag];

	assert(!slot->busy);
	slot->busy = true;
	front->n_busy++;
	gk_tag_begin(queue, &queue->tags[tag], type, flags, offset, len);
	/* As ublk's front does with UBLK_F_USER_COPY: small payload is sent from the tag's buffer. */
	if (type == NBD_CMD_WRITE && queue->path->kernel_buffers && !queue->tags[tag].direct)
		memcpy(queue->tags[tag].buf, mem_front_data(queue, tag), len);
	gk_queue_submit(queue, &queue->tags[tag]);
}

uint8_t *mem_front_data(const struct gk_queue *queue, uint16_t tag)
{
	const struct mem_front *front = queue->front_data;

	return queue->path->kernel_buffers ? front->pages + (size_t)tag * queue->max_io_bytes
					   : queue->tags[tag].buf;
}

bool mem_front_next(struct mem_front *front, uint16_t *ret_tag, int32_t *ret_result)
{
	uint16_t tag;

	if (!front->n_ended)
		return false;
	tag = front->ended[front->head];
	front->head = (front->head + 1) % front->depth;
	front->n_ended--;
	*ret_tag = tag;
	*ret_result = front->slots[tag].result;
	return true;
}

static int start(struct gk_queue *queue)
{
	queue->front_live = 1;
	return 0;
}

static void complete(struct gk_queue *queue, uint16_t tag, int res)
{
	(void)queue;
	(void)tag;
	(void)res;
	assert(!"this front has no commands of its own");
}

/* Only noted: whoever submits from here could find itself called again by a request that fails. */
static void commit(struct gk_queue *queue, struct gk_tag *tag, int32_t result)
{
	struct mem_front *front = queue->front_data;
	struct mem_slot *slot = &front->slots[tag->id];

	/* Ended twice, or never begun: no test may survive that. */
	assert(slot->busy && tag->state == GK_TAG_IDLE && front->n_ended < front->depth);
	slot->busy = false;
	slot->result = result;
	slot->commits++;
	front->n_busy--;
	front->ended[(front->head + front->n_ended++) % front->depth] = tag->id;
}

const struct gk_front mem_front_ops = {.start = start, .complete = complete, .commit = commit};

static int copy_in(struct gk_queue *queue, const struct gk_tag *tag, void *to, uint32_t offset,
		   uint32_t len)
{
	memcpy(to, mem_front_data(queue, tag->id) + offset, len);
	return 0;
}

static int copy_out(struct gk_queue *queue, const struct gk_tag *tag, const void *from,
		    uint32_t offset, uint32_t len)
{
	memcpy(mem_front_data(queue, tag->id) + offset, from, len);
	return 0;
}

static bool lend_fails(struct gk_queue *queue)
{
	struct mem_front *front = queue->front_data;

	return front->lend_fails_every && ++front->transfers % front->lend_fails_every == 0;
}

/*
 * The SEND or RECV itself; when its pages are not lent, on the first page of the address space,
 * which faults as late as a buffer that is not registered does: when the operation runs.
 */
static void socket_sqe(struct gk_queue *queue, const struct gk_tag *tag,
		       const struct gk_transfer *transfer, bool lent)
{
	struct io_uring_sqe *sqe = gk_queue_sqe(queue, transfer->key);
	uintptr_t data = lent ? (uintptr_t)mem_front_data(queue, tag->id) : 4096;

	sqe->opcode = !transfer->to_socket  ? IORING_OP_RECV
		      : transfer->zero_copy ? IORING_OP_SEND_ZC
					    : IORING_OP_SEND;
	sqe->fd = transfer->fd;
	sqe->addr = data + transfer->offset;
	sqe->len = transfer->len;
	sqe->msg_flags = (uint32_t)transfer->msg_flags;
	sqe->flags = transfer->link ? IOSQE_IO_LINK : 0;
	if (transfer->poll_first)
		sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
}

static void transfer_single(struct gk_queue *queue, const struct gk_tag *tag,
			    const struct gk_transfer *transfer)
{
	socket_sqe(queue, tag, transfer, !lend_fails(queue));
}

static void transfer_paired(struct gk_queue *queue, const struct gk_tag *tag,
			    const struct gk_transfer *transfer)
{
	struct io_uring_sqe *leader = gk_queue_sqe(queue, transfer->leader_key);

	/* A leader that fails ends its member, and what is linked behind, with -ECANCELED. */
	leader->opcode = lend_fails(queue) ? IORING_OP_READ : IORING_OP_NOP;
	leader->fd = -1;
	leader->flags = IOSQE_IO_LINK;
	socket_sqe(queue, tag, transfer, true);
}

const struct gk_path mem_path_single = {
	.name = "memory, single",
	.kernel_buffers = true,
	.transfer_cqes = 1,
	.transfer = transfer_single,
	.copy_in = copy_in,
	.copy_out = copy_out,
};

const struct gk_path mem_path_paired = {
	.name = "memory, paired",
	.kernel_buffers = true,
	.transfer_cqes = 2,
	.transfer = transfer_paired,
	.copy_in = copy_in,
	.copy_out = copy_out,
};
