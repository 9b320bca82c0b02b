// SPDX-License-Identifier: MIT
/* Everything about TLS that stands in files and settings, before there is a connection. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tls.h"

#define MAX_PSK_FILE  65536
#define MAX_PSK_BYTES 256 /* what OpenSSL 3.0 takes, and its user names */
#define MAX_PSK_USER  128

/* Only ciphers that authenticate what they encrypt, which are also those that the kernel has. */
#define CERT_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!PSK:!aNULL"
#define ALWAYS_NOT   ":!aNULL:!eNULL"
#define PSK_CIPHERS                                                                                \
	"DHE-PSK-AES256-GCM-SHA384:DHE-PSK-AES128-GCM-SHA256:ECDHE-PSK-CHACHA20-POLY1305:"         \
	"DHE-PSK-CHACHA20-POLY1305:PSK-AES256-GCM-SHA384:PSK-AES128-GCM-SHA256:"                   \
	"PSK-CHACHA20-POLY1305"
/* A pre-shared key is tied to a hash, and without a word about it that is SHA-256. */
#define PSK_SUITES "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"

struct gk_tls_context {
	SSL_CTX *ssl;
	char *hostname; /* "": neither said nor checked */
	bool psk;
	char psk_user[MAX_PSK_USER + 1];
	uint8_t psk_key[MAX_PSK_BYTES];
	size_t psk_len;
	char warning[GK_TLS_WHY_BYTES];
};

/* While a context is being made. */
struct maker {
	struct gk_tls_context *context;
	const struct gk_tls_options *options;
	char *why;
	size_t size;
};

__attribute__((format(printf, 3, 4))) static int fail(const struct maker *m, int error,
						      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(m->why, m->size, format, args);
	va_end(args);
	return error;
}

__attribute__((format(printf, 2, 3))) static void warn(struct gk_tls_context *context,
						       const char *format, ...)
{
	size_t n = strlen(context->warning);
	va_list args;

	if (n && n < sizeof(context->warning) - 2)
		n += (size_t)snprintf(context->warning + n, sizeof(context->warning) - n, "; ");
	va_start(args, format);
	vsnprintf(context->warning + n, sizeof(context->warning) - n, format, args);
	va_end(args);
}

static const char *openssl_reason(void)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	return reason ? reason : "no reason known";
}

/* 0, or -errno with the reason: what is to be read can be, and a secret only by few. */
static int check_file(const struct maker *m, const char *what, const char *path, bool secret)
{
	struct stat st;

	/* access() forgets the capabilities of who is not root. */
	if (faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) < 0 || stat(path, &st) < 0) {
		int r = -errno;

		return fail(m, r, "cannot read %s %s: %s", what, path, strerror(-r));
	}
	if (secret && st.st_mode & S_IROTH)
		warn(m->context, "%s %s may be read by every user: chmod 600", what, path);
	return 0;
}

/* -- pre-shared keys -- */

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The digits up to len as bytes: how many, or -1. */
static ssize_t from_hex(const char *text, size_t len, uint8_t *dst, size_t room)
{
	if (len == 0 || len % 2 || len / 2 > room)
		return -1;
	for (size_t i = 0; i < len / 2; i++) {
		int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -1;
		dst[i] = (uint8_t)(high << 4 | low);
	}
	return (ssize_t)(len / 2);
}

