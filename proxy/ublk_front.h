/* SPDX-License-Identifier: MIT */
/*
 * The ublk side of a queue: where its io descriptors are mapped and which device they belong to.
 * Made by the control thread before the queue's thread starts, then the thread's own. Linux
 * drivers/block/ublk_drv.c; kernel/uapi/gk_ublk.h.
 */
#ifndef GK_UBLK_FRONT_H
#define GK_UBLK_FRONT_H

#include <stddef.h>

#include "gk_ublk.h"

struct gk_ublk_queue {
	int cdev_fd;                        /* /dev/ublkcN, borrowed from the device */
	const struct ublksrv_io_desc *iods; /* depth of them, written by the kernel */
	size_t iods_bytes;
};

/* Maps the io descriptors of queue q_id. 0 or -errno. */
int gk_ublk_queue_map(struct gk_ublk_queue *uq, int cdev_fd, unsigned int q_id, unsigned int depth);

/* Unmaps them. Takes a zeroed struct. */
void gk_ublk_queue_unmap(struct gk_ublk_queue *uq);

#endif
