/* SPDX-License-Identifier: MIT */
/*
 * Reply header → kind, cookie, -errno, payload length; and the only table between NBD errors and
 * errno. Pure; any thread. Protocol sections "Simple reply message", "Structured reply chunk
 * message", "Structured reply types", "Error values".
 */
#ifndef GK_NBD_REPLY_H
#define GK_NBD_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd_wire.h"

/* Longest payload of an error chunk that is taken: offset, error, length and a whole string. */
#define GK_NBD_ERROR_CHUNK_MAX (8 + 4 + 2 + NBD_MAX_STRING)

enum gk_nbd_reply_kind {
	GK_NBD_REPLY_SIMPLE, /* ends the request; a READ without error is followed by its data */
	GK_NBD_REPLY_NONE,   /* chunk without payload */
	GK_NBD_REPLY_DATA,   /* chunk: 8 bytes offset, then data */
	GK_NBD_REPLY_HOLE,   /* chunk: 8 bytes offset, 4 bytes length of zeroes */
	GK_NBD_REPLY_ERROR,  /* chunk: error, message, and for ERROR_OFFSET where */
};

struct gk_nbd_reply {
	enum gk_nbd_reply_kind kind;
	uint64_t cookie;
	int error;            /* simple: 0 or -errno; chunks: 0, gk_nbd_error_chunk() tells */
	bool done;            /* nothing follows for this cookie (simple: always) */
	uint16_t type;        /* chunks: NBD_REPLY_TYPE_* */
	uint32_t length;      /* chunks: payload bytes that follow the header */
	uint32_t header_size; /* 16 or 20 */
};

/*
 * Looks at len bytes of the stream. Returns 1 and *ret_reply when a whole header is there, 0 when
 * more bytes are needed, -EPROTO when the stream cannot be trusted any more: bad magic, a chunk
 * where structured replies were not negotiated, an impossible chunk length, an unknown type that
 * is not an error. *ret_reply is only written when 1 is returned.
 */
int gk_nbd_reply_parse(const uint8_t *buf, size_t len, bool structured,
		       struct gk_nbd_reply *ret_reply);

/*
 * The -errno of an error chunk's payload (length bytes, all of it). Never 0: an error chunk that
 * names no error counts as EIO. -EPROTO when its parts do not fit into it, in *ret_malformed.
 */
int gk_nbd_error_chunk(const struct gk_nbd_reply *reply, const uint8_t *payload,
		       bool *ret_malformed);

/* NBD error value → -errno, 0 for 0; a value the protocol does not name is -EIO. */
int gk_nbd_errno(uint32_t nbd_error);

#endif
