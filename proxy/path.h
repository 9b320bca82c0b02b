/* SPDX-License-Identifier: MIT */
/*
 * The ways in which payload travels between a request and the socket, behind one small interface.
 *
 *   group       the request's own pages, lent to a SEND or RECV by the leader of an SQE group
 *               (Linux 6.12 with our series)
 *   registered  the request's own pages, as an automatically registered buffer (Linux >= 7.2)
 *   copy        the tag's buffer in user memory; ublk copies (any Linux with ublk)
 *
 * On group and registered the kernel maps nothing for us: payload of small requests is copied with
 * read and write on /dev/ublkcN (UBLK_F_USER_COPY). Queue thread, but for choosing and naming.
 */
#ifndef GK_PATH_H
#define GK_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "probe.h"
#include "tag.h"

/* One payload operation: len bytes at offset of the request's data, to or from a socket. */
struct gk_transfer {
	int fd;
	uint32_t offset; /* bytes, within the request */
	uint32_t len;
	int msg_flags;
	bool to_socket;  /* SEND, else RECV */
	bool zero_copy;  /* SEND_ZC: the network refers to the pages until the peer has the bytes */
	bool poll_first; /* RECV: not before the socket is readable */
	bool link;       /* what is queued next runs only if this moved all of len */
	uint64_t key;    /* of the SEND's or RECV's CQE */
	uint64_t leader_key; /* of the CQE of the command that lends the buffer, where there is one */
};

struct gk_path {
	const char *name;
	uint64_t ublk_flags;      /* UBLK_F_* that a device needs for it */
	bool kernel_buffers;      /* large payload goes through the request's own pages */
	uint32_t threshold_bytes; /* from where on, by default: tests/bench/README.md */
	unsigned int transfer_cqes; /* CQEs, and SQEs, of one transfer */

	/* Readies the ring, once, on the queue's thread. 0 or -errno. May be NULL. */
	int (*open)(struct gk_queue *queue);
	/* Queues a transfer; room for its SQEs has been reserved. */
	void (*transfer)(struct gk_queue *queue, const struct gk_tag *tag,
			 const struct gk_transfer *transfer);
	/* Copies between user memory and the request's data. 0 or -errno; all or nothing. */
	int (*copy_in)(struct gk_queue *queue, const struct gk_tag *tag, void *to, uint32_t offset,
		       uint32_t len);
	int (*copy_out)(struct gk_queue *queue, const struct gk_tag *tag, const void *from,
			uint32_t offset, uint32_t len);
};

extern const struct gk_path gk_path_copy;
extern const struct gk_path gk_path_group;
extern const struct gk_path gk_path_registered;

/* The path of a device that was added with these UBLK_F_*. */
const struct gk_path *gk_path_of_flags(uint64_t ublk_flags);

/*
 * From how many bytes on payload goes through the request's own pages: what is configured, or 0 for
 * the path's default. Pure: any thread.
 */
static inline uint32_t gk_path_threshold(const struct gk_path *path, uint32_t configured)
{
	return configured ? configured : path->threshold_bytes;
}

/*
 * The best path that the host has (auto), or the one that is asked for; NULL when the host lacks
 * it. why (size bytes) then says which feature is missing; with auto it says why not a better one
 * ("" when it is the best). Any thread.
 */
const struct gk_path *gk_path_choose(enum gk_data_path wanted, const struct gk_probe *probe,
					  char *why, size_t why_size);

#endif
