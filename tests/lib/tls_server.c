// SPDX-License-Identifier: MIT
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tls_server.h"

static unsigned int find_psk(SSL *ssl, const char *identity, unsigned char *psk, unsigned int room)
{
	unsigned int n = 0;

	(void)ssl;
	if (strcmp(identity, TLS_SERVER_USER) != 0)
		return 0;
	for (const char *c = TLS_SERVER_KEY; *c && n < room; c += 2) {
		unsigned int byte;

		assert_int_equal(sscanf(c, "%2x", &byte), 1);
		psk[n++] = (unsigned char)byte;
	}
	return n;
}

void tls_server_begin(struct tls_server *s, const struct tls_ca *ca,
		      const struct tls_server_wish *wish)
{
	const struct tls_ca *issuer = wish->issuer ? wish->issuer : ca;
	char pem[64], key[64];

	s->ctx = SSL_CTX_new(TLS_server_method());
	assert_non_null(s->ctx);
	if (wish->cert) {
		snprintf(pem, sizeof(pem), "%s.pem", wish->cert);
		snprintf(key, sizeof(key), "%s.key", wish->cert);
		assert_true(SSL_CTX_use_certificate_chain_file(s->ctx, tls_ca_path(issuer, pem)));
		assert_true(SSL_CTX_use_PrivateKey_file(s->ctx, tls_ca_path(issuer, key),
							SSL_FILETYPE_PEM));
	}
	if (wish->max_version)
		SSL_CTX_set_max_proto_version(s->ctx, wish->max_version);
	if (wish->min_version)
		SSL_CTX_set_min_proto_version(s->ctx, wish->min_version);
	if (wish->ciphers)
		assert_true(SSL_CTX_set_cipher_list(s->ctx, wish->ciphers));
	if (wish->suites)
		assert_true(SSL_CTX_set_ciphersuites(s->ctx, wish->suites));
	if (wish->wants_client) {
		SSL_CTX_set_verify(s->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		assert_true(SSL_CTX_load_verify_file(s->ctx, tls_ca_path(ca, "ca.pem")));
	}
	if (wish->psk)
		SSL_CTX_set_psk_server_callback(s->ctx, find_psk);
	s->ssl = SSL_new(s->ctx);
	s->in = BIO_new(BIO_s_mem());
	s->out = BIO_new(BIO_s_mem());
	assert_true(s->ssl && s->in && s->out);
	SSL_set_bio(s->ssl, s->in, s->out);
	SSL_set_accept_state(s->ssl);
}

void tls_server_end(struct tls_server *s)
{
	SSL_free(s->ssl);
	SSL_CTX_free(s->ctx);
}

struct gk_tls_options tls_server_options(const struct tls_ca *ca, const char *hostname)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s", tls_ca_path(ca, "ca.pem"));
	return (struct gk_tls_options){
		.verify = true,
		.ca = path,
		.cert = "",
		.key = "",
		.psk_file = "",
		.psk_user = "",
		.hostname = hostname,
		.ciphers = "",
	};
}

struct gk_tls_context *tls_server_context(const struct gk_tls_options *options)
{
	struct gk_tls_context *context = NULL;
	char why[GK_TLS_WHY_BYTES] = "";
	int r = gk_tls_context_new(options, why, sizeof(why), &context);

	if (r)
		fail_msg("no context: %s", why);
	return context;
}

void tls_server_hear(struct tls_server *s, struct gk_tls *tls)
{
	if (tls->out_len)
		assert_int_equal(BIO_write(s->in, tls->out, (int)tls->out_len), tls->out_len);
	tls->out_len = 0;
}

size_t tls_server_said(struct tls_server *s, void *buf, size_t size)
{
	int n = BIO_read(s->out, buf, (int)size);

	return n > 0 ? (size_t)n : 0;
}

int tls_server_shake_hands(struct tls_server *s, struct gk_tls *tls, size_t piece)
{
	uint8_t buf[65536];
	size_t used;
	int r = gk_tls_handshake(tls, NULL, 0, &used);

	while (r == -EAGAIN) {
		size_t n;

		tls_server_hear(s, tls);
		(void)SSL_do_handshake(s->ssl);
		n = tls_server_said(s, buf, piece < sizeof(buf) ? piece : sizeof(buf));
		if (!n)
			return gk_tls_eof(tls);
		while (n && r == -EAGAIN) {
			r = gk_tls_handshake(tls, buf, n, &used);
			if (r != -EAGAIN && used < n)
				memmove(buf, buf + used, n - used);
			n -= used;
			if (r == -EAGAIN)
				n = tls_server_said(s, buf, piece);
		}
		/* What comes behind the handshake waits for its reader. */
		if (r == 0 && n)
			fail_msg("%zu bytes were not taken", n);
	}
	tls_server_hear(s, tls);
	(void)SSL_do_handshake(s->ssl);
	return r;
}

struct tls_ca tls_pair_ca;

int tls_pair_begin_all(void **state)
{
	const struct tls_ca_wish good = {.names = "DNS:disk.example"};

	(void)state;
	tls_ca_init(&tls_pair_ca, "the authority");
	tls_ca_issue(&tls_pair_ca, "server", &good);
	return 0;
}

int tls_pair_end_all(void **state)
{
	(void)state;
	tls_ca_done(&tls_pair_ca);
	return 0;
}

void tls_pair_begin(struct tls_pair *p, const struct tls_server_wish *wish, size_t piece)
{
	struct gk_tls_options options = tls_server_options(&tls_pair_ca, "disk.example");

	p->context = tls_server_context(&options);
	p->tls = gk_tls_new(p->context);
	assert_non_null(p->tls);
	tls_server_begin(&p->s, &tls_pair_ca, wish);
	assert_int_equal(tls_server_shake_hands(&p->s, p->tls, piece), 0);
	assert_true(SSL_is_init_finished(p->s.ssl));
}

void tls_pair_end(struct tls_pair *p)
{
	gk_tls_free(p->tls);
	gk_tls_context_free(p->context);
	tls_server_end(&p->s);
}
