// SPDX-License-Identifier: MIT
/*
 * Hands a connection's keys to the kernel (Linux: Documentation/networking/tls.rst). They are
 * derived from the secrets of the handshake (tls_keys.c), not by OpenSSL's own kTLS: that needs the
 * socket during the handshake, and has no receiving side for TLS 1.3 before version 3.2.
 */
#include <assert.h>
#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/socket.h>

#include "tls_keys.h"
#include "tls_records.h"

#ifndef TLS_RX_EXPECT_NO_PAD
#define TLS_RX_EXPECT_NO_PAD 4
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif

/* All kinds that the kernel knows of what we speak; they begin alike. */
union crypto_info {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 gcm_128;
	struct tls12_crypto_info_aes_gcm_256 gcm_256;
	struct tls12_crypto_info_chacha20_poly1305 chacha;
};

/* Fills an AES-GCM info; the records' number is the part of TLS 1.2's nonce that is sent along. */
#define FILL_GCM(gcm, keys, seq, v1_3)                                            \
	do {                                                                      \
		memcpy((gcm).key, (keys)->key, sizeof((gcm).key));                \
		memcpy((gcm).salt, (keys)->iv, sizeof((gcm).salt));               \
		memcpy((gcm).iv, (v1_3) ? (keys)->iv + GK_TLS_SALT_BYTES : (seq), \
		       sizeof((gcm).iv));                                         \
		memcpy((gcm).rec_seq, (seq), sizeof((gcm).rec_seq));              \
	} while (0)

/* The length of what is to be set, or 0: not a cipher that the kernel knows. */
static size_t fill(const struct gk_tls *tls, enum gk_tls_side side, union crypto_info *ret)
{
	bool v1_3 = SSL_version(tls->ssl) >= TLS1_3_VERSION;
	uint64_t records =
		side == GK_TLS_OURS ? gk_tls_sent_records(tls) : gk_tls_received_records(tls);
	struct gk_tls_keys keys;
	uint8_t seq[8];
	size_t len = 0;

	for (int i = 0; i < 8; i++)
		seq[i] = (uint8_t)(records >> (56 - 8 * i));
	if (!gk_tls_find_keys(tls, side, &keys))
		goto out;
	memset(ret, 0, sizeof(*ret));
	ret->info.version = v1_3 ? TLS_1_3_VERSION : TLS_1_2_VERSION;
	if (keys.nid == NID_aes_128_gcm) {
		ret->info.cipher_type = TLS_CIPHER_AES_GCM_128;
		FILL_GCM(ret->gcm_128, &keys, seq, v1_3);
		len = sizeof(ret->gcm_128);
	} else if (keys.nid == NID_aes_256_gcm) {
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

static bool set_direction(const struct gk_tls *tls, int fd, enum gk_tls_side side)
{
	union crypto_info info;
	size_t len = fill(tls, side, &info);
	bool done = len && setsockopt(fd, SOL_TLS, side == GK_TLS_OURS ? TLS_TX : TLS_RX, &info,
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
		if (wanted & GK_TLS_SEND && set_direction(tls, fd, GK_TLS_OURS))
			taken |= GK_TLS_SEND;
		if (wanted & GK_TLS_RECV && set_direction(tls, fd, GK_TLS_SERVERS))
			taken |= GK_TLS_RECV;
		/*
		 * Lets the kernel decrypt straight to where the data belongs. It believes us, but
		 * checks: a record with padding is decrypted once more.
		 */
		if (taken & GK_TLS_RECV && SSL_version(tls->ssl) >= TLS1_3_VERSION)
			(void)setsockopt(fd, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &on, sizeof(on));
	}
	gk_tls_records_begin(tls, (GK_TLS_SEND | GK_TLS_RECV) & ~taken);
	return taken;
}
