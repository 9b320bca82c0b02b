// SPDX-License-Identifier: MIT
/*
 * Our side of TLS against OpenSSL's server side, both in memory: who is let in, what is said when
 * not, and that no way of cutting the stream into pieces changes anything.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tls.h"
#include "tls_ca.h"

static struct tls_ca ca, other_ca;
static const char *server_psk_user, *server_psk_key;

/* A server in memory. */
struct server {
	SSL_CTX *ctx;
	SSL *ssl;
	BIO *in, *out;
};

struct server_wish {
	const char *cert; /* of ca, unless ... */
	const struct tls_ca *issuer;
	int max_version;
	int min_version;
	const char *ciphers;
	bool wants_client;
	bool psk;
};

static unsigned int find_psk(SSL *ssl, const char *identity, unsigned char *psk, unsigned int room)
{
	unsigned int n = 0;

	(void)ssl;
	if (strcmp(identity, server_psk_user) != 0)
		return 0;
	for (const char *c = server_psk_key; *c && n < room; c += 2) {
		unsigned int byte;

		assert_int_equal(sscanf(c, "%2x", &byte), 1);
		psk[n++] = (unsigned char)byte;
	}
	return n;
}

static void server_begin(struct server *s, const struct server_wish *wish)
{
	const struct tls_ca *issuer = wish->issuer ? wish->issuer : &ca;
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
	if (wish->wants_client) {
		SSL_CTX_set_verify(s->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		assert_true(SSL_CTX_load_verify_file(s->ctx, tls_ca_path(&ca, "ca.pem")));
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

static void server_end(struct server *s)
{
	SSL_free(s->ssl);
	SSL_CTX_free(s->ctx);
}

static struct gk_tls_options options_for(const char *hostname)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s", tls_ca_path(&ca, "ca.pem"));
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

static struct gk_tls_context *context_for(const struct gk_tls_options *options)
{
	struct gk_tls_context *context = NULL;
	char why[GK_TLS_WHY_BYTES] = "";
	int r = gk_tls_context_new(options, why, sizeof(why), &context);

	if (r)
		fail_msg("no context: %s", why);
	return context;
}

/* Everything we have to say reaches the server, in pieces of one byte too: to it that is the same. */
static void to_server(struct gk_tls *tls, struct server *s)
{
	if (tls->out_len)
		assert_int_equal(BIO_write(s->in, tls->out, (int)tls->out_len), tls->out_len);
	tls->out_len = 0;
}

/* Up to size bytes of what the server has to say. */
static size_t from_server(struct server *s, void *buf, size_t size)
{
	int n = BIO_read(s->out, buf, (int)size);

	return n > 0 ? (size_t)n : 0;
}

/* The whole handshake in pieces of that size; the client's result. */
static int shake_hands(struct gk_tls *tls, struct server *s, size_t piece)
{
	uint8_t buf[65536];
	size_t used;
	int r = gk_tls_handshake(tls, NULL, 0, &used);

	while (r == -EAGAIN) {
		size_t n;

		to_server(tls, s);
		(void)SSL_do_handshake(s->ssl);
		n = from_server(s, buf, piece < sizeof(buf) ? piece : sizeof(buf));
		if (!n)
			return gk_tls_eof(tls);
		while (n && r == -EAGAIN) {
			r = gk_tls_handshake(tls, buf, n, &used);
			if (r != -EAGAIN && used < n)
				memmove(buf, buf + used, n - used);
			n -= used;
			if (r == -EAGAIN)
				n = from_server(s, buf, piece);
		}
		/* What comes behind the handshake waits for its reader. */
		if (r == 0 && n)
			fail_msg("%zu bytes were not taken", n);
	}
	to_server(tls, s);
	(void)SSL_do_handshake(s->ssl);
	return r;
}

static void assert_says(const struct gk_tls *tls, const char *part)
{
	if (!strstr(tls->why, part))
		fail_msg("\"%s\" does not say \"%s\"", tls->why, part);
}

/* -- who is let in -- */

/* 0, or the error and a part of the sentence. */
static void expect(const struct gk_tls_options *options, const struct server_wish *wish, int error,
		   const char *says)
{
	struct gk_tls_context *context = context_for(options);
	struct gk_tls *tls = gk_tls_new(context);
	struct server s;
	int r;

	server_begin(&s, wish);
	assert_non_null(tls);
	r = shake_hands(tls, &s, SIZE_MAX);
	if (r != error)
		fail_msg("%d (%s) and not %d", r, tls->why, error);
	if (error)
		assert_says(tls, says);
	gk_tls_free(tls);
	gk_tls_context_free(context);
	server_end(&s);
}

static void the_right_server_is_let_in(void **state)
{
	static const char *const names[] = {"disk.example", "10.1.2.3", "a.wild.example", "fd00::1"};
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	struct server_wish wish = {.cert = "server"};

	(void)state;
	for (int v = 0; v < 2; v++) {
		for (int i = 0; i < 4; i++) {
			struct gk_tls_options options = options_for(names[i]);

			wish.max_version = versions[v];
			expect(&options, &wish, 0, NULL);
		}
	}
}

static void the_wrong_server_is_not(void **state)
{
	static const struct {
		const char *cert, *hostname;
		bool other;
		const char *says;
	} cases[] = {
		{"server", "other.example", false, "(of server) is not for \"other.example\""},
		{"server", "10.1.2.4", false, "is not for \"10.1.2.4\""},
		{"server", "b.a.wild.example", false, "is not for"},
		{"nameless", "nameless2", false, "is not for"},
		{"expired", "disk.example", false, "the certificate of expired has expired on 20"},
		{"early", "disk.example", false, "the certificate of early is valid only from 20"},
		{"server", "disk.example", true, "not trusted here (the other authority)"},
	};
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (int v = 0; v < 2; v++) {
			struct gk_tls_options options = options_for(cases[i].hostname);
			struct server_wish wish = {
				.cert = cases[i].cert,
				.issuer = cases[i].other ? &other_ca : NULL,
				.max_version = versions[v],
			};

			expect(&options, &wish, -EACCES, cases[i].says);
			/* Unless somebody wrote down that it does not matter. */
			options.verify = false;
			expect(&options, &wish, 0, NULL);
		}
	}
}

static void a_server_may_want_to_know_us(void **state)
{
	struct gk_tls_options options = options_for("disk.example");
	struct server_wish wish = {
		.cert = "server", .wants_client = true, .max_version = TLS1_2_VERSION};
	char cert[128], key[128];

	(void)state;
	expect(&options, &wish, -ENOTSUP, "or it wants a client certificate");
	snprintf(cert, sizeof(cert), "%s", tls_ca_path(&ca, "client.pem"));
	snprintf(key, sizeof(key), "%s", tls_ca_path(&ca, "client.key"));
	options.cert = cert;
	options.key = key;
	expect(&options, &wish, 0, NULL);
	wish.max_version = TLS1_3_VERSION;
	expect(&options, &wish, 0, NULL);
	snprintf(cert, sizeof(cert), "%s", tls_ca_path(&other_ca, "client.pem"));
	snprintf(key, sizeof(key), "%s", tls_ca_path(&other_ca, "client.key"));
	wish.max_version = TLS1_2_VERSION;
	expect(&options, &wish, -EACCES, "alert \"unknown CA\"");
}

static void versions_and_ciphers_can_be_narrowed(void **state)
{
	struct gk_tls_options options = options_for("disk.example");
	struct server_wish wish = {.cert = "server", .max_version = TLS1_2_VERSION};

	(void)state;
	options.only_1_3 = true;
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
	options.only_1_3 = false;
	options.ciphers = "TLS_AES_128_GCM_SHA256";
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
	options.ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384";
	wish.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
	options.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
	expect(&options, &wish, 0, NULL);
	options.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
	wish.ciphers = NULL;
	wish.max_version = 0;
	wish.min_version = TLS1_3_VERSION;
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
	/* Ciphers without authentication of each record are not offered. */
	options.ciphers = "";
	wish = (struct server_wish){.cert = "server",
				    .max_version = TLS1_2_VERSION,
				    .ciphers = "ECDHE-ECDSA-AES128-SHA256"};
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
}

static void a_key_that_both_know_is_enough(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	struct gk_tls_options options = options_for("");
	char psk[128], wrong[128], others[128];

	(void)state;
	snprintf(psk, sizeof(psk), "%s", tls_ca_path(&ca, "psk"));
	snprintf(wrong, sizeof(wrong), "%s", tls_ca_path(&ca, "psk-wrong"));
	snprintf(others, sizeof(others), "%s", tls_ca_path(&ca, "psk-others"));
	for (int v = 0; v < 2; v++) {
		struct server_wish wish = {.psk = true, .max_version = versions[v],
					   .ciphers = "PSK:@SECLEVEL=1"};

		options.psk_user = "";
		options.psk_file = psk;
		expect(&options, &wish, 0, NULL);
		/* The key is the proof: nothing is left to switch off. */
		options.verify = false;
		expect(&options, &wish, 0, NULL);
		options.verify = true;
		options.psk_file = wrong;
		expect(&options, &wish, -EACCES, "refuses the pre-shared key");
		options.psk_file = others;
		options.psk_user = "bob";
		expect(&options, &wish, -EACCES, "refuses the pre-shared key");
		/* A server with a certificate that nobody asked for. */
		options.psk_file = psk;
		options.psk_user = "";
		options.verify = false;
		wish = (struct server_wish){.cert = "server", .max_version = versions[v]};
		expect(&options, &wish, -EACCES,
		       v ? "a certificate instead of the pre-shared key"
			 : "refuses the pre-shared key");
		options.verify = true;
	}
}

/* -- files -- */

static void no_context(const struct gk_tls_options *options, int error, const char *says)
{
	struct gk_tls_context *context = NULL;
	char why[GK_TLS_WHY_BYTES] = "";

	assert_int_equal(gk_tls_context_new(options, why, sizeof(why), &context), error);
	assert_null(context);
	if (!strstr(why, says))
		fail_msg("\"%s\" does not say \"%s\"", why, says);
}

static void mistakes_in_files_are_named(void **state)
{
	struct gk_tls_options options = options_for("");

	(void)state;
	no_context(&options, -EINVAL, "set tls.hostname");
	options = options_for("h");
	options.ca = "/nonexistent";
	no_context(&options, -ENOENT, "cannot read tls.ca /nonexistent: No such file");
	options.ca = tls_ca_path(&ca, "psk");
	no_context(&options, -EINVAL, "holds no certificate");
	options = options_for("h");
	options.cert = tls_ca_path(&ca, "client.pem");
	no_context(&options, -EINVAL, "tls.key is missing");
	options.key = tls_ca_path(&ca, "server.key");
	no_context(&options, -EINVAL, "does not belong to tls.cert");
	options.key = tls_ca_path(&ca, "psk");
	no_context(&options, -EINVAL, "holds no key");
	options.key = tls_ca_path(&ca, "locked.key");
	no_context(&options, -EINVAL, "locked by a passphrase");
	options = options_for("h");
	options.ciphers = "NOT-A-CIPHER";
	no_context(&options, -EINVAL, "tls.ciphers has a name");
	options.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
	options.only_1_3 = true;
	no_context(&options, -EINVAL, "none of TLS 1.3");
	options = options_for("h");
	options.psk_file = tls_ca_path(&ca, "psk-others");
	no_context(&options, -EINVAL, "several users");
	options.psk_user = "eve";
	no_context(&options, -ENOKEY, "no key of user \"eve\"");
	options.psk_user = "";
	options.psk_file = tls_ca_path(&ca, "psk-bad");
	no_context(&options, -EINVAL, "line 2: the key is not");
	options.psk_file = tls_ca_path(&ca, "psk-bad2");
	no_context(&options, -EINVAL, "line 1: expected user:hexadecimal key");
}

static void warns(const struct gk_tls_options *options, const char *says)
{
	struct gk_tls_context *context = context_for(options);

	if (says ? !strstr(gk_tls_context_warning(context), says)
		 : gk_tls_context_warning(context)[0] != '\0')
		fail_msg("\"%s\" does not say \"%s\"", gk_tls_context_warning(context),
			 says ? says : "nothing");
	gk_tls_context_free(context);
}

static void what_is_unsafe_is_warned_of(void **state)
{
	struct gk_tls_options options = options_for("h");

	(void)state;
	warns(&options, NULL);
	options.cert = tls_ca_path(&ca, "client.pem");
	options.key = tls_ca_path(&ca, "client.key");
	warns(&options, NULL);
	options.key = tls_ca_path(&ca, "open.key");
	options.cert = tls_ca_path(&ca, "open.pem");
	warns(&options, "open.key may be read by every user: chmod 600");
	options.verify = false;
	warns(&options, "who the server is, is not verified");
	options = options_for("");
	options.psk_file = tls_ca_path(&ca, "psk");
	warns(&options, NULL);
	options.psk_file = tls_ca_path(&ca, "psk-open");
	warns(&options, "psk-open may be read by every user");
}

/* -- the stream -- */

/* A connection that is up, and its server. */
struct pair {
	struct gk_tls_context *context;
	struct gk_tls *tls;
	struct server s;
};

static void pair_begin(struct pair *p, int version, size_t piece)
{
	struct gk_tls_options options = options_for("disk.example");
	struct server_wish wish = {.cert = "server", .max_version = version};

	p->context = context_for(&options);
	p->tls = gk_tls_new(p->context);
	assert_non_null(p->tls);
	server_begin(&p->s, &wish);
	assert_int_equal(shake_hands(p->tls, &p->s, piece), 0);
	assert_true(SSL_is_init_finished(p->s.ssl));
}

static void pair_end(struct pair *p)
{
	gk_tls_free(p->tls);
	gk_tls_context_free(p->context);
	server_end(&p->s);
}

/* Takes the server's records in pieces; appends what is in them to buf. The last result of a read. */
static ssize_t drain(struct pair *p, size_t piece, uint8_t *buf, size_t *n)
{
	uint8_t bytes[40000];
	ssize_t got = -EAGAIN;
	size_t len;

	while ((len = from_server(&p->s, bytes, piece)) > 0) {
		for (size_t at = 0; at < len;) {
			size_t used;
			int r = gk_tls_collect(p->tls, bytes + at, len - at, &used);

			at += used;
			if (r == -EAGAIN)
				continue;
			if (r < 0)
				return r;
			while ((got = gk_tls_read(p->tls, buf + *n, 7000)) > 0)
				*n += (size_t)got;
			if (got != -EAGAIN)
				return got;
		}
	}
	return got;
}

static void pieces_of_any_size_are_the_same_stream(void **state)
{
	static const size_t pieces[] = {1, 2, 4, 5, 6, 7, 1000, 40000};
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	static uint8_t data[60000], buf[70000];

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 31 >> 3);
	for (int v = 0; v < 2; v++) {
		for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
			size_t n = 0, back = 0;
			struct pair p;

			pair_begin(&p, versions[v], pieces[i]);
			assert_int_equal(SSL_write(p.s.ssl, data, sizeof(data)), sizeof(data));
			assert_int_equal(drain(&p, pieces[i], buf, &n), -EAGAIN);
			assert_int_equal(n, sizeof(data));
			assert_memory_equal(buf, data, n);
			assert_int_equal(gk_tls_write(p.tls, data, sizeof(data)), 0);
			to_server(p.tls, &p.s);
			while (back < sizeof(data)) {
				int got = SSL_read(p.s.ssl, buf + back, (int)sizeof(buf));

				assert_true(got > 0);
				back += (size_t)got;
			}
			assert_memory_equal(buf, data, back);
			pair_end(&p);
		}
	}
}

