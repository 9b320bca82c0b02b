// SPDX-License-Identifier: MIT
#include "status.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *const op_names[GK_OPS] = {
	[GK_OP_READ] = "reads",
	[GK_OP_WRITE] = "writes",
	[GK_OP_FLUSH] = "flushes",
	[GK_OP_TRIM] = "trims",
	[GK_OP_WRITE_ZEROES] = "write_zeroes",
};

const char *gk_status_session_state(enum gk_session_state state)
{
	switch (state) {
	case GK_SESSION_UP:
		return "up";
	case GK_SESSION_FENCING:
		return "fencing";
	case GK_SESSION_DRAINING:
		return "draining";
	case GK_SESSION_DEAD:
		break;
	}
	return "dead";
}

/* Every counter with the name it has in the status. */
static json_t *counters_json(const struct gk_stats *stats)
{
	static const struct {
		const char *name;
		size_t offset;
	} fields[] = {
		{"errors", offsetof(struct gk_counters, errors)},
		{"bytes_read", offsetof(struct gk_counters, bytes_read)},
		{"bytes_written", offsetof(struct gk_counters, bytes_written)},
		{"sends", offsetof(struct gk_counters, sends)},
		{"partial_sends", offsetof(struct gk_counters, partial_sends)},
		{"receives", offsetof(struct gk_counters, receives)},
		{"partial_receives", offsetof(struct gk_counters, partial_receives)},
		{"staged_bytes", offsetof(struct gk_counters, staged_bytes)},
		{"direct_sends", offsetof(struct gk_counters, direct_sends)},
		{"zc_sends", offsetof(struct gk_counters, zc_sends)},
		{"zc_copied", offsetof(struct gk_counters, zc_copied)},
		{"direct_receives", offsetof(struct gk_counters, direct_receives)},
		{"bytes_direct", offsetof(struct gk_counters, bytes_direct)},
		{"fallbacks", offsetof(struct gk_counters, fallbacks)},
		{"timeouts", offsetof(struct gk_counters, timeouts)},
		{"replays", offsetof(struct gk_counters, replays)},
		{"unfenced_replays", offsetof(struct gk_counters, unfenced_replays)},
		{"unfenced_failures", offsetof(struct gk_counters, unfenced_failures)},
		{"poisoned", offsetof(struct gk_counters, poisoned)},
		{"loops", offsetof(struct gk_counters, loops)},
		{"coalesced_loops", offsetof(struct gk_counters, coalesced_loops)},
	};
	json_t *json = json_object();

	for (size_t op = 0; op < GK_OPS; op++)
		json_object_set_new(json, op_names[op],
				    json_integer((json_int_t)stats->counters.requests[op]));
	for (size_t f = 0; f < sizeof(fields) / sizeof(fields[0]); f++) {
		const char *counters = (const char *)&stats->counters;
		uint64_t value = *(const uint64_t *)(counters + fields[f].offset);

		json_object_set_new(json, fields[f].name, json_integer((json_int_t)value));
	}
	json_object_set_new(json, "reconnects", json_integer((json_int_t)stats->reconnects));
	return json;
}

static double quantile_us(const struct gk_histogram *histogram, double q)
{
	return (double)gk_histogram_quantile_ns(histogram, q) / 1000;
}

/* Only of operations that there were. */
static json_t *latency_json(const struct gk_stats *stats)
{
	json_t *json = json_object();

	for (size_t op = 0; op < GK_OPS; op++) {
		const struct gk_histogram *histogram = &stats->latency[op];
		uint64_t n = gk_histogram_count(histogram);

		if (!n)
			continue;
		json_object_set_new(json, op_names[op],
				    json_pack("{s:I, s:f, s:f, s:f, s:f, s:f}", "count",
					      (json_int_t)n, "mean",
					      (double)histogram->sum_ns / (double)n / 1000, "p50",
					      quantile_us(histogram, 0.5), "p90",
					      quantile_us(histogram, 0.9), "p99",
					      quantile_us(histogram, 0.99), "p999",
					      quantile_us(histogram, 0.999)));
	}
	return json;
}

static json_t *recent_json(const struct gk_stats *recent)
{
	const struct gk_counters *counters = &recent->counters;
	double seconds = (double)recent->at_ns / 1e9;
	uint64_t requests = 0;

	for (size_t op = 0; op < GK_OPS; op++)
		requests += counters->requests[op];
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "seconds", seconds, "iops",
			 (double)requests / seconds, "reads_per_s",
			 (double)counters->requests[GK_OP_READ] / seconds, "writes_per_s",
			 (double)counters->requests[GK_OP_WRITE] / seconds, "bytes_read_per_s",
			 (double)counters->bytes_read / seconds, "bytes_written_per_s",
			 (double)counters->bytes_written / seconds, "latency_us",
			 latency_json(recent));
}

