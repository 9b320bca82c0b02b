// SPDX-License-Identifier: MIT
/*
 * arguments → configuration → devices (dialled, added, started) → serve until a signal → devices
 * removed. The only file that decides how the process ends.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd_probe.h"
#include "cmd_status.h"
#include "config.h"
#include "control.h"
#include "device.h"
#include "log.h"
#include "notify.h"
#include "status.h"

struct daemon {
	const struct gk_config *config;
	struct gk_probe probe;
	struct gk_ublk_ctrl ctrl;
	struct gk_device **devices;
	size_t n_devices;
	int signal_fd;
	int listen_fd;
};

static const char usage_text[] =
	"usage: gkproxy -c FILE             attach the devices of FILE, run until a signal comes\n"
	"       gkproxy -t -c FILE          check FILE, name every mistake\n"
	"       gkproxy probe [URI]         what this host can do, what the server at URI offers\n"
	"       gkproxy status [NAME]       what the running daemon does\n"
	"       gkproxy --version | --help\n";

static void report_mistake(void *arg, const char *message)
{
	(void)arg;
	fprintf(stderr, "%s\n", message);
}

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

static json_t *handle(void *arg, const json_t *request, char *why, size_t why_size)
{
	const struct daemon *daemon = arg;
	const char *command = json_string_value(json_object_get(request, "command"));
	const char *name = json_string_value(json_object_get(request, "name"));

	if (!command || strcmp(command, "status") != 0) {
		snprintf(why, why_size, "unknown command");
		return NULL;
	}
	if (!name)
		return gk_status_json(daemon->devices, daemon->n_devices);
	for (size_t i = 0; i < daemon->n_devices; i++)
		if (!strcmp(daemon->devices[i]->config->name, name))
			return gk_status_json(&daemon->devices[i], 1);
	snprintf(why, why_size, "no device is named %.100s", name);
	return NULL;
}

static int attach_all(struct daemon *daemon)
{
	for (size_t i = 0; i < daemon->config->n_devices; i++) {
		int r = gk_device_attach(&daemon->ctrl, &daemon->probe,
					 &daemon->config->devices[i], daemon->config->state_dir, daemon->signal_fd,
					 &daemon->devices[i]);

		if (r)
			return r;
		daemon->n_devices = i + 1;
	}
	return 0;
}

static int serve(struct daemon *daemon)
{
	struct signalfd_siginfo info;
	int r;

	gk_log(GK_LOG_INFO, "ready: all devices are up");
	gk_notify("READY=1");
	r = gk_control_serve(daemon->listen_fd, daemon->signal_fd, handle, daemon);
	gk_notify("STOPPING=1");
	if (read(daemon->signal_fd, &info, sizeof(info)) == sizeof(info))
		gk_log(GK_LOG_INFO, "%s: ending", strsignal((int)info.ssi_signo));
	return r;
}

/* Blocked before any thread exists, so that every thread inherits it and only signal_fd sees them. */
static int take_signals(void)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
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

static int run(const struct gk_config *config)
{
	struct daemon daemon = {.config = config, .ctrl.fd = -1, .signal_fd = -1, .listen_fd = -1};
	bool kept = false;
	int r;

	gk_log_set_level(config->log_level);
	raise_fd_limit();
	daemon.signal_fd = r = take_signals();
	if (r < 0)
		return r;
	r = gk_ublk_ctrl_open(&daemon.ctrl);
	if (!r)
		r = make_directories(config);
	if (!r) {
		daemon.listen_fd = r = gk_control_listen(config->control_socket);
		daemon.devices = calloc(config->n_devices, sizeof(struct gk_device *));
		if (!daemon.devices)
			r = -ENOMEM;
	}
	if (r >= 0) {
		gk_probe_run(&daemon.probe);
		r = attach_all(&daemon);
	}
	if (!r)
		r = serve(&daemon);
	for (size_t i = daemon.n_devices; i > 0; i--) {
		struct gk_device *device = daemon.devices[i - 1];

		if (device->config->on_exit == GK_ON_EXIT_KEEP) {
			gk_device_keep(device);
			kept = true;
		} else {
			gk_device_detach(device);
		}
	}
	free(daemon.devices);
	if (daemon.listen_fd >= 0) {
		unlink(config->control_socket);
		close(daemon.listen_fd);
	}
	/* What serves a kept device ends with the process, and not in any order of ours. */
	if (kept)
		_exit(r ? EXIT_FAILURE : EXIT_SUCCESS);
	gk_ublk_ctrl_close(&daemon.ctrl);
	close(daemon.signal_fd);
	return r;
}

static int usage_error(void)
{
	fputs(usage_text, stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	struct gk_config *config;
	const char *path = NULL;
	bool check = false;
	int c;
	int r;

	if (argc > 1 && !strcmp(argv[1], "probe"))
		return gk_cmd_probe(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "status"))
		return gk_cmd_status(argc - 1, argv + 1);
	while ((c = getopt_long(argc, argv, "c:th", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			path = optarg;
			break;
		case 't':
			check = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			return 0;
		case 'V':
			printf("gkproxy %s\n", GK_VERSION);
			return 0;
		default:
			return usage_error();
		}
	}
	if (!path || optind < argc)
		return usage_error();
	if (gk_config_load(path, report_mistake, NULL, &config))
		return EXIT_FAILURE;
	r = check ? 0 : run(config);
	gk_config_free(config);
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}
