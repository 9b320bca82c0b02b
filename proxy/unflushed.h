/* SPDX-License-Identifier: MIT */
/*
 * What a server has acknowledged but not flushed, and what is owed to fsync when it restarts.
 * Shared by the queues of a device and its redialling thread; lock-free, every function says who
 * may call it.
 *
 * Flushes are numbered as they begin. A write that is answered while flush k is the last one begun
 * is safe when a flush above k has ended; until then its queue is dirty.
 */
#ifndef GK_UNFLUSHED_H
#define GK_UNFLUSHED_H

#include <stdbool.h>
#include <stdint.h>

struct gk_flush_track {
	uint64_t begun;   /* number of the last flush that began */
	uint64_t waiting; /* of them, those that have not ended */
	uint64_t flushed; /* highest number of a flush that ended well */
	uint64_t debt;    /* flushes up to this number must fail: acknowledged writes may be gone */
};

/* A queue's thread: a write was answered; *dirty is the queue's own mark. */
static inline void gk_unflushed_write(struct gk_flush_track *unflushed, uint64_t *dirty)
{
	uint64_t mark = __atomic_load_n(&unflushed->begun, __ATOMIC_RELAXED) + 1;

	if (*dirty != mark)
		__atomic_store_n(dirty, mark, __ATOMIC_RELAXED);
}

/* A queue's thread: a flush begins. Its number, for gk_unflushed_end(). */
static inline uint64_t gk_unflushed_begin(struct gk_flush_track *unflushed)
{
	uint64_t number = __atomic_add_fetch(&unflushed->begun, 1, __ATOMIC_ACQ_REL);

	__atomic_add_fetch(&unflushed->waiting, 1, __ATOMIC_RELEASE);
	return number;
}

/* A queue's thread: that flush ended, well or not. */
static inline void gk_unflushed_end(struct gk_flush_track *unflushed, uint64_t number, bool well)
{
	uint64_t flushed = __atomic_load_n(&unflushed->flushed, __ATOMIC_ACQUIRE);

	__atomic_sub_fetch(&unflushed->waiting, 1, __ATOMIC_RELEASE);
	while (well && flushed < number &&
	       !__atomic_compare_exchange_n(&unflushed->flushed, &flushed, number, false,
					    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
}

/* Any thread: whether a queue with this mark has answered writes that no flush covers. */
static inline bool gk_unflushed_is_dirty(const struct gk_flush_track *unflushed,
					 const uint64_t *dirty)
{
	return __atomic_load_n(dirty, __ATOMIC_RELAXED) >
	       __atomic_load_n(&unflushed->flushed, __ATOMIC_ACQUIRE);
}

/*
 * The redialling thread: the server restarted, and what is dirty may be gone. Every flush that waits
 * has to say so, as each may be another file system's; when none does, the next one to begin.
 */
static inline void gk_unflushed_owe(struct gk_flush_track *unflushed)
{
	/* In this order: a flush that begins meanwhile may be one too many, but is not missed. */
	bool next = !__atomic_load_n(&unflushed->waiting, __ATOMIC_ACQUIRE);
	uint64_t debt = __atomic_load_n(&unflushed->begun, __ATOMIC_ACQUIRE) + next;

	__atomic_store_n(&unflushed->debt, debt, __ATOMIC_RELEASE);
}

/* A queue's thread, before a flush goes out and when it ends: whether it has to fail. */
static inline bool gk_unflushed_owes(const struct gk_flush_track *unflushed, uint64_t number)
{
	return number <= __atomic_load_n(&unflushed->debt, __ATOMIC_ACQUIRE);
}

#endif
