/* SPDX-License-Identifier: MIT */
/*
 * One tag is one block request from fetch to commit; its slot is everything the daemon knows of
 * it. Slots belong to a queue and are touched by its thread only.
 *
 *   IDLE ──begin──▶ QUEUED ──gathered──▶ SENDING ──all bytes sent──▶ SENT ──answered──▶ settled
 *    ▲                ▲ ▲                   │                                             │ │
 *    │                │ └── session died ───┴──(replay, or parked until one is UP)────────┤ │
 *    │                └────────────── next part of a request above the server's maximum ──┘ │
 *    └───────────────────────────────── commit, exactly once ───────────────────────────────┘
 *
 * A server may answer while the request is still being sent (an error to a WRITE, say). The slot
 * then stays SENDING with `answered` set, because the send operation still reads its buffer, and
 * is settled when that operation ends. In the same way an answered slot stays SENT as long as the
 * network still refers to its pages (`lent`, SEND_ZC).
 */
#ifndef GK_TAG_H
#define GK_TAG_H

#include <stdbool.h>
#include <stdint.h>

struct gk_queue;
struct gk_session;

/*
 * A request that was out when the server ended this many connections may be the reason, and is
 * sent alone from then on.
 */
#define GK_SUSPECT_DROPS 2

enum gk_tag_state { GK_TAG_IDLE, GK_TAG_QUEUED, GK_TAG_SENDING, GK_TAG_SENT };

struct gk_tag {
	struct gk_tag *next;        /* in a FIFO (QUEUED) or a send operation (SENDING) */
	struct gk_session *session; /* carries it; NULL when IDLE, or QUEUED and parked */
	uint8_t *buf;               /* payload memory of the queue's buf_bytes, for its lifetime */
	uint64_t offset;            /* bytes, of the whole request */
	uint64_t sequence;          /* order of begin, for replay */
	uint64_t begin_ns;
	uint64_t wire_ns;           /* when its part was put into a send operation */
	uint64_t flush_number;      /* FLUSH: see unflushed.h */
	uint32_t len;               /* bytes, of the whole request; 0 for FLUSH */
	uint32_t done;              /* bytes that the server has answered in earlier parts */
	uint32_t part;              /* bytes of the part on the wire */
	uint32_t filled;            /* structured READ: bytes of the part that chunks brought */
	uint64_t tiling;            /* ... and whether they lie side by side: reply_header.c */
	uint32_t generation;        /* of the cookie; changes with every request on the wire */
	int error;                  /* 0 or -errno, what the server said of this part so far */
	uint16_t id;
	uint16_t type;              /* NBD_CMD_* */
	uint16_t flags;             /* NBD_CMD_FLAG_* */
	uint8_t error_chunks;       /* of this part, to bound what a server may send */
	uint8_t drops;              /* connections that the server ended while it was out */
	bool direct;                /* payload goes through the request's own pages, not buf */
	bool no_kernel_buffer;      /* the kernel could not lend them for this request */
	bool large;                 /* counted in the session's `large`, a READ in large_reads too */
	uint8_t lent;               /* CQEs still owed for pages that the network refers to */
	bool leader_lent;           /* one of them is the lending command's own */
	bool no_zc;                 /* its pages cannot be sent without a copy */
	bool notice_due;            /* a notification of a SEND_ZC that was cancelled may come */
	bool answered;              /* outcome known, but the slot is SENDING or lent */
	uint32_t front_op;          /* what the front last told the kernel of this slot, ... */
	int32_t front_result;       /* ... to say it again */
	enum gk_tag_state state;
};

/*
 * Fills an IDLE slot with a request. type and flags as on the wire; offset and len in bytes. The
 * caller hands it to gk_queue_submit() next.
 */
void gk_tag_begin(struct gk_queue *queue, struct gk_tag *tag, uint16_t type, uint16_t flags,
		  uint64_t offset, uint32_t len);

/* Sets up the next part for the wire: its length, a fresh generation, no outcome yet. */
void gk_tag_next_part(struct gk_tag *tag, uint32_t max_payload);

/*
 * The server's answer to the part on the wire is complete: error is 0 or -errno. May complete the
 * tag, send its next part, or, while SENDING, only note the outcome.
 */
void gk_tag_answer(struct gk_queue *queue, struct gk_tag *tag, int error);

/* The send operation no longer reads the tag's header or buffer. May complete the tag. */
void gk_tag_sent(struct gk_queue *queue, struct gk_tag *tag);

/* The network gave pages back, or what else the slot was waiting for. May complete the tag. */
void gk_tag_returned(struct gk_queue *queue, struct gk_tag *tag);

/* Whether it is a FLUSH that must fail, for what a server lost: see unflushed.h. */
bool gk_tag_owes(const struct gk_queue *queue, const struct gk_tag *tag);

/* Ends the request: bytes done or -errno go to the front, the slot is IDLE. Completes the tag. */
void gk_tag_end(struct gk_queue *queue, struct gk_tag *tag, int32_t result);

#endif
