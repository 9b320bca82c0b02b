// SPDX-License-Identifier: MIT
#include "cmd_status.h"

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control_ask.h"

static long long number(const json_t *object, const char *key)
{
	return (long long)json_integer_value(json_object_get(object, key));
}

static double real(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "?";
}

static const json_t *member(const json_t *object, const char *a, const char *b)
{
	return json_object_get(json_object_get(object, a), b);
}

/* "87 us", "3.1 ms", "2.0 s"; "-" when there was none. */
static const char *shown_us(const json_t *latency, const char *quantile, char *dst, size_t size)
{
	double us = real(latency, quantile);

	if (!latency)
		snprintf(dst, size, "-");
	else if (us < 1000)
		snprintf(dst, size, "%.0f us", us);
	else if (us < 1e6)
		snprintf(dst, size, "%.1f ms", us / 1e3);
	else
		snprintf(dst, size, "%.1f s", us / 1e6);
	return dst;
}

static void print_latency(const json_t *device, const char *op)
{
	const json_t *latency = member(device, "latency_us", op);
	char p50[32], p99[32], p999[32];

	if (latency)
		printf("  %-12s %lld, half within %s, 99 %% within %s, 99.9 %% within %s\n", op,
		       number(latency, "count"), shown_us(latency, "p50", p50, sizeof(p50)),
		       shown_us(latency, "p99", p99, sizeof(p99)),
		       shown_us(latency, "p999", p999, sizeof(p999)));
}

static void print_recent(const json_t *device)
{
	const json_t *recent = json_object_get(device, "recent");

	if (!recent)
		return;
	printf("  now          %.0f reads/s, %.1f MB/s; %.0f writes/s, %.1f MB/s; %lld in flight\n",
	       real(recent, "reads_per_s"), real(recent, "bytes_read_per_s") / 1e6,
	       real(recent, "writes_per_s"), real(recent, "bytes_written_per_s") / 1e6,
	       number(device, "in_flight"));
}

