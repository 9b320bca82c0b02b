// SPDX-License-Identifier: MIT
#include "tls_records.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "tls_keys.h"

/* Of the ciphers, which are at their best when they are given whole ones, but for the last. */
#define BLOCK		 16U

/* RFC 8446, 5.2: what a record may hold, encrypted. */
#define MAX_BODY	 (GK_TLS_PLAIN_BYTES + 256U)

#define MESSAGE_HEADER	 4U
#define UPDATE_REQUESTED 1

#define MAX_UPDATES	 32U /* with no data between them; as OpenSSL has it */

/* -- keys -- */

static bool set_keys(struct gk_tls_half *half, const struct gk_tls_keys *keys, bool seals)
{
	half->n = 0;
	memcpy(half->iv, keys->iv, sizeof(half->iv));
	return EVP_CipherInit_ex(half->cipher, EVP_get_cipherbynid(keys->nid), NULL, keys->key,
				 NULL, seals) == 1;
}

static bool begin_half(const struct gk_tls *tls, enum gk_tls_side side, struct gk_tls_half *half)
{
	struct gk_tls_keys keys;
	bool done;

	half->cipher = EVP_CIPHER_CTX_new();
	done = half->cipher && gk_tls_find_keys(tls, side, &keys) &&
	       set_keys(half, &keys, side == GK_TLS_OURS);
	half->n = side == GK_TLS_OURS ? gk_tls_sent_records(tls) : gk_tls_received_records(tls);
	OPENSSL_cleanse(&keys, sizeof(keys));
	return done;
}

void gk_tls_records_begin(struct gk_tls *tls, unsigned int directions)
{
	struct gk_tls_records *records = NULL;

	if (directions && !tls->rekeyed && SSL_version(tls->ssl) == TLS1_3_VERSION)
		records = calloc(1, sizeof(*records));
	if (records) {
		records->renew_after = GK_TLS_RENEW_AFTER;
		if ((directions & GK_TLS_SEND && !begin_half(tls, GK_TLS_OURS, &records->seal)) ||
		    (directions & GK_TLS_RECV &&
		     !begin_half(tls, GK_TLS_SERVERS, &records->open))) {
			gk_tls_records_end(records);
			records = NULL;
			ERR_clear_error();
		}
	}
	if (!records || !(directions & GK_TLS_SEND))
		OPENSSL_cleanse(tls->secret[GK_TLS_OURS], sizeof(tls->secret[GK_TLS_OURS]));
	if (!records || !(directions & GK_TLS_RECV))
		OPENSSL_cleanse(tls->secret[GK_TLS_SERVERS], sizeof(tls->secret[GK_TLS_SERVERS]));
	if (records && directions == (GK_TLS_SEND | GK_TLS_RECV))
		(void)SSL_free_buffers(tls->ssl);
	tls->records = records;
}

void gk_tls_records_end(struct gk_tls_records *records)
{
	if (!records)
		return;
	EVP_CIPHER_CTX_free(records->seal.cipher);
	EVP_CIPHER_CTX_free(records->open.cipher);
	OPENSSL_cleanse(records, sizeof(*records));
	free(records);
}

static bool renew(struct gk_tls *tls, enum gk_tls_side side, struct gk_tls_half *half)
{
	struct gk_tls_keys keys;
	bool done =
		gk_tls_next_keys(tls, side, &keys) && set_keys(half, &keys, side == GK_TLS_OURS);

	OPENSSL_cleanse(&keys, sizeof(keys));
	return done;
}

/* Of the half's next record: RFC 8446, 5.3. */
static void next_nonce(struct gk_tls_half *half, uint8_t nonce[static GK_TLS_IV_BYTES])
{
	memcpy(nonce, half->iv, GK_TLS_IV_BYTES);
	for (unsigned int i = 0; i < 8; i++)
		nonce[GK_TLS_IV_BYTES - 1 - i] ^= (uint8_t)(half->n >> 8 * i);
	half->n++;
}

static int cipher_failed(struct gk_tls *tls)
{
	ERR_clear_error();
	return gk_tls_fail(tls, -ENOMEM, "OpenSSL cannot encrypt or decrypt: out of memory?");
}

/* -- ours -- */

