/* SPDX-License-Identifier: MIT */
/*
 * Around the data path: one thread, one ring, its tags and its sessions. The only module that
 * takes SQEs. Everything here belongs to the queue's thread, except where a line says otherwise.
 */
#ifndef GK_LOOP_H
#define GK_LOOP_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#include "coalesce.h"
#include "cqe_key.h"
#include "histogram.h"
#include "path.h"
#include "log.h"
#include "mail.h"
#include "nbd_wire.h"
#include "session.h"
#include "tag.h"
#include "unflushed.h"

/* Where requests come from: ublk, or user memory in tests and benchmarks. */
struct gk_front {
	/* Hands in the first commands; called once, on the queue's thread. 0 or -errno. */
	int (*start)(struct gk_queue *queue);
	/* A command of the front (GK_CQE_FRONT) ended with res. */
	void (*complete)(struct gk_queue *queue, uint16_t tag, int res);
	/* A request ends: result is the full byte count or -errno. The slot is IDLE already. */
	void (*commit)(struct gk_queue *queue, struct gk_tag *tag, int32_t result);
};

enum gk_op_index { GK_OP_READ, GK_OP_WRITE, GK_OP_FLUSH, GK_OP_TRIM, GK_OP_WRITE_ZEROES, GK_OPS };

/* Written by the queue's thread, read by any: see gk_count() and gk_count_read(). */
struct gk_counters {
	uint64_t requests[GK_OPS]; /* ended */
	uint64_t errors;           /* of them, with an errno */
	uint64_t bytes_read;
	uint64_t bytes_written;
	uint64_t sends;            /* send operations */
	uint64_t partial_sends;    /* of them, resumed at an adjusted offset */
	uint64_t receives;
	uint64_t partial_receives; /* payloads that took more than one receive */
	uint64_t staged_bytes;     /* payload that was copied from the staging buffer */
	uint64_t direct_sends;     /* payloads sent from the request's own pages */
	uint64_t zc_sends;         /* of them, by SEND_ZC */
	uint64_t zc_copied;        /* of those, where the network had to copy after all */
	uint64_t direct_receives;  /* payloads received into them */
	uint64_t bytes_direct;     /* of both */
	uint64_t fallbacks;        /* requests copied because the kernel could not lend its pages */
	uint64_t timeouts;         /* connections given up because a request was not answered */
	uint64_t replays;          /* requests sent again after their connection died */
	uint64_t unfenced_replays; /* of them writes, whose old connection never ended */
	uint64_t unfenced_failures; /* writes failed for want of that end, fence = "strict" */
	uint64_t poisoned;         /* requests failed because the server hangs up on each of them */
	uint64_t loops;            /* turns of the loop: at most one io_uring_enter each */
	uint64_t coalesced_loops;  /* of them, those that waited for more than one completion */
};

