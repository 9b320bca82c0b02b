/* SPDX-License-Identifier: MIT */
/*
 * Newstyle negotiation (protocol: "Newstyle negotiation", "Option types", "Option reply types") as
 * a pure step: the server's bytes in, our bytes out. It knows no socket and no clock, so the
 * dialler, a unit test and a fuzzer drive the same code. One thread at a time; different objects
 * are independent.
 *
 * The caller's loop: send h->out[0 .. h->out_len) and set out_len to 0, read some bytes, give them
 * to gk_nbd_handshake_step(), until it returns something other than -EAGAIN. There may be output to
 * send after the last step too.
 */
#ifndef GK_NBD_HANDSHAKE_H
#define GK_NBD_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd_export.h"
#include "nbd_wire.h"

#define GK_NBD_HANDSHAKE_MAX_PAYLOAD 16384U /* bytes of one option reply: two strings and more */
#define GK_NBD_HANDSHAKE_MAX_REPLIES 64U    /* to one option, before its final reply */
#define GK_NBD_HANDSHAKE_MAX_LISTED  16384U /* ... to NBD_OPT_LIST */

#define GK_NBD_HANDSHAKE_STARTTLS 1 /* a result of gk_nbd_handshake_step() */

enum gk_nbd_handshake_mode {
	GK_NBD_HANDSHAKE_GO,   /* attach the export: transmission follows */
	GK_NBD_HANDSHAKE_INFO, /* ask about the export, then leave */
	GK_NBD_HANDSHAKE_LIST, /* ask about every export that the server lists, then leave */
};

struct gk_nbd_handshake_plan {
	enum gk_nbd_handshake_mode mode;
	bool tls;	 /* NBD_OPT_STARTTLS first of all; a server that refuses it is a failure */
	bool structured; /* ask for structured replies; a server that has none is no failure */
	const char *export_name; /* must outlive the handshake; "" is the default export */
};

/* Open for embedding only: callers read out, out_len, why, facts and list, and reset out_len. */
struct gk_nbd_handshake {
	unsigned char out[NBD_MAX_STRING + 64]; /* bytes for the server */
	size_t out_len;
	char why[GK_NBD_EXPORT_WHY_BYTES]; /* after a failure: the reason, printable, one line */
	struct nbd_export_facts facts;	      /* mode GO, after 0 */
	struct gk_nbd_export_list list;	      /* modes INFO and LIST, after 0 */

	struct gk_nbd_handshake_plan plan;
	int state;			 /* what the bytes being collected are */
	int result;			 /* final once it is not -EAGAIN */
	uint16_t server_flags;		 /* NBD_FLAG_FIXED_NEWSTYLE, NBD_FLAG_NO_ZEROES */
	uint32_t option;		 /* sent, and its final reply has not come */
	uint32_t n_replies;		 /* to it, so far */
	size_t asked;			 /* index in list of the export being asked about */
	bool have_export_info;		 /* NBD_INFO_EXPORT came in the replies to this option */
	struct nbd_export_facts current; /* gathered from the replies to this option */
	uint32_t reply_type;		 /* of the option reply whose payload is being collected */
	size_t need;			 /* bytes of the message being collected */
	size_t have;			 /* ... that are in in[] */
	unsigned char in[GK_NBD_HANDSHAKE_MAX_PAYLOAD];
};

/*
 * Starts a handshake. 0, or -ENAMETOOLONG with h->why when the export name is longer than the
 * protocol allows. End it with gk_nbd_handshake_done() in either case. GO allocates nothing; INFO
 * and LIST allocate what list holds.
 */
int gk_nbd_handshake_init(struct gk_nbd_handshake *h, const struct gk_nbd_handshake_plan *plan);

/*
 * Takes bytes of the server, any number, also 0. *ret_used says on every return how many were
 * taken: all, unless the handshake ended before the last one; what is left is transmission.
 *   0        done: facts or list are valid. INFO and LIST: send out, then close.
 *   -EAGAIN  send out, then come back with more bytes.
 *   GK_NBD_HANDSHAKE_STARTTLS  the server awaits the TLS handshake: do it, and from then on all
 *            bytes go through it; then gk_nbd_handshake_secured().
 *   -errno   failed for good, why is set, nothing more to send: -EPROTO not NBD, or against the
 *            protocol; -ENOENT no such export; -EPERM the server's policy; -ENOTSUP TLS or another
 *            thing that one side lacks; -ESHUTDOWN the server is going down; -EINVAL, -E2BIG it
 *            refused the option; -EOVERFLOW a size above 2^63-1; -ENOMEM.
 */
int gk_nbd_handshake_step(struct gk_nbd_handshake *h, const void *bytes, size_t len,
			  size_t *ret_used);

/*
 * TLS is up: goes on with what the server could say only now. Sets out; the next step takes what
 * was decrypted. Only after GK_NBD_HANDSHAKE_STARTTLS.
 */
void gk_nbd_handshake_secured(struct gk_nbd_handshake *h);

/* The server closed the connection before the end: the fitting -errno, with why set. Never 0. */
int gk_nbd_handshake_eof(struct gk_nbd_handshake *h);

/* What it waits for, to end a sentence: "its greeting", "its answer to NBD_OPT_GO". */
const char *gk_nbd_handshake_awaited(const struct gk_nbd_handshake *h);

/* Frees what it holds. Takes NULL and a failed init. Move list away first to keep it. */
void gk_nbd_handshake_done(struct gk_nbd_handshake *h);

#endif
