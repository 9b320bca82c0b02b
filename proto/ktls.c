// SPDX-License-Identifier: MIT
/*
 * Hands a connection's keys to the kernel (Linux: Documentation/networking/tls.rst). They are
 * derived here from the secrets of the handshake, not by OpenSSL's own kTLS: that needs the socket
 * during the handshake, and has no receiving side for TLS 1.3 before version 3.2.
 */
#include <assert.h>
#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/socket.h>

#include "tls.h"

#ifndef TLS_RX_EXPECT_NO_PAD
#define TLS_RX_EXPECT_NO_PAD 4
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif

#define SALT_BYTES 4U /* the part of an AES-GCM nonce that TLS 1.2 keeps to itself */
#define IV_BYTES   12U
#define MAX_KEY	   32U

enum side { OURS, SERVERS };

/* What encrypts the records of one direction. */
struct keys {
	uint8_t key[MAX_KEY];
	uint8_t iv[IV_BYTES]; /* TLS 1.2, AES-GCM: the first SALT_BYTES of it, then 0 */
};

static int hex_value(char c)
{
	return c >= 'a' ? c - 'a' + 10 : c - '0';
}

/* "LABEL CLIENT_RANDOM SECRET", all but the label in lower-case hexadecimal digits. */
void gk_tls_note_secret(const SSL *ssl, const char *line)
{
	static const char *const labels[] = {
		[OURS] = "CLIENT_TRAFFIC_SECRET_0 ",
		[SERVERS] = "SERVER_TRAFFIC_SECRET_0 ",
	};
	struct gk_tls *tls = SSL_get_app_data(ssl);

	for (int side = OURS; side <= SERVERS; side++) {
		const char *hex = strrchr(line, ' ');
		size_t n = hex ? strlen(++hex) / 2 : 0;

		if (strncmp(line, labels[side], strlen(labels[side])) != 0 ||
		    n > sizeof(tls->secret[side]))
			continue;
		tls->secret_len = n;
		for (size_t i = 0; i < n; i++)
			tls->secret[side][i] = (uint8_t)(hex_value(hex[2 * i]) << 4 |
							 hex_value(hex[2 * i + 1]));
	}
}

static bool derive(const char *kdf_name, const OSSL_PARAM *params, uint8_t *out, size_t len)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, kdf_name, NULL);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	bool done = ctx && EVP_KDF_derive(ctx, out, len, params) > 0;

	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return done;
}

static const char *digest_name(const struct gk_tls *tls)
{
	const EVP_MD *md = SSL_CIPHER_get_handshake_digest(SSL_get_current_cipher(tls->ssl));

	return md ? EVP_MD_get0_name(md) : NULL;
}

/* HKDF-Expand-Label(secret, label, "", len): RFC 8446, 7.3. */
static bool expand(const struct gk_tls *tls, enum side side, const char *label, uint8_t *out,
		   size_t len)
{
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest_name(tls),
						 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)tls->secret[side],
						  tls->secret_len),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, (void *)"tls13 ", 6),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (void *)label,
						  strlen(label)),
		OSSL_PARAM_construct_end(),
	};

	return derive(OSSL_KDF_NAME_TLS1_3_KDF, params, out, len);
}

/* key_block of RFC 5246, 6.3: client's key, server's key, client's IV, server's IV. */
static bool expand_1_2(const struct gk_tls *tls, size_t key_len, size_t iv_len, uint8_t *block)
{
	uint8_t master[SSL_MAX_MASTER_KEY_LENGTH], seed[13 + 2 * SSL3_RANDOM_SIZE];
	size_t n = SSL_SESSION_get_master_key(SSL_get_session(tls->ssl), master, sizeof(master));
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest_name(tls),
						 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, master, n),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, seed, sizeof(seed)),
		OSSL_PARAM_construct_end(),
	};
	bool done;

	memcpy(seed, "key expansion", 13);
	SSL_get_server_random(tls->ssl, seed + 13, SSL3_RANDOM_SIZE);
	SSL_get_client_random(tls->ssl, seed + 13 + SSL3_RANDOM_SIZE, SSL3_RANDOM_SIZE);
	done = n && derive(OSSL_KDF_NAME_TLS1_PRF, params, block, 2 * (key_len + iv_len));
	OPENSSL_cleanse(master, sizeof(master));
	return done;
}

static bool find_keys(const struct gk_tls *tls, enum side side, size_t key_len, bool gcm,
		      struct keys *ret)
{
	size_t iv_len = gcm ? SALT_BYTES : IV_BYTES;
	uint8_t block[2 * (MAX_KEY + IV_BYTES)];
	bool done;

