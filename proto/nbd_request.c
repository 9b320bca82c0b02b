// SPDX-License-Identifier: MIT
#include "nbd_request.h"

#include <endian.h>

void gk_nbd_request_build(uint16_t type, uint16_t flags, uint64_t cookie, uint64_t offset,
			  uint32_t length, struct nbd_request *ret_header)
{
	ret_header->magic = htobe32(NBD_REQUEST_MAGIC);
	ret_header->flags = htobe16(flags);
	ret_header->type = htobe16(type);
	ret_header->cookie = htobe64(cookie);
	ret_header->offset = htobe64(offset);
	ret_header->length = htobe32(length);
}

const char *gk_nbd_cmd_name(uint16_t type)
{
	switch (type) {
	case NBD_CMD_READ:
		return "NBD_CMD_READ";
	case NBD_CMD_WRITE:
		return "NBD_CMD_WRITE";
	case NBD_CMD_DISC:
		return "NBD_CMD_DISC";
	case NBD_CMD_FLUSH:
		return "NBD_CMD_FLUSH";
	case NBD_CMD_TRIM:
		return "NBD_CMD_TRIM";
	case NBD_CMD_WRITE_ZEROES:
		return "NBD_CMD_WRITE_ZEROES";
	default:
		return "NBD_CMD_?";
	}
}