/* One line of the file, without its end. 1: it was the user's; 0: not; -errno with the reason. */
static int take_psk_line(const struct maker *m, const char *line, size_t len, unsigned int number)
{
	struct gk_tls_context *context = m->context;
	const char *wanted = m->options->psk_user;
	const char *colon = len ? memchr(line, ':', len) : NULL;
	size_t user_len;
	ssize_t n;

	if (len == 0 || line[0] == '#')
		return 0;
	user_len = colon ? (size_t)(colon - line) : 0;
	if (!user_len || user_len > MAX_PSK_USER)
		return fail(m, -EINVAL, "%s, line %u: expected user:hexadecimal key",
			    m->options->psk_file, number);
	if (*wanted && (strlen(wanted) != user_len || memcmp(wanted, line, user_len) != 0))
		return 0;
	if (context->psk_len)
		return fail(m, -EINVAL,
			    "%s has several %s: name the user in the URI, as in "
			    "nbds://user@host/",
			    m->options->psk_file, *wanted ? "keys of that user" : "users");
	n = from_hex(colon + 1, len - user_len - 1, context->psk_key, sizeof(context->psk_key));
	if (n < 0)
		return fail(m, -EINVAL,
			    "%s, line %u: the key is not of 1 to %d bytes in hexadecimal digits",
			    m->options->psk_file, number, MAX_PSK_BYTES);
	memcpy(context->psk_user, line, user_len);
	context->psk_user[user_len] = '\0';
	context->psk_len = (size_t)n;
	return 1;
}

static int take_psk_text(const struct maker *m, const char *text, size_t n)
{
	const char *end = text + n;
	int r = 0;

	for (unsigned int number = 1; r >= 0 && text < end; number++) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));
		size_t len = (size_t)((eol ? eol : end) - text);

		if (len && text[len - 1] == '\r')
			r = take_psk_line(m, text, len - 1, number);
		else
			r = take_psk_line(m, text, len, number);
		text = eol ? eol + 1 : end;
	}
	if (r < 0)
		return r;
	if (!m->context->psk_len)
		return fail(m, -ENOKEY, "%s has no key of user \"%s\"", m->options->psk_file,
			    m->options->psk_user);
	return 0;
}

static int load_psk(const struct maker *m)
{
	const char *path = m->options->psk_file;
	char *text = malloc(MAX_PSK_FILE);
	ssize_t n = 0, got = 1;
	int fd, r;

	if (!text)
		return fail(m, -ENOMEM, "out of memory");
	r = check_file(m, "tls.psk_file", path, true);
	fd = r ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && got > 0 && n < MAX_PSK_FILE) {
		got = read(fd, text + n, (size_t)(MAX_PSK_FILE - n));
		n += got > 0 ? got : 0;
	}
	if (!r && (fd < 0 || got < 0))
		r = fail(m, -errno, "cannot read tls.psk_file %s: %s", path, strerror(errno));
	else if (!r && n == MAX_PSK_FILE)
		r = fail(m, -EFBIG, "tls.psk_file %s is too large", path);
	if (!r)
		r = take_psk_text(m, text, (size_t)n);
	if (fd >= 0)
		close(fd);
	OPENSSL_cleanse(text, MAX_PSK_FILE);
	free(text);
	return r;
}

static const struct gk_tls_context *context_of(const SSL *ssl)
{
	return ((const struct gk_tls *)SSL_get_app_data(ssl))->context;
}

static unsigned int give_psk(SSL *ssl, const char *hint, char *identity, unsigned int identity_room,
			     unsigned char *psk, unsigned int psk_room)
{
	const struct gk_tls_context *context = context_of(ssl);

	(void)hint;
	if (!context || strlen(context->psk_user) >= identity_room || context->psk_len > psk_room)
		return 0;
	strcpy(identity, context->psk_user);
	memcpy(psk, context->psk_key, context->psk_len);
	return (unsigned int)context->psk_len;
}

/* -- certificates -- */

static int no_passphrase(char *buf, int size, int writing, void *arg)
{
	bool *asked = arg;

	(void)buf, (void)size, (void)writing;
	*asked = true;
	return -1;
}

static int load_trust(const struct maker *m)
{
	const char *ca = m->options->ca;
	SSL_CTX *ssl = m->context->ssl;
	struct stat st;
	int r;

	if (!*ca)
		return SSL_CTX_set_default_verify_paths(ssl)
			       ? 0
			       : fail(m, -EIO, "cannot load the system's authorities");
	r = check_file(m, "tls.ca", ca, false);
	if (r)
		return r;
	if (stat(ca, &st) == 0 && S_ISDIR(st.st_mode) ? SSL_CTX_load_verify_dir(ssl, ca)
						      : SSL_CTX_load_verify_file(ssl, ca))
		return 0;
	return fail(m, -EINVAL, "tls.ca %s holds no certificate that can be read (%s)", ca,
		    openssl_reason());
}

