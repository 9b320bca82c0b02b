/* SPDX-License-Identifier: MIT */
/*
 * How udev learns that /dev/ublkb3 is "vol0": a file for each device, which the rule in
 * deploy/60-gkproxy.rules imports. At a fixed place, whatever state_dir is, because the rule is one for all
 * daemons of a host. Control thread.
 */
#ifndef GK_UDEV_NAME_H
#define GK_UDEV_NAME_H

/*
 * Notes the name of /dev/ublkb<dev_id>; to be called before the kernel announces the disk. When that fails
 * the device has no link in /dev/gkproxy, which is a warning.
 */
void gk_udev_name_save(int dev_id, const char *name);

/* Forgets it, when that is what is noted: the device is gone. */
void gk_udev_name_forget(int dev_id, const char *name);

#endif
