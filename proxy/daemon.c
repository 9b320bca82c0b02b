// SPDX-License-Identifier: MIT
/*
 * The control thread: configuration → devices (dialled, added, started, by a job) → serve until a
 * signal → devices removed.
 */
#include "daemon.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "config_device.h"
#include "fence_child.h"
#include "log.h"
#include "memory.h"
#include "metrics.h"
#include "notify.h"
#include "privilege.h"
#include "recovery.h"

#define TICK_MS 1000

/* The directory that holds path, made when it is missing. */
static int make_parent(const char *path)
{
	char parent[PATH_MAX];
	char *slash;

	snprintf(parent, sizeof(parent), "%s", path);
	slash = strrchr(parent, '/');
	if (!slash || slash == parent)
		return 0;
	*slash = '\0';
	return mkdir(parent, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

static int make_directories(const struct gk_config *config)
{
	int r = mkdir(config->state_dir, 0755) < 0 && errno != EEXIST ? -errno : 0;

	if (r) {
		gk_log(GK_LOG_ERROR, "cannot create the state directory %s: %s", config->state_dir,
		       gk_strerror(r));
		return r;
	}
	r = make_parent(config->control_socket);
	if (r)
		gk_log(GK_LOG_ERROR, "cannot create the directory of %s: %s", config->control_socket,
		       gk_strerror(r));
	return r;
}

/* Blocked before any thread exists, so that every thread inherits it and only signal_fd sees them. */
static int take_signals(void)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static void raise_fd_limit(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static void end(struct gk_daemon *daemon, int result)
{
	if (daemon->ending)
		return;
	daemon->ending = true;
	daemon->result = result;
	gk_devices_cancel(&daemon->devices, NULL);
}

static void all_are_up(void)
{
	gk_log(GK_LOG_INFO, "ready: all devices are up");
	gk_notify("READY=1\nSTATUS=");
}

/*
 * Devices that a former daemon left are in use: one that has been taken over must not go, nor one
 * that could be wait, because another one's server is not there.
 */
static void conclude_start(struct gk_daemon *daemon)
{
	if (daemon->start.n_failed && !(daemon->inherits && daemon->start.n_up))
		end(daemon, daemon->start.result);
	if (daemon->ending)
		return;
	daemon->ready = true;
	if (!daemon->start.n_failed) {
		all_are_up();
		return;
	}
	gk_log(GK_LOG_WARNING, "ready, but %zu of %zu devices are not up: they are tried again, and the "
	       "others served meanwhile", daemon->start.n_failed,
	       daemon->start.n_failed + daemon->start.n_up);
	gk_notify("READY=1\nSTATUS=Not all devices are up: see gkproxy status");
}

static void note_failure(struct gk_daemon *daemon, int result)
{
	if (!daemon->start.n_failed++)
		daemon->start.result = result;
}

static void start_done(void *arg, uint64_t ticket, struct gk_step *steps, size_t n_steps)
{
	struct gk_daemon *daemon = arg;

	(void)ticket;
	for (size_t i = 0; i < n_steps; i++) {
		if (steps[i].result)
			note_failure(daemon, steps[i].result);
		else
			daemon->start.n_up++;
	}
	if (!--daemon->start.n_jobs)
		conclude_start(daemon);
}

static void retry_done(void *arg, uint64_t ticket, struct gk_step *steps, size_t n_steps)
{
	struct gk_daemon *daemon = arg;
	bool waits = false;

	(void)ticket;
	(void)n_steps;
	gk_requests_gone(daemon, steps);
	for (size_t i = 0; i < daemon->devices.n_entries; i++)
		waits |= daemon->devices.entries[i]->keep_trying;
	if (!steps->result && !waits)
		all_are_up();
}

static bool is_any_left(const struct gk_daemon *daemon)
{
	const struct gk_config *config = daemon->config;
	bool left = false;

	for (size_t i = 0; i < config->n_devices; i++)
		left |= gk_recovery_is_noted(daemon->state_dir, config->devices[i].name);
	return left;
}

/* Into a zeroed step. */
static int add_of_file(struct gk_daemon *daemon, const struct gk_device_config *config,
		       struct gk_step *ret_step)
{
	struct gk_device_config *copy;
	int r = gk_config_device_copy(config, &copy);

	if (r)
		return r;
	ret_step->attach = true;
	ret_step->entry = gk_devices_add(&daemon->devices, copy, true);
	if (!ret_step->entry)
		return -ENOMEM;
	ret_step->entry->keep_trying = daemon->inherits;
	return 0;
}

/*
 * The devices of the file, one after the other, so that ids are in their order; the first that fails
 * ends the start.
 */
static int attach_new(struct gk_daemon *daemon)
{
	const struct gk_config *config = daemon->config;
	struct gk_step *steps = calloc(config->n_devices, sizeof(*steps));
	int r = steps ? 0 : -ENOMEM;

	for (size_t i = 0; i < config->n_devices && !r; i++)
		r = add_of_file(daemon, &config->devices[i], &steps[i]);
	if (r) {
		free(steps);
		return r;
	}
	daemon->start.n_jobs = 1;
	return gk_devices_start(&daemon->devices, steps, config->n_devices, true, start_done, daemon, 0);
}

/* What a former daemon left has its ids: all at once, so that none waits for another one's server. */
static int attach_left(struct gk_daemon *daemon)
{
	const struct gk_config *config = daemon->config;
	int r = 0;

	for (size_t i = 0; i < config->n_devices; i++) {
		struct gk_step *step = calloc(1, sizeof(*step));

		r = step ? add_of_file(daemon, &config->devices[i], step) : -ENOMEM;
		if (r)
			free(step);
		else
			r = gk_devices_start(&daemon->devices, step, 1, false, start_done, daemon, 0);
		if (r)
			note_failure(daemon, r);
		else
			daemon->start.n_jobs++;
	}
	return daemon->start.n_jobs ? 0 : r;
}

static void read_signals(struct gk_daemon *daemon)
{
	struct signalfd_siginfo info;

	while (read(daemon->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP) {
			daemon->reload_wanted = true;
			continue;
		}
		gk_log(GK_LOG_INFO, "%s: ending", strsignal((int)info.ssi_signo));
		gk_notify("STOPPING=1");
		end(daemon, daemon->ready ? 0 : -ECANCELED);
	}
}

/* Not before what is being attached or detached has ended. */
static void reload_if_wanted(struct gk_daemon *daemon)
{
	if (!daemon->reload_wanted || !daemon->ready || daemon->ending || daemon->devices.jobs)
		return;
	daemon->reload_wanted = false;
	gk_log(GK_LOG_INFO, "SIGHUP: reading %s again", daemon->config->path);
	json_decref(gk_requests_reload(daemon, 0));
}

static char *metrics_text(void *arg)
{
	struct gk_daemon *daemon = arg;
	size_t n = daemon->devices.n_entries;
	struct gk_status_device *list = calloc(n ? n : 1, sizeof(*list));
	char *text;

	if (!list)
		return NULL;
	for (size_t i = 0; i < n; i++)
		gk_devices_status(daemon->devices.entries[i], &list[i]);
	text = gk_metrics_text(list, n);
	free(list);
	return text;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void tick(struct gk_daemon *daemon)
{
	gk_devices_tick(&daemon->devices);
	gk_control_tick(daemon->control);
}

static int min_ms(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* Until a signal has come and every job has ended. */
static void serve(struct gk_daemon *daemon, struct gk_metrics *metrics)
{
	int64_t next_ms = now_ms();

	while (!daemon->ending || daemon->devices.jobs) {
		int64_t left_ms = next_ms - now_ms();
		int metrics_ms = -1;
		struct pollfd fds[] = {
			{.fd = daemon->signal_fd, .events = POLLIN},
			{.fd = daemon->devices.done_fd, .events = POLLIN},
			{.fd = gk_control_fd(daemon->control), .events = POLLIN},
			{.fd = metrics ? gk_metrics_fd(metrics, &metrics_ms) : -1, .events = POLLIN},
			{.fd = gk_fence_child_fd()},
		};

		(void)poll(fds, 5, min_ms(min_ms(left_ms > 0 ? (int)left_ms : 0, metrics_ms),
					  gk_notify_alive()));
		read_signals(daemon);
		gk_fence_child_step();
		gk_devices_step(&daemon->devices);
		reload_if_wanted(daemon);
		if (daemon->ready && !daemon->ending && !daemon->reload_wanted)
			gk_devices_retry(&daemon->devices, retry_done, daemon);
		gk_control_step(daemon->control);
		if (metrics)
			gk_metrics_step(metrics);
		if (now_ms() < next_ms)
			continue;
		tick(daemon);
		next_ms = now_ms() + TICK_MS;
	}
}

/* Everything that can fail before a server is dialled. */
static int set_up(struct gk_daemon *daemon, struct gk_metrics **ret_metrics)
{
	const struct gk_config *config = daemon->config;
	struct gk_ublk_ctrl ctrl = {.fd = -1};
	int r = take_signals();

	if (r < 0) {
		gk_log(GK_LOG_ERROR, "cannot take signals: %s", gk_strerror(r));
		return r;
	}
	daemon->signal_fd = r;
	daemon->state_dir = strdup(config->state_dir);
	daemon->control_socket = strdup(config->control_socket);
	daemon->metrics_address = strdup(config->metrics);
	if (!daemon->state_dir || !daemon->control_socket || !daemon->metrics_address)
		return -ENOMEM;
	/* Only to say what is missing before anything else is done. */
	r = gk_ublk_ctrl_open(&ctrl);
	gk_ublk_ctrl_close(&ctrl);
	if (!r)
		r = make_directories(config);
	if (r)
		return r;
	/* Before there are threads, locked memory and secrets: it needs none of them. */
	(void)gk_fence_child_start();
	gk_memory_protect();
	daemon->listen_fd = r = gk_control_listen(config->control_socket);
	if (r < 0)
		return r;
	r = gk_control_new(daemon->listen_fd, gk_requests_handle, daemon, &daemon->control);
	if (!r)
		r = gk_devices_init(&daemon->devices, &daemon->probe, daemon->state_dir);
	if (r) {
		gk_log(GK_LOG_ERROR, "cannot start: %s", gk_strerror(r));
		return r;
	}
	if (config->metrics[0])
		r = gk_metrics_start(config->metrics, metrics_text, daemon, ret_metrics);
	if (r)
		return r;
	(void)gk_privilege_drop();
	gk_probe_run(&daemon->probe);
	return 0;
}

int gk_daemon_run(struct gk_config *config)
{
	struct gk_daemon daemon = {
		.config = config, .signal_fd = -1, .listen_fd = -1, .devices.done_fd = -1};
	struct gk_metrics *metrics = NULL;
	bool kept;
	int r;

	gk_log_set_level(config->log_level);
	raise_fd_limit();
	r = set_up(&daemon, &metrics);
	if (!r) {
		daemon.inherits = is_any_left(&daemon);
		r = daemon.inherits ? attach_left(&daemon) : attach_new(&daemon);
		if (r)
			gk_log(GK_LOG_ERROR, "no device can be attached: %s", gk_strerror(r));
	}
	if (!r) {
		serve(&daemon, metrics);
		r = daemon.result;
	}
	gk_metrics_stop(metrics);
	gk_control_free(daemon.control);
	if (daemon.ready)
		gk_devices_remove_waiting(&daemon.devices);
	kept = gk_devices_end(&daemon.devices);
	if (daemon.listen_fd >= 0) {
		unlink(daemon.control_socket);
		close(daemon.listen_fd);
	}
	/* What serves a kept device ends with the process, and not in any order of ours. */
	if (kept)
		_exit(r ? EXIT_FAILURE : EXIT_SUCCESS);
	gk_fence_child_end();
	gk_devices_done(&daemon.devices);
	if (daemon.signal_fd >= 0)
		close(daemon.signal_fd);
	free(daemon.state_dir);
	free(daemon.control_socket);
	free(daemon.metrics_address);
	gk_config_free(daemon.config);
	return r;
}