static int load_own(const struct maker *m)
{
	const char *cert = m->options->cert, *key = m->options->key;
	SSL_CTX *ssl = m->context->ssl;
	bool asked = false;
	int r;

	if (!*cert && !*key)
		return 0;
	if (!*cert || !*key)
		return fail(m, -EINVAL, "tls.cert and tls.key go together: %s is missing",
			    *cert ? "tls.key" : "tls.cert");
	r = check_file(m, "tls.cert", cert, false);
	if (!r)
		r = check_file(m, "tls.key", key, true);
	if (r)
		return r;
	if (!SSL_CTX_use_certificate_chain_file(ssl, cert))
		return fail(m, -EINVAL, "tls.cert %s holds no certificate that can be read (%s)",
			    cert, openssl_reason());
	SSL_CTX_set_default_passwd_cb(ssl, no_passphrase);
	SSL_CTX_set_default_passwd_cb_userdata(ssl, &asked);
	r = SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM);
	SSL_CTX_set_default_passwd_cb_userdata(ssl, NULL);
	if (asked)
		return fail(m, -EINVAL,
			    "tls.key %s is locked by a passphrase, which nobody can type here: use "
			    "one without",
			    key);
	if (!r && ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH)
		return fail(m, -EINVAL, "tls.key %s does not belong to tls.cert %s", key, cert);
	if (!r)
		return fail(m, -EINVAL, "tls.key %s holds no key that can be read (%s)", key,
			    openssl_reason());
	if (!SSL_CTX_check_private_key(ssl))
		return fail(m, -EINVAL, "tls.key %s does not belong to tls.cert %s", key, cert);
	return 0;
}

static int setup_certificates(const struct maker *m)
{
	const struct gk_tls_options *options = m->options;
	int r;

	if (options->verify && !*options->hostname)
		return fail(m, -EINVAL,
			    "the URI names no host, so the name in the server's certificate cannot "
			    "be checked: set tls.hostname");
	SSL_CTX_set_verify(m->context->ssl, options->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE,
			   options->verify ? gk_tls_verified : NULL);
	r = options->verify ? load_trust(m) : 0;
	if (!r)
		r = load_own(m);
	if (!options->verify)
		warn(m->context, "who the server is, is not verified (tls.verify = false): whoever "
				 "can reach the network in between can read and change all data");
	return r;
}

static int setup_psk(const struct maker *m)
{
	int r = load_psk(m);

	if (r)
		return r;
	m->context->psk = true;
	SSL_CTX_set_psk_client_callback(m->context->ssl, give_psk);
	/* No authority is loaded: a certificate instead of the key is never good enough. */
	SSL_CTX_set_verify(m->context->ssl, SSL_VERIFY_PEER, gk_tls_verified);
	return 0;
}

/* -- versions and ciphers -- */

/*
 * Names of TLS 1.3 begin with "TLS_", older ones do not. Versions without a cipher are refused. At
 * "@SECLEVEL=0" many a group of names holds ciphers without a certificate: with those OpenSSL would
 * ask nobody who the server is.
 */
