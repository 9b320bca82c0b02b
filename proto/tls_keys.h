/* SPDX-License-Identifier: MIT */
/*
 * The keys with which the records of one direction are encrypted, derived from what the handshake
 * agreed on: for those who make or read records in OpenSSL's place, the kernel (ktls.c) and
 * tls_records.c. Any thread that the connection belongs to. Not thread-safe.
 */
#ifndef GK_TLS_KEYS_H
#define GK_TLS_KEYS_H

#include "tls.h"

#define GK_TLS_KEY_BYTES  32U /* at most */
#define GK_TLS_IV_BYTES	  12U
#define GK_TLS_SALT_BYTES 4U /* the part of an AES-GCM nonce that TLS 1.2 keeps to itself */

enum gk_tls_side { GK_TLS_OURS, GK_TLS_SERVERS };

struct gk_tls_keys {
	int nid; /* NID_aes_128_gcm, NID_aes_256_gcm or NID_chacha20_poly1305 */
	size_t key_len;
	uint8_t key[GK_TLS_KEY_BYTES];
	uint8_t iv[GK_TLS_IV_BYTES]; /* TLS 1.2, AES-GCM: the first GK_TLS_SALT_BYTES, then 0 */
};

/*
 * The present keys of that side's records (RFC 8446, 7.3; RFC 5246, 6.3). False: another cipher, no
 * memory, or the secrets are not known. The caller wipes *ret.
 */
bool gk_tls_find_keys(const struct gk_tls *tls, enum gk_tls_side side, struct gk_tls_keys *ret);

/*
 * TLS 1.3: the keys after a KeyUpdate of that side (RFC 8446, 7.2), which are the present ones from
 * then on. False: no memory; the connection is of no more use. The caller wipes *ret.
 */
bool gk_tls_next_keys(struct gk_tls *tls, enum gk_tls_side side, struct gk_tls_keys *ret);

#endif
