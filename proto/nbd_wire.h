/* SPDX-License-Identifier: MIT */
/*
 * The NBD wire format: structs, magics and flags under the names of the protocol document
 * (doc/proto.md of the NBD project). Every field is big-endian on the wire. Thread-neutral.
 */
#ifndef GK_NBD_WIRE_H
#define GK_NBD_WIRE_H

#include <assert.h>
#include <stdint.h>

#define NBD_DEFAULT_PORT "10809"
#define NBD_MAX_STRING   4096 /* export names and descriptions, "Strings" in the protocol */

/* Handshake */
#define NBD_MAGIC           UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC    UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OLDSTYLE_MAGIC  UINT64_C(0x0000420281861253)
#define NBD_REP_MAGIC       UINT64_C(0x0003e889045565a9)

#define NBD_FLAG_FIXED_NEWSTYLE (1U << 0) /* server's handshake flags */
#define NBD_FLAG_NO_ZEROES      (1U << 1)
#define NBD_FLAG_C_FIXED_NEWSTYLE (1U << 0) /* client's */
#define NBD_FLAG_C_NO_ZEROES      (1U << 1)

#define NBD_OPT_EXPORT_NAME      1U
#define NBD_OPT_ABORT            2U
#define NBD_OPT_LIST             3U
#define NBD_OPT_STARTTLS         5U
#define NBD_OPT_INFO             6U
#define NBD_OPT_GO               7U
#define NBD_OPT_STRUCTURED_REPLY 8U

#define NBD_REP_ACK    1U
#define NBD_REP_SERVER 2U
#define NBD_REP_INFO   3U
#define NBD_REP_FLAG_ERROR          (1U << 31)
#define NBD_REP_ERR_UNSUP           (NBD_REP_FLAG_ERROR | 1U)
#define NBD_REP_ERR_POLICY          (NBD_REP_FLAG_ERROR | 2U)
#define NBD_REP_ERR_INVALID         (NBD_REP_FLAG_ERROR | 3U)
#define NBD_REP_ERR_PLATFORM        (NBD_REP_FLAG_ERROR | 4U)
#define NBD_REP_ERR_TLS_REQD        (NBD_REP_FLAG_ERROR | 5U)
#define NBD_REP_ERR_UNKNOWN         (NBD_REP_FLAG_ERROR | 6U)
#define NBD_REP_ERR_SHUTDOWN        (NBD_REP_FLAG_ERROR | 7U)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_FLAG_ERROR | 8U)
#define NBD_REP_ERR_TOO_BIG         (NBD_REP_FLAG_ERROR | 9U)

#define NBD_INFO_EXPORT      0U
#define NBD_INFO_NAME        1U
#define NBD_INFO_DESCRIPTION 2U
#define NBD_INFO_BLOCK_SIZE  3U

/* Transmission flags of an export */
#define NBD_FLAG_HAS_FLAGS         (1U << 0)
#define NBD_FLAG_READ_ONLY         (1U << 1)
#define NBD_FLAG_SEND_FLUSH        (1U << 2)
#define NBD_FLAG_SEND_FUA          (1U << 3)
#define NBD_FLAG_ROTATIONAL        (1U << 4)
#define NBD_FLAG_SEND_TRIM         (1U << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES (1U << 6)
#define NBD_FLAG_SEND_DF           (1U << 7)
#define NBD_FLAG_CAN_MULTI_CONN    (1U << 8)
#define NBD_FLAG_SEND_RESIZE       (1U << 9)
#define NBD_FLAG_SEND_CACHE        (1U << 10)
#define NBD_FLAG_SEND_FAST_ZERO    (1U << 11)

/* Transmission */
#define NBD_REQUEST_MAGIC          UINT32_C(0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC     UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)

#define NBD_CMD_READ         0U
#define NBD_CMD_WRITE        1U
#define NBD_CMD_DISC         2U
#define NBD_CMD_FLUSH        3U
#define NBD_CMD_TRIM         4U
#define NBD_CMD_WRITE_ZEROES 6U

#define NBD_CMD_FLAG_FUA     (1U << 0)
#define NBD_CMD_FLAG_NO_HOLE (1U << 1)
#define NBD_CMD_FLAG_DF      (1U << 2)

#define NBD_REPLY_FLAG_DONE (1U << 0)

#define NBD_REPLY_TYPE_NONE         0U
#define NBD_REPLY_TYPE_OFFSET_DATA  1U
#define NBD_REPLY_TYPE_OFFSET_HOLE  2U
#define NBD_REPLY_TYPE_BLOCK_STATUS 5U
#define NBD_REPLY_TYPE_FLAG_ERROR   (1U << 15)
#define NBD_REPLY_TYPE_ERROR        (NBD_REPLY_TYPE_FLAG_ERROR | 1U)
#define NBD_REPLY_TYPE_ERROR_OFFSET (NBD_REPLY_TYPE_FLAG_ERROR | 2U)

/* "Error values"; only proto/nbd_reply.c turns them into errno. */
#define NBD_EPERM     1U
#define NBD_EIO       5U
#define NBD_ENOMEM    12U
#define NBD_EINVAL    22U
#define NBD_ENOSPC    28U
#define NBD_EOVERFLOW 75U
#define NBD_ENOTSUP   95U
#define NBD_ESHUTDOWN 108U

struct nbd_request {
	uint32_t magic;
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
} __attribute__((packed));

struct nbd_simple_reply {
	uint32_t magic;
	uint32_t error;
	uint64_t cookie;
} __attribute__((packed));

struct nbd_structured_reply {
	uint32_t magic;
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint32_t length;
} __attribute__((packed));

static_assert(sizeof(struct nbd_request) == 28, "NBD request header");
static_assert(sizeof(struct nbd_simple_reply) == 16, "NBD simple reply header");
static_assert(sizeof(struct nbd_structured_reply) == 20, "NBD structured reply header");

#endif
