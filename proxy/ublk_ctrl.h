/* SPDX-License-Identifier: MIT */
/*
 * Device life in the kernel: the commands of /dev/ublk-control, one at a time on a ring of their
 * own. Any thread, once it is open. Linux drivers/block/ublk_drv.c, ublk_ctrl_uring_cmd().
 */
#ifndef GK_UBLK_CTRL_H
#define GK_UBLK_CTRL_H

#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>

#include "gk_ublk.h"

#define GK_UBLK_STUCK_SECONDS 10 /* after which somebody is told that a command takes long */

struct gk_ublk_ctrl {
	struct io_uring ring;
	pthread_mutex_t lock; /* one command at a time */
	int fd;               /* /dev/ublk-control; -1 when not open */
};

/* 0, or -errno after a log line that says what to do (no ublk in this kernel, no permission). */
int gk_ublk_ctrl_open(struct gk_ublk_ctrl *ctrl);

/* Takes a failed open. */
void gk_ublk_ctrl_close(struct gk_ublk_ctrl *ctrl);

/*
 * The commands: 0 or -errno of the kernel, nothing logged but a line every 10 s while one is
 * stuck. ADD fills *info with what the kernel made of it (id, flags, depth).
 */
int gk_ublk_ctrl_add(struct gk_ublk_ctrl *ctrl, struct ublksrv_ctrl_dev_info *info);
int gk_ublk_ctrl_set_params(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, struct ublk_params *params);
int gk_ublk_ctrl_affinity(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, uint16_t q_id,
			  cpu_set_t *ret_cpus);
/* info->dev_id says which; the rest is filled in. -ENODEV: there is no such device. */
int gk_ublk_ctrl_get_info(struct gk_ublk_ctrl *ctrl, struct ublksrv_ctrl_dev_info *info);
int gk_ublk_ctrl_get_params(struct gk_ublk_ctrl *ctrl, uint32_t dev_id,
			    struct ublk_params *ret_params);
/* -EBUSY while the daemon that died still has the device open. */
int gk_ublk_ctrl_start_recovery(struct gk_ublk_ctrl *ctrl, uint32_t dev_id);
/* Blocks until all queues serve; requests that were in flight come again. */
int gk_ublk_ctrl_end_recovery(struct gk_ublk_ctrl *ctrl, uint32_t dev_id);
/* Called with arg every GK_UBLK_STUCK_SECONDS that a command takes. */
typedef void gk_ublk_stuck_fn(void *arg);
/*
 * Blocks until the kernel has looked for partitions: the queues must serve by then. stuck may be
 * NULL.
 */
int gk_ublk_ctrl_start(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, gk_ublk_stuck_fn *stuck,
		       void *arg);
/* Blocks until every request has ended and the block device is gone. stuck may be NULL. */
int gk_ublk_ctrl_stop(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, gk_ublk_stuck_fn *stuck, void *arg);
/* New size of a live device, in sectors; -EOPNOTSUPP or -EINVAL where UBLK_F_UPDATE_SIZE lacks. */
int gk_ublk_ctrl_update_size(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, uint64_t sectors);
/*
 * Removes the device and waits up to 2 s until its id is free again. -EBUSY: somebody still has the
 * block device open or mounted; it goes, and the id is free, when they let go of it.
 */
int gk_ublk_ctrl_del(struct gk_ublk_ctrl *ctrl, uint32_t dev_id);

#endif
