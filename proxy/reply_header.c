// SPDX-License-Identifier: MIT
/*
 * Replies in the staging buffer are taken apart: header → cookie → tag. The error of a reply is
 * decided here, before any payload is expected.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "datapath.h"
#include "nbd_reply.h"
#include "nbd_request.h"

/* A server may tell of several bad places in one READ; beyond this it only keeps us busy. */
#define ERROR_CHUNKS_MAX 32

/* The tag that waits for this cookie on this session, or NULL: late, repeated or invented. */
static struct gk_tag *find_tag(const struct gk_session *session, uint64_t cookie)
{
	uint16_t id;
	uint32_t generation;
	struct gk_tag *tag;

	if (gk_nbd_cookie_split(cookie, &id, &generation) || id >= session->queue->depth)
		return NULL;
	tag = &session->queue->tags[id];
	if (tag->session != session || tag->generation != generation || tag->answered ||
	    (tag->state != GK_TAG_SENDING && tag->state != GK_TAG_SENT))
		return NULL;
	return tag;
}

static int simple(struct gk_session *session, struct gk_tag *tag, const struct gk_nbd_reply *reply)
{
	if (tag->type == NBD_CMD_READ && !reply->error) {
		/* "Structured replies MUST be used for READ once negotiated." */
		if (session->structured)
			return -EPROTO;
		gk_recv_expect(session, tag, 0, tag->part, true);
	} else {
		gk_tag_answer(session->queue, tag, reply->error);
	}
	return 0;
}