	if (!digest_name(tls))
		return false;
	if (SSL_version(tls->ssl) >= TLS1_3_VERSION)
		return tls->secret_len && expand(tls, side, "key", ret->key, key_len) &&
		       expand(tls, side, "iv", ret->iv, IV_BYTES);
	done = expand_1_2(tls, key_len, iv_len, block);
	if (done) {
		memcpy(ret->key, block + side * key_len, key_len);
		memcpy(ret->iv, block + 2 * key_len + side * iv_len, iv_len);
	}
	OPENSSL_cleanse(block, sizeof(block));
	return done;
}

/* All kinds that the kernel knows of what we speak; they begin alike. */
union crypto_info {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 gcm_128;
	struct tls12_crypto_info_aes_gcm_256 gcm_256;
	struct tls12_crypto_info_chacha20_poly1305 chacha;
};

/* Fills an AES-GCM info; the records' number is the part of TLS 1.2's nonce that is sent along. */
#define FILL_GCM(gcm, keys, seq, v1_3)                                                             \
	do {                                                                                       \
		memcpy((gcm).key, (keys)->key, sizeof((gcm).key));                                 \
		memcpy((gcm).salt, (keys)->iv, sizeof((gcm).salt));                                \
		memcpy((gcm).iv, (v1_3) ? (keys)->iv + SALT_BYTES : (seq), sizeof((gcm).iv));      \
		memcpy((gcm).rec_seq, (seq), sizeof((gcm).rec_seq));                               \
	} while (0)

/* The length of what is to be set, or 0: not a cipher that the kernel knows. */
static size_t fill(const struct gk_tls *tls, enum side side, union crypto_info *ret)
{
	bool v1_3 = SSL_version(tls->ssl) >= TLS1_3_VERSION;
	int nid = SSL_CIPHER_get_cipher_nid(SSL_get_current_cipher(tls->ssl));
	size_t key_len = nid == NID_aes_128_gcm ? 16 : 32;
	uint64_t records = side == OURS ? gk_tls_sent_records(tls) : gk_tls_received_records(tls);
	struct keys keys = {0};
	uint8_t seq[8];
	size_t len = 0;

	for (int i = 0; i < 8; i++)
		seq[i] = (uint8_t)(records >> (56 - 8 * i));
	if ((nid != NID_aes_128_gcm && nid != NID_aes_256_gcm && nid != NID_chacha20_poly1305) ||
	    !find_keys(tls, side, key_len, nid != NID_chacha20_poly1305, &keys))
		goto out;
	memset(ret, 0, sizeof(*ret));
	ret->info.version = v1_3 ? TLS_1_3_VERSION : TLS_1_2_VERSION;
	if (nid == NID_aes_128_gcm) {
		ret->info.cipher_type = TLS_CIPHER_AES_GCM_128;
		FILL_GCM(ret->gcm_128, &keys, seq, v1_3);
		len = sizeof(ret->gcm_128);
	} else if (nid == NID_aes_256_gcm) {
		ret->info.cipher_type = TLS_CIPHER_AES_GCM_256;
		FILL_GCM(ret->gcm_256, &keys, seq, v1_3);
		len = sizeof(ret->gcm_256);
	} else {
		ret->info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
		memcpy(ret->chacha.key, keys.key, sizeof(ret->chacha.key));
		memcpy(ret->chacha.iv, keys.iv, sizeof(ret->chacha.iv));
		memcpy(ret->chacha.rec_seq, seq, sizeof(ret->chacha.rec_seq));
		len = sizeof(ret->chacha);
	}
out:
	OPENSSL_cleanse(&keys, sizeof(keys));
	return len;
}

static bool set_direction(const struct gk_tls *tls, int fd, enum side side)
{
	union crypto_info info;
	size_t len = fill(tls, side, &info);
	bool done = len && setsockopt(fd, SOL_TLS, side == OURS ? TLS_TX : TLS_RX, &info,
				      (socklen_t)len) == 0;

	OPENSSL_cleanse(&info, sizeof(info));
	return done;
}

unsigned int gk_tls_offload(struct gk_tls *tls, int fd, unsigned int wanted)
{
	unsigned int taken = 0;
	int on = 1;

	assert(tls->up && !tls->out_len && !gk_tls_pending(tls));
	if (wanted && !tls->rekeyed &&
	    setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == 0) {
		if (wanted & GK_TLS_SEND && set_direction(tls, fd, OURS))
			taken |= GK_TLS_SEND;
		if (wanted & GK_TLS_RECV && set_direction(tls, fd, SERVERS))
			taken |= GK_TLS_RECV;
		/*
		 * Lets the kernel decrypt straight to where the data belongs. It believes us, but
		 * checks: a record with padding is decrypted once more.
		 */
		if (taken & GK_TLS_RECV && SSL_version(tls->ssl) >= TLS1_3_VERSION)
			(void)setsockopt(fd, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &on, sizeof(on));
	}
	OPENSSL_cleanse(tls->secret, sizeof(tls->secret));
	return taken;
}
