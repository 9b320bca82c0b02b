// SPDX-License-Identifier: MIT
#include "tag.h"

#include <assert.h>

#include "datapath.h"
#include "log.h"
#include "loop.h"
#include "nbd_request.h"

void gk_tag_begin(struct gk_queue *queue, struct gk_tag *tag, uint16_t type, uint16_t flags,
		  uint64_t offset, uint32_t len)
{
	assert(tag->state == GK_TAG_IDLE);
	tag->type = type;
	tag->flags = flags;
	if (queue->force_fua && type != NBD_CMD_READ && type != NBD_CMD_FLUSH)
		tag->flags |= NBD_CMD_FLAG_FUA;
	tag->offset = offset;
	tag->len = len;
	tag->done = 0;
	tag->direct = queue->path->kernel_buffers && len >= queue->threshold_bytes &&
		      (type == NBD_CMD_READ || type == NBD_CMD_WRITE);
	tag->no_kernel_buffer = false;
	tag->no_zc = false;
	tag->drops = 0;
	tag->sequence = queue->next_sequence;
	gk_count(&queue->next_sequence, 1);
	tag->begin_ns = queue->now_ns;
	if (queue->unflushed && type == NBD_CMD_FLUSH)
		tag->flush_number = gk_unflushed_begin(queue->unflushed);
}

void gk_tag_next_part(struct gk_tag *tag, uint32_t max_payload)
{
	uint32_t left = tag->len - tag->done;
	bool has_payload = tag->type == NBD_CMD_READ || tag->type == NBD_CMD_WRITE;

	tag->part = has_payload && left > max_payload ? max_payload : left;
	tag->filled = 0;
	tag->tiling = 0;
	tag->error = 0;
	tag->error_chunks = 0;
	tag->answered = false;
	tag->generation++;
}

/* Once the part's outcome is known and nothing reads the slot or its pages any more. */
static void settle(struct gk_queue *queue, struct gk_tag *tag)
{
	if (!tag->answered || tag->state != GK_TAG_SENT || tag->lent)
		return;
	tag->answered = false;
	if (tag->error) {
		gk_tag_end(queue, tag, tag->error);
		return;
	}
	tag->done += tag->part;
	if (tag->done < tag->len)
		gk_queue_submit(queue, tag);
	else
		gk_tag_end(queue, tag, (int32_t)tag->len);
}

/* The server can answer it, or its outcome does not matter any more. */
static void clear_suspicion(struct gk_queue *queue, struct gk_tag *tag)
{
	queue->suspects -= tag->drops >= GK_SUSPECT_DROPS;
	tag->drops = 0;
}

void gk_tag_answer(struct gk_queue *queue, struct gk_tag *tag, int error)
{
	clear_suspicion(queue, tag);
	tag->error = error;
	tag->session->answered_ns = queue->now_ns;
	tag->session->in_flight--;
	tag->session->large -= tag->large;
	tag->session->large_reads -= tag->large && tag->type == NBD_CMD_READ;
	if (error)
		GK_LOG_LIMITED(&queue->error_log, GK_LOG_WARNING,
			       "dev%d q%u t%u s%u: %s at %llu+%u: the server says %s, request fails",
			       queue->dev_id, queue->id, tag->id, tag->session->id,
			       gk_nbd_cmd_name(tag->type), (unsigned long long)tag->offset, tag->len,
			       gk_strerror(error));
	tag->answered = true;
	settle(queue, tag);
}

void gk_tag_sent(struct gk_queue *queue, struct gk_tag *tag)
{
	assert(tag->state == GK_TAG_SENDING);
	tag->state = GK_TAG_SENT;
	settle(queue, tag);
}

void gk_tag_returned(struct gk_queue *queue, struct gk_tag *tag)
{
	assert(tag->lent);
	tag->lent--;
	settle(queue, tag);
}

bool gk_tag_owes(const struct gk_queue *queue, const struct gk_tag *tag)
{
	return tag->type == NBD_CMD_FLUSH && queue->unflushed &&
	       gk_unflushed_owes(queue->unflushed, tag->flush_number);
}

/* What the end of a request means for the next flush. */
static void track_flushes(struct gk_queue *queue, const struct gk_tag *tag, bool well)
{
	if (tag->type == NBD_CMD_FLUSH)
		gk_unflushed_end(queue->unflushed, tag->flush_number, well);
	else if (well && tag->type != NBD_CMD_READ && !(tag->flags & NBD_CMD_FLAG_FUA))
		gk_unflushed_write(queue->unflushed, &queue->dirty);
}

void gk_tag_end(struct gk_queue *queue, struct gk_tag *tag, int32_t result)
{
	struct gk_counters *counters = &queue->counters;

	clear_suspicion(queue, tag);
	/* The new server flushed, but not what the old one lost meanwhile. */
	if (result >= 0 && gk_tag_owes(queue, tag))
		result = -EIO;
	if (result < 0)
		gk_count(&counters->errors, 1);
	if (queue->unflushed)
		track_flushes(queue, tag, result >= 0);
	gk_count(&counters->requests[gk_op_index(tag->type)], 1);
	gk_histogram_add(&queue->latency[gk_op_index(tag->type)], queue->now_ns - tag->begin_ns);
	if (tag->type == NBD_CMD_READ)
		gk_count(&counters->bytes_read, tag->len);
	else if (tag->type == NBD_CMD_WRITE)
		gk_count(&counters->bytes_written, tag->len);
	tag->state = GK_TAG_IDLE;
	tag->session = NULL;
	queue->front->commit(queue, tag, result);
}