static void print_device(const json_t *device)
{
	static const char *const ops[] = {"reads", "writes", "flushes", "trims", "write_zeroes"};
	const json_t *counters = json_object_get(device, "counters");
	const json_t *connections = json_object_get(device, "connections");
	const json_t *connection;
	size_t i;

	if (!json_object_get(device, "path")) {
		printf("%s  %s  %s\n", text(device, "name"), text(device, "state"),
		       text(device, "remote"));
		return;
	}
	printf("%s  %s  %s  %lld bytes  %s\n", text(device, "name"), text(device, "path"),
	       text(device, "state"), number(device, "size_bytes"), text(device, "remote"));
	printf("  data path %s, %lld queues of depth %lld, TLS %s, connections:",
	       text(device, "data_path"), number(device, "queues"), number(device, "queue_depth"),
	       text(json_array_get(connections, 0), "tls"));
	json_array_foreach(connections, i, connection)
		printf(" #%lld %s", number(connection, "id"), text(connection, "state"));
	printf("\n");
	print_recent(device);
	for (i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		print_latency(device, ops[i]);
	printf("  %lld bytes read, %lld written; %lld of payload direct, %lld staged, %lld requests "
	       "fell back to copying\n",
	       number(counters, "bytes_read"), number(counters, "bytes_written"),
	       number(counters, "bytes_direct"), number(counters, "staged_bytes"),
	       number(counters, "fallbacks"));
	printf("  %lld errors, %lld time-outs, %lld reconnects, %lld replays (%lld unfenced), %lld "
	       "sends (%lld partial), %lld receives (%lld partial)\n",
	       number(counters, "errors"), number(counters, "timeouts"),
	       number(counters, "reconnects"), number(counters, "replays"),
	       number(counters, "unfenced_replays"), number(counters, "sends"),
	       number(counters, "partial_sends"), number(counters, "receives"),
	       number(counters, "partial_receives"));
}

/* One line a device, of what went on in the last second. */
static void print_table(const json_t *status)
{
	const json_t *device;
	size_t i;

	printf("%-16s %-12s %5s %8s %8s %9s %9s %8s %8s %9s %9s %7s %6s\n", "NAME", "STATE", "BUSY",
	       "READ/S", "MB/S", "P50", "P99", "WRITE/S", "MB/S", "P50", "P99", "ERRORS", "RECON");
	json_array_foreach(json_object_get(status, "devices"), i, device) {
		const json_t *recent = json_object_get(device, "recent");
		const json_t *counters = json_object_get(device, "counters");
		const json_t *reads = member(recent, "latency_us", "reads");
		const json_t *writes = member(recent, "latency_us", "writes");
		char r50[32], r99[32], w50[32], w99[32];

		printf("%-16s %-12s %5lld %8.0f %8.1f %9s %9s %8.0f %8.1f %9s %9s %7lld %6lld\n",
		       text(device, "name"), text(device, "state"), number(device, "in_flight"),
		       real(recent, "reads_per_s"), real(recent, "bytes_read_per_s") / 1e6,
		       shown_us(reads, "p50", r50, sizeof(r50)),
		       shown_us(reads, "p99", r99, sizeof(r99)), real(recent, "writes_per_s"),
		       real(recent, "bytes_written_per_s") / 1e6,
		       shown_us(writes, "p50", w50, sizeof(w50)),
		       shown_us(writes, "p99", w99, sizeof(w99)), number(counters, "errors"),
		       number(counters, "reconnects"));
	}
}

static void print_status(const json_t *status)
{
	const json_t *device;
	size_t i;

	json_array_foreach(json_object_get(status, "devices"), i, device)
		print_device(device);
}

static int show(const char *socket_path, const json_t *request, bool json, bool watch)
{
	char why[4096];
	json_t *status = gk_control_ask(socket_path, request, why, sizeof(why));

	if (!status) {
		fprintf(stderr, "gkproxy: %s\n", why);
		return 1;
	}
	if (json) {
		json_dumpf(status, stdout, watch ? JSON_COMPACT : JSON_INDENT(2));
		printf("\n");
	} else if (watch) {
		/* From the top of the screen, what was there before is cleared. */
		if (isatty(STDOUT_FILENO))
			printf("\033[H\033[J");
		print_table(status);
	} else {
		print_status(status);
	}
	json_decref(status);
	return fflush(stdout) ? 1 : 0;
}

int gk_cmd_status(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"socket", required_argument, NULL, 's'},
		{"watch", optional_argument, NULL, 'w'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	static const char usage[] =
		"usage: gkproxy status [NAME] [--watch[=SECONDS]] [--json]\n"
		"Shows the devices of the running daemon.\n"
		"  --watch         a table of what goes on, again every second (or SECONDS) until\n"
		"                  interrupted; with --json, an object a line\n"
		"  --json          as JSON; control-socket.md says what it has\n"
		"  --socket PATH   the daemon's control.socket, if not " GK_DEFAULT_SOCKET "\n"
		"  --help\n";
	const char *socket_path = GK_DEFAULT_SOCKET;
	bool json = false;
	double seconds = 0;
	char *end = NULL;
	json_t *request;
	int c;
	int r;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'j':
			json = true;
			break;
		case 's':
			socket_path = optarg;
			break;
		case 'w':
			seconds = optarg ? strtod(optarg, &end) : 1;
			if (!optarg || (end != optarg && !*end && seconds >= 0.1 && seconds <= 3600))
				break;
			fprintf(stderr, "gkproxy: --watch: expected seconds from 0.1 to 3600\n");
			return 2;
		default:
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
	do {
		r = show(socket_path, request, json, seconds > 0);
	} while (!r && seconds > 0 &&
		 !nanosleep(&(struct timespec){(time_t)seconds,
					       (long)((seconds - (double)(time_t)seconds) * 1e9)},
			    NULL));
	json_decref(request);
	return r;
}