/* Lent in one go, as a session does it; with a new key in the middle. */
static void new_keys_and_tickets_are_no_data(void **state)
{
	uint8_t bytes[65536], buf[4096];
	struct pair p;
	size_t n = 0;
	ssize_t got;

	(void)state;
	pair_begin(&p, TLS1_3_VERSION, SIZE_MAX);
	assert_true(SSL_new_session_ticket(p.s.ssl));
	assert_int_equal(SSL_write(p.s.ssl, "before", 6), 6);
	assert_true(SSL_key_update(p.s.ssl, SSL_KEY_UPDATE_REQUESTED));
	assert_int_equal(SSL_write(p.s.ssl, "behind", 6), 6);
	gk_tls_lend(p.tls, bytes, from_server(&p.s, bytes, sizeof(bytes)));
	while ((got = gk_tls_read(p.tls, buf + n, sizeof(buf) - n)) > 0)
		n += (size_t)got;
	assert_int_equal(got, -EAGAIN);
	assert_int_equal(n, 12);
	assert_memory_equal(buf, "beforebehind", 12);
	assert_true(p.tls->rekeyed);
	/* What we say next is in our new key, behind the answer to theirs. */
	assert_int_equal(gk_tls_write(p.tls, "answer", 6), 0);
	to_server(p.tls, &p.s);
	assert_int_equal(SSL_read(p.s.ssl, buf, sizeof(buf)), 6);
	/* The kernel is not told keys that are not those of the handshake. */
	assert_int_equal(gk_tls_offload(p.tls, -1, GK_TLS_SEND | GK_TLS_RECV), 0);
	pair_end(&p);
}

