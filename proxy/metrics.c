// SPDX-License-Identifier: MIT
#include "metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Buckets as Prometheus gets them: powers of two from 16 us to 34 s, which begin buckets of ours. */
#define FIRST_BITS 14
#define LAST_BITS  35

static const char *const op_labels[GK_OPS] = {
	[GK_OP_READ] = "read",
	[GK_OP_WRITE] = "write",
	[GK_OP_FLUSH] = "flush",
	[GK_OP_TRIM] = "trim",
	[GK_OP_WRITE_ZEROES] = "write_zeroes",
};

/* "gkproxy_" goes in front of every name. */
struct metric {
	const char *name;
	const char *type;
	const char *help;
};

static void head(FILE *out, const struct metric *metric)
{
	fprintf(out, "# HELP gkproxy_%s %s\n# TYPE gkproxy_%s %s\n", metric->name, metric->help,
		metric->name, metric->type);
}

/* The value of a label: backslash, quote and newline escaped. */
static void quoted(FILE *out, const char *label, const char *value)
{
	fprintf(out, "%s=\"", label);
	for (; *value; value++) {
		if (*value == '\n')
			fputs("\\n", out);
		else if (*value == '"' || *value == '\\')
			fprintf(out, "\\%c", *value);
		else
			fputc(*value, out);
	}
	fputc('"', out);
}

/* A sample's name and first label; the caller goes on with more labels or "} value". */
static void sample(FILE *out, const char *name, const struct gk_status_device *device)
{
	fprintf(out, "gkproxy_%s{", name);
	quoted(out, "device", device->name);
}

/* Each metric is one block over all devices. */
#define FOR_EACH(device, list, n)                                                                  \
	for (const struct gk_status_device *device = (list); device < (list) + (n); device++)      \
		if (device->attached)

static void print_info(FILE *out, const struct gk_status_device *list, size_t n)
{
	static const struct metric info = {"device_info", "gauge",
					   "What the device is; the value is always 1."};
	static const struct metric state = {
		"device_up", "gauge",
		"1 when all connections of the device are up; of every device, also one that is "
		"being attached."};

	head(out, &info);
	FOR_EACH(device, list, n) {
		sample(out, info.name, device);
		fprintf(out, ",path=\"/dev/ublkb%d\",", device->dev_id);
		quoted(out, "remote", device->remote);
		fprintf(out, ",data_path=\"%s\",tls=\"%s\"} 1\n", device->data_path,
			device->n_connections ? device->connections[0].tls : "off");
	}
	head(out, &state);
	for (size_t i = 0; i < n; i++) {
		sample(out, state.name, &list[i]);
		fprintf(out, "} %d\n", !strcmp(list[i].state, "up"));
	}
}

static void print_gauges(FILE *out, const struct gk_status_device *list, size_t n)
{
	static const struct metric size = {"device_size_bytes", "gauge", "Size of the block device."};
	static const struct metric in_flight = {
		"device_requests_in_flight", "gauge", "Requests that the kernel waits for."};
	static const struct metric connections = {
		"device_connections", "gauge", "Connections to the server by their state."};

	head(out, &size);
	FOR_EACH(device, list, n) {
		sample(out, size.name, device);
		fprintf(out, "} %" PRIu64 "\n", device->size_bytes);
	}
	head(out, &in_flight);
	FOR_EACH(device, list, n) {
		sample(out, in_flight.name, device);
		fprintf(out, "} %" PRIu64 "\n", device->total->in_flight);
	}
	head(out, &connections);
	FOR_EACH(device, list, n) {
		for (int state = GK_SESSION_DEAD; state <= GK_SESSION_DRAINING; state++) {
			unsigned int count = 0;

			for (unsigned int c = 0; c < device->n_connections; c++)
				count += (int)device->connections[c].state == state;
			sample(out, connections.name, device);
			fprintf(out, ",state=\"%s\"} %u\n",
				gk_status_session_state((enum gk_session_state)state), count);
		}
	}
}

