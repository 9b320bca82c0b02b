/* SPDX-License-Identifier: MIT */
/*
 * The TLS of a connection that is being dialled. Blocks where dial.c blocks, on the thread that
 * dials; owns nothing between calls.
 */
#ifndef GK_DIAL_TLS_H
#define GK_DIAL_TLS_H

#include <stddef.h>

#include "config.h"
#include "nbd_uri.h"
#include "tls.h"

/*
 * A context from a URI with TLS and the configuration (NULL: all defaults), of which the URI's
 * parameters come first. Reads keys and certificates anew each time, so that renewed ones are used
 * by the next connection. 0 or -errno with a sentence in why (size bytes); the context is the
 * caller's.
 */
int gk_dial_tls_context(const struct gk_nbd_uri *uri, const struct gk_tls_config *config, char *why,
			size_t size, struct gk_tls_context **ret_context);

#endif
