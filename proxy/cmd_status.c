// SPDX-License-Identifier: MIT
#include "cmd_status.h"

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "control.h"

static long long number(const json_t *object, const char *key)
{
	return (long long)json_integer_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "?";
}

static void print_device(const json_t *device)
{
	const json_t *counters = json_object_get(device, "counters");
	const json_t *connections = json_object_get(device, "connections");
	const json_t *connection;
	size_t i;

	printf("%s  %s  %s  %lld bytes  %s\n", text(device, "name"), text(device, "path"),
	       text(device, "state"), number(device, "size_bytes"), text(device, "remote"));
	printf("  data path %s, %lld queues of depth %lld, connections:", text(device, "data_path"),
	       number(device, "queues"), number(device, "queue_depth"));
	json_array_foreach((json_t *)connections, i, connection)
		printf(" %lld %s", number(connection, "id"), text(connection, "state"));
	printf("\n  %lld reads (%lld bytes), %lld writes (%lld bytes), %lld flushes, %lld trims, "
	       "%lld zeroings, %lld errors\n",
	       number(counters, "reads"), number(counters, "bytes_read"),
	       number(counters, "writes"), number(counters, "bytes_written"),
	       number(counters, "flushes"), number(counters, "trims"),
	       number(counters, "write_zeroes"), number(counters, "errors"));
	printf("  %lld sends (%lld partial), %lld receives (%lld partial), %lld bytes staged, "
	       "%lld direct, %lld fallbacks\n",
	       number(counters, "sends"), number(counters, "partial_sends"),
	       number(counters, "receives"), number(counters, "partial_receives"),
	       number(counters, "staged_bytes"), number(counters, "bytes_direct"),
	       number(counters, "fallbacks"));
}

static int print_status(const json_t *status, bool json)
{
	const json_t *device;
	size_t i;

	if (json) {
		json_dumpf(status, stdout, JSON_INDENT(2));
		printf("\n");
		return 0;
	}
	json_array_foreach(json_object_get(status, "devices"), i, device)
		print_device(device);
	return 0;
}

int gk_cmd_status(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"socket", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	static const char usage[] = "usage: gkproxy status [NAME] [--json] [--socket PATH]\n";
	const char *socket_path = GK_DEFAULT_SOCKET;
	bool json = false;
	char why[512];
	json_t *request;
	json_t *status;
	int c;
	int r;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'j') {
			json = true;
		} else if (c == 's') {
			socket_path = optarg;
		} else {
			fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (argc - optind > 1) {
		fputs(usage, stderr);
		return 2;
	}
	request = json_pack("{s:s}", "command", "status");
	if (optind < argc)
		json_object_set_new(request, "name", json_string(argv[optind]));
	status = gk_control_ask(socket_path, request, why, sizeof(why));
	json_decref(request);
	if (!status) {
		fprintf(stderr, "gkproxy: %s\n", why);
		return 1;
	}
	r = print_status(status, json);
	json_decref(status);
	return r;
}
