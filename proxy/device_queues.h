/* SPDX-License-Identifier: MIT */
/*
 * The queues of a device: their memory, their connections, their threads. Control thread, or the
 * job that attaches the device; the queue threads begin here. Within device.c only.
 */
#ifndef GK_DEVICE_QUEUES_H
#define GK_DEVICE_QUEUES_H

#include "device.h"

/*
 * Makes device->n_queues queues with their memory and hands each of the device's connections,
 * whose fd and TLS become the session's, to one of them in turn. 0 or -errno; what was made is
 * the device's then, to be freed by gk_device_detach().
 */
int gk_device_queues_make(struct gk_device *device, struct gk_dialled *dialled);

/*
 * Starts the thread of a queue and waits until it has its ring; it fetches the kernel's requests
 * from then on (Linux drivers/block/ublk_drv.c). 0 or -errno: the thread, if any, ends by itself
 * and is joined by gk_device_detach().
 */
int gk_device_queue_start(struct gk_device *device, unsigned int index);

/*
 * Whether every connection of a device that is handed over ends within this time, so that nothing
 * of it can reach the server after what the next daemon sends. The control thread; waits.
 */
bool gk_device_queues_await_ends(const struct gk_device *device, unsigned int ms);

#endif
