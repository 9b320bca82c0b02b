/* SPDX-License-Identifier: MIT */
/*
 * What a server's refusal of an option means (protocol: "Option reply types"): an errno, and a
 * sentence that says what to do about it. Pure and thread-neutral; nothing is allocated.
 */
#ifndef GK_NBD_REFUSAL_H
#define GK_NBD_REFUSAL_H

#include <stddef.h>
#include <stdint.h>

#define GK_NBD_REFUSAL_SHOWN_BYTES 240U /* of a server's own words, in a sentence */

/* "NBD_OPT_GO"; static. An option that we never send is "an option". */
const char *gk_nbd_option_name(uint32_t option);

struct gk_nbd_refusal {
	uint32_t type;	     /* NBD_REP_ERR_... */
	uint32_t option;     /* the one that is refused */
	const char *export;  /* what it was asked about, printable: "export "NAME"" */
	const void *message; /* the server's own words, any bytes */
	size_t message_len;
};

/*
 * Writes the sentence, printable and ended, cut off at why_size bytes. Never 0: -ENOENT no such
 * export; -EPERM the server's policy; -ENOTSUP one side lacks something; -ESHUTDOWN the server is
 * going down; -EINVAL, -E2BIG it finds the option wrong, or too large; -EPROTO all else.
 */
int gk_nbd_refusal_explain(const struct gk_nbd_refusal *refusal, char *ret_why, size_t why_size);

#endif