static inline void gk_count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline uint64_t gk_count_read(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static inline enum gk_op_index gk_op_index(uint16_t type)
{
	switch (type) {
	case NBD_CMD_READ:
		return GK_OP_READ;
	case NBD_CMD_WRITE:
		return GK_OP_WRITE;
	case NBD_CMD_FLUSH:
		return GK_OP_FLUSH;
	case NBD_CMD_TRIM:
		return GK_OP_TRIM;
	default:
		return GK_OP_WRITE_ZEROES;
	}
}

/* What becomes of requests whose connection dies, times in ns, 0: no limit. */
struct gk_retry_policy {
	bool replay;                  /* on another connection or the next one; else -EIO */
	bool fence_strict;            /* a write is never sent again without the old one's end */
	unsigned int drops_max;       /* connections that one request may cost; 0: no limit */
	uint64_t fence_timeout_ns;
	uint64_t request_timeout_ns;
	uint64_t reconnect_timeout_ns;
};

struct gk_queue {
	struct io_uring ring;
	const struct gk_front *front;
	const struct gk_path *path;
	void *front_data;           /* the front's own */
	struct gk_tag *tags;        /* depth of them */
	struct gk_session *sessions;
	struct gk_tag **settling;   /* depth of them: room to order the tags of a dead session */
	unsigned int n_sessions;
	unsigned int depth;
	unsigned int id;
	int dev_id;                 /* for messages and the front */
	uint32_t max_io_bytes;      /* longest READ or WRITE */
	uint32_t threshold_bytes;   /* from here on payload goes through kernel buffers, if any */
	uint32_t buf_bytes;         /* size of each tag's buffer */
	uint8_t *buffers;           /* depth * buf_bytes */
	unsigned int front_live;    /* commands of the front that have not ended for good */
	bool stopping;              /* the device goes: nothing waits for a connection */
	struct gk_coalesce coalesce;
	struct gk_mail mail;
	struct gk_mail_offer *offers; /* n_sessions: room for gk_mail_take() */
	struct gk_retry_policy retry;
	struct gk_tag *parked;      /* QUEUED tags that wait for a session, in order */
	struct gk_tag **parked_tail;
	uint64_t down_since_ns;     /* when the last session went; 0: one is UP */
	bool gave_up;               /* reconnect_timeout has passed */
	unsigned int suspects;      /* tags with GK_SUSPECT_DROPS: requests go one at a time */
	bool holding;               /* some of the parked tags wait for their turn only */
	bool ticking;               /* a GK_CQE_TICK is under way */
	struct __kernel_timespec tick;
	struct gk_flush_track *unflushed; /* of the device; NULL: not tracked */
	uint64_t dirty;             /* this queue's mark: unflushed.h */
	bool force_fua;             /* NBD_CMD_FLAG_FUA on all that changes the export */
	void (*on_dead)(void *arg); /* a session became DEAD, or proofs grew; NULL: nobody cares */
	void *on_dead_arg;
	uint64_t proofs;            /* of a server's life that were asked for; gk_count_read() */
	uint64_t next_sequence;     /* requests begun so far; gk_count_read() */
	uint64_t secret;            /* random: what a server cannot guess */
	uint64_t now_ns;            /* CLOCK_MONOTONIC at the start of this turn */
	struct gk_counters counters;
	struct gk_histogram latency[GK_OPS]; /* from fetch to commit, in turns of the loop */
	struct gk_log_limit error_log;
	struct gk_log_limit session_log;
};

struct gk_queue_params {
	const struct gk_front *front;
	void *front_data;
	int dev_id;
	unsigned int id;
	unsigned int depth;
	unsigned int n_sessions;
	uint32_t max_io_bytes;
	const struct gk_path *path; /* NULL: copy */
	uint32_t threshold_bytes;        /* used by a path with kernel buffers */
	struct gk_retry_policy retry;
	struct gk_flush_track *unflushed; /* may be NULL; else lives longer than the queue */
	bool force_fua;                  /* every write is durable when it is answered */
	void (*on_dead)(void *arg);      /* may be NULL; called on the queue's thread */
	void *on_dead_arg;
};

/*
 * Bytes that gk_queue_init() takes for these parameters, but for what malloc() adds. Pure: any
 * thread.
 */
size_t gk_queue_bytes(const struct gk_queue_params *params);

/*
 * Allocates slots, buffers and n_sessions dead sessions, all of it present in memory; no ring yet.
 * 0 or -errno, -ENOMEM when there is not that much. Any thread; the queue belongs to the caller until
 * its thread calls gk_queue_run(). End it with gk_queue_done().
 */
int gk_queue_init(struct gk_queue *queue, const struct gk_queue_params *params);

/* Frees all. Takes a zeroed or half-built queue; no thread may be running it. */
void gk_queue_done(struct gk_queue *queue);

/* Sets up the ring; from now on only this thread may touch the queue. 0 or -errno. */
int gk_queue_open(struct gk_queue *queue);

/*
 * One turn: submit what is pending, wait for a completion, or a moment for several (coalesce.h),
 * act on all. 0 or -errno.
 */
int gk_queue_turn(struct gk_queue *queue);

/* Says good-bye to the servers, reaps what the sessions are owed, ends the ring. */
void gk_queue_close(struct gk_queue *queue);

/*
 * Gives a begun tag to the session with the least in flight. When none is UP it is parked until
 * one is, or ended with -EIO if the policy says so. May complete the tag.
 */
void gk_queue_submit(struct gk_queue *queue, struct gk_tag *tag);

/*
 * Makes room for n SQEs that must be submitted together (a chain, a group), n no more than the
 * ring has: submits what is pending when there is less.
 */
void gk_queue_reserve(struct gk_queue *queue, unsigned int n);

/* One SQE, zeroed but for user_data; never NULL: submits what is pending when the ring is full. */
struct io_uring_sqe *gk_queue_sqe(struct gk_queue *queue, uint64_t key);

#endif
