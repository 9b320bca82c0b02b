/* SPDX-License-Identifier: MIT */
/*
 * A server that may do anything, driven by a seed: it serves a disk in memory, and now and then, in
 * the place of an answer, drops, stalls, cuts, lies or repeats. What it does with its disk is what
 * a real one might: a write is applied before it is acknowledged; one that it never acknowledged
 * may be applied at any time until it closes its end of the connection, or not at all.
 *
 * What a client may never send ends the program with a message.
 */
#ifndef GK_EVIL_SERVER_H
#define GK_EVIL_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum evil {
	EVIL_NONE,
	/* The connection lives on. */
	EVIL_ERROR,        /* an error, as a good server may */
	EVIL_GAP,          /* structured: a READ whose chunks do not cover it */
	/* It ends. */
	EVIL_DROP,         /* closes */
	EVIL_STALL,        /* is silent */
	EVIL_CUT_HEADER,   /* closes inside a header */
	EVIL_CUT_PAYLOAD,  /* closes inside the payload of a READ */
	EVIL_MAGIC,        /* says what is no reply */
	EVIL_COOKIE,       /* answers what was not asked */
	EVIL_TWICE,        /* answers twice */
	EVIL_LATE,         /* answers what was answered long ago, perhaps on another connection */
	EVIL_ERROR_DATA,   /* an error, and the data all the same */
	EVIL_OTHER_KIND,   /* a reply of the kind that was not negotiated */
	EVIL_OVERSIZE,     /* a chunk longer than its request */
	EVILS,
};

#define EVIL_FIRST_FATAL EVIL_DROP
#define EVIL_COOKIES	 64

/* What all connections of one disk share; the caller looks at disk and done after their ends. */
struct evil_world {
	uint8_t *disk;
	size_t size;
	bool structured;
	bool may_stall;            /* the client gives up one that does */
	unsigned int one_in;       /* of so many requests one is met with evil */
	pthread_mutex_t lock;      /* of what follows, and of the disk */
	unsigned int done[EVILS];
	uint64_t cookies[EVIL_COOKIES]; /* answered */
	unsigned int n_cookies;
	unsigned int stalls;
};

struct evil_server {
	struct evil_world *world;
	int fd; /* owned */
	unsigned int seed;
	pthread_t thread;
};

void evil_world_init(struct evil_world *world, uint8_t *disk, size_t size);

/* Serves on this thread, until the client has gone or the server has had enough. */
void evil_server_serve(struct evil_server *server);

/* Serves on a thread of its own, until the client has gone or the server has had enough. */
void evil_server_start(struct evil_server *server);
void evil_server_join(struct evil_server *server);

#endif
