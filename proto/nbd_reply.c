// SPDX-License-Identifier: MIT
#include "nbd_reply.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

int gk_nbd_errno(uint32_t nbd_error)
{
	switch (nbd_error) {
	case 0:
		return 0;
	case NBD_EPERM:
		return -EPERM;
	case NBD_EIO:
		return -EIO;
	case NBD_ENOMEM:
		return -ENOMEM;
	case NBD_EINVAL:
		return -EINVAL;
	case NBD_ENOSPC:
		return -ENOSPC;
	case NBD_EOVERFLOW:
		return -EOVERFLOW;
	case NBD_ENOTSUP:
		return -EOPNOTSUPP;
	case NBD_ESHUTDOWN:
		return -ESHUTDOWN;
	default:
		return -EIO;
	}
}

/* Kind of a chunk whose payload length fits its type, or -EPROTO. */
static int chunk_kind(uint16_t type, uint32_t length)
{
	switch (type) {
	case NBD_REPLY_TYPE_NONE:
		return length == 0 ? (int)GK_NBD_REPLY_NONE : -EPROTO;
	case NBD_REPLY_TYPE_OFFSET_DATA:
		return length > 8 ? (int)GK_NBD_REPLY_DATA : -EPROTO;
	case NBD_REPLY_TYPE_OFFSET_HOLE:
		return length == 12 ? (int)GK_NBD_REPLY_HOLE : -EPROTO;
	default:
		/* Errors may be of types that we do not know; all begin with error and message. */
		if (type & NBD_REPLY_TYPE_FLAG_ERROR && length >= 6 &&
		    length <= GK_NBD_ERROR_CHUNK_MAX)
			return GK_NBD_REPLY_ERROR;
		return -EPROTO;
	}
}

static int parse_simple(const uint8_t *buf, size_t len, struct gk_nbd_reply *ret_reply)
{
	struct nbd_simple_reply header;

	if (len < sizeof(header))
		return 0;
	memcpy(&header, buf, sizeof(header));
	*ret_reply = (struct gk_nbd_reply){
		.kind = GK_NBD_REPLY_SIMPLE,
		.cookie = be64toh(header.cookie),
		.error = gk_nbd_errno(be32toh(header.error)),
		.done = true,
		.header_size = sizeof(header),
	};
	return 1;
}

static int parse_chunk(const uint8_t *buf, size_t len, struct gk_nbd_reply *ret_reply)
{
	struct nbd_structured_reply header;
	int kind;

	if (len < sizeof(header))
		return 0;
	memcpy(&header, buf, sizeof(header));
	kind = chunk_kind(be16toh(header.type), be32toh(header.length));
	if (kind < 0)
		return kind;
	/* "NONE: ... the flag DONE MUST be set": otherwise a server could send them for ever. */
	if (kind == GK_NBD_REPLY_NONE && !(be16toh(header.flags) & NBD_REPLY_FLAG_DONE))
		return -EPROTO;
	*ret_reply = (struct gk_nbd_reply){
		.kind = (enum gk_nbd_reply_kind)kind,
		.cookie = be64toh(header.cookie),
		.done = be16toh(header.flags) & NBD_REPLY_FLAG_DONE,
		.type = be16toh(header.type),
		.length = be32toh(header.length),
		.header_size = sizeof(header),
	};
	return 1;
}

int gk_nbd_reply_parse(const uint8_t *buf, size_t len, bool structured,
		       struct gk_nbd_reply *ret_reply)
{
	uint32_t magic;

	if (len < sizeof(magic))
		return 0;
	memcpy(&magic, buf, sizeof(magic));
	switch (be32toh(magic)) {
	case NBD_SIMPLE_REPLY_MAGIC:
		return parse_simple(buf, len, ret_reply);
	case NBD_STRUCTURED_REPLY_MAGIC:
		return structured ? parse_chunk(buf, len, ret_reply) : -EPROTO;
	default:
		return -EPROTO;
	}
}

int gk_nbd_error_chunk(const struct gk_nbd_reply *reply, const uint8_t *payload,
		       bool *ret_malformed)
{
	uint32_t error;
	uint16_t message_len;
	uint32_t fixed = reply->type == NBD_REPLY_TYPE_ERROR_OFFSET ? 14 : 6;

	memcpy(&error, payload, sizeof(error));
	memcpy(&message_len, payload + 4, sizeof(message_len));
	*ret_malformed = reply->length < fixed || be16toh(message_len) > reply->length - fixed;
	if (*ret_malformed)
		return -EPROTO;
	return error ? gk_nbd_errno(be32toh(error)) : -EIO;
}
