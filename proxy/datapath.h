/* SPDX-License-Identifier: MIT */
/*
 * READ FIRST: the steps of a request's life in order. All of them run on the queue's thread and
 * none of them blocks or allocates.
 *
 *   ublk_fetch → tag → nbd_request → send_group → (wire) → reply_header → recv_group → ublk_commit
 */
#ifndef GK_DATAPATH_H
#define GK_DATAPATH_H

#include <stdint.h>

#include "loop.h"
#include "session.h"
#include "tag.h"

/* 1  ublk_fetch.c: a request enters; the io descriptor is checked and becomes a tag. */
extern const struct gk_front gk_ublk_front;
void gk_ublk_fetch(struct gk_queue *queue, uint16_t tag, int res);

/* 2  tag.c (tag.h): the request's slot; gk_queue_submit() of loop.c gives it a session. */

/* 3, 4  send_group.c: headers and payloads of the waiting tags go out in one operation. */
void gk_send_enqueue(struct gk_session *session, struct gk_tag *tag);
void gk_send_pump(struct gk_session *session);
void gk_send_done(struct gk_session *session, unsigned int element, int res);
void gk_send_leader_done(struct gk_queue *queue, uint16_t tag, int res);
void gk_send_zc_leader_done(struct gk_queue *queue, uint16_t tag, int res);
void gk_send_zc_done(struct gk_queue *queue, uint16_t tag, int res, uint32_t cqe_flags);
void gk_send_zc_cut(struct gk_queue *queue, uint16_t tag);

/* 5  reply_header.c: replies in staging are taken apart: cookie → tag, error, payload. */
void gk_reply_consume(struct gk_session *session);

/* 6  recv_group.c: bytes arrive, into staging or straight into the buffer of a READ. */
void gk_recv_pump(struct gk_session *session);
void gk_recv_done(struct gk_session *session, int res);
void gk_recv_payload_done(struct gk_session *session, int res);
void gk_recv_leader_done(struct gk_session *session, int res);
void gk_recv_expect(struct gk_session *session, struct gk_tag *tag, uint32_t offset, uint32_t len,
		    bool last);
void gk_recv_from_staging(struct gk_session *session);
void gk_recv_zeroes(struct gk_session *session, struct gk_tag *tag, uint32_t offset, uint32_t len);

/* 7  ublk_commit.c: the request leaves with bytes done or -errno. */
void gk_ublk_commit(struct gk_queue *queue, struct gk_tag *tag, int32_t result);
/* The kernel had no memory for the slot's last command, and did nothing: once more. */
void gk_ublk_repeat(struct gk_queue *queue, struct gk_tag *tag);

#endif
