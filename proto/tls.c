// SPDX-License-Identifier: MIT
#include "tls.h"

#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls_records.h"

int gk_tls_fail(struct gk_tls *tls, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(tls->why, sizeof(tls->why), format, args);
	va_end(args);
	return error;
}

/* -- OpenSSL's view of the socket -- */

static int bio_read(BIO *bio, char *buf, size_t len, size_t *ret_n)
{
	struct gk_tls *tls = BIO_get_data(bio);
	size_t n = len < tls->in_len ? len : tls->in_len;

	BIO_clear_retry_flags(bio);
	if (!n) {
		BIO_set_retry_read(bio);
		return 0;
	}
	memcpy(buf, tls->in, n);
	tls->in += n;
	tls->in_len -= n;
	*ret_n = n;
	return 1;
}

static void count(struct gk_tls_count *c, const uint8_t *bytes, size_t len)
{
	while (len) {
		size_t n = len;

		if (!c->left) {
			c->header[c->have++] = *bytes;
			n = 1;
			if (c->have == GK_TLS_HEADER_BYTES) {
				c->left = (size_t)c->header[3] << 8 | c->header[4];
				c->have = 0;
				c->records += !c->left;
			}
		} else {
			if (n > c->left)
				n = c->left;
			c->left -= n;
			c->records += !c->left;
		}
		bytes += n;
		len -= n;
	}
}

static int bio_write(BIO *bio, const char *buf, size_t len, size_t *ret_n)
{
	struct gk_tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	if (len > GK_TLS_OUT_BYTES - tls->out_len) {
		tls->overflow = true;
		return 0;
	}
	memcpy(tls->out + tls->out_len, buf, len);
	tls->out_len += len;
	count(&tls->sent, (const uint8_t *)buf, len);
	*ret_n = len;
	return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *arg)
{
	(void)bio, (void)number, (void)arg;
	return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *method;
static pthread_mutex_t method_lock = PTHREAD_MUTEX_INITIALIZER;

/* For as long as the process lives; NULL: no memory for it this time. */
static const BIO_METHOD *find_method(void)
{
	BIO_METHOD *m;

	pthread_mutex_lock(&method_lock);
	m = method ? NULL : BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "gkproxy");

	if (m && BIO_meth_set_read_ex(m, bio_read) && BIO_meth_set_write_ex(m, bio_write) &&
	    BIO_meth_set_ctrl(m, bio_ctrl))
		method = m;
	else
		BIO_meth_free(m);
	m = method;
	pthread_mutex_unlock(&method_lock);
	return m;
}

static BIO *open_bio(struct gk_tls *tls)
{
	const BIO_METHOD *m = find_method();
	BIO *bio = m ? BIO_new(m) : NULL;

	if (bio) {
		BIO_set_data(bio, tls);
		BIO_set_init(bio, 1);
	}
	return bio;
}

/* Every message of the protocol passes here: for what OpenSSL handles in silence. */
static void note_message(int write_p, int version, int type, const void *buf, size_t len, SSL *ssl,
			 void *arg)
{
	struct gk_tls *tls = arg;
	const uint8_t *bytes = buf;

	(void)version, (void)ssl;
	if (type == SSL3_RT_HANDSHAKE && len && bytes[0] == GK_TLS_MESSAGE_KEY_UPDATE)
		tls->rekeyed = true;
	if (type == SSL3_RT_ALERT && !write_p && len == 2) {
		if (bytes[1] == SSL_AD_CLOSE_NOTIFY)
			tls->ended = true;
		else if (bytes[0] == SSL3_AL_FATAL)
			tls->alert = bytes[1];
	}
}

struct gk_tls *gk_tls_new(const struct gk_tls_context *context)
{
	struct gk_tls *tls = calloc(1, sizeof(*tls));
	BIO *bio = NULL;

	if (!tls)
		return NULL;
	tls->context = context;
	tls->alert = -1;
	tls->out = malloc(GK_TLS_OUT_BYTES);
	tls->ssl = gk_tls_context_open(context, tls);
	if (tls->ssl && tls->out)
		bio = open_bio(tls);
	if (!bio) {
		gk_tls_free(tls);
		return NULL;
	}
	SSL_set_bio(tls->ssl, bio, bio);
	SSL_set_connect_state(tls->ssl);
	SSL_set_msg_callback(tls->ssl, note_message);
	SSL_set_msg_callback_arg(tls->ssl, tls);
	return tls;
}

