/* SPDX-License-Identifier: MIT */
/*
 * NBD URIs, after the NBD project's URI specification (doc/uri.md): nbd://host[:10809]/export,
 * nbds://, nbd+unix:///export?socket=PATH, nbds+unix://, nbd+vsock://[cid][:port]/export (cid 2,
 * the host, when absent), nbds+vsock://. Pure: strings in, struct out. Any thread.
 *
 * Where the specification leaves the choice, a URI that would not do what its writer meant is an
 * error: an unknown or repeated parameter (libnbd 1.14 passes over it), tls-* without nbds, a host
 * missing for TCP or present for Unix, a password, a fragment. An abstract Unix socket
 * (socket=%00...) is not taken.
 */
#ifndef GK_NBD_URI_H
#define GK_NBD_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gk_transport { GK_TRANSPORT_TCP, GK_TRANSPORT_UNIX, GK_TRANSPORT_VSOCK };
enum gk_tls_type { GK_TLS_UNSET, GK_TLS_ANON, GK_TLS_X509, GK_TLS_PSK };

/* A parsed URI. All strings are owned by it, percent-decoded and never NULL ("" when absent). */
struct gk_nbd_uri {
	char *text; /* as written, for messages; any user name left out */
	bool tls;   /* nbds */
	enum gk_transport transport;
	char *host;	   /* TCP: name or address, brackets removed, an IPv6 zone as %zone */
	char *port;	   /* TCP: decimal, "10809" when absent */
	char *socket_path; /* Unix */
	uint32_t vsock_cid;
	uint32_t vsock_port;
	char *export_name; /* without the leading slash; "" is the default export */

	/* Parameters of the specification and of libnbd. */
	enum gk_tls_type tls_type;
	char *tls_username; /* or what stands before @ */
	char *tls_hostname;
	char *tls_certificates;
	char *tls_psk_file;
	int tls_verify; /* tls-verify-peer: -1 absent, 0 off, 1 on */
};

/*
 * Parses text. On success 0 and *ret_uri is filled; end it with gk_nbd_uri_done(). On failure
 * -EINVAL (or -ENOMEM) with a reason for a person in why (why_size bytes, always terminated; it
 * repeats nothing of the URI but the name of a parameter, so that no secret gets out), and *ret_uri
 * is untouched.
 */
int gk_nbd_uri_parse(const char *text, char *why, size_t why_size, struct gk_nbd_uri *ret_uri);

/* Frees what a parsed URI owns. Takes NULL and a zeroed struct. */
void gk_nbd_uri_done(struct gk_nbd_uri *uri);

#endif
