/* SPDX-License-Identifier: MIT */
/*
 * OpenSSL's server side of TLS in memory, for our side of it. What does not work fails the test
 * that runs (cmocka), whose thread calls these.
 */
#ifndef GK_TLS_SERVER_H
#define GK_TLS_SERVER_H

#include <openssl/ssl.h>
#include <stdbool.h>

#include "tls.h"
#include "tls_ca.h"

/* The one that a server with keys knows. */
#define TLS_SERVER_USER "alice"
#define TLS_SERVER_KEY	"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

struct tls_server {
	SSL_CTX *ctx;
	SSL *ssl;
	BIO *in, *out;
};

struct tls_server_wish {
	const char *cert;	     /* NULL: none */
	const struct tls_ca *issuer; /* of it; NULL: the authority that is given */
	int max_version;
	int min_version;
	const char *ciphers; /* of TLS 1.2 */
	const char *suites;  /* of TLS 1.3 */
	bool wants_client;   /* with a certificate of the authority that is given */
	bool psk;
};

void tls_server_begin(struct tls_server *s, const struct tls_ca *ca,
		      const struct tls_server_wish *wish);
void tls_server_end(struct tls_server *s);

/* Our side, which trusts this authority; valid until the next call. */
struct gk_tls_options tls_server_options(const struct tls_ca *ca, const char *hostname);

/* Caller frees. */
struct gk_tls_context *tls_server_context(const struct gk_tls_options *options);

/* Everything we have to say reaches the server, in pieces of one byte too: to it that is the same.
 */
void tls_server_hear(struct tls_server *s, struct gk_tls *tls);

/* Up to size bytes of what the server has to say. */
size_t tls_server_said(struct tls_server *s, void *buf, size_t size);

/* The whole handshake in pieces of that size; the client's result. */
int tls_server_shake_hands(struct tls_server *s, struct gk_tls *tls, size_t piece);

/* Our side of a connection that is up, and its server, which is disk.example. */
struct tls_pair {
	struct gk_tls_context *context;
	struct gk_tls *tls;
	struct tls_server s;
};

/* Group set-up and tear-down of tests with pairs: an authority, and its certificate "server". */
extern struct tls_ca tls_pair_ca;
int tls_pair_begin_all(void **state);
int tls_pair_end_all(void **state);

void tls_pair_begin(struct tls_pair *p, const struct tls_server_wish *wish, size_t piece);
void tls_pair_end(struct tls_pair *p);

#endif
