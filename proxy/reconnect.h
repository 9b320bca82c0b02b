/* SPDX-License-Identifier: MIT */
/*
 * Redials what died: one thread per device that sleeps until a session is DEAD, connects again
 * with exponential back-off, checks that the export is still the one that was attached, and hands
 * the socket to the session's queue. The control thread starts and stops it.
 */
#ifndef GK_RECONNECT_H
#define GK_RECONNECT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dial.h"
#include "log.h"

struct gk_device;

struct gk_reconnect {
	pthread_t thread;
	bool started;
	int dead_fd; /* eventfd: a session died */
	int stop_fd; /* eventfd: end, and give up dialling */
	unsigned int seed;        /* of the jitter */
	size_t remote;            /* index of the remote that is connected; the status reads it */
	pthread_mutex_t peer_lock;
	char peer[160];           /* its address, for a person: gk_reconnect_peer() */
	bool *ended;              /* per connection: the server ended it lately, the thread's own */
	int64_t ended_since_ms;
	bool refused;             /* the server was not there at all since the last session went */
	uint64_t reconnects;      /* sessions that came back; gk_count_read() */
	struct gk_log_limit log;
};

/* 0 or -errno. Before the queues of the device start: they post to it. */
int gk_reconnect_init(struct gk_reconnect *reconnect);

/* Starts the thread for a device that is live. 0 or -errno. */
int gk_reconnect_start(struct gk_device *device);

/* Ends the thread, however long a dial would still take; waits for it. Takes one not started. */
void gk_reconnect_stop(struct gk_reconnect *reconnect);

/* Closes what init made. Takes a zeroed struct. */
void gk_reconnect_done(struct gk_reconnect *reconnect);

/* Any thread: the address of the server that was connected last, for a person. */
void gk_reconnect_set_peer(struct gk_reconnect *reconnect, const char *peer);
void gk_reconnect_peer(struct gk_reconnect *reconnect, char *ret_peer, size_t size);

/* Any thread: a session died. For struct gk_queue_params, arg is the struct gk_reconnect. */
void gk_reconnect_wake(void *arg);

/* How long to wait before attempt n (0: the first retry, at once), in ms: doubling, jitter, cap. */
unsigned int gk_reconnect_delay_ms(unsigned int attempt, unsigned int *seed);

#endif
