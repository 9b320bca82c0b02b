/* SPDX-License-Identifier: MIT */
/*
 * One device: its connections, its queues and their threads, its life in the kernel. Control
 * thread only; the queue threads are inside.
 */
#ifndef GK_DEVICE_H
#define GK_DEVICE_H

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

#include "config.h"
#include "device_plan.h"
#include "dial.h"
#include "loop.h"
#include "reconnect.h"
#include "recovery.h"
#include "ublk_ctrl.h"
#include "ublk_front.h"

struct gk_device_queue {
	struct gk_queue queue;
	struct gk_ublk_queue ublk;
	pthread_t thread;
	cpu_set_t cpus;   /* that the kernel maps to this queue */
	sem_t opened;     /* the thread has its ring, or failed to get one: `error` */
	int error;
	bool started;     /* the thread runs and must be joined */
};

struct gk_device {
	const struct gk_device_config *config; /* borrowed */
	struct gk_ublk_ctrl *ctrl;             /* borrowed */
	int dev_id;                            /* -1 until added */
	int lock_fd;                           /* holds state_dir/NAME.lock */
	char *lock_path;
	int fence_fd;                          /* of gk_fence_child_take(), or -1 */
	int name_fd;                           /* of gk_udev_name_save(), or -1 */
	int cdev_fd;                           /* /dev/ublkcN */
	const struct gk_path *path;
	char path_why[512];                    /* why not a better one; "" when it is the best */
	struct gk_device_plan plan;
	struct nbd_export_facts facts;
	unsigned int n_connections;
	struct gk_device_queue *queues;
	unsigned int n_queues;
	const char *state_dir;                 /* borrowed */
	uint64_t recovery_flags;               /* UBLK_F_USER_RECOVERY*, 0: the kernel has none */
	uint64_t cookie;                       /* in ublksrv_flags: this device is ours */
	struct gk_kept_device kept;            /* left by a former daemon ... */
	bool recovering;                       /* ... and being taken over: must not be removed */
	bool live;                             /* the kernel sends requests */
	int cancel_fd;                         /* while it is attached: readable to give up; -1: none */
	struct gk_flush_track unflushed;
	struct gk_reconnect reconnect;
	uint64_t last_progress;                /* requests that had ended when STOP was last looked at */
	bool impatient;                        /* detach does not wait for a server that does not answer */
};

/*
 * Connects, adds, starts: when it returns 0 the block device is there and *ret_device is the
 * caller's. On failure -errno after one log line that says what to do, and nothing is left behind.
 * cancel_fd (-1: none) being readable gives up dialling with -ECANCELED, and within 10 s also the
 * kernel's first reads from a server that does not answer them.
 */
int gk_device_attach(struct gk_ublk_ctrl *ctrl, const struct gk_probe *probe,
		     const struct gk_device_config *config, const char *state_dir, int cancel_fd,
		     struct gk_device **ret_device);

/*
 * How to dial the device's server, and what a session needs to know of a dialled connection, whose
 * TLS goes to the session.
 */
struct gk_dial_options gk_device_dial_options(const struct gk_device *device, int cancel_fd);
struct gk_session_facts gk_device_session_facts(const struct gk_device *device,
						struct gk_dialled *dialled);

/*
 * The export of a live device has this size now: if that is more, the kernel hears of it, as far as it
 * can (UBLK_F_UPDATE_SIZE). The reconnection's thread, or before it runs.
 */
void gk_device_grow(struct gk_device *device, uint64_t export_bytes);

/* Says how a connection is encrypted, and what is wrong with it. */
void gk_device_log_tls(const struct gk_device *device, const struct gk_dialled *dialled);

/*
 * Removes the block device, ends queues and connections, frees. Waits for requests in flight; when
 * none ends for 10 s, the connections are cut and what is in flight fails. An `impatient` one gives
 * the server 1 s to take what the page cache holds, and then fails what is in flight. Takes NULL
 * and, within device.c, half-built devices. A device that could not be taken over is left as it was.
 */
void gk_device_detach(struct gk_device *device);

/*
 * on_exit = "keep": its connections end, each with a fence if the server may still hold a write, and
 * its requests wait from now on. Returns at once; gk_device_keep() is next.
 */
void gk_device_hand_over(struct gk_device *device);

/*
 * Waits for those ends, fence_timeout and a little more at most, and says that the device is kept.
 * It stays as it is, its threads running; the process must end next, and the kernel then keeps the
 * device for the daemon that comes after.
 */
void gk_device_keep(struct gk_device *device);

#endif
