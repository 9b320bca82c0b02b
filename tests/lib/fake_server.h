/* SPDX-License-Identifier: MIT */
/*
 * The server's end of a connection past its handshake. Three layers: bytes of replies, good or
 * evil, appended to a buffer; requests taken and bytes sent on a socket, by the test itself in
 * step with the queue's turns; and a RAM disk that serves a socket in a thread of its own.
 *
 * What a client may never send ends the program with a message: these are tests.
 */
#ifndef GK_FAKE_SERVER_H
#define GK_FAKE_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd_wire.h"

/* A growing run of bytes; zeroed at first, ended with fake_bytes_done(). */
struct fake_bytes {
	uint8_t *p;
	size_t n;
	size_t room;
};

void fake_bytes_done(struct fake_bytes *bytes);
void fake_put(struct fake_bytes *bytes, const void *data, size_t len);
void fake_put16(struct fake_bytes *bytes, uint16_t v);
void fake_put32(struct fake_bytes *bytes, uint32_t v);
void fake_put64(struct fake_bytes *bytes, uint64_t v);

/* Replies and chunks. error is NBD_E*, flags NBD_REPLY_FLAG_*. */
void fake_put_simple(struct fake_bytes *bytes, uint64_t cookie, uint32_t error);
void fake_put_chunk(struct fake_bytes *bytes, uint16_t flags, uint16_t type, uint64_t cookie,
		    uint32_t length);
void fake_put_none(struct fake_bytes *bytes, uint64_t cookie);
void fake_put_data(struct fake_bytes *bytes, uint16_t flags, uint64_t cookie, uint64_t offset,
		   const void *data, uint32_t len);
void fake_put_hole(struct fake_bytes *bytes, uint16_t flags, uint64_t cookie, uint64_t offset,
		   uint32_t len);
/* type ERROR, ERROR_OFFSET (which appends the offset), or an error type that does not exist. */
void fake_put_error(struct fake_bytes *bytes, uint16_t flags, uint16_t type, uint64_t cookie,
		    uint32_t error, const char *message, uint64_t offset);

struct fake_request {
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
};

/* Reads the header of a request, sizeof(struct nbd_request) bytes. */
struct fake_request fake_parse(const uint8_t *bytes);

/* Takes the header of the next request; false when the client has closed before it. */
bool fake_take(int fd, struct fake_request *ret_request);

/* Takes exactly len bytes; false when the client has closed before the last of them. */
bool fake_take_bytes(int fd, void *buf, size_t len);

/* Sends all, in pieces of at most so many bytes (0: at once). False when the client is gone. */
bool fake_send(int fd, const void *data, size_t len, size_t piece);

struct fake_disk_options {
	bool structured;        /* negotiated: READs are answered in chunks */
	uint32_t chunk_bytes;   /* longest chunk, the chunks of a READ in random order; 0: one chunk */
	bool random_order;      /* of what was received, any is answered next */
	size_t piece;           /* longest write to the socket; 0: no limit */
	uint32_t max_payload;   /* longest READ or WRITE that a client may send; 0: no limit */
	/* NBD_E* for a request that fails, else 0; called on the server's thread. */
	uint32_t (*fail)(const struct fake_request *request);
	unsigned int seed;
};

/*
 * Serves fd (and closes it) from a disk that the caller owns and only looks at after the end;
 * servers may share a disk as long as their requests do not overlap.
 */
struct fake_disk_server {
	int fd;
	uint8_t *disk;
	size_t size;
	struct fake_disk_options options;
	pthread_t thread;
	/* Valid when the server has ended. */
	unsigned int requests;
	unsigned int overtaken; /* answers that passed one to an earlier request */
	bool disc;              /* the client said good-bye */
};

void fake_disk_start(struct fake_disk_server *server);

/* Waits until the client has gone. */
void fake_disk_join(struct fake_disk_server *server);

#endif
