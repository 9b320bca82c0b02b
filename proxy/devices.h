/* SPDX-License-Identifier: MIT */
/*
 * The devices of the daemon, and the jobs that attach and detach them: each job is a thread, so
 * that nobody waits for a server but who asked. Everything here is the control thread's; between
 * the begin and the end of a step the device, not its entry, is the job's.
 */
#ifndef GK_DEVICES_H
#define GK_DEVICES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "device.h"
#include "stats.h"
#include "status.h"

enum gk_entry_state {
	GK_ENTRY_ATTACHING,
	GK_ENTRY_ATTACHED,
	GK_ENTRY_DETACHING,
	GK_ENTRY_WAITING, /* could not be attached and will be tried again */
};

struct gk_entry {
	struct gk_device_config *config; /* owned */
	struct gk_ublk_ctrl ctrl;        /* its own: a command that takes long holds up no other device */
	struct gk_device *device;        /* ATTACHED only; else the job's */
	enum gk_entry_state state;
	bool from_file;                  /* in the configuration; else attached at run time */
	bool keep_trying;                /* until it is attached; a former daemon may have left it */
	unsigned int attempt;            /* WAITING: how often it failed, ... */
	int64_t retry_ms;                /* ... and when it is next, by CLOCK_MONOTONIC */
	uint64_t detach_ticket;          /* of who cancelled ATTACHING and waits for its end; 0: nobody */
	bool detach_force;               /* ... and wants it gone although it is in use */
	unsigned int n_readings;
	struct gk_stats readings[2];     /* of the last two seconds, the later one first */
	struct gk_stats recent;          /* their difference */
	struct gk_stats total;           /* as of the last look */
};

/* One device of a job. */
struct gk_step {
	struct gk_entry *entry; /* NULL once it is gone: detached, also by another job, or not attached
				   and not WAITING */
	char name[65];
	bool attach;            /* else detach */
	bool force;             /* detach also what is in use; fail what is in flight */
	bool given_up;          /* the job's: nobody wants it attached any more */
	int result;             /* 0 or -errno, -ECANCELED also when it was left out */
	uint64_t detach_ticket; /* of the entry, when it is gone */
	char why[2048];         /* when it failed, why; when it did not, what to know of it */
};

struct gk_devices;
struct gk_job;

/* A job has ended; steps are valid during the call. */
typedef void gk_job_done_fn(void *arg, uint64_t ticket, struct gk_step *steps, size_t n_steps);

struct gk_devices {
	const struct gk_probe *probe; /* borrowed */
	const char *state_dir;        /* borrowed */
	struct gk_entry **entries;    /* in the order in which they were added */
	size_t n_entries;
	struct gk_job *jobs;
	unsigned int seed;            /* of the jitter */
	int done_fd;                  /* eventfd: a step has ended, gk_devices_step() has to be called */
};

/* 0 or -errno. */
int gk_devices_init(struct gk_devices *devices, const struct gk_probe *probe, const char *state_dir);

/* No job may run; entries that are still attached are forgotten, not detached. */
void gk_devices_done(struct gk_devices *devices);

struct gk_entry *gk_devices_find(const struct gk_devices *devices, const char *name);

/* An entry that is to be attached. Takes the configuration, also on failure (NULL: no memory). */
struct gk_entry *gk_devices_add(struct gk_devices *devices, struct gk_device_config *config,
				bool from_file);

/*
 * Starts a job that takes the steps in their order, on a thread of its own; stop_at_failure: those
 * after one that failed are left out. entry, attach and force are to be filled; entries of attach
 * steps are ATTACHING, those of others ATTACHED, or WAITING: what a former daemon left is removed.
 * Takes the steps (malloc()). 0, or -errno: nothing happened, and entries that are not attached are
 * removed, or WAIT.
 */
int gk_devices_start(struct gk_devices *devices, struct gk_step *steps, size_t n_steps,
		     bool stop_at_failure, gk_job_done_fn *done, void *arg, uint64_t ticket);

/*
 * Gives up attaching that entry, or with NULL all and what their jobs have still to attach; steps
 * under way end with -ECANCELED. False when it is too late for that entry: its step has ended, as
 * gk_devices_step() will find.
 */
bool gk_devices_cancel(struct gk_devices *devices, const struct gk_entry *entry);

/* Starts a job for each that is WAITING and whose time has come. */
void gk_devices_retry(struct gk_devices *devices, gk_job_done_fn *done, void *arg);

/* The daemon ends: removes what a former one left and is still WAITING, but with on_exit = "keep". */
void gk_devices_remove_waiting(struct gk_devices *devices);

/* No entry any more: one that is WAITING. */
void gk_devices_forget(struct gk_devices *devices, struct gk_entry *entry);

/* Takes note of steps that have ended, ends jobs. Calls their done(). */
void gk_devices_step(struct gk_devices *devices);

/* About once a second: reads the counters of all. */
void gk_devices_tick(struct gk_devices *devices);

/*
 * Detaches all that are attached, the last one first, and the next one when that has gone, or after a
 * second; those with on_exit = "keep" are left to the next daemon. No job may run. Returns whether one
 * was kept: the process must then end by _exit().
 */
bool gk_devices_end(struct gk_devices *devices);

/* As the status and the metrics show it; reads its counters. Valid until the entry changes. */
void gk_devices_status(struct gk_entry *entry, struct gk_status_device *ret_status);

#endif
