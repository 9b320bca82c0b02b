/* SPDX-License-Identifier: MIT */
/*
 * One connection to the server, past its handshake. Belongs to one queue and its thread; `state`
 * may be read by any thread.
 *
 *   DEAD ──fd handed over──▶ UP ──error, EOF, time-out, protocol violation──┐
 *    ▲                       │                                              │
 *    │                       └─(writes unanswered, the server's end unseen)─▶ FENCING
 *    │                                                                      │  server's end seen,
 *    └──all CQEs in── DRAINING ◀────────────────────────────────────────────┘  or fence_timeout
 *
 * In FENCING the socket is half-closed and its end awaited: a server that still holds a write of
 * this connection might otherwise apply it after its replay, and after later writes to the same
 * blocks. In DRAINING the socket is shut down and nothing new is sent or received; the tags that
 * it carried are only settled when no operation can touch their buffers any more.
 */
#ifndef GK_SESSION_H
#define GK_SESSION_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "tag.h"
#include "tls_stream.h"

enum gk_session_state {
	GK_SESSION_DEAD,
	GK_SESSION_UP,
	GK_SESSION_FENCING,
	GK_SESSION_DRAINING,
};

/* How a connection ended: what tells a restarted server from a broken network. */
enum gk_session_end {
	GK_SESSION_END_UNKNOWN, /* no sign of the server: silence, or a network error */
	GK_SESSION_END_CLOSED,  /* the server closed it, unasked */
	GK_SESSION_END_RESET,   /* the server, or its host, knows the connection no more */
	GK_SESSION_END_OURS,    /* we half-closed it, and the server ended it in order */
};

/* Of the FLUSH that no request asked for; a tag's id is below UBLK_MAX_QUEUE_DEPTH. */
#define GK_PROOF_COOKIE UINT64_C(0xffff)

#define GK_CHAIN_ELEMENTS   8                       /* of one send operation */
#define GK_CHAIN_SQES       (2 * GK_CHAIN_ELEMENTS) /* an element may need two */
#define GK_BOUNCE_BYTES     (64 * 1024)
#define GK_STAGING_BYTES    (256 * 1024)
#define GK_LARGE_BYTES      (32 * 1024) /* from here on a copy out of staging costs more than it saves */

/*
 * A stretch of the stream that goes out as one link of the send operation's chain: gathered bytes
 * of user memory, or payload in the kernel buffer of one tag.
 */
struct gk_send_element {
	struct gk_tag *tag;   /* whose kernel buffer; NULL: user memory */
	uint32_t offset;      /* of the first unsent byte within the tag's request */
	size_t left;          /* bytes unsent */
	struct msghdr msg;    /* user memory: iovecs from the first unsent byte on */
	int result;           /* of its SEND */
	int leader_result;    /* of the command that lent the buffer, where there is one */
	bool zero_copy;       /* the SEND in flight is a SEND_ZC */
};

struct gk_session {
	struct gk_queue *queue;
	unsigned int id;            /* within the device */
	unsigned int slot;          /* within the queue */
	int fd;                     /* owned; -1 when DEAD */
	enum gk_session_state state;
	enum gk_session_end end;    /* of the last connection; valid when DEAD */
	uint64_t fence_begin_ns;    /* FENCING */
	bool blind;                 /* FENCING: the socket is broken here, the end cannot be seen */
	bool garbled;               /* ... by reading, for kTLS decrypts nothing more: TCP is whole */
	bool dropped;               /* the server ended it, or broke the protocol */
	bool structured;            /* negotiated */
	bool df;                    /* structured, and the server takes NBD_CMD_FLAG_DF */
	uint32_t max_payload;       /* the server's maximum, a multiple of its minimum */
	bool send_zc;               /* large payloads by SEND_ZC */
	struct gk_tls_stream *tls;  /* owned; TLS that the kernel does not do; NULL: none */
	unsigned int ktls;          /* directions that it does: GK_TLS_SEND, GK_TLS_RECV */
	const char *tls_version;    /* static; NULL without TLS. May be read by any thread, as ... */
	const char *tls_cipher;     /* ... this one and ktls: they go with the state */
	unsigned int lent;          /* sum of its tags' `lent` */
	bool reset;                 /* DRAINING: has been reset to get those back */
	bool no_wait_all;           /* for tests: no MSG_WAITALL, so no links either */
	unsigned int in_flight;     /* tags given to it and not answered */
	unsigned int large;         /* of them, READs and WRITEs with a payload of GK_LARGE_BYTES */
	unsigned int large_reads;   /* of those, READs: their payload is better received directly */

	/* Sending: tags that wait, and the one operation that may be in flight. */
	struct gk_tag *fifo;
	struct gk_tag **fifo_tail;
	struct gk_tag *sending;
	bool prove;                  /* a FLUSH of our own is to go out: gk_mail_prove() */
	uint64_t proof_ns;           /* when one did that is not answered; 0: none */
	uint64_t answered_ns;        /* the last answer; 0: none yet */
	uint64_t oldest_ns;          /* what has waited longest, as seen at the last tick: when it ... */
	unsigned int n_oldest;       /* ... went out, how many requests did, ... */
	uint64_t stuck_ns;           /* ... and since when nothing has changed about that */
	struct nbd_request *headers; /* one per tag of an operation, and our own; adjacent */
	struct iovec *iov;           /* of all elements, in their order */
	struct gk_send_element chain[GK_CHAIN_ELEMENTS];
	unsigned int n_chain;
	unsigned int first;          /* element with bytes unsent */
	unsigned int send_owed;      /* CQEs of the operation in flight; 0: none is */
	uint8_t *bounce;             /* for payload whose buffer the kernel could not lend */

