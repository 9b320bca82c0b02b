/* SPDX-License-Identifier: MIT */
/*
 * TLS as a client, by OpenSSL: 1.2 and 1.3, with certificates or pre-shared keys. A connection is a
 * pure step, encrypted bytes in, encrypted bytes out: it knows no socket but in the hand-over to
 * kernel TLS. A context may be shared by threads; a connection belongs to one at a time.
 *
 * Input is given to OpenSSL one record at a time until the hand-over. So it is always known how
 * many records have passed since the keys came into use, which the kernel has to be told, and no
 * byte of a later record is inside OpenSSL when the kernel takes over.
 */
#ifndef GK_TLS_H
#define GK_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define GK_TLS_WHY_BYTES	400
#define GK_TLS_PLAIN_BYTES	16384U /* of a record: RFC 8446, 5.1 */
#define GK_TLS_HEADER_BYTES	5U
#define GK_TLS_MAX_RECORD_BYTES (GK_TLS_HEADER_BYTES + GK_TLS_PLAIN_BYTES + 2048U)
#define GK_TLS_WRITE_BYTES	(256U * 1024) /* that one gk_tls_write() may take */
/* Those as records, and room for what the protocol itself has to say. */
#define GK_TLS_OUT_BYTES	(GK_TLS_WRITE_BYTES + 2 * GK_TLS_MAX_RECORD_BYTES)

/* RFC 8446: record types (5.1), messages of the handshake (4), alerts (6). */
enum {
	GK_TLS_RECORD_ALERT = 21,
	GK_TLS_RECORD_HANDSHAKE = 22,
	GK_TLS_RECORD_DATA = 23,
	GK_TLS_MESSAGE_TICKET = 4,
	GK_TLS_MESSAGE_KEY_UPDATE = 24,
	GK_TLS_ALERT_WARNING = 1,
	GK_TLS_ALERT_CLOSE_NOTIFY = 0,
	GK_TLS_ALERT_USER_CANCELED = 90,
};

/* How to talk to a server. All strings may be "", and must outlive gk_tls_context_new() only. */
struct gk_tls_options {
	bool verify;	  /* the server's chain and name; psk needs no certificate */
	bool only_1_3;	  /* refuse TLS 1.2 */
	const char *ca;	  /* PEM file or hashed folder of authorities; "": the system's */
	const char *cert; /* PEM: ours with its chain, and its key */
	const char *key;
	const char *psk_file; /* lines "user:hexadecimal key"; not "": PSK, no certificates */
	const char *psk_user; /* "": the file has only one */
	const char *hostname; /* that the server's certificate must name */
	const char *ciphers;  /* OpenSSL's names with : between; "": all that are sound */
};

struct gk_tls_context;

/*
 * Reads every file anew. 0, or -errno with a sentence in why (size bytes): what is wrong with
 * which file. End it with gk_tls_context_free(), which takes NULL.
 */
int gk_tls_context_new(const struct gk_tls_options *options, char *why, size_t size,
		       struct gk_tls_context **ret_context);
void gk_tls_context_free(struct gk_tls_context *context);

/* What somebody should be told at every connect: no verification, a key that all may read; or "".
 */
const char *gk_tls_context_warning(const struct gk_tls_context *context);

/* Counts whole records in a stream of them. */
struct gk_tls_count {
	uint64_t records;
	unsigned int have; /* bytes of the header */
	size_t left;	   /* bytes of the record that follow */
	uint8_t header[GK_TLS_HEADER_BYTES];
};

/* The certificate that was not good enough, for a sentence. */
struct gk_tls_bad_cert {
	int verdict; /* X509_V_ERR_*; 0: none */
	char subject[80];
	char issuer[80];
	char begin[32];
	char end[32];
};

/* Open for embedding and for out only: whoever sends takes out[0 .. out_len) and sets it to 0. */
struct gk_tls {
	uint8_t *out; /* GK_TLS_OUT_BYTES; encrypted, for the server */
	size_t out_len;
	char why[GK_TLS_WHY_BYTES]; /* after a failure: a sentence, printable, one line */

	struct ssl_st *ssl;
	struct gk_tls_records *records;	      /* after gk_tls_offload(); NULL: OpenSSL makes them */
	const struct gk_tls_context *context; /* until the handshake is done */
	const uint8_t *in;		      /* what OpenSSL may still read */
	size_t in_len;
	size_t have; /* bytes of the record that is being collected */
	struct gk_tls_count sent, received;
	uint64_t sent_before, received_before; /* at the end of the handshake */
	bool up;			       /* the handshake is done */
	bool rekeyed;  /* since then: the kernel could not be told the keys */
	bool overflow; /* OpenSSL had more to say than out holds */
	bool ended;    /* close_notify came */
	struct gk_tls_bad_cert bad_cert;
	int alert;	       /* fatal, from the server; -1 */
	uint8_t secret[2][64]; /* TLS 1.3: of our and of the server's records; tls_keys.c */
	size_t secret_len;
	uint8_t record[GK_TLS_MAX_RECORD_BYTES];
};

