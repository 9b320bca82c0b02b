// SPDX-License-Identifier: MIT
/*
 * A session died: what happens to its tags. They arrive here in the order in which they entered,
 * with no operation in flight on them. NBD requests are idempotent by offset, so each may be sent
 * again: on another session, or parked until the next one is UP. And everything that waits is
 * watched here: answers, fences, reconnection.
 */
#include <errno.h>

#include "datapath.h"
#include "log.h"
#include "nbd_request.h"

#define TICK_MAX_NS UINT64_C(1000000000)
#define TICK_MIN_NS UINT64_C(20000000)

/*
 * Whether the server hangs up on this request each time. What was out together is suspected
 * together; from then on each is sent alone, and only that counts.
 */
static bool is_poison(struct gk_queue *queue, struct gk_tag *tag, unsigned int n_out)
{
	if (!queue->retry.drops_max || !tag->session->dropped || tag->state == GK_TAG_QUEUED ||
	    (tag->drops >= GK_SUSPECT_DROPS && n_out > 1))
		return false;
	if (++tag->drops == GK_SUSPECT_DROPS)
		queue->suspects++;
	if (tag->drops < queue->retry.drops_max)
		return false;
	gk_log(GK_LOG_ERROR,
	       "dev%d q%u t%u: the server ended %u connections in a row upon %s at %llu+%u: it is not "
	       "sent again, the request fails", queue->dev_id, queue->id, tag->id, tag->drops,
	       gk_nbd_cmd_name(tag->type), (unsigned long long)tag->offset, tag->len);
	gk_count(&queue->counters.poisoned, 1);
	return true;
}

void gk_session_settle_tags(struct gk_queue *queue, struct gk_tag **tags, unsigned int n_tags)
{
	unsigned int n_out = 0;

	for (unsigned int i = 0; i < n_tags; i++)
		n_out += tags[i]->state != GK_TAG_QUEUED;
	for (unsigned int i = 0; i < n_tags; i++) {
		struct gk_tag *tag = tags[i];
		bool whole = tag->done + tag->part == tag->len;

		/* Answered while it was still being sent: that outcome stands, if it is the whole. */
		if (tag->answered && (tag->error || whole)) {
			tag->answered = false;
			gk_tag_end(queue, tag, tag->error ? tag->error : (int32_t)tag->len);
		} else if (queue->retry.replay && !queue->stopping &&
			   !is_poison(queue, tag, n_out)) {
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

static void append_parked(struct gk_queue *queue, struct gk_tag *tag)
{
	tag->state = GK_TAG_QUEUED;
	tag->session = NULL;
	tag->next = NULL;
	*queue->parked_tail = tag;
	queue->parked_tail = &tag->next;
}

void gk_session_park(struct gk_queue *queue, struct gk_tag *tag)
{
	if (!queue->retry.replay || queue->stopping || queue->gave_up) {
		gk_tag_end(queue, tag, -EIO);
		return;
	}
	if (!queue->down_since_ns)
		queue->down_since_ns = queue->now_ns;
	append_parked(queue, tag);
}

static bool is_any_up(const struct gk_queue *queue, bool with_requests)
{
	for (unsigned int i = 0; i < queue->n_sessions; i++)
		if (queue->sessions[i].state == GK_SESSION_UP &&
		    (!with_requests || queue->sessions[i].in_flight))
			return true;
	return false;
}

bool gk_session_holds_back(const struct gk_queue *queue)
{
	return queue->suspects && is_any_up(queue, true);
}

void gk_session_hold(struct gk_queue *queue, struct gk_tag *tag)
{
	queue->holding = true;
	append_parked(queue, tag);
}

void gk_session_release(struct gk_queue *queue)
{
	if (!is_any_up(queue, false))
		return;
	while (queue->suspects && queue->parked && !gk_session_holds_back(queue)) {
		struct gk_tag *tag = queue->parked;

		queue->parked = tag->next;
		if (!queue->parked)
			queue->parked_tail = &queue->parked;
		gk_queue_submit(queue, tag);
	}
	if (queue->suspects)
		return;
	queue->holding = false;
	gk_session_unpark(queue);
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

/*
 * Something is owed by the server: an answer, or that it reads. It may answer a request that it has
 * not read to its end, and then read no further.
 */
static bool is_waiting(const struct gk_session *session)
{
	return session->state == GK_SESSION_UP &&
	       (session->in_flight || session->sending || session->proof_ns);
}

bool gk_session_needs_tick(const struct gk_queue *queue)
{
	if (queue->parked && queue->down_since_ns && queue->retry.reconnect_timeout_ns)
		return true;
	for (unsigned int i = 0; i < queue->n_sessions; i++) {
		const struct gk_session *session = &queue->sessions[i];

		if (session->state == GK_SESSION_FENCING &&
		    (!queue->retry.fence_strict || session->blind))
			return true;
		if (is_waiting(session) && queue->retry.request_timeout_ns)
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

/*
 * Whether the server has got on neither with what has waited longest nor, before that, with anything
 * older. A slow network brings answers one after the other, long after the last of many requests went
 * out; younger answers, on the other hand, do not help a request that is stuck.
 */
static bool waits_too_long(const struct gk_queue *queue, struct gk_session *session)
{
	uint64_t oldest_ns = session->proof_ns ? session->proof_ns : UINT64_MAX;
	unsigned int n = session->proof_ns != 0;

	for (unsigned int i = 0; i < queue->depth; i++) {
		const struct gk_tag *tag = &queue->tags[i];

		if (tag->session != session || tag->wire_ns > oldest_ns ||
		    (tag->state != GK_TAG_SENDING && (tag->state != GK_TAG_SENT || tag->answered)))
			continue;
		n = tag->wire_ns < oldest_ns ? 1 : n + 1;
		oldest_ns = tag->wire_ns;
	}
	if (oldest_ns != session->oldest_ns || n != session->n_oldest) {
		session->oldest_ns = oldest_ns;
		session->n_oldest = n;
		session->stuck_ns = oldest_ns > session->answered_ns ? oldest_ns
								     : session->answered_ns;
	}
	return n && queue->now_ns - session->stuck_ns > queue->retry.request_timeout_ns;
}

void gk_session_tick(struct gk_queue *queue)
{
	const struct gk_retry_policy *retry = &queue->retry;

	for (unsigned int i = 0; i < queue->n_sessions; i++) {
		struct gk_session *session = &queue->sessions[i];

		if (session->state == GK_SESSION_FENCING && session->blind)
			gk_session_fence_look(session);
		if (is_waiting(session) && retry->request_timeout_ns &&
		    waits_too_long(queue, session)) {
			gk_count(&queue->counters.timeouts, 1);
			gk_session_fail(session, -EAGAIN, "a request was not answered in time");
		} else if (session->state == GK_SESSION_FENCING &&
			   (!retry->fence_strict || session->blind) &&
			   queue->now_ns - session->fence_begin_ns > retry->fence_timeout_ns) {
			gk_session_fenced(session, GK_SESSION_END_UNKNOWN);
		}
	}
	if (queue->parked && queue->down_since_ns && retry->reconnect_timeout_ns &&
	    queue->now_ns - queue->down_since_ns > retry->reconnect_timeout_ns) {
		gk_log(GK_LOG_ERROR, "dev%d q%u: no connection within reconnect_timeout: requests "
		       "fail until there is one", queue->dev_id, queue->id);
		queue->gave_up = true;
		gk_session_unpark_failed(queue);
	}
}
