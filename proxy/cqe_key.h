/* SPDX-License-Identifier: MIT */
/*
 * What a CQE's user_data says: kind, and the tag or session it belongs to. The only place that
 * knows the layout. Queue thread.
 */
#ifndef GK_CQE_KEY_H
#define GK_CQE_KEY_H

#include <stdint.h>

enum gk_cqe_kind {
	GK_CQE_FRONT = 1, /* index: tag; the front's own command for it completed */
	GK_CQE_SEND,         /* index: session, element: of its chain */
	GK_CQE_SEND_LEADER,  /* index: tag; the command that lends its buffer to a SEND */
	GK_CQE_ZC_LEADER,    /* the same to a SEND_ZC */
	GK_CQE_SEND_ZC,      /* index: tag; its zero-copy SEND, and the notification that follows */
	GK_CQE_RECV,         /* index: session; into staging, or payload and staging */
	GK_CQE_RECV_PAYLOAD, /* index: session; into a kernel buffer */
	GK_CQE_RECV_LEADER,  /* index: session; the command that lends that buffer */
	GK_CQE_MAIL,         /* another thread has a message */
	GK_CQE_TICK,         /* time to look whether somebody waits too long */
};

/* Set on what was cut off a chain before the kernel saw it: counts as -ECANCELED. */
#define GK_CQE_CUT (UINT64_C(1) << 63)

static inline uint64_t gk_cqe_key(enum gk_cqe_kind kind, uint16_t index)
{
	return (uint64_t)kind << 32 | index;
}

static inline uint64_t gk_cqe_key_of_element(enum gk_cqe_kind kind, uint16_t index,
					     unsigned int element)
{
	return gk_cqe_key(kind, index) | (uint64_t)element << 16;
}

static inline enum gk_cqe_kind gk_cqe_key_kind(uint64_t key)
{
	return (enum gk_cqe_kind)((key & ~GK_CQE_CUT) >> 32);
}

static inline uint16_t gk_cqe_key_index(uint64_t key)
{
	return (uint16_t)key;
}

static inline unsigned int gk_cqe_key_element(uint64_t key)
{
	return (uint16_t)(key >> 16);
}

#endif
