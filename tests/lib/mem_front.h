/* SPDX-License-Identifier: MIT */
/*
 * The front that takes ublk's place in tests and native benchmarks: requests come from the caller,
 * their results are kept until they are fetched. Lives on the queue's thread; nothing here
 * allocates, locks or waits once it is set up.
 *
 * Its paths take the place of those that move payload through a request's own pages. The pages are
 * user memory here, everything else is as with the kernel's: chains, links, CQEs, failures to lend.
 */
#ifndef GK_MEM_FRONT_H
#define GK_MEM_FRONT_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "path.h"

struct mem_front {
	struct mem_slot *slots; /* one per tag */
	uint16_t *ended;        /* ring of tags whose result was not fetched yet, oldest at head */
	unsigned int head;
	unsigned int n_ended;
	unsigned int n_busy;    /* submitted, not ended */
	unsigned int depth;
	uint8_t *pages;         /* data of the requests on a mem_path, depth * max_io_bytes */
	unsigned int lend_fails_every; /* of so many transfers, the last is not lent its pages; 0: none */
	unsigned int transfers;
};

struct mem_slot {
	int32_t result;       /* of the last request, valid when not busy */
	unsigned int commits; /* since the start */
	bool busy;
};

/* For struct gk_queue_params, with a struct mem_front as front_data. */
extern const struct gk_front mem_front_ops;

/* One CQE per transfer as with registered buffers, and two as with a group and its leader. */
extern const struct gk_path mem_path_single;
extern const struct gk_path mem_path_paired;

/* max_io_bytes: as the queue's on a mem_path, 0 otherwise. 0 or -ENOMEM. */
int mem_front_init(struct mem_front *front, unsigned int depth, uint32_t max_io_bytes);
void mem_front_done(struct mem_front *front);

/*
 * Hands in one request, as on the wire; lengths in bytes. The slot must not be busy and its last
 * end must have been fetched; for a WRITE the payload is in mem_front_data() already. May end it
 * before it returns.
 */
void mem_front_submit(struct gk_queue *queue, uint16_t tag, uint16_t type, uint16_t flags,
		      uint64_t offset, uint32_t len);

/* Where the data of a slot's requests lives: max_io_bytes. */
uint8_t *mem_front_data(const struct gk_queue *queue, uint16_t tag);

/* Fetches the oldest end that was not fetched yet: false when there is none. */
bool mem_front_next(struct mem_front *front, uint16_t *ret_tag, int32_t *ret_result);

#endif
