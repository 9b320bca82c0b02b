// SPDX-License-Identifier: MIT
/* arguments → a sub-command, or the daemon. The only file that decides how the process ends. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd_control.h"
#include "cmd_probe.h"
#include "cmd_status.h"
#include "config.h"
#include "daemon.h"

static const char usage_text[] =
	"usage: gkproxy -c FILE             attach the devices of FILE, run until a signal comes\n"
	"       gkproxy -t -c FILE          check FILE, name every mistake\n"
	"       gkproxy probe [URI]         what this host can do, what the server at URI offers\n"
	"the running daemon:\n"
	"       gkproxy status [NAME]       what it does\n"
	"       gkproxy attach URI...       add a device\n"
	"       gkproxy detach NAME         remove one\n"
	"       gkproxy reload              read FILE again, as SIGHUP does\n"
	"       gkproxy log-level [LEVEL]   show or set it\n"
	"       gkproxy --version | --help; each command has a --help of its own\n";

static void report_mistake(void *arg, const char *message)
{
	(void)arg;
	fprintf(stderr, "%s\n", message);
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
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {
		{"probe", gk_cmd_probe},   {"status", gk_cmd_status}, {"attach", gk_cmd_attach},
		{"detach", gk_cmd_detach}, {"reload", gk_cmd_reload}, {"log-level", gk_cmd_log_level},
	};
	struct gk_config *config;
	const char *path = NULL;
	bool check = false;
	int c;

	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
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
	if (!check)
		return gk_daemon_run(config) ? EXIT_FAILURE : EXIT_SUCCESS;
	gk_config_free(config);
	return EXIT_SUCCESS;
}