static json_t *connections_json(const struct gk_status_device *device)
{
	json_t *json = json_array();

	for (unsigned int c = 0; c < device->n_connections; c++)
		json_array_append_new(
			json, json_pack("{s:i, s:i, s:s, s:s, s:s?, s:s?}", "id", (int)c, "queue",
					(int)(c % device->n_queues), "state",
					gk_status_session_state(device->connections[c].state), "tls",
					device->connections[c].tls, "tls_version",
					device->connections[c].tls_version, "tls_cipher",
					device->connections[c].tls_cipher));
	return json;
}

static json_t *device_json(const struct gk_status_device *device)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:s}", "name", device->name, "state", device->state,
				 "origin", device->origin, "remote", device->remote);
	char path[32];

	if (!json || !device->attached)
		return json;
	snprintf(path, sizeof(path), "/dev/ublkb%d", device->dev_id);
	json_object_update_new(
		json,
		json_pack("{s:s, s:I, s:I, s:b, s:s, s:s, s:s, s:i, s:i, s:I, s:o, s:o, s:o}",
			  "path", path,
			  "size_bytes", (json_int_t)device->size_bytes,
			  "block_size", (json_int_t)device->block_size,
			  "read_only", device->read_only,
			  "peer", device->peer,
			  "data_path", device->data_path,
			  "data_path_why", device->data_path_why,
			  "queues", (int)device->n_queues,
			  "queue_depth", (int)device->queue_depth,
			  "in_flight", (json_int_t)device->total->in_flight,
			  "connections", connections_json(device),
			  "counters", counters_json(device->total),
			  "latency_us", latency_json(device->total)));
	if (device->recent)
		json_object_set_new(json, "recent", recent_json(device->recent));
	return json;
}

void gk_status_of(struct gk_device *device, struct gk_status_device *ret_status)
{
	size_t remote = __atomic_load_n(&device->reconnect.remote, __ATOMIC_RELAXED);
	unsigned int up = 0;

	*ret_status = (struct gk_status_device){
		.name = device->config->name,
		.remote = device->config->remotes[remote].text,
		.attached = true,
		.dev_id = device->dev_id,
		.size_bytes = gk_count_read(&device->plan.size_bytes),
		.block_size = device->plan.block_size,
		.read_only = device->plan.params.basic.attrs & UBLK_ATTR_READ_ONLY,
		.data_path = device->path->name,
		.data_path_why = device->path_why,
		.n_queues = device->n_queues,
		.queue_depth = device->config->queue_depth,
		.n_connections = device->n_connections,
	};
	gk_reconnect_peer(&device->reconnect, ret_status->peer, sizeof(ret_status->peer));
	for (unsigned int c = 0; c < device->n_connections; c++) {
		const struct gk_queue *queue = &device->queues[c % device->n_queues].queue;

		const struct gk_session *session = &queue->sessions[c / device->n_queues];
		struct gk_status_connection *connection = &ret_status->connections[c];

		connection->state = __atomic_load_n(&session->state, __ATOMIC_ACQUIRE);
		connection->tls_version = __atomic_load_n(&session->tls_version, __ATOMIC_RELAXED);
		connection->tls_cipher = __atomic_load_n(&session->tls_cipher, __ATOMIC_RELAXED);
		connection->tls = gk_tls_stream_mode(
			connection->tls_version, __atomic_load_n(&session->ktls, __ATOMIC_RELAXED));
		up += connection->state == GK_SESSION_UP;
	}
	ret_status->state = up == device->n_connections ? "up" : up ? "degraded" : "reconnecting";
}

void gk_status_read(const struct gk_device *device, struct gk_stats *ret_stats)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	*ret_stats = (struct gk_stats){
		.at_ns = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec,
		.reconnects = gk_count_read(&device->reconnect.reconnects),
	};
	for (unsigned int i = 0; i < device->n_queues; i++)
		gk_stats_add_queue(ret_stats, &device->queues[i].queue);
}

json_t *gk_status_json(const struct gk_status_device *devices, size_t n_devices)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n_devices; i++)
		json_array_append_new(array, device_json(&devices[i]));
	return json_pack("{s:s, s:i, s:o}", "version", GK_VERSION, "pid", (int)getpid(), "devices",
			 array);
}