static void a_cut_is_no_close(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	uint8_t buf[65536];

	(void)state;
	for (int v = 0; v < 2; v++) {
		struct pair p;
		size_t n = 0;

		pair_begin(&p, versions[v], SIZE_MAX);
		assert_int_equal(SSL_write(p.s.ssl, "data", 4), 4);
		assert_int_equal(drain(&p, 40000, buf, &n), -EAGAIN);
		assert_int_equal(n, 4);
		assert_int_equal(gk_tls_eof(p.tls), -ECONNRESET);
		assert_says(p.tls, "without TLS's close_notify");
		SSL_shutdown(p.s.ssl);
		assert_int_equal(drain(&p, 40000, buf, &n), 0);
		assert_int_equal(gk_tls_eof(p.tls), -ECONNRESET);
		assert_says(p.tls, "the server closed the connection");
		assert_null(strstr(p.tls->why, "cut"));
		pair_end(&p);
	}
}

static void a_changed_byte_ends_the_connection(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	uint8_t bytes[4096], buf[4096];

	(void)state;
	for (int v = 0; v < 2; v++) {
		for (size_t at = 0; at < 60; at++) {
			struct pair p;
			size_t n, used;
			int r;

			pair_begin(&p, versions[v], SIZE_MAX);
			n = 0;
			(void)drain(&p, 40000, buf, &n); /* session tickets */
			assert_int_equal(SSL_write(p.s.ssl, bytes, 40), 40);
			n = from_server(&p.s, bytes, sizeof(bytes));
			assert_true(n > 60);
			bytes[at] ^= 0x40;
			r = gk_tls_collect(p.tls, bytes, n, &used);
			if (r == 0) {
				ssize_t got = gk_tls_read(p.tls, buf, sizeof(buf));

				assert_true(got < 0 && got != -EAGAIN);
			}
			/* A length that grew leaves the record incomplete: no data either way. */
			if (r < 0 && r != -EAGAIN)
				assert_int_equal(r, -EPROTO);
			pair_end(&p);
		}
	}
}

