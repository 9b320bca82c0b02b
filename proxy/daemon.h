/* SPDX-License-Identifier: MIT */
/*
 * The running daemon: what the loop of the control thread works on, and the requests that it
 * carries out. Control thread only.
 */
#ifndef GK_DAEMON_H
#define GK_DAEMON_H

#include <stdbool.h>

#include "config.h"
#include "control.h"
#include "devices.h"
#include "probe.h"

struct gk_daemon {
	struct gk_config *config;    /* as the file was when it was read last; owned */
	char *state_dir;             /* these three as they were at the start */
	char *control_socket;
	char *metrics_address;
	struct gk_probe probe;
	struct gk_devices devices;
	struct gk_control *control;
	int signal_fd;
	int listen_fd;
	bool inherits;               /* a former daemon left devices of the file, which may be in use */
	struct {
		size_t n_jobs;       /* that are not done yet */
		size_t n_up;
		size_t n_failed;
		int result;          /* of the first that failed */
	} start;
	bool ready;                  /* the devices of the file are up, or those that can be */
	bool ending;
	bool reload_wanted;          /* SIGHUP came while a job was running */
	int result;                  /* 0, or -errno why it ends */
};

/*
 * Attaches the devices of a configuration, whose ownership it takes, and serves until a signal
 * ends it; detaches them. 0, or -errno after at least one log line. Does not return, but ends the
 * process, when devices are kept for the next daemon.
 */
int gk_daemon_run(struct gk_config *config);

/* requests.c: one request of the control socket; a gk_control_handler, arg is the daemon. */
json_t *gk_requests_handle(void *arg, uint64_t ticket, const json_t *request);

/*
 * requests.c: reads the file again and starts what follows from it; for a client's ticket, or 0
 * for SIGHUP. An answer at once, or NULL: later. All that is wrong is logged.
 */
json_t *gk_requests_reload(struct gk_daemon *daemon, uint64_t ticket);

/* requests.c: an attach step has ended: sees to who meanwhile asked to detach that device. */
void gk_requests_gone(struct gk_daemon *daemon, const struct gk_step *step);

#endif
