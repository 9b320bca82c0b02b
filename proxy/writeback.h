/* SPDX-License-Identifier: MIT */
/*
 * Writes a device's page cache out before it is removed: with user recovery the kernel fails what
 * is still dirty when the device is stopped (Linux 6.12, ublk_stop_dev()). Control thread.
 */
#ifndef GK_WRITEBACK_H
#define GK_WRITEBACK_H

/*
 * Syncs the file systems that are mounted from /dev/ublkb<dev_id> or its partitions, as far as this
 * mount namespace sees them, and the block device itself. Blocks as long as that takes; ends with
 * errors when requests fail. A failure is logged.
 */
void gk_writeback(int dev_id);

#endif
