/* SPDX-License-Identifier: MIT */
/*
 * Operation → request header, and the cookie that ties a reply to it. Pure; any thread.
 * Protocol section "Request message".
 */
#ifndef GK_NBD_REQUEST_H
#define GK_NBD_REQUEST_H

#include <stdint.h>

#include "nbd_wire.h"

/*
 * The cookie is tag + generation: the generation changes with every request that is put on the
 * wire for a tag, so a late or repeated reply never matches the tag's next request.
 */
static inline uint64_t gk_nbd_cookie(uint16_t tag, uint32_t generation)
{
	return (uint64_t)generation << 32 | tag;
}

/* 0 and both halves, or -1 when the cookie is none that gk_nbd_cookie() can make. */
static inline int gk_nbd_cookie_split(uint64_t cookie, uint16_t *ret_tag, uint32_t *ret_generation)
{
	if (cookie & 0xffff0000ULL)
		return -1;
	*ret_tag = (uint16_t)cookie;
	*ret_generation = (uint32_t)(cookie >> 32);
	return 0;
}

/*
 * Builds the 28 bytes at *ret_header (no alignment needed). type is NBD_CMD_*, flags NBD_CMD_FLAG_*;
 * offset and length in bytes, both 0 for FLUSH and DISC. Cannot fail.
 */
void gk_nbd_request_build(uint16_t type, uint16_t flags, uint64_t cookie, uint64_t offset,
			  uint32_t length, struct nbd_request *ret_header);

/* "NBD_CMD_READ" and so on, for messages; never NULL. */
const char *gk_nbd_cmd_name(uint16_t type);

#endif
