/* SPDX-License-Identifier: MIT */
/*
 * From the host part of a URI to socket addresses, without letting a slow name server hold up its
 * caller: getaddrinfo() cannot be interrupted, so a name is looked up on a thread of its own.
 */
#ifndef GK_RESOLVE_H
#define GK_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "nbd_uri.h"

#define GK_RESOLVE_MAX 32 /* addresses kept of one name, in the resolver's order */

struct gk_resolve_address {
	struct sockaddr_storage addr;
	socklen_t len;
};

struct gk_resolve_list {
	struct gk_resolve_address address[GK_RESOLVE_MAX];
	size_t n;
};

/* A look-up under way. Opaque; shared with its thread, which may outlive the caller's interest. */
struct gk_resolve;

/*
 * Starts to resolve. 0 with *ret_lookup NULL: it took no waiting (a Unix or vsock address, a
 * numeric host), *ret_list is filled. 0 with *ret_lookup: wait until gk_resolve_fd() is readable,
 * then gk_resolve_finish(). -errno with a reason in why (size bytes): -ENAMETOOLONG socket path too
 * long, -ENOMEM, -EAGAIN no thread. Any thread.
 */
int gk_resolve_start(const struct gk_nbd_uri *uri, char *why, size_t why_size,
		     struct gk_resolve_list *ret_list, struct gk_resolve **ret_lookup);

int gk_resolve_fd(const struct gk_resolve *lookup);

/* After gk_resolve_fd() became readable. 0 and a list of at least one; -EHOSTUNREACH with why. */
int gk_resolve_finish(struct gk_resolve *lookup, char *why, size_t why_size,
		      struct gk_resolve_list *ret_list);

/* Ends the caller's interest, at any time; the thread frees what is left. Takes NULL. */
void gk_resolve_drop(struct gk_resolve *lookup);

/* An address for a person: "10.0.0.5:10809", "[::1]:10809", "unix:/run/x", "vsock:2:10809". */
char *gk_resolve_text(const struct gk_resolve_address *address, char *dst, size_t dst_size);

#endif
