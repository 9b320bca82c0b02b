/* SPDX-License-Identifier: MIT */
/*
 * How udev learns that /dev/ublkb3 is "vol0": a file for each device, which the rule in
 * deploy/60-gkproxy.rules imports. At a fixed place, whatever state_dir is, because the rule is one
 * for all daemons of a host; so it also keeps a name to one disk. Control thread.
 */
#ifndef GK_UDEV_NAME_H
#define GK_UDEV_NAME_H

/*
 * Notes the name of /dev/ublkb<dev_id>; to be called before the kernel announces the disk. 0, and
 * in *ret_fd what shows others that this daemon has the name for as long as it is open, for
 * gk_udev_name_forget(). -EEXIST, after an error line, when another disk of this host has it. That
 * the file cannot be written is a warning, and *ret_fd is -1: the device has no link in
 * /dev/gkproxy.
 */
int gk_udev_name_save(int dev_id, const char *name, int *ret_fd);

/* Forgets it, when that is what is noted: the device is gone. Closes fd; -1: there is none. */
void gk_udev_name_forget(int dev_id, const char *name, int fd);

#endif
