/* SPDX-License-Identifier: MIT */
/*
 * The records of TLS 1.3 (RFC 8446, 5) made and read here, by OpenSSL's ciphers but not by its
 * record layer: that one copies each byte twice in either direction, a fifth of a connection's CPU
 * time (tests/bench/README.md). Takes the place of SSL_write() and SSL_read() once the handshake is
 * over, for the directions that the kernel does not take; tls.c calls it.
 *
 * Follows KeyUpdate, and renews our keys in time: those of AES-GCM are good for 2^24.5 full
 * records (5.5). Tickets are thrown away. All on the thread that the connection belongs to.
 */
#ifndef GK_TLS_RECORDS_H
#define GK_TLS_RECORDS_H

#include "tls.h"

#define GK_TLS_TAG_BYTES   16U
#define GK_TLS_RENEW_AFTER (UINT64_C(1) << 24) /* records with the same keys */

/* Open for embedding and for tests only. */
struct gk_tls_half {
	struct evp_cipher_ctx_st *cipher; /* NULL: the kernel does this direction */
	uint8_t iv[12];
	uint64_t n; /* records with these keys */
};

struct gk_tls_records {
	struct gk_tls_half seal, open;
	uint64_t renew_after;

	/* A message of the handshake that is being taken, in one record or several. */
	uint8_t message[5];
	size_t message_have;
	size_t message_skip;
	unsigned int updates; /* KeyUpdates since the last data */

	/* What of a record did not fit where it was wanted is plain[from .. to). */
	size_t from, to;
	uint8_t plain[GK_TLS_PLAIN_BYTES + GK_TLS_TAG_BYTES];
};

/*
 * After the handshake, when nothing is pending: these directions (GK_TLS_SEND | GK_TLS_RECV) are
 * done here from now on, if tls->records is not NULL afterwards; else by OpenSSL as before, because
 * of the version, the cipher, keys that have changed already, or memory. Wipes the secrets that are
 * needed no more.
 */
void gk_tls_records_begin(struct gk_tls *tls, unsigned int directions);

/* Wipes and frees. Takes NULL. */
void gk_tls_records_end(struct gk_tls_records *records);

/* gk_tls_write(), gk_tls_read() and gk_tls_close() of such a direction. */
int gk_tls_records_write(struct gk_tls *tls, const uint8_t *bytes, size_t len);
ssize_t gk_tls_records_read(struct gk_tls *tls, uint8_t *buf, size_t len);
void gk_tls_records_close(struct gk_tls *tls);

/* tls.c, for tls_records.c: sets tls->why; the error. */
int gk_tls_fail(struct gk_tls *tls, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* tls.c, for tls_records.c: the error and the words for tls->overflow or tls->alert. */
int gk_tls_failed(struct gk_tls *tls);

#endif
