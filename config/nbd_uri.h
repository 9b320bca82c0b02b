/* SPDX-License-Identifier: MIT */
/*
 * NBD URIs, after the NBD project's URI specification (doc/uri.md): nbd://host[:10809]/export,
 * nbds://, nbd+unix:///export?socket=PATH, nbds+unix://, nbd+vsock://cid[:port]/export, nbds+vsock://.
 * Pure: strings in, struct out. Any thread.
 */
#ifndef GK_NBD_URI_H
#define GK_NBD_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gk_transport { GK_TRANSPORT_TCP, GK_TRANSPORT_UNIX, GK_TRANSPORT_VSOCK };

/* A parsed URI. All strings are owned by it, percent-decoded and never NULL ("" when absent). */
struct gk_nbd_uri {
	char *text;        /* as written, for messages; any user name or password left out */
	bool tls;          /* nbds */
	enum gk_transport transport;
	char *host;        /* TCP: name or address, brackets removed */
	char *port;        /* TCP: decimal, "10809" when absent */
	char *socket_path; /* Unix */
	uint32_t vsock_cid;
	uint32_t vsock_port;
	char *export_name; /* without the leading slash; "" is the default export */
	char *tls_username;      /* tls-* parameters of the specification; "" when absent */
	char *tls_hostname;
	char *tls_certificates;
	char *tls_psk_file;
	int tls_verify;          /* -1 absent, 0 off, 1 on */
};

/*
 * Parses text. On success 0 and *ret_uri is filled; end it with gk_nbd_uri_done(). On failure
 * -EINVAL (or -ENOMEM) with a reason for a person in why (size bytes, always terminated), and
 * *ret_uri is untouched.
 */
int gk_nbd_uri_parse(const char *text, char *why, size_t why_size, struct gk_nbd_uri *ret_uri);

/* Frees what a parsed URI owns. Takes NULL and a zeroed struct. */
void gk_nbd_uri_done(struct gk_nbd_uri *uri);

#endif
