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

#include "nbd_wire.h"

#define GK_NBD_HANDSHAKE_MAX_PAYLOAD 16384U /* bytes of one option reply: two strings and more */
#define GK_NBD_HANDSHAKE_MAX_REPLIES 64U    /* to one option, before its final reply */
#define GK_NBD_HANDSHAKE_MAX_LISTED  16384U /* ... to NBD_OPT_LIST */
#define GK_NBD_HANDSHAKE_MAX_EXPORTS 256U   /* kept and asked about; the rest is only counted */
#define GK_NBD_HANDSHAKE_WHY_BYTES   512U

enum gk_nbd_handshake_mode {
	GK_NBD_HANDSHAKE_GO,   /* attach the export: transmission follows */
	GK_NBD_HANDSHAKE_INFO, /* ask about the export, then leave */
	GK_NBD_HANDSHAKE_LIST, /* ask about every export that the server lists, then leave */
};

/* What a server says of one export: plain data, may be copied. */
struct nbd_export_facts {
	uint64_t size_bytes;	  /* 0 is legal here; never above INT64_MAX */
	uint16_t flags;		  /* NBD_FLAG_*; SEND_DF only with structured replies; without
				     HAS_FLAGS nothing but READ_ONLY is believed */
	bool structured;	  /* structured replies were negotiated */
	bool has_block_size;	  /* the server sent NBD_INFO_BLOCK_SIZE; else the defaults below */
	uint32_t block_min;	  /* 1; power of two, 1-65536 */
	uint32_t block_preferred; /* 4096; power of two, >= 512 and >= block_min */
	uint32_t block_max;	  /* 32 MiB; a multiple of block_min, or UINT32_MAX: no limit */
};

/* One export of a probe (INFO, LIST). Strings are as the server sent them: any bytes but NUL. */
struct gk_nbd_export {
	char *name;
	char *description; /* "" when none was sent */
	int error;	   /* 0: facts are valid; else the -errno of asking about it */
	char *why;	   /* reason of error for a person, else NULL */
	struct nbd_export_facts facts;
};

struct gk_nbd_export_list {
	struct gk_nbd_export *exports;
	size_t n;	 /* kept, at most GK_NBD_HANDSHAKE_MAX_EXPORTS */
	size_t n_listed; /* named by the server, kept or not */
	int list_error;	 /* LIST: the server does not list (-errno), so the plan's export was asked
			    about instead */
	char list_why[GK_NBD_HANDSHAKE_WHY_BYTES]; /* reason of list_error */
};

struct gk_nbd_handshake_plan {
	enum gk_nbd_handshake_mode mode;
	bool structured; /* ask for structured replies; a server that has none is no failure */
	const char *export_name; /* must outlive the handshake; "" is the default export */
};

/* Open for embedding only: callers read out, out_len, why, facts and list, and reset out_len. */
struct gk_nbd_handshake {
	unsigned char out[NBD_MAX_STRING + 64]; /* bytes for the server */
	size_t out_len;
	char why[GK_NBD_HANDSHAKE_WHY_BYTES]; /* after a failure: the reason, printable, one line */
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
	char *description;		 /* ditto; owned */
	uint32_t reply_type;		 /* of the option reply whose payload is being collected */
	size_t need;			 /* bytes of the message being collected */
	size_t have;			 /* ... that are in in[] */
	unsigned char in[GK_NBD_HANDSHAKE_MAX_PAYLOAD];
};

/*
 * Starts a handshake. 0, or -ENAMETOOLONG with h->why when the export name is longer than the
 * protocol allows. End it with gk_nbd_handshake_done() in either case. GO allocates nothing later
 * on but a description's worth; INFO and LIST allocate what list holds.
 */
int gk_nbd_handshake_init(struct gk_nbd_handshake *h, const struct gk_nbd_handshake_plan *plan);

/*
 * Takes bytes of the server, any number, also 0. *ret_used says on every return how many were taken:
 * all of them, unless the handshake ended before the last one; what is left is transmission.
 *   0        done: facts or list are valid. INFO and LIST: send out, then close.
 *   -EAGAIN  send out, then come back with more bytes.
 *   -errno   failed for good, why is set, nothing more to send: -EPROTO not NBD, or against the
 *            protocol; -ENOENT no such export; -EPERM the server's policy; -ENOTSUP TLS or another
 *            thing that one side lacks; -ESHUTDOWN the server is going down; -EINVAL, -E2BIG it
 *            refused the option; -EOVERFLOW a size above 2^63-1; -ENOMEM.
 */
int gk_nbd_handshake_step(struct gk_nbd_handshake *h, const void *bytes, size_t len,
			  size_t *ret_used);

/* The server closed the connection before the end: the fitting -errno, with why set. Never 0. */
int gk_nbd_handshake_eof(struct gk_nbd_handshake *h);

/* Frees what it holds. Takes NULL and a failed init. Move list away first to keep it. */
void gk_nbd_handshake_done(struct gk_nbd_handshake *h);

/* Frees the exports of a list and empties it. Takes NULL. */
void gk_nbd_handshake_list_done(struct gk_nbd_export_list *list);

/*
 * Copies len bytes of a server's text for a person: what is not printable ASCII becomes '?', an
 * overlong text ends with "...". Always terminated; returns dst.
 */
char *gk_nbd_handshake_printable(char *dst, size_t dst_size, const void *text, size_t len);

#endif