/* The end, and an alert, at every point at which the server has sent a record. */
static void the_handshake_may_end_anywhere(void **state)
{
	static const uint8_t alert[] = {21, 3, 3, 0, 2, 2, 40};
	uint8_t buf[65536];

	(void)state;
	for (int with_alert = 0; with_alert < 2; with_alert++) {
		for (size_t cut = 0;; cut += 40) {
			struct gk_tls_options options = options_for("disk.example");
			struct server_wish wish = {.cert = "server", .max_version = TLS1_2_VERSION};
			struct gk_tls_context *context = context_for(&options);
			struct gk_tls *tls = gk_tls_new(context);
			struct server s;
			size_t n, used;
			int r;

			server_begin(&s, &wish);
			assert_int_equal(gk_tls_handshake(tls, NULL, 0, &used), -EAGAIN);
			to_server(tls, &s);
			(void)SSL_do_handshake(s.ssl);
			n = from_server(&s, buf, sizeof(buf));
			r = cut ? gk_tls_handshake(tls, buf, cut < n ? cut : n, &used) : -EAGAIN;
			assert_int_equal(r, -EAGAIN);
			if (with_alert && tls->have == 0) {
				r = gk_tls_handshake(tls, alert, sizeof(alert), &used);
				assert_int_equal(r, -ENOTSUP);
				assert_says(tls, "handshake failure");
			} else {
				assert_int_equal(gk_tls_eof(tls), -ECONNRESET);
				assert_says(tls, "in the TLS handshake without a word");
			}
			gk_tls_free(tls);
			gk_tls_context_free(context);
			server_end(&s);
			if (cut >= n)
				break;
		}
	}
}

