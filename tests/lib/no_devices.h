/* SPDX-License-Identifier: MIT */
/*
 * What stands for ublk and the servers where a daemon is tested without them: devices that are
 * none. A program takes them in by -Wl,--wrap= of the functions that no_devices.c names. What
 * becomes of a device is told by its name:
 *
 *   bad...         attaching fails, as if there were no server
 *   late...        the same as long as no_devices.early is set
 *   slow...        attaching goes on when no_devices.go_on_fd is readable, or is given up
 *   ...lingering   the same of detaching
 *
 * Any thread; members that both sides use are atomic.
 */
#ifndef NO_DEVICES_H
#define NO_DEVICES_H

#include <stdbool.h>

struct no_devices {
	int go_on_fd;           /* eventfd; made by the first no_devices_reset() */
	unsigned int n_alive;
	unsigned int n_leaving; /* whose detaching has begun */
	unsigned int n_forced;  /* detached while `impatient` */
	unsigned int n_kept;
	unsigned int next_id;
	int held_id;            /* of the device that is mounted; -1: none is */
	bool all_slow;          /* every device is slow, whatever its name */
	bool refuse;            /* ... and bad */
	bool early;
};

extern struct no_devices no_devices;

/* All as in the beginning, but for the devices that are alive; nothing goes on. */
void no_devices_reset(void);

/* What is slow goes on, also what comes later, until told otherwise. */
void no_devices_go_on(bool on);

#endif
