// SPDX-License-Identifier: MIT
/*
 * A session died: what happens to its tags. They arrive here in the order in which they entered,
 * with no operation in flight on them. NBD requests are idempotent by offset, so each may be sent
 * again: on another session, or parked until the next one is UP. And everything that waits is
 * watched here: answers, fences, reconnection.
 */
#include <errno.h>

#include "datapath.h"

#define TICK_MAX_NS UINT64_C(1000000000)
#define TICK_MIN_NS UINT64_C(20000000)

void gk_session_settle_tags(struct gk_queue *queue, struct gk_tag **tags, unsigned int n_tags)
{
	for (unsigned int i = 0; i < n_tags; i++) {
		struct gk_tag *tag = tags[i];
		bool whole = tag->done + tag->part == tag->len;

		/* Answered while it was still being sent: that outcome stands, if it is the whole. */
		if (tag->answered && (tag->error || whole)) {
			tag->answered = false;
			gk_tag_end(queue, tag, tag->error ? tag->error : (int32_t)tag->len);
		} else if (queue->retry.replay && !queue->stopping) {
			gk_count(&queue->counters.replays, 1);
			tag->session = NULL;
			/* What a server took of a WRITE may be gone with it: only a whole one is dirty. */
			if (tag->type == NBD_CMD_WRITE)
				tag->done = 0;
			gk_queue_submit(queue, tag);
		} else {
			gk_tag_end(queue, tag, -EIO);
		}
	}
}

void gk_session_park(struct gk_queue *queue, struct gk_tag *tag)
{
	if (!queue->retry.replay || queue->stopping || queue->gave_up) {
		gk_tag_end(queue, tag, -EIO);
		return;
	}
	if (!queue->down_since_ns)
		queue->down_since_ns = queue->now_ns;
	tag->state = GK_TAG_QUEUED;
	tag->session = NULL;
	tag->next = NULL;
	*queue->parked_tail = tag;
	queue->parked_tail = &tag->next;
}

static struct gk_tag *take_parked(struct gk_queue *queue)
{
	struct gk_tag *tags = queue->parked;

	queue->parked = NULL;
	queue->parked_tail = &queue->parked;
	return tags;
}

void gk_session_unpark(struct gk_queue *queue)
{
	struct gk_tag *tag = take_parked(queue);

	queue->down_since_ns = 0;
	queue->gave_up = false;
	while (tag) {
		struct gk_tag *next = tag->next;

		gk_queue_submit(queue, tag);
		tag = next;
	}
}

void gk_session_unpark_failed(struct gk_queue *queue)
{
	struct gk_tag *tag = take_parked(queue);

	while (tag) {
		struct gk_tag *next = tag->next;

		gk_tag_end(queue, tag, -EIO);
		tag = next;
	}
}

bool gk_session_needs_tick(const struct gk_queue *queue)
{
	if (queue->parked && queue->retry.reconnect_timeout_ns)
		return true;
	for (unsigned int i = 0; i < queue->n_sessions; i++) {
		const struct gk_session *session = &queue->sessions[i];

		if (session->state == GK_SESSION_FENCING && !queue->retry.fence_strict)
			return true;
		if (session->state == GK_SESSION_UP && session->in_flight &&
		    queue->retry.request_timeout_ns)
			return true;
	}
	return false;
}

/* An eighth of the shortest time that is watched: nobody waits much longer than configured. */
uint64_t gk_session_tick_ns(const struct gk_queue *queue)
{
	const struct gk_retry_policy *retry = &queue->retry;
	uint64_t times[] = {retry->fence_timeout_ns, retry->request_timeout_ns,
			    retry->reconnect_timeout_ns};
	uint64_t ns = 8 * TICK_MAX_NS;

	for (unsigned int i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (times[i] && times[i] < ns)
			ns = times[i];
	return ns / 8 < TICK_MIN_NS ? TICK_MIN_NS : ns / 8;
}

static bool waits_too_long(const struct gk_queue *queue, const struct gk_session *session)
{
	for (unsigned int i = 0; i < queue->depth; i++) {
		const struct gk_tag *tag = &queue->tags[i];

		if (tag->session == session && !tag->answered &&
		    (tag->state == GK_TAG_SENDING || tag->state == GK_TAG_SENT) &&
		    queue->now_ns - tag->wire_ns > queue->retry.request_timeout_ns)
			return true;
	}
	return false;
}

void gk_session_tick(struct gk_queue *queue)
{
	const struct gk_retry_policy *retry = &queue->retry;

	for (unsigned int i = 0; i < queue->n_sessions; i++) {
		struct gk_session *session = &queue->sessions[i];

		if (session->state == GK_SESSION_UP && session->in_flight &&
		    retry->request_timeout_ns && waits_too_long(queue, session)) {
			gk_count(&queue->counters.timeouts, 1);
			gk_session_fail(session, -EAGAIN, "a request was not answered in time");
		} else if (session->state == GK_SESSION_FENCING && !retry->fence_strict &&
			   queue->now_ns - session->fence_begin_ns > retry->fence_timeout_ns) {
			gk_session_fenced(session, GK_SESSION_END_UNKNOWN);
		}
	}
	if (queue->parked && retry->reconnect_timeout_ns &&
	    queue->now_ns - queue->down_since_ns > retry->reconnect_timeout_ns) {
		gk_log(GK_LOG_ERROR, "dev%d q%u: no connection within reconnect_timeout: requests "
		       "fail until there is one", queue->dev_id, queue->id);
		queue->gave_up = true;
		gk_session_unpark_failed(queue);
	}
}