/* Starts a connection; the context must live until the handshake is done. NULL: out of memory. */
struct gk_tls *gk_tls_new(const struct gk_tls_context *context);

/* Wipes and frees. Takes NULL. Says nothing to the server. */
void gk_tls_free(struct gk_tls *tls);

/* How many bytes the record that is being collected lacks as far as is known; never 0. */
size_t gk_tls_missing(const struct gk_tls *tls);

/*
 * The handshake: any number of the server's bytes, none at first. *ret_used says on every return
 * how many were taken: all, unless it ended. There may be output on every return, also a failure.
 *   0        the connection is up, and the server is who it should be
 *   -EAGAIN  send out, come back with more bytes
 *   -errno   failed for good, why is set: -EACCES who the server is, or it will not have us;
 *            -EPROTO no TLS, or against the protocol; -ENOTSUP nothing in common
 */
int gk_tls_handshake(struct gk_tls *tls, const void *bytes, size_t len, size_t *ret_used);

/*
 * After the handshake: collects at most one record. 0: it is whole, gk_tls_read() until that
 * returns -EAGAIN; -EAGAIN: all bytes taken, more are needed; -EPROTO with why.
 */
int gk_tls_collect(struct gk_tls *tls, const void *bytes, size_t len, size_t *ret_used);

/*
 * Instead of collecting, when all bytes go through here from now on: lends OpenSSL any number of
 * bytes, until gk_tls_read() returns -EAGAIN, when it has taken all.
 */
void gk_tls_lend(struct gk_tls *tls, const void *bytes, size_t len);

/*
 * Decrypted bytes, at most one record: how many, 0 when the server ended the connection in order,
 * -EAGAIN when more input is needed, -errno with why. May leave output.
 */
ssize_t gk_tls_read(struct gk_tls *tls, void *buf, size_t len);

/* Whether something that is decrypted waits to be read. */
bool gk_tls_pending(const struct gk_tls *tls);

/*
 * Encrypts len bytes (at most GK_TLS_WRITE_BYTES, counted since out was empty) into out. 0, or
 * -errno with why. Makes a record of what does not fill one, so callers gather.
 */
int gk_tls_write(struct gk_tls *tls, const void *bytes, size_t len);

/* Says close_notify, into out. */
void gk_tls_close(struct gk_tls *tls);

/*
 * The connection ended here. close_notify or not, that is a failure: -ECONNRESET with why, which
 * tells a connection that was cut from one that was closed.
 */
int gk_tls_eof(struct gk_tls *tls);

/* "TLSv1.3" and "TLS_AES_256_GCM_SHA384": static texts. */
const char *gk_tls_version(const struct gk_tls *tls);
const char *gk_tls_cipher(const struct gk_tls *tls);

/* "bad certificate": the name of an alert. Static text. */
const char *gk_tls_alert_name(int alert);

#define GK_TLS_SEND 1U
#define GK_TLS_RECV 2U

/*
 * ktls.c: gives keys and positions of the wanted directions (GK_TLS_SEND | GK_TLS_RECV) to the
 * kernel (Linux Documentation/networking/tls.rst); output must have been sent and nothing may be
 * pending. Returns the directions that the kernel has taken: for those the socket is a plain one
 * from now on, and tls must not be used. 0 when cipher, kernel or socket do not have it.
 *
 * In the other directions tls goes on as before, with records of our own where tls_records.c can.
 */
unsigned int gk_tls_offload(struct gk_tls *tls, int fd, unsigned int wanted);

/* tls.c, for ktls.c: what has been sent and received with the present keys, in records. */
uint64_t gk_tls_sent_records(const struct gk_tls *tls);
uint64_t gk_tls_received_records(const struct gk_tls *tls);

/* tls_context.c, for tls.c: a connection with the context's settings; arg goes to
 * SSL_set_app_data(). */
struct ssl_st *gk_tls_context_open(const struct gk_tls_context *context, void *arg);
bool gk_tls_context_is_psk(const struct gk_tls_context *context);
const char *gk_tls_context_hostname(const struct gk_tls_context *context);

/* tls.c, for tls_context.c: how OpenSSL asks about a certificate. */
struct x509_store_ctx_st;
int gk_tls_verified(int good, struct x509_store_ctx_st *store);

/* tls_keys.c, for tls_context.c: a line of OpenSSL's key log. */
void gk_tls_note_secret(const struct ssl_st *ssl, const char *line);

#endif