/* Type and padding of a record stand behind its content (RFC 8446, 5.2); we never pad. */
static int seal(struct gk_tls *tls, uint8_t type, const uint8_t *bytes, size_t len)
{
	struct gk_tls_half *half = &tls->records->seal;
	size_t body = len + 1 + GK_TLS_TAG_BYTES, blocks = len - len % BLOCK;
	uint8_t *out = tls->out + tls->out_len;
	uint8_t nonce[GK_TLS_IV_BYTES], end[BLOCK];
	int n;

	if (GK_TLS_HEADER_BYTES + body > GK_TLS_OUT_BYTES - tls->out_len) {
		tls->overflow = true;
		return gk_tls_failed(tls);
	}
	out[0] = GK_TLS_RECORD_DATA;
	out[1] = out[2] = 3;
	out[3] = (uint8_t)(body >> 8);
	out[4] = (uint8_t)body;
	memcpy(end, bytes + blocks, len - blocks);
	end[len - blocks] = type;
	next_nonce(half, nonce);
	if (EVP_EncryptInit_ex(half->cipher, NULL, NULL, NULL, nonce) != 1 ||
	    EVP_EncryptUpdate(half->cipher, NULL, &n, out, GK_TLS_HEADER_BYTES) != 1)
		return cipher_failed(tls);
	out += GK_TLS_HEADER_BYTES;
	if ((blocks && EVP_EncryptUpdate(half->cipher, out, &n, bytes, (int)blocks) != 1) ||
	    EVP_EncryptUpdate(half->cipher, out + blocks, &n, end, (int)(len - blocks + 1)) != 1 ||
	    EVP_EncryptFinal_ex(half->cipher, out + len + 1, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(half->cipher, EVP_CTRL_AEAD_GET_TAG, GK_TLS_TAG_BYTES,
				out + len + 1) != 1)
		return cipher_failed(tls);
	tls->out_len += GK_TLS_HEADER_BYTES + body;
	tls->sent.records++;
	return 0;
}

/* Says that our next record has new keys. */
static int update_ours(struct gk_tls *tls)
{
	static const uint8_t message[] = {GK_TLS_MESSAGE_KEY_UPDATE, 0, 0, 1, 0};
	int r = seal(tls, GK_TLS_RECORD_HANDSHAKE, message, sizeof(message));

	if (!r && !renew(tls, GK_TLS_OURS, &tls->records->seal))
		r = cipher_failed(tls);
	return r;
}

int gk_tls_records_write(struct gk_tls *tls, const uint8_t *bytes, size_t len)
{
	int r = 0;

	while (len && !r) {
		size_t n = len < GK_TLS_PLAIN_BYTES ? len : GK_TLS_PLAIN_BYTES;

		if (tls->records->seal.n >= tls->records->renew_after)
			r = update_ours(tls);
		if (!r)
			r = seal(tls, GK_TLS_RECORD_DATA, bytes, n);
		bytes += n;
		len -= n;
	}
	return r;
}

void gk_tls_records_close(struct gk_tls *tls)
{
	static const uint8_t alert[] = {GK_TLS_ALERT_WARNING, GK_TLS_ALERT_CLOSE_NOTIFY};

	(void)seal(tls, GK_TLS_RECORD_ALERT, alert, sizeof(alert));
}

/* -- the server's -- */

/* What is no data: -EAGAIN, on with the next record; 0: close_notify; or -errno. */

static int take_alert(struct gk_tls *tls, const uint8_t *bytes, size_t len)
{
	if (len != 2)
		return gk_tls_fail(tls, -EPROTO,
				   "the server sends a TLS alert of the wrong length");
	if (bytes[1] == GK_TLS_ALERT_CLOSE_NOTIFY) {
		tls->ended = true;
		return 0;
	}
	if (bytes[1] == GK_TLS_ALERT_USER_CANCELED)
		return -EAGAIN;
	tls->alert = bytes[1];
	return gk_tls_failed(tls);
}

static int take_update(struct gk_tls *tls, uint8_t request)
{
	struct gk_tls_records *r = tls->records;

	if (request > UPDATE_REQUESTED || ++r->updates > MAX_UPDATES)
		return gk_tls_fail(tls, -EPROTO,
				   "the server changes its TLS keys in a way that makes no sense");
	tls->rekeyed = true;
	if (!renew(tls, GK_TLS_SERVERS, &r->open))
		return cipher_failed(tls);
	if (request && r->seal.cipher) {
		int result = update_ours(tls);

		if (result)
			return result;
	}
	return -EAGAIN;
}

/*
 * Messages of the handshake that may come at any time (RFC 8446, 4.6), whole or in pieces: a byte
 * at a time, for they are few. Behind a KeyUpdate, and between the pieces of one message, nothing
 * else may come (5.1).
 */
static int take_messages(struct gk_tls *tls, const uint8_t *bytes, size_t len)
{
	struct gk_tls_records *r = tls->records;
	int result = len ? 0 : -EPROTO;

	for (size_t i = 0; i < len && !result; i++) {
		if (r->message_skip) {
			r->message_skip--;
			continue;
		}
		r->message[r->message_have++] = bytes[i];
		if (r->message_have < MESSAGE_HEADER)
			continue;
		if (r->message[0] == GK_TLS_MESSAGE_TICKET) {
			r->message_skip = (size_t)r->message[1] << 16 | (size_t)r->message[2] << 8 |
					  r->message[3];
			r->message_have = 0;
		} else if (memcmp(r->message, (uint8_t[]){GK_TLS_MESSAGE_KEY_UPDATE, 0, 0, 1},
				  MESSAGE_HEADER) != 0) {
			result = -EPROTO;
		} else if (r->message_have > MESSAGE_HEADER) {
			r->message_have = 0;
			if (i + 1 == len)
				return take_update(tls, bytes[i]);
			result = -EPROTO;
		}
	}
	if (result)
		return gk_tls_fail(
			tls, result,
			"the server sends a TLS handshake message that does not belong here");
	return -EAGAIN;
}

static int take_other(struct gk_tls *tls, uint8_t type, const uint8_t *bytes, size_t len)
{
	const struct gk_tls_records *r = tls->records;
	bool between = r->message_have || r->message_skip;

	if (type == GK_TLS_RECORD_HANDSHAKE)
		return take_messages(tls, bytes, len);
	if (type == GK_TLS_RECORD_ALERT && !between)
		return take_alert(tls, bytes, len);
	return gk_tls_fail(tls, -EPROTO, "the server sends a TLS record that does not belong here");
}

/* Of a record's header: the length of its body, or -EPROTO. */
static int body_of(struct gk_tls *tls, const uint8_t *header)
{
	int body = header[3] << 8 | header[4];

	if (header[0] != GK_TLS_RECORD_DATA || header[1] != 3 || header[2] != 3 ||
	    body <= (int)GK_TLS_TAG_BYTES || body > (int)MAX_BODY)
		return gk_tls_fail(tls, -EPROTO,
				   "not a valid TLS record: its header makes no sense");
	return body;
}

/* To dst and, the rest, to plain. 0, or -errno: then nothing of it may be believed. */
static int decrypt(struct gk_tls *tls, const uint8_t *record, size_t body, uint8_t *dst,
		   size_t to_dst)
{
	struct gk_tls_half *half = &tls->records->open;
	size_t inner = body - GK_TLS_TAG_BYTES;
	const uint8_t *from = record + GK_TLS_HEADER_BYTES;
	uint8_t nonce[GK_TLS_IV_BYTES];
	int n;

	next_nonce(half, nonce);
	if (EVP_DecryptInit_ex(half->cipher, NULL, NULL, NULL, nonce) != 1 ||
	    EVP_CIPHER_CTX_ctrl(half->cipher, EVP_CTRL_AEAD_SET_TAG, GK_TLS_TAG_BYTES,
				(void *)(from + inner)) != 1 ||
	    EVP_DecryptUpdate(half->cipher, NULL, &n, record, GK_TLS_HEADER_BYTES) != 1 ||
	    (to_dst && EVP_DecryptUpdate(half->cipher, dst, &n, from, (int)to_dst) != 1) ||
	    EVP_DecryptUpdate(half->cipher, tls->records->plain, &n, from + to_dst,
			      (int)(inner - to_dst)) != 1)
		return cipher_failed(tls);
	if (EVP_DecryptFinal_ex(half->cipher, tls->records->plain, &n) == 1)
		return 0;
	ERR_clear_error();
	return gk_tls_fail(tls, -EPROTO, "not a valid TLS record: decryption failed");
}

/*
 * A whole record, as much of it as can be straight to buf. How many bytes are there; -EAGAIN: none,
 * but perhaps in plain; 0: close_notify; or -errno.
 */
static ssize_t open_record(struct gk_tls *tls, const uint8_t *record, size_t body, uint8_t *buf,
			   size_t len)
{
	struct gk_tls_records *r = tls->records;
	size_t inner = body - GK_TLS_TAG_BYTES, there, here, content;
	uint8_t type;
	int result;

	if (inner > GK_TLS_PLAIN_BYTES + 1)
		return gk_tls_fail(tls, -EPROTO, "the server sends a TLS record that is too long");
	/* At least the type goes to plain. */
	there = inner - 1 < len ? inner - 1 : len;
	there -= there % BLOCK;
	result = decrypt(tls, record, body, buf, there);
	if (result)
		return result;
	here = inner - there;
	while (here && !r->plain[here - 1])
		here--;
	content = there + here;
	while (!here && content && !buf[content - 1])
		content--;
	if (!content)
		return gk_tls_fail(tls, -EPROTO, "the server sends a TLS record without a type");
	content--;
	if (here)
		type = r->plain[here - 1];
	else
		type = buf[content];
	if (type != GK_TLS_RECORD_DATA) {
		size_t before = content < there ? content : there;

		memmove(r->plain + before, r->plain, content - before);
		memcpy(r->plain, buf, before);
		return take_other(tls, type, r->plain, content);
	}
	if (r->message_have || r->message_skip)
		return take_other(tls, type, NULL, 0);
	r->updates = 0;
	r->from = 0;
	r->to = content > there ? content - there : 0;
	if (content < there)
		there = content;
	return there ? (ssize_t)there : -EAGAIN;
}

/* The next record where it is, or put together in tls->record; NULL with *ret_result: none. */
static const uint8_t *next_record(struct gk_tls *tls, size_t *ret_body, int *ret_result)
{
	const uint8_t *record = tls->in;

	*ret_result = -EAGAIN;
	if (!tls->have && tls->in_len >= GK_TLS_HEADER_BYTES) {
		int body = body_of(tls, tls->in);
		size_t whole = GK_TLS_HEADER_BYTES + (size_t)body;

		if (body < 0) {
			*ret_result = body;
			return NULL;
		}
		if (tls->in_len >= whole) {
			*ret_body = (size_t)body;
			tls->in += whole;
			tls->in_len -= whole;
			return record;
		}
	}
	while (tls->in_len) {
		size_t n = gk_tls_missing(tls);

		if (n > tls->in_len)
			n = tls->in_len;
		memcpy(tls->record + tls->have, tls->in, n);
		tls->have += n;
		tls->in += n;
		tls->in_len -= n;
		if (tls->have >= GK_TLS_HEADER_BYTES) {
			int body = body_of(tls, tls->record);

			if (body < 0) {
				*ret_result = body;
				return NULL;
			}
			if (tls->have == GK_TLS_HEADER_BYTES + (size_t)body) {
				*ret_body = (size_t)body;
				tls->have = 0;
				return tls->record;
			}
		}
	}
	return NULL;
}

ssize_t gk_tls_records_read(struct gk_tls *tls, uint8_t *buf, size_t len)
{
	struct gk_tls_records *r = tls->records;

	for (;;) {
		const uint8_t *record;
		size_t body;
		ssize_t n;
		int none;

		if (r->from < r->to) {
			size_t left = r->to - r->from;

			n = (ssize_t)(left < len ? left : len);
			memcpy(buf, r->plain + r->from, (size_t)n);
			r->from += (size_t)n;
			return n;
		}
		if (tls->ended)
			return 0;
		record = next_record(tls, &body, &none);
		if (!record)
			return none;
		tls->received.records++;
		n = open_record(tls, record, body, buf, len);
		if (n != -EAGAIN)
			return n;
	}
}
