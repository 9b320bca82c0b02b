// SPDX-License-Identifier: MIT
#include "status.h"

#include <stdio.h>
#include <unistd.h>

static const char *const op_names[GK_OPS] = {
	[GK_OP_READ] = "reads",
	[GK_OP_WRITE] = "writes",
	[GK_OP_FLUSH] = "flushes",
	[GK_OP_TRIM] = "trims",
	[GK_OP_WRITE_ZEROES] = "write_zeroes",
};

static const char *session_state_name(enum gk_session_state state)
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

/* Every counter with the name it has in the status, in one place for sums and output. */
static json_t *counters_json(const struct gk_device *device)
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

	for (size_t op = 0; op < GK_OPS; op++) {
		uint64_t sum = 0;

		for (unsigned int i = 0; i < device->n_queues; i++)
			sum += gk_count_read(&device->queues[i].queue.counters.requests[op]);
		json_object_set_new(json, op_names[op], json_integer((json_int_t)sum));
	}
	for (size_t f = 0; f < sizeof(fields) / sizeof(fields[0]); f++) {
		uint64_t sum = 0;

		for (unsigned int i = 0; i < device->n_queues; i++) {
			const char *counters = (const char *)&device->queues[i].queue.counters;

			sum += gk_count_read((const uint64_t *)(counters + fields[f].offset));
		}
		json_object_set_new(json, fields[f].name, json_integer((json_int_t)sum));
	}
	json_object_set_new(json, "reconnects",
			    json_integer((json_int_t)gk_count_read(&device->reconnect.reconnects)));
	return json;
}

static json_t *connections_json(const struct gk_device *device, unsigned int *ret_up)
{
	json_t *json = json_array();

	*ret_up = 0;
	for (unsigned int c = 0; c < device->n_connections; c++) {
		const struct gk_queue *queue = &device->queues[c % device->n_queues].queue;
		const struct gk_session *session = &queue->sessions[c / device->n_queues];
		enum gk_session_state state = __atomic_load_n(&session->state, __ATOMIC_ACQUIRE);
		const char *version = __atomic_load_n(&session->tls_version, __ATOMIC_RELAXED);
		const char *cipher = __atomic_load_n(&session->tls_cipher, __ATOMIC_RELAXED);
		unsigned int ktls = __atomic_load_n(&session->ktls, __ATOMIC_RELAXED);

		*ret_up += state == GK_SESSION_UP;
		json_array_append_new(
			json, json_pack("{s:i, s:i, s:s, s:s, s:s?, s:s?}", "id", (int)c, "queue",
					(int)queue->id, "state", session_state_name(state), "tls",
					gk_tls_stream_mode(version, ktls), "tls_version", version,
					"tls_cipher", cipher));
	}
	return json;
}

static json_t *device_json(struct gk_device *device)
{
	unsigned int up;
	json_t *connections = connections_json(device, &up);
	char peer[160];
	char path[32];

	gk_reconnect_peer(&device->reconnect, peer, sizeof(peer));
	snprintf(path, sizeof(path), "/dev/ublkb%d", device->dev_id);
	return json_pack("{s:s, s:s, s:s, s:I, s:i, s:b, s:s, s:s, s:s, s:s, s:i, s:i, s:o, s:o}",
			 "name", device->config->name,
			 "state",
			 up == device->n_connections ? "up" : up ? "degraded" : "reconnecting",
			 "path", path,
			 "size_bytes", (json_int_t)gk_count_read(&device->plan.size_bytes),
			 "block_size", (int)device->plan.block_size,
			 "read_only", !!(device->plan.params.basic.attrs & UBLK_ATTR_READ_ONLY),
			 "remote", device->config->remotes[device->reconnect.remote].text,
			 "peer", peer,
			 "data_path", device->path->name,
			 "data_path_why", device->path_why,
			 "queues", (int)device->n_queues,
			 "queue_depth", (int)device->config->queue_depth,
			 "connections", connections,
			 "counters", counters_json(device));
}

json_t *gk_status_json(struct gk_device *const *devices, size_t n_devices)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n_devices; i++)
		json_array_append_new(array, device_json(devices[i]));
	return json_pack("{s:s, s:i, s:o}", "version", GK_VERSION, "pid", (int)getpid(), "devices",
			 array);
}
