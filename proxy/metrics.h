/* SPDX-License-Identifier: MIT */
/*
 * Metrics in Prometheus' text format 0.0.4: made of the same readings as the status, and served
 * over HTTP (libmicrohttpd) at /metrics. Control thread; clients never block it.
 */
#ifndef GK_METRICS_H
#define GK_METRICS_H

#include <stddef.h>

#include "status.h"

/* The whole text, to be freed; NULL when out of memory. Pure. */
char *gk_metrics_text(const struct gk_status_device *devices, size_t n_devices);

struct gk_metrics;

/* Makes the text for one request, to be freed; NULL when out of memory. */
typedef char *gk_metrics_source(void *arg);

/*
 * Listens at "address:port" ("127.0.0.1:9105", "[::1]:9105"; ":9105" for all addresses). 0, or
 * -errno after a log line.
 */
int gk_metrics_start(const char *address, gk_metrics_source *source, void *arg,
		     struct gk_metrics **ret_metrics);

/*
 * Readable when gk_metrics_step() has something to do; at the latest after *ret_ms (-1: never). -1:
 * nothing before that.
 */
int gk_metrics_fd(const struct gk_metrics *metrics, int *ret_ms);

/* Does what can be done without waiting. May call the source. */
void gk_metrics_step(struct gk_metrics *metrics);

/* Takes NULL. */
void gk_metrics_stop(struct gk_metrics *metrics);

#endif
