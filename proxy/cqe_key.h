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
	GK_CQE_SEND,      /* index: session */
	GK_CQE_RECV,      /* index: session */
};

static inline uint64_t gk_cqe_key(enum gk_cqe_kind kind, uint16_t index)
{
	return (uint64_t)kind << 32 | index;
}

static inline enum gk_cqe_kind gk_cqe_key_kind(uint64_t key)
{
	return (enum gk_cqe_kind)(key >> 32);
}

static inline uint16_t gk_cqe_key_index(uint64_t key)
{
	return (uint16_t)key;
}

#endif