static void what_is_no_tls_is_said_at_once(void **state)
{
	static const char *const texts[] = {"HTTP/1.1 400 Bad Request", "\x16\x02", "NBDMAGIC", "\0"};
	struct gk_tls_options options = options_for("disk.example");

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct gk_tls_context *context = context_for(&options);
		struct gk_tls *tls = gk_tls_new(context);
		size_t used, n = i == 3 ? 1 : strlen(texts[i]);

		assert_int_equal(gk_tls_handshake(tls, NULL, 0, &used), -EAGAIN);
		assert_int_equal(gk_tls_handshake(tls, texts[i], n, &used), -EPROTO);
		assert_says(tls, "does not answer with TLS");
		gk_tls_free(tls);
		gk_tls_context_free(context);
	}
}

/* What the kernel is told must be what OpenSSL would use next. */
static void records_are_counted_from_the_first_with_the_keys(void **state)
{
	uint8_t buf[65536];

	(void)state;
	for (int v = 0; v < 2; v++) {
		uint64_t finished = v ? 0 : 1, tickets = 0;
		struct pair p;
		size_t n = 0;

		pair_begin(&p, v ? TLS1_3_VERSION : TLS1_2_VERSION, SIZE_MAX);
		assert_int_equal(gk_tls_sent_records(p.tls), finished);
		assert_int_equal(gk_tls_received_records(p.tls), finished);
		(void)drain(&p, 40000, buf, &n);
		assert_int_equal(n, 0);
		tickets = gk_tls_received_records(p.tls) - finished;
		assert_int_equal(tickets, v ? 2 : 0);
		assert_int_equal(SSL_write(p.s.ssl, buf, 16384 + 1), 16384 + 1);
		assert_int_equal(drain(&p, 3, buf, &n), -EAGAIN);
		assert_int_equal(gk_tls_received_records(p.tls), finished + tickets + 2);
		assert_int_equal(gk_tls_write(p.tls, buf, 3 * 16384), 0);
		assert_int_equal(gk_tls_write(p.tls, buf, 1), 0);
		assert_int_equal(gk_tls_sent_records(p.tls), finished + 4);
		pair_end(&p);
	}
}