void gk_tls_free(struct gk_tls *tls)
{
	if (!tls)
		return;
	SSL_free(tls->ssl);
	gk_tls_records_end(tls->records);
	free(tls->out);
	OPENSSL_cleanse(tls, sizeof(*tls));
	free(tls);
}

/* -- failures in words -- */

static const char *openssl_reason(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	return reason ? reason : "no reason known";
}

const char *gk_tls_alert_name(int alert)
{
	return SSL_alert_desc_string_long(alert);
}

/* The name that a certificate gives, shortened and harmless. */
static const char *shown_name(X509_NAME *name, char *dst, size_t size)
{
	int n = X509_NAME_get_text_by_NID(name, NID_commonName, dst, (int)size);

	if (n <= 0)
		snprintf(dst, size, "unnamed");
	for (char *c = dst; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return dst;
}

static const char *shown_time(const ASN1_TIME *time, char *dst, size_t size)
{
	struct tm tm;

	if (!ASN1_TIME_to_tm(time, &tm) || !strftime(dst, size, "%Y-%m-%d %H:%M UTC", &tm))
		snprintf(dst, size, "an unknown date");
	return dst;
}

/* OpenSSL asks for every certificate of the chain; it forgets those that it refused. */
int gk_tls_verified(int good, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	X509 *cert = X509_STORE_CTX_get_current_cert(store);
	struct gk_tls *tls = SSL_get_app_data(ssl);
	struct gk_tls_bad_cert *bad = &tls->bad_cert;

	if (good)
		return good;
	bad->verdict = X509_STORE_CTX_get_error(store);
	if (cert) {
		shown_name(X509_get_subject_name(cert), bad->subject, sizeof(bad->subject));
		shown_name(X509_get_issuer_name(cert), bad->issuer, sizeof(bad->issuer));
		shown_time(X509_get0_notBefore(cert), bad->begin, sizeof(bad->begin));
		shown_time(X509_get0_notAfter(cert), bad->end, sizeof(bad->end));
	}
	return good;
}

/* The server's certificate is not good enough. */
static int not_verified(struct gk_tls *tls)
{
	const struct gk_tls_bad_cert *bad = &tls->bad_cert;

	switch (bad->verdict) {
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return gk_tls_fail(
			tls, -EACCES,
			"the server's certificate (of %s) is not for \"%.200s\": use a name that "
			"stands in it, or set tls.hostname to one",
			bad->subject, gk_tls_context_hostname(tls->context));
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return gk_tls_fail(
			tls, -EACCES,
			"the certificate of %s has expired on %s: renew it on the server; is "
			"this host's clock right?",
			bad->subject, bad->end);
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return gk_tls_fail(
			tls, -EACCES,
			"the certificate of %s is valid only from %s on: is this host's clock "
			"right?",
			bad->subject, bad->begin);
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		return gk_tls_fail(
			tls, -EACCES,
			"the server's certificate was issued by an authority that is not "
			"trusted here (%s): set tls.ca to the certificate of the authority that "
			"issued it",
			bad->issuer);
	default:
		return gk_tls_fail(tls, -EACCES, "the server's certificate is refused: %s",
				   X509_verify_cert_error_string(bad->verdict));
	}
}

static int had_alert(struct gk_tls *tls)
{
	const char *name = gk_tls_alert_name(tls->alert);

	if (gk_tls_context_is_psk(tls->context))
		return gk_tls_fail(
			tls, -EACCES,
			"the server refuses the pre-shared key (alert \"%s\"): does it know the "
			"user, with the same key as tls.psk_file, and does it use keys at all?",
			name);
	if (tls->alert == SSL_AD_PROTOCOL_VERSION || tls->alert == SSL_AD_HANDSHAKE_FAILURE ||
	    tls->alert == SSL_AD_INSUFFICIENT_SECURITY)
		return gk_tls_fail(
			tls, -ENOTSUP,
			"the server shares no TLS version or cipher with this configuration "
			"(alert \"%s\"): compare tls.min_version and tls.ciphers; or it wants a "
			"client certificate (tls.cert, tls.key), or a key (tls.psk_file)",
			name);
	return gk_tls_fail(
		tls, -EACCES,
		"the server ends the TLS handshake with the alert \"%s\": does it want a client "
		"certificate (tls.cert, tls.key), or another one?",
		name);
}

static int handshake_failed(struct gk_tls *tls)
{
	if (tls->alert >= 0)
		return had_alert(tls);
	if (tls->bad_cert.verdict && gk_tls_context_is_psk(tls->context))
		return gk_tls_fail(
			tls, -EACCES,
			"the server answers with a certificate instead of the pre-shared key: "
			"start it with keys, or set tls.ca instead of tls.psk_file");
	if (tls->bad_cert.verdict)
		return not_verified(tls);
	switch (ERR_GET_REASON(ERR_peek_last_error())) {
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_VERSION_TOO_LOW:
		return gk_tls_fail(tls, -ENOTSUP,
				   "the server has only TLS versions that tls.min_version forbids");
	}
	return gk_tls_fail(tls, -EPROTO, "the TLS handshake failed: %s", openssl_reason());
}

/* After the handshake. */
int gk_tls_failed(struct gk_tls *tls)
{
	if (tls->overflow)
		return gk_tls_fail(tls, -EPROTO, "the server wants more said of TLS than is sound");
	if (tls->alert >= 0)
		return gk_tls_fail(tls, -ECONNRESET, "the server ended TLS with the alert \"%s\"",
				   gk_tls_alert_name(tls->alert));
	return gk_tls_fail(tls, -EPROTO, "not a valid TLS record: %s", openssl_reason());
}

/* -- the handshake -- */

size_t gk_tls_missing(const struct gk_tls *tls)
{
	size_t len = GK_TLS_HEADER_BYTES;

	if (tls->have >= GK_TLS_HEADER_BYTES)
		len += (size_t)tls->record[3] << 8 | tls->record[4];
	return len - tls->have;
}

static bool whole(const struct gk_tls *tls)
{
	return tls->have >= GK_TLS_HEADER_BYTES && !gk_tls_missing(tls);
}

static bool looks_like_tls(const struct gk_tls *tls)
{
	return tls->record[0] >= 20 && tls->record[0] <= 23 &&
	       (tls->have < 2 || tls->record[1] == 3);
}

/* Takes bytes of one record. 0: it is whole, and lent to OpenSSL. */
static int collect(struct gk_tls *tls, const uint8_t *bytes, size_t len, size_t *ret_used)
{
	size_t used = 0;

	while (used < len && !whole(tls)) {
		size_t n = gk_tls_missing(tls);

		if (n > GK_TLS_MAX_RECORD_BYTES - tls->have)
			return gk_tls_fail(tls, -EPROTO,
					   "the server sends a TLS record that is too long");
		if (n > len - used)
			n = len - used;
		memcpy(tls->record + tls->have, bytes + used, n);
		tls->have += n;
		used += n;
		*ret_used = used;
		if (!looks_like_tls(tls))
			return gk_tls_fail(
				tls, -EPROTO,
				"the server does not answer with TLS: is it what it should be?");
	}
	if (!whole(tls))
		return -EAGAIN;
	count(&tls->received, tls->record, tls->have);
	gk_tls_lend(tls, tls->record, tls->have);
	tls->have = 0;
	return 0;
}

/* A key that both sides know is what the handshake must have rested on. */
static bool used_psk(const struct gk_tls *tls)
{
	if (SSL_version(tls->ssl) >= TLS1_3_VERSION)
		return SSL_session_reused(tls->ssl);
	return SSL_CIPHER_get_auth_nid(SSL_get_current_cipher(tls->ssl)) == NID_auth_psk;
}

static int handshake_step(struct gk_tls *tls)
{
	int r;

	ERR_clear_error();
	r = SSL_do_handshake(tls->ssl);
	if (r == 1) {
		if (gk_tls_context_is_psk(tls->context) && !used_psk(tls))
			return gk_tls_fail(tls, -EACCES,
					   "the server did not use the pre-shared key");
		tls->up = true;
		tls->sent_before = tls->sent.records;
		tls->received_before = tls->received.records;
		tls->context = NULL;
		return 0;
	}
	if (tls->overflow || SSL_get_error(tls->ssl, r) != SSL_ERROR_WANT_READ)
		r = handshake_failed(tls);
	else
		r = -EAGAIN;
	ERR_clear_error();
	return r;
}

int gk_tls_handshake(struct gk_tls *tls, const void *bytes, size_t len, size_t *ret_used)
{
	const uint8_t *p = bytes;
	size_t used = 0, n;
	int r = -EAGAIN;

	if (!len)
		r = handshake_step(tls);
	while (r == -EAGAIN && used < len) {
		n = 0;
		r = collect(tls, p + used, len - used, &n);
		used += n;
		if (r == 0)
			r = handshake_step(tls);
	}
	*ret_used = used;
	return r;
}

/* -- data -- */

int gk_tls_collect(struct gk_tls *tls, const void *bytes, size_t len, size_t *ret_used)
{
	assert(!tls->records);
	*ret_used = 0;
	return collect(tls, bytes, len, ret_used);
}

void gk_tls_lend(struct gk_tls *tls, const void *bytes, size_t len)
{
	assert(!tls->in_len);
	tls->in = bytes;
	tls->in_len = len;
}

ssize_t gk_tls_read(struct gk_tls *tls, void *buf, size_t len)
{
	size_t n = 0;
	ssize_t r;

	if (tls->records && tls->records->open.cipher)
		return gk_tls_records_read(tls, buf, len);
	ERR_clear_error();
	if (SSL_read_ex(tls->ssl, buf, len, &n)) {
		r = (ssize_t)n;
	} else {
		switch (SSL_get_error(tls->ssl, 0)) {
		case SSL_ERROR_WANT_READ:
			r = tls->overflow ? gk_tls_failed(tls) : -EAGAIN;
			break;
		case SSL_ERROR_ZERO_RETURN:
			r = 0;
			break;
		default:
			r = gk_tls_failed(tls);
		}
	}
	ERR_clear_error();
	return r;
}

bool gk_tls_pending(const struct gk_tls *tls)
{
	return SSL_has_pending(tls->ssl) || tls->in_len || tls->have ||
	       (tls->records && tls->records->from < tls->records->to);
}

int gk_tls_write(struct gk_tls *tls, const void *bytes, size_t len)
{
	size_t n = 0;
	int r = 0;

	if (tls->records && tls->records->seal.cipher)
		return gk_tls_records_write(tls, bytes, len);
	ERR_clear_error();
	if (len && !SSL_write_ex(tls->ssl, bytes, len, &n))
		r = gk_tls_failed(tls);
	assert(r || n == len);
	ERR_clear_error();
	return r;
}

void gk_tls_close(struct gk_tls *tls)
{
	if (tls->records && tls->records->seal.cipher) {
		gk_tls_records_close(tls);
		return;
	}
	ERR_clear_error();
	if (tls->up)
		(void)SSL_shutdown(tls->ssl);
	ERR_clear_error();
}

int gk_tls_eof(struct gk_tls *tls)
{
	if (!tls->up && gk_tls_context_is_psk(tls->context))
		return gk_tls_fail(
			tls, -ECONNRESET,
			"the server closed the connection in the TLS handshake without a word: "
			"does it know the user, with the same key as tls.psk_file, and does it "
			"use keys at all?");
	if (!tls->up)
		return gk_tls_fail(
			tls, -ECONNRESET,
			"the server closed the connection in the TLS handshake without a word: "
			"its log may say why; does it want a client certificate (tls.cert, "
			"tls.key), another one, or a pre-shared key?");
	if (tls->ended)
		return gk_tls_fail(tls, -ECONNRESET, "the server closed the connection");
	return gk_tls_fail(tls, -ECONNRESET,
			   "the connection was cut: it ended without TLS's close_notify");
}

const char *gk_tls_version(const struct gk_tls *tls)
{
	return SSL_get_version(tls->ssl);
}

const char *gk_tls_cipher(const struct gk_tls *tls)
{
	return SSL_get_cipher_name(tls->ssl);
}

uint64_t gk_tls_sent_records(const struct gk_tls *tls)
{
	/* Before TLS 1.3 the handshake's last message already has the keys of the data. */
	return tls->sent.records - tls->sent_before + (SSL_version(tls->ssl) < TLS1_3_VERSION);
}

uint64_t gk_tls_received_records(const struct gk_tls *tls)
{
	return tls->received.records - tls->received_before +
	       (SSL_version(tls->ssl) < TLS1_3_VERSION);
}
