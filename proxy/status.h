/* SPDX-License-Identifier: MIT */
/*
 * A device as the status and the metrics show it, and its JSON (jansson). Control thread; reads
 * what the queue threads count. The members of the JSON are described in README.md, "Control
 * socket": what is there keeps its name and its meaning.
 */
#ifndef GK_STATUS_H
#define GK_STATUS_H

#include <jansson.h>

#include "device.h"
#include "stats.h"

#define GK_STATUS_CONNECTIONS 64 /* most that a device can have */

/* All strings are borrowed and live at least as long as the device's entry. */
struct gk_status_device {
	const char *name;
	const char *state;   /* "attaching", "up", "degraded", "reconnecting", "detaching" */
	const char *origin;  /* "file": of the configuration; "request": attached at run time */
	const char *remote;
	bool attached;       /* what follows is known */
	int dev_id;
	uint64_t size_bytes;
	uint32_t block_size;
	bool read_only;
	char peer[160];
	const char *data_path;
	const char *data_path_why;
	unsigned int n_queues;
	unsigned int queue_depth;
	unsigned int n_connections;
	struct gk_status_connection {
		enum gk_session_state state;
		const char *tls;         /* gk_tls_stream_mode() */
		const char *tls_version; /* NULL without TLS */
		const char *tls_cipher;
	} connections[GK_STATUS_CONNECTIONS];
	const struct gk_stats *total;  /* since it was attached */
	const struct gk_stats *recent; /* of about the last second; its at_ns is how long. NULL: not yet */
};

/* What an attached device is; name, origin, total and recent are the caller's to fill. */
void gk_status_of(struct gk_device *device, struct gk_status_device *ret_status);

/* Reads all counters of an attached device. */
void gk_status_read(const struct gk_device *device, struct gk_stats *ret_stats);

/* {"version", "pid", "devices": [...]}; the caller owns it. NULL when out of memory. */
json_t *gk_status_json(const struct gk_status_device *devices, size_t n_devices);

/* "up", "fencing", "draining" or "dead". */
const char *gk_status_session_state(enum gk_session_state state);

#endif
