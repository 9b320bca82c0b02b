/* SPDX-License-Identifier: MIT */
/*
 * A block device of the gkproxy that runs on this machine, for test programs in guests that are its
 * server as well as its user. What fails ends the program with a message.
 */
#ifndef GK_LIVE_DEVICE_H
#define GK_LIVE_DEVICE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct live_device {
	char name[64];
	int fd; /* O_DIRECT */
};

/*
 * Attaches uri with these keys (a list of words that ends with NULL: "queues", "2", ...) and opens
 * the device. Requests to it are not merged.
 */
struct live_device live_device_attach(const char *name, const char *uri, const char *const *keys);

/* A counter of its status. */
uint64_t live_device_counter(const struct live_device *device, const char *counter);

/* Closes and detaches it. */
void live_device_detach(struct live_device *device);

#define LIVE_CHECK(condition)                                                                      \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#endif
