// SPDX-License-Identifier: MIT
#include "tls_keys.h"

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/ssl.h>
#include <string.h>

static int hex_value(char c)
{
	return c >= 'a' ? c - 'a' + 10 : c - '0';
}

/* "LABEL CLIENT_RANDOM SECRET", all but the label in lower-case hexadecimal digits. */
void gk_tls_note_secret(const SSL *ssl, const char *line)
{
	static const char *const labels[] = {
		[GK_TLS_OURS] = "CLIENT_TRAFFIC_SECRET_0 ",
		[GK_TLS_SERVERS] = "SERVER_TRAFFIC_SECRET_0 ",
	};
	struct gk_tls *tls = SSL_get_app_data(ssl);

	for (int side = GK_TLS_OURS; side <= GK_TLS_SERVERS; side++) {
		const char *hex = strrchr(line, ' ');
		size_t n = hex ? strlen(++hex) / 2 : 0;

		if (strncmp(line, labels[side], strlen(labels[side])) != 0 ||
		    n > sizeof(tls->secret[side]))
			continue;
		tls->secret_len = n;
		for (size_t i = 0; i < n; i++)
			tls->secret[side][i] =
				(uint8_t)(hex_value(hex[2 * i]) << 4 | hex_value(hex[2 * i + 1]));
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
static bool expand(const struct gk_tls *tls, enum gk_tls_side side, const char *label, uint8_t *out,
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

static bool derive_1_3(const struct gk_tls *tls, enum gk_tls_side side, struct gk_tls_keys *ret)
{
	return expand(tls, side, "key", ret->key, ret->key_len) &&
	       expand(tls, side, "iv", ret->iv, GK_TLS_IV_BYTES);
}

static bool derive_1_2(const struct gk_tls *tls, enum gk_tls_side side, struct gk_tls_keys *ret)
{
	size_t iv_len = ret->nid == NID_chacha20_poly1305 ? GK_TLS_IV_BYTES : GK_TLS_SALT_BYTES;
	uint8_t block[2 * (GK_TLS_KEY_BYTES + GK_TLS_IV_BYTES)];
	bool done = expand_1_2(tls, ret->key_len, iv_len, block);

	if (done) {
		memcpy(ret->key, block + side * ret->key_len, ret->key_len);
		memcpy(ret->iv, block + 2 * ret->key_len + side * iv_len, iv_len);
	}
	OPENSSL_cleanse(block, sizeof(block));
	return done;
}

bool gk_tls_find_keys(const struct gk_tls *tls, enum gk_tls_side side, struct gk_tls_keys *ret)
{
	int nid = SSL_CIPHER_get_cipher_nid(SSL_get_current_cipher(tls->ssl));

	memset(ret, 0, sizeof(*ret));
	ret->nid = nid;
	ret->key_len = nid == NID_aes_128_gcm ? 16 : 32;
	if ((nid != NID_aes_128_gcm && nid != NID_aes_256_gcm && nid != NID_chacha20_poly1305) ||
	    !digest_name(tls))
		return false;
	if (SSL_version(tls->ssl) < TLS1_3_VERSION)
		return derive_1_2(tls, side, ret);
	return tls->secret_len && derive_1_3(tls, side, ret);
}

bool gk_tls_next_keys(struct gk_tls *tls, enum gk_tls_side side, struct gk_tls_keys *ret)
{
	uint8_t secret[sizeof(tls->secret[side])];
	bool done = expand(tls, side, "traffic upd", secret, tls->secret_len);

	if (done)
		memcpy(tls->secret[side], secret, tls->secret_len);
	OPENSSL_cleanse(secret, sizeof(secret));
	return done && gk_tls_find_keys(tls, side, ret);
}