static int set_ciphers(const struct maker *m)
{
	const char *default_list = m->context->psk ? PSK_CIPHERS : CERT_CIPHERS;
	const char *given = m->options->ciphers;
	SSL_CTX *ssl = m->context->ssl;
	char suites[1024] = "", list[sizeof(suites) + sizeof(ALWAYS_NOT)] = "";

	if (!*given) {
		if (m->context->psk && !SSL_CTX_set_ciphersuites(ssl, PSK_SUITES))
			return fail(m, -ENOTSUP, "OpenSSL lacks %s", PSK_SUITES);
		return SSL_CTX_set_cipher_list(ssl, default_list)
			       ? 0
			       : fail(m, -ENOTSUP, "OpenSSL lacks %s", default_list);
	}
	if (strlen(given) >= sizeof(suites))
		return fail(m, -EINVAL, "tls.ciphers is too long");
	while (*given) {
		size_t n = strcspn(given, ":");
		char *to = strncmp(given, "TLS_", 4) ? list : suites;

		if (n)
			sprintf(to + strlen(to), "%s%.*s", *to ? ":" : "", (int)n, given);
		given += n + (given[n] == ':');
	}
	if (*list)
		strcat(list, ALWAYS_NOT);
	if ((*suites && !SSL_CTX_set_ciphersuites(ssl, suites)) ||
	    (*list && !SSL_CTX_set_cipher_list(ssl, list)) || (!*suites && !*list))
		return fail(m, -EINVAL,
			    "tls.ciphers has a name that OpenSSL does not know (\"openssl ciphers "
			    "-s\" lists them), or none that encrypts and proves who the server is");
	if (!*suites)
		SSL_CTX_set_max_proto_version(ssl, TLS1_2_VERSION);
	if (!*list)
		SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION);
	if (!*suites && m->options->only_1_3)
		return fail(m, -EINVAL, "tls.ciphers has none of TLS 1.3, the only version allowed");
	return 0;
}

int gk_tls_context_new(const struct gk_tls_options *options, char *why, size_t size,
		       struct gk_tls_context **ret_context)
{
	struct gk_tls_context *context = calloc(1, sizeof(*context));
	struct maker m = {context, options, why, size};
	int r = 0;

	ERR_clear_error();
	if (!context)
		return fail(&m, -ENOMEM, "out of memory");
	context->hostname = strdup(options->hostname);
	context->ssl = SSL_CTX_new(TLS_client_method());
	if (!context->ssl || !context->hostname)
		r = fail(&m, -ENOMEM, "OpenSSL cannot be set up (%s)", openssl_reason());
	if (!r) {
		SSL_CTX_set_min_proto_version(context->ssl, options->only_1_3 ? TLS1_3_VERSION
									      : TLS1_2_VERSION);
		SSL_CTX_set_session_cache_mode(context->ssl, SSL_SESS_CACHE_OFF);
		SSL_CTX_set_options(context->ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
							  SSL_OP_NO_COMPRESSION);
		SSL_CTX_set_keylog_callback(context->ssl, gk_tls_note_secret);
		r = *options->psk_file ? setup_psk(&m) : setup_certificates(&m);
	}
	if (!r)
		r = set_ciphers(&m);
	ERR_clear_error();
	if (r)
		gk_tls_context_free(context);
	else
		*ret_context = context;
	return r;
}

void gk_tls_context_free(struct gk_tls_context *context)
{
	if (!context)
		return;
	SSL_CTX_free(context->ssl);
	free(context->hostname);
	OPENSSL_cleanse(context, sizeof(*context));
	free(context);
}

const char *gk_tls_context_warning(const struct gk_tls_context *context)
{
	return context->warning;
}

bool gk_tls_context_is_psk(const struct gk_tls_context *context)
{
	return context->psk;
}

const char *gk_tls_context_hostname(const struct gk_tls_context *context)
{
	return context->hostname;
}

/* An address is compared with addresses in the certificate, and is no server name indication. */
static bool set_hostname(SSL *ssl, const char *name)
{
	struct in6_addr address;
	char bare[INET6_ADDRSTRLEN];
	size_t n = strcspn(name, "%"); /* a zone is no part of it */

	if (n < sizeof(bare)) {
		memcpy(bare, name, n);
		bare[n] = '\0';
		if (inet_pton(AF_INET, bare, &address) == 1 ||
		    inet_pton(AF_INET6, bare, &address) == 1)
			return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), bare);
	}
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, name) && SSL_set_tlsext_host_name(ssl, name);
}

SSL *gk_tls_context_open(const struct gk_tls_context *context, void *arg)
{
	SSL *ssl = SSL_new(context->ssl);

	if (!ssl)
		return NULL;
	SSL_set_app_data(ssl, arg);
	if (context->hostname[0] && !context->psk && !set_hostname(ssl, context->hostname)) {
		SSL_free(ssl);
		return NULL;
	}
	return ssl;
}
