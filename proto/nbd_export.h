/* SPDX-License-Identifier: MIT */
/*
 * What a server says of its exports: the facts of one, their check against the protocol ("Block
 * size constraints"), and the list that a probe fills. Pure; one thread at a time per object.
 */
#ifndef GK_NBD_EXPORT_H
#define GK_NBD_EXPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GK_NBD_EXPORT_LIST_MAX  256U /* exports that a list holds; more are only counted */
#define GK_NBD_EXPORT_WHY_BYTES 512U /* holds every reason of the handshake whole */

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
	size_t n;	 /* kept, at most GK_NBD_EXPORT_LIST_MAX */
	size_t n_listed; /* named by the server, kept or not */
	int list_error;	 /* LIST: the server does not list (-errno), so the plan's export was asked
			    about instead */
	char list_why[GK_NBD_EXPORT_WHY_BYTES]; /* reason of list_error */
};

/* Empty facts: the defaults for what a server does not send. */
void gk_nbd_export_facts_init(struct nbd_export_facts *facts);

/*
 * Checks what a server sent and drops the flags that mean nothing (see flags above). 0; or with a
 * sentence in why (size bytes): -EOVERFLOW for a size above 2^63-1, -EPROTO for block sizes that
 * the protocol forbids.
 */
int gk_nbd_export_facts_check(struct nbd_export_facts *facts, char *why, size_t why_size);

/*
 * Adds an export, copying both texts (lengths in bytes), unless the list is full: then nothing is
 * kept. 0; -EPROTO for a name with a zero byte; -ENOMEM.
 */
int gk_nbd_export_list_add(struct gk_nbd_export_list *list, const void *name, size_t name_len,
			   const void *description, size_t description_len);

/* Frees the exports of a list and empties it. Takes NULL. */
void gk_nbd_export_list_done(struct gk_nbd_export_list *list);

/*
 * Copies len bytes of a server's text for a person: what is not printable ASCII becomes '?', an
 * overlong text ends with "...". Always terminated; returns dst.
 */
char *gk_nbd_export_printable(char *dst, size_t dst_size, const void *text, size_t len);

#endif