static void print_counters(FILE *out, const struct gk_status_device *list, size_t n)
{
#define COUNTER(field) offsetof(struct gk_stats, counters.field)
	static const struct {
		struct metric metric;
		size_t offset;
	} counters[] = {
		{{"request_errors_total", "counter", "Requests that ended with an error."},
		 COUNTER(errors)},
		{{"read_bytes_total", "counter", "Bytes of READ requests that ended."},
		 COUNTER(bytes_read)},
		{{"written_bytes_total", "counter", "Bytes of WRITE requests that ended."},
		 COUNTER(bytes_written)},
		{{"direct_bytes_total", "counter",
		  "Payload moved between the socket and the requests' own pages."},
		 COUNTER(bytes_direct)},
		{{"staged_bytes_total", "counter", "Payload copied from the staging buffers."},
		 COUNTER(staged_bytes)},
		{{"fallbacks_total", "counter",
		  "Requests copied because the kernel could not lend their pages."},
		 COUNTER(fallbacks)},
		{{"sends_total", "counter", "Send operations."}, COUNTER(sends)},
		{{"partial_sends_total", "counter", "Sends that were resumed where they stopped."},
		 COUNTER(partial_sends)},
		{{"receives_total", "counter", "Receive operations."}, COUNTER(receives)},
		{{"partial_receives_total", "counter",
		  "Payloads that took more than one receive."},
		 COUNTER(partial_receives)},
		{{"request_timeouts_total", "counter",
		  "Connections given up because a request was not answered."},
		 COUNTER(timeouts)},
		{{"replays_total", "counter", "Requests sent again after their connection died."},
		 COUNTER(replays)},
		{{"unfenced_replays_total", "counter",
		  "Writes sent again without having seen the end of their old connection."},
		 COUNTER(unfenced_replays)},
		{{"unfenced_failures_total", "counter",
		  "Writes failed because fence = \"strict\" did not see that end."},
		 COUNTER(unfenced_failures)},
		{{"poisoned_requests_total", "counter",
		  "Requests failed because the server hangs up on each of them."},
		 COUNTER(poisoned)},
		{{"reconnects_total", "counter", "Connections that came back."},
		 offsetof(struct gk_stats, reconnects)},
	};
#undef COUNTER
	static const struct metric requests = {"requests_total", "counter", "Requests that ended."};

	head(out, &requests);
	FOR_EACH(device, list, n) {
		for (int op = 0; op < GK_OPS; op++) {
			sample(out, requests.name, device);
			fprintf(out, ",op=\"%s\"} %" PRIu64 "\n", op_labels[op],
				device->total->counters.requests[op]);
		}
	}
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++) {
		head(out, &counters[i].metric);
		FOR_EACH(device, list, n) {
			const char *base = (const char *)device->total;

			sample(out, counters[i].metric.name, device);
			fprintf(out, "} %" PRIu64 "\n",
				*(const uint64_t *)(base + counters[i].offset));
		}
	}
}

static void print_histogram(FILE *out, const struct gk_status_device *device, int op)
{
	static const char name[] = "request_duration_seconds";
	const struct gk_histogram *histogram = &device->total->latency[op];
	char full[64];

	snprintf(full, sizeof(full), "%s_bucket", name);
	for (unsigned int bits = FIRST_BITS; bits <= LAST_BITS; bits++) {
		uint64_t ns = UINT64_C(1) << bits;

		sample(out, full, device);
		fprintf(out, ",op=\"%s\",le=\"%.9g\"} %" PRIu64 "\n", op_labels[op], (double)ns / 1e9,
			gk_histogram_below(histogram, ns));
	}
	sample(out, full, device);
	fprintf(out, ",op=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", op_labels[op],
		gk_histogram_count(histogram));
	snprintf(full, sizeof(full), "%s_sum", name);
	sample(out, full, device);
	fprintf(out, ",op=\"%s\"} %.9f\n", op_labels[op], (double)histogram->sum_ns / 1e9);
	snprintf(full, sizeof(full), "%s_count", name);
	sample(out, full, device);
	fprintf(out, ",op=\"%s\"} %" PRIu64 "\n", op_labels[op], gk_histogram_count(histogram));
}

char *gk_metrics_text(const struct gk_status_device *devices, size_t n_devices)
{
	static const struct metric build = {"build_info", "gauge",
					    "The version that runs; the value is always 1."};
	static const struct metric duration = {
		"request_duration_seconds", "histogram",
		"From the kernel's request to its end, also of requests that ended with an error."};
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	head(out, &build);
	fprintf(out, "gkproxy_%s{version=\"%s\"} 1\n", build.name, GK_VERSION);
	print_info(out, devices, n_devices);
	print_gauges(out, devices, n_devices);
	print_counters(out, devices, n_devices);
	head(out, &duration);
	FOR_EACH(device, devices, n_devices) {
		for (int op = 0; op < GK_OPS; op++)
			print_histogram(out, device, op);
	}
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