/* A hash that a server cannot foresee (the finalizer of splitmix64 over a secret). */
static uint64_t scatter(const struct gk_queue *queue, uint64_t x)
{
	x += queue->secret;
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/*
 * Chunks may come in any order and be of any size, and overlapping ones would leave a gap with
 * old memory in it although their lengths add up. Each chunk adds hash(end) - hash(start): the sum
 * is hash(part) - hash(0) only if every chunk but the last begins where another one ends, which
 * together with the length means that they lie side by side.
 */
static void add_tile(const struct gk_queue *queue, struct gk_tag *tag, uint32_t start, uint32_t len)
{
	tag->filled += len;
	tag->tiling += scatter(queue, start + (uint64_t)len) - scatter(queue, start);
}

/* The last chunk of a reply has been taken: is the request whole? 0 or -EPROTO. */
static int chunks_done(struct gk_session *session, struct gk_tag *tag)
{
	struct gk_queue *queue = session->queue;

	if (!tag->error && tag->type == NBD_CMD_READ) {
		uint64_t whole = scatter(queue, tag->part) - scatter(queue, 0);

		/* The stream is in step, so a READ with a gap costs that request only. */
		if (tag->filled != tag->part)
			tag->error = -EIO;
		else if (tag->tiling != whole)
			return -EPROTO;
	}
	gk_tag_answer(queue, tag, tag->error);
	return 0;
}

/* Where a data or hole chunk of len bytes at offset (big-endian) begins in the part, or -EPROTO. */
static int64_t chunk_start(const struct gk_tag *tag, const uint8_t *offset_be, uint32_t len)
{
	uint64_t offset;
	uint64_t start = tag->offset + tag->done;

	memcpy(&offset, offset_be, sizeof(offset));
	offset = be64toh(offset);
	if (tag->type != NBD_CMD_READ || offset < start || offset - start > tag->part ||
	    len > tag->part - (offset - start))
		return -EPROTO;
	/* More bytes than were asked for: chunks overlap, and could go on for ever. */
	if (!len || len > tag->part - tag->filled)
		return -EPROTO;
	return (int64_t)(offset - start);
}

static int hole(struct gk_session *session, struct gk_tag *tag, const uint8_t *payload, bool done)
{
	uint32_t len;
	int64_t start;

	memcpy(&len, payload + 8, sizeof(len));
	len = be32toh(len);
	start = chunk_start(tag, payload, len);
	if (start < 0)
		return (int)start;
	gk_recv_zeroes(session, tag, (uint32_t)start, len);
	add_tile(session->queue, tag, (uint32_t)start, len);
	return done ? chunks_done(session, tag) : 0;
}

static int data(struct gk_session *session, struct gk_tag *tag, const struct gk_nbd_reply *reply,
		const uint8_t *payload)
{
	uint32_t len = reply->length - 8;
	int64_t start = chunk_start(tag, payload, len);

	if (start < 0)
		return (int)start;
	add_tile(session->queue, tag, (uint32_t)start, len);
	gk_recv_expect(session, tag, (uint32_t)start, len, reply->done);
	return 0;
}

static int error(struct gk_session *session, struct gk_tag *tag, const struct gk_nbd_reply *reply,
		 const uint8_t *payload)
{
	bool malformed;
	int r = gk_nbd_error_chunk(reply, payload, &malformed);

	if (malformed || ++tag->error_chunks > ERROR_CHUNKS_MAX)
		return -EPROTO;
	if (!tag->error)
		tag->error = r;
	return reply->done ? chunks_done(session, tag) : 0;
}

/* Bytes behind the header that must be staged before the reply can be acted on. */
static size_t fixed_payload(const struct gk_nbd_reply *reply)
{
	return reply->kind == GK_NBD_REPLY_DATA ? 8 : reply->length;
}

/* The server lives on, whatever it says, unless it was asked before the last order. 0 or -EPROTO. */
static int proof(struct gk_session *session, const struct gk_nbd_reply *reply)
{
	struct gk_queue *queue = session->queue;

	if (reply->kind == GK_NBD_REPLY_DATA || reply->kind == GK_NBD_REPLY_HOLE || !reply->done)
		return -EPROTO;
	session->proof_ns = 0;
	session->answered_ns = queue->now_ns;
	if (session->prove)
		return 0;
	gk_count(&queue->proofs, 1);
	if (queue->on_dead)
		queue->on_dead(queue->on_dead_arg);
	return 0;
}

static int act(struct gk_session *session, const struct gk_nbd_reply *reply, const uint8_t *payload)
{
	struct gk_tag *tag = find_tag(session, reply->cookie);

	if (!tag && reply->cookie == GK_PROOF_COOKIE && session->proof_ns)
		return proof(session, reply);
	if (!tag)
		return -EBADE;
	switch (reply->kind) {
	case GK_NBD_REPLY_SIMPLE:
		return simple(session, tag, reply);
	case GK_NBD_REPLY_NONE:
		return chunks_done(session, tag);
	case GK_NBD_REPLY_DATA:
		return data(session, tag, reply, payload);
	case GK_NBD_REPLY_HOLE:
		return hole(session, tag, payload, reply->done);
	case GK_NBD_REPLY_ERROR:
		return error(session, tag, reply, payload);
	}
	return -EPROTO;
}

/* The payload that gk_recv_expect() announced is complete. 0 or -EPROTO. */
static int payload_done(struct gk_session *session)
{
	struct gk_tag *tag = session->rx_tag;

	session->rx_tag = NULL;
	if (!session->rx_last)
		return 0;
	if (session->structured)
		return chunks_done(session, tag);
	gk_tag_answer(session->queue, tag, tag->error);
	return 0;
}

void gk_reply_consume(struct gk_session *session)
{
	while (session->state == GK_SESSION_UP) {
		struct gk_nbd_reply reply;
		const uint8_t *bytes = session->staging + session->rd;
		int r;

		if (session->rx_tag) {
			gk_recv_from_staging(session);
			if (session->rx_left)
				return;
			r = payload_done(session);
			if (r)
				gk_session_fail(session, r, "reply does not fit its request");
			continue;
		}
		r = gk_nbd_reply_parse(bytes, session->wr - session->rd, session->structured,
				       &reply);
		if (r < 0) {
			gk_session_fail(session, r, "not an NBD reply");
			return;
		}
		if (!r || session->wr - session->rd < reply.header_size + fixed_payload(&reply))
			return;
		session->rd += reply.header_size + fixed_payload(&reply);
		r = act(session, &reply, bytes + reply.header_size);
		if (r == -EBADE)
			gk_session_fail(session, -EPROTO, "reply to no request of ours");
		else if (r)
			gk_session_fail(session, r, "reply does not fit its request");
	}
}
