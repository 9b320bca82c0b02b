/* SPDX-License-Identifier: MIT */
/*
 * Devices that outlive the daemon: what the next daemon must know to find its own again, in
 * state_dir/NAME.json, and whether a device that it finds is what the configuration asks for.
 * Control thread.
 */
#ifndef GK_RECOVERY_H
#define GK_RECOVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "device_plan.h"
#include "gk_ublk.h"
#include "ublk_ctrl.h"

/* A device that a former daemon left, as the kernel describes it. */
struct gk_kept_device {
	struct ublksrv_ctrl_dev_info info;
	struct ublk_params params;
};

/*
 * Notes a device that is live: its id, and the cookie that is also in its ublksrv_flags. 0, or
 * -errno after a warning: the device works, but would not be found again.
 */
int gk_recovery_save(const char *state_dir, const struct gk_device_config *config, int dev_id,
		     uint64_t cookie);

/* Whether a device of that name may have been left by a former daemon. */
bool gk_recovery_is_noted(const char *state_dir, const char *name);

/* Forgets it: the device is removed. */
void gk_recovery_forget(const char *state_dir, const char *name);

/*
 * Looks for the device of that name which a former daemon left. 1 and *ret_kept; 0 when there is
 * none (a note without its device is removed); -errno after a log line when there is one but it
 * was attached to another export (-ESTALE, with *ret_kept), or when it cannot be found out.
 */
int gk_recovery_find(struct gk_ublk_ctrl *ctrl, const char *state_dir,
		     const struct gk_device_config *config, struct gk_kept_device *ret_kept);

/*
 * Removes a device that gk_recovery_find() found: what waits in it fails, its note is forgotten. Its
 * fence file stays: writes of the former daemon may still be on their way. 0 or -errno, after a log
 * line in both cases.
 */
int gk_recovery_remove(struct gk_ublk_ctrl *ctrl, const char *state_dir, const char *name,
		       const struct gk_kept_device *kept);

/*
 * Whether the configuration, and the export as the server has it now (plan), still fit the kept
 * device: 0, or -ESTALE with the difference in why.
 */
int gk_recovery_compare(const struct gk_device_config *config, const struct gk_kept_device *kept,
			const struct gk_device_plan *plan, char *why, size_t why_size);

/* A number that is ours: for ublksrv_flags of a new device. And whether one is. */
uint64_t gk_recovery_cookie(void);
bool gk_recovery_is_cookie(uint64_t ublksrv_flags);

#endif
