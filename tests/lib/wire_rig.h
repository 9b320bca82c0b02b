/* SPDX-License-Identifier: MIT */
/*
 * A queue with the memory front whose sessions end in sockets that the test holds. The queue runs
 * in the test's own thread, one turn at a time, so that a test decides what happens between two
 * turns. Every function fails the running cmocka test when something is not as it says.
 */
#ifndef GK_WIRE_RIG_H
#define GK_WIRE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fake_server.h"
#include "loop.h"
#include "mem_front.h"

#define RIG_SESSIONS 4

struct rig_options {
	unsigned int depth;     /* 0: 8 */
	unsigned int sessions;  /* 0: 1 */
	uint32_t max_io_bytes;  /* 0: 64 KiB */
	uint32_t max_payload;   /* 0: max_io_bytes */
	int sndbuf_bytes;       /* SO_SNDBUF of our end; 0: the system's */
	bool structured;
	bool df;
	const struct gk_path *path;     /* NULL: copy */
	uint32_t threshold_bytes;       /* of a mem_path */
	unsigned int lend_fails_every;  /* of a mem_path, see struct mem_front */
	bool no_wait_all;               /* see struct gk_session */
	struct gk_retry_policy retry;   /* zeroed: what a connection carried fails with it */
	struct gk_flush_track *unflushed; /* see struct gk_queue_params, as the next one */
	bool force_fua;
	bool tls;                       /* through TLS in user space; so with $GK_RIG_TLS (1.2, 1.3) */
	bool ktls;                      /* ... by the kernel, over TCP */
	bool ktls_send;                 /* with ktls: by the kernel in this direction only */
};

struct rig {
	struct rig_options options;
	struct gk_queue queue;
	struct mem_front front;
	int peer[RIG_SESSIONS]; /* the server's ends; -1: closed, or given away */
	struct tls_peer *tls[RIG_SESSIONS]; /* with TLS: what decrypts for them */
};

/* Prints why and returns true on a host without io_uring: main() then returns 77. */
bool rig_unavailable(void);

/* No more log lines, for tests in which connections die by the thousand. */
void rig_quiet(void);

/* Queue, ring and all sessions UP. */
void rig_begin(struct rig *rig, const struct rig_options *options);

/* Ends everything; the requests that are still out end with -EIO. */
void rig_end(struct rig *rig);

/* Brings a DEAD session UP on a new pair of sockets. */
void rig_connect(struct rig *rig, unsigned int session);

/*
 * The same by way of the queue's mailbox, as the redialling thread does it: turns the loop until
 * the session is UP, and what waited for it has its SQEs.
 */
void rig_offer(struct rig *rig, unsigned int session);

void rig_close_peer(struct rig *rig, unsigned int session);

/* The server's end is the caller's now, who closes it. */
int rig_take_peer(struct rig *rig, unsigned int session);

/* One turn of the loop: waits for at least one completion. */
void rig_turn(struct rig *rig);

/* Turns the loop until what it has to send is sent, and nothing else moves. */
void rig_send_all(struct rig *rig);

/* Turns the loop until every submitted request has ended; the results are in front.slots. */
void rig_run(struct rig *rig);

/* Submits a request of a slot and lets the server of a session take its header. */
struct fake_request rig_request(struct rig *rig, unsigned int session, uint16_t tag, uint16_t type,
				uint64_t offset, uint32_t len);

/* The server says this. */
void rig_say(struct rig *rig, unsigned int session, const struct fake_bytes *bytes);

/* Turns the loop until the tag has ended, and returns its result. */
int32_t rig_result(struct rig *rig, uint16_t tag);

/* Turns the loop until the session is DEAD. */
void rig_wait_dead(struct rig *rig, unsigned int session);

/* Turns the loop until the session is not UP any more, and returns what it is. */
enum gk_session_state rig_wait_down(struct rig *rig, unsigned int session);

/* The server of a session answers a request as it should, a READ with content. */
void rig_answer(struct rig *rig, unsigned int session, const struct fake_request *request,
		const void *content);

/* The server of a session says what no NBD server says. */
void rig_babble(struct rig *rig, unsigned int session);

/* A READ of 512 bytes on this session succeeds with the right bytes: its stream is in step. */
void rig_in_step(struct rig *rig, unsigned int session, uint16_t tag);

/* Bytes that depend on where they stand and on salt. */
void rig_pattern(uint8_t *buf, uint64_t offset, size_t len, unsigned int salt);

#endif