	/* Receiving: staged bytes are [rd, wr); the payload of a READ may be on its way. */
	uint8_t *staging;
	size_t rd;
	size_t wr;
	struct gk_tag *rx_tag;       /* whose payload arrives; NULL: a header comes next */
	uint32_t rx_offset;          /* within its request, of the next byte */
	uint32_t rx_left;            /* bytes of payload still to come */
	bool rx_last;                /* the payload ends the reply */
	struct iovec recv_iov[2];
	struct msghdr recv_msg;
	bool recv_direct;            /* the receive in flight writes to the tag's buffer first */
	bool recv_linked;            /* it runs only when the payload before it is whole */
	bool recv_busy;
	bool plain_tcp;              /* a TCP socket, without TLS in the kernel */
	uint32_t low_water;          /* its SO_RCVLOWAT */
	unsigned int payload_owed;   /* CQEs of the receive into a kernel buffer; 0: none is */
	int payload_result;
	int payload_leader_result;
};

/*
 * Whether a transfer moved nothing because the kernel did not lend the request's pages: the
 * leader of its group failed, or the buffer is not there or not fit.
 */
static inline bool gk_lending_failed(int leader_result, int result)
{
	if (leader_result < 0 && leader_result != -ECANCELED)
		return true;
	return result == -EFAULT || result == -EINVAL || result == -ENOMEM ||
	       result == -EOPNOTSUPP;
}

/* What the handshake told, as far as the data path needs it. */
struct gk_session_facts {
	bool structured;
	bool df;
	bool send_zc; /* configured, and the connection is TCP */
	uint32_t max_payload;
	struct gk_tls_stream *tls; /* goes with the fd to whoever owns that */
	unsigned int ktls;
	const char *tls_version;
	const char *tls_cipher;
};

/* Bytes leave this session's buffers for TLS in user space, not for the socket. */
static inline bool gk_session_encrypts(const struct gk_session *session)
{
	return session->tls && session->tls->sends;
}

/* ... or come from there. */
static inline bool gk_session_decrypts(const struct gk_session *session)
{
	return session->tls && session->tls->receives;
}

/* Bytes of the buffers that gk_session_init() allocates. Pure: any thread. */
size_t gk_session_bytes(unsigned int depth);

/*
 * Allocates buffers for tags of the given depth, all of them present in memory. 0 or -ENOMEM. Any
 * thread, before the loop runs.
 */
int gk_session_init(struct gk_session *session, struct gk_queue *queue, unsigned int slot,
		    unsigned int depth);

/* Closes and frees. Takes a zeroed session; no operation may be in flight. */
void gk_session_done(struct gk_session *session);

/* Takes ownership of a connected fd that is past the handshake: DEAD → UP. */
void gk_session_up(struct gk_session *session, unsigned int id, int fd,
		   const struct gk_session_facts *facts);

/*
 * The stream is not trusted any more: says why (one log line), shuts the socket down and settles
 * every tag in flight, at once or when the operations in flight have ended. The one place where a
 * session dies. May complete tags. Does nothing when it is not UP.
 */
void gk_session_fail(struct gk_session *session, int error, const char *why);

/*
 * The next daemon goes on: ends the connection as gk_session_fail() does, fence included, and says
 * nothing. Requests that it carried wait. Does nothing when it is not UP.
 */
void gk_session_hand_over(struct gk_session *session);

/* What receiving on a FENCING session ended with: 0 or -errno. */
void gk_session_fence_read(struct gk_session *session, int res);

/* Looks for the end of a FENCING session that is `garbled`. Now and then; only polls the socket. */
void gk_session_fence_look(struct gk_session *session);

/*
 * The end of a FENCING session's connection has come, or is not waited for any more: then (UNKNOWN)
 * writes that the server may still hold are sent again and counted, or with a strict fence fail.
 */
void gk_session_fenced(struct gk_session *session, enum gk_session_end end);

/* An operation of a session ended; if it is DRAINING, settles the tags after the last one. */
void gk_session_drained(struct gk_session *session);

/* Tells the server NBD_CMD_DISC as far as the socket takes it, and shuts down: UP → DRAINING. */
void gk_session_goodbye(struct gk_session *session);

/*
 * session_retry.c: what happens to the tags of a dead session, given in their order. They go to
 * another session, wait for the next one, or fail with -EIO, as the policy says. May complete them.
 */
void gk_session_settle_tags(struct gk_queue *queue, struct gk_tag **tags, unsigned int n_tags);

/* No session is UP: the tag waits for one, or fails with -EIO. May complete the tag. */
void gk_session_park(struct gk_queue *queue, struct gk_tag *tag);

/* A session is UP again: what waits for one is submitted, in order. */
void gk_session_unpark(struct gk_queue *queue);

/* Nothing waits for a session any more: what does fails with -EIO. Completes the tags. */
void gk_session_unpark_failed(struct gk_queue *queue);

/*
 * Whether a request must wait although a session is UP: while one is under suspicion (tag.h), one
 * at a time is out, so that a connection that the server drops tells which one it was.
 */
bool gk_session_holds_back(const struct gk_queue *queue);

/* The tag waits for that. */
void gk_session_hold(struct gk_queue *queue, struct gk_tag *tag);

/* Submits of what is held as much as may go now. Called once a turn. May complete tags. */
void gk_session_release(struct gk_queue *queue);

/* Whether time matters now; then gk_session_tick() is to be called every gk_session_tick_ns(). */
bool gk_session_needs_tick(const struct gk_queue *queue);
uint64_t gk_session_tick_ns(const struct gk_queue *queue);
void gk_session_tick(struct gk_queue *queue);

#endif
