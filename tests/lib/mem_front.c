// SPDX-License-Identifier: MIT
#include "mem_front.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int mem_front_init(struct mem_front *front, unsigned int depth)
{
	*front = (struct mem_front){.depth = depth};
	front->slots = calloc(depth, sizeof(*front->slots));
	front->ended = calloc(depth, sizeof(*front->ended));
	if (!front->slots || !front->ended) {
		mem_front_done(front);
		return -ENOMEM;
	}
	return 0;
}

void mem_front_done(struct mem_front *front)
{
	free(front->slots);
	free(front->ended);
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
	gk_queue_submit(queue, &queue->tags[tag]);
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
