/* SPDX-License-Identifier: MIT */
/*
 * Configurations of single devices, for those that come and go while the daemon runs: made from
 * texts, copied, compared. Any thread.
 */
#ifndef GK_CONFIG_DEVICE_H
#define GK_CONFIG_DEVICE_H

#include <stdbool.h>

#include "config.h"

/* A deep copy, to be ended by gk_config_device_free(). 0 or -ENOMEM. */
int gk_config_device_copy(const struct gk_device_config *device, struct gk_device_config **ret_copy);

/* Takes NULL. */
void gk_config_device_free(struct gk_device_config *device);

/*
 * Sets one key ("queue_depth", "tls.ca", also with '-' for '_') from its text as in the file, but
 * without quotes. "remote" adds one more URI. -EINVAL with "KEY: what was expected" in why (size
 * bytes), device as before; -ENOMEM.
 */
int gk_config_device_set(struct gk_device_config *device, const char *key, const char *value,
			 char *why, size_t why_size);

/* Forgets the URIs of "remote". */
void gk_config_device_clear_remotes(struct gk_device_config *device);

/*
 * Whether two configurations say the same. If not, the first key that differs is named in why:
 * "queue_depth is 128 and would be 64".
 */
bool gk_config_device_same(const struct gk_device_config *is, const struct gk_device_config *would_be,
			   char *why, size_t why_size);

/*
 * What is wrong with the whole, "expected ...", or NULL: about its remotes, about "tls". Strings are
 * static.
 */
const char *gk_config_device_bad_remotes(const struct gk_device_config *device);
const char *gk_config_device_bad_tls(const struct gk_device_config *device);

/* Whether text would do as a device's name. */
bool gk_config_device_is_name(const char *text);

/* The keys in their order, NULL after the last one; with what is expected of each (size bytes). */
const char *gk_config_device_key(size_t index, char *expected, size_t size);

/* "error" to "debug"; false: no such level. */
bool gk_config_log_level(const char *name, enum gk_log_level *ret_level);
const char *gk_config_log_level_name(enum gk_log_level level);

#endif
