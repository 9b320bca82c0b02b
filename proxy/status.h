/* SPDX-License-Identifier: MIT */
/* Counters and states as JSON (jansson). Control thread; reads what the queue threads count. */
#ifndef GK_STATUS_H
#define GK_STATUS_H

#include <jansson.h>

#include "device.h"

/* {"version", "pid", "devices": [...]}; the caller owns it. NULL when out of memory. */
json_t *gk_status_json(struct gk_device *const *devices, size_t n_devices);

#endif
