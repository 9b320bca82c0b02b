/* SPDX-License-Identifier: MIT */
/*
 * Who uses a block device: file systems, swap, drivers on top of it, processes. Any thread; may
 * take as long as walking /proc does.
 */
#ifndef GK_HOLDERS_H
#define GK_HOLDERS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Whether /dev/ublkb<dev_id> or one of its partitions is in use; how, goes into what (size bytes):
 * "mounted at /mnt", "open in process 123 (fio)". A process is only seen with CAP_SYS_PTRACE or as
 * the same user, and only in this PID namespace. Also true, and said so, when that cannot be found
 * out for want of descriptors or memory.
 */
bool gk_holders_find(int dev_id, char *what, size_t size);

/* Whether "major:minor" is the device or one of its partitions. */
bool gk_holders_is_on_device(const char *dev, int dev_id);

/* Undoes the octal escapes of mountinfo and swaps in place: proc(5). */
void gk_holders_unescape(char *path);

#endif