static int begin_all(void **state)
{
	const struct tls_ca_wish good = {.names = "DNS:disk.example,DNS:*.wild.example,"
						  "IP:10.1.2.3,IP:fd00::1"};
	const struct tls_ca_wish expired = {.names = "DNS:disk.example", .end_s = -3600};
	const struct tls_ca_wish early = {
		.names = "DNS:disk.example", .begin_s = 3600, .end_s = 7200};
	const struct tls_ca_wish nameless = {0};

	(void)state;
	tls_ca_init(&ca, "the authority");
	tls_ca_init(&other_ca, "the other authority");
	tls_ca_issue(&ca, "server", &good);
	tls_ca_issue(&other_ca, "server", &good);
	tls_ca_issue(&ca, "expired", &expired);
	tls_ca_issue(&ca, "early", &early);
	tls_ca_issue(&ca, "nameless", &nameless);
	tls_ca_issue(&ca, "client", &nameless);
	tls_ca_issue(&other_ca, "client", &nameless);
	tls_ca_issue(&ca, "open", &nameless);
	assert_int_equal(chmod(tls_ca_path(&ca, "open.key"), 0644), 0);
	tls_ca_lock_key(&ca, "client.key", "locked.key");
	server_psk_user = "alice";
	server_psk_key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	tls_ca_write(&ca, "psk",
		     "# of the test\n"
		     "alice:00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF\n",
		     0600);
	tls_ca_write(&ca, "psk-open", "alice:0011\n", 0644);
	tls_ca_write(&ca, "psk-wrong",
		     "alice:10112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n", 0600);
	tls_ca_write(&ca, "psk-others", "bob:0011223344556677\r\ncarol:00", 0600);
	tls_ca_write(&ca, "psk-bad", "\nalice:001\n", 0600);
	tls_ca_write(&ca, "psk-bad2", "0011223344\n", 0600);
	return 0;
}

static int end_all(void **state)
{
	(void)state;
	tls_ca_done(&ca);
	tls_ca_done(&other_ca);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_right_server_is_let_in),
		cmocka_unit_test(the_wrong_server_is_not),
		cmocka_unit_test(a_server_may_want_to_know_us),
		cmocka_unit_test(versions_and_ciphers_can_be_narrowed),
		cmocka_unit_test(a_key_that_both_know_is_enough),
		cmocka_unit_test(mistakes_in_files_are_named),
		cmocka_unit_test(what_is_unsafe_is_warned_of),
		cmocka_unit_test(pieces_of_any_size_are_the_same_stream),
		cmocka_unit_test(new_keys_and_tickets_are_no_data),
		cmocka_unit_test(a_cut_is_no_close),
		cmocka_unit_test(a_changed_byte_ends_the_connection),
		cmocka_unit_test(the_handshake_may_end_anywhere),
		cmocka_unit_test(what_is_no_tls_is_said_at_once),
		cmocka_unit_test(records_are_counted_from_the_first_with_the_keys),
	};

	return cmocka_run_group_tests(tests, begin_all, end_all);
}
