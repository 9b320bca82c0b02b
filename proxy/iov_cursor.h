/* SPDX-License-Identifier: MIT */
/* The cursor of a partial send or receive over an array of iovecs. Pure; any thread. */
#ifndef GK_IOV_CURSOR_H
#define GK_IOV_CURSOR_H

#include <stddef.h>
#include <sys/uio.h>

/*
 * Moves the start of the array past the first `bytes` bytes: whole iovecs are left behind, the
 * first one that remains is shortened at its front. bytes may not exceed what the array holds.
 * Empty iovecs at the new start are left behind too.
 */
static inline void gk_iov_advance(struct iovec **iov, size_t *n_iov, size_t bytes)
{
	while (*n_iov && bytes >= (*iov)->iov_len) {
		bytes -= (*iov)->iov_len;
		(*iov)++;
		(*n_iov)--;
	}
	if (bytes) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + bytes;
		(*iov)->iov_len -= bytes;
	}
}

#endif
