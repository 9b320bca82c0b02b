/* SPDX-License-Identifier: MIT */
/*
 * Dialling: from a URI to a connected socket whose negotiation is done. Blocks, so it runs on the
 * control thread or on threads of its own, never on a queue thread. It owns no state between calls.
 */
#ifndef GK_DIAL_H
#define GK_DIAL_H

#include <stddef.h>
#include <sys/socket.h>

#include "config.h"
#include "nbd_handshake.h"
#include "nbd_uri.h"
#include "tls_stream.h"

#define GK_DIAL_WHY_BYTES 1024 /* a why buffer of this size holds every reason whole */

struct gk_dial_options {
	enum gk_nbd_handshake_mode mode;
	bool structured;	  /* ask for structured replies */
	double connect_timeout_s; /* for the whole call: names, addresses, handshake; 0: no limit */
	double user_timeout_s;	  /* TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged;
				     0: the kernel's default */
	const struct gk_tls_config *tls; /* for URIs with TLS; NULL: verified, by the system's
					    authorities. Its files are read at each call. */
	int cancel_fd;		  /* an eventfd; readable: give up with -ECANCELED; -1: none. Only
				     polled, never read. */
};

struct gk_dialled {
	int fd; /* GO: connected, blocking (io_uring polls by itself), CLOEXEC, the caller's.
		   INFO, LIST: -1 */
	struct nbd_export_facts facts;	/* mode GO */
	struct gk_nbd_export_list list; /* modes INFO and LIST */
	struct sockaddr_storage addr;	/* the peer that answered */
	socklen_t addr_len;
	struct gk_tls_stream *tls; /* GO: TLS that the kernel does not do; NULL: none. The caller's */
	unsigned int ktls;	   /* GK_TLS_SEND | GK_TLS_RECV: the directions that it does */
	const char *tls_version;   /* "TLSv1.3", static; NULL without TLS */
	const char *tls_cipher;
	char tls_warning[GK_TLS_WHY_BYTES]; /* to be logged at every connect, if not "" */
	char peer[160]; /* the same for a person: "10.0.0.5:10809", "unix:/run/x" */
};

/*
 * Connects to the server of uri (every address of its name in turn; the time is spread over them)
 * and negotiates. 0 and *ret, to be ended by gk_dial_done(); or -errno with a sentence that says
 * what to do in why (size bytes, always terminated), *ret untouched: -ETIMEDOUT, -ECANCELED,
 * -ECONNREFUSED and other errors of connect(), -EHOSTUNREACH for a name that does not resolve,
 * those of gk_nbd_handshake_step() and gk_tls_handshake(). A URI with TLS is never connected to
 * without it.
 */
int gk_dial(const struct gk_nbd_uri *uri, const struct gk_dial_options *opt, char *why,
	    size_t why_size, struct gk_dialled *ret);

/*
 * Dials up to n connections (n >= 1) to one export, mode GO: the first alone, the rest at the same
 * time on threads of their own, to the address that answered the first, so that all reach the same
 * server. Returns how many there are in ret[0..]: n, or 1 when the server does not advertise
 * CAN_MULTI_CONN; or -errno with why when one of them failed (all are closed then), -EPROTO when
 * their size, flags, block sizes or structured replies differ. connect_timeout_s covers the whole
 * call.
 */
int gk_dial_parallel(const struct gk_nbd_uri *uri, const struct gk_dial_options *opt,
		     unsigned int n, char *why, size_t why_size, struct gk_dialled *ret);

/*
 * Closes the socket, frees TLS and the list. Takes NULL. Who keeps the fd sets it to -1 before, and
 * tls to NULL.
 */
void gk_dial_done(struct gk_dialled *dialled);

#endif
