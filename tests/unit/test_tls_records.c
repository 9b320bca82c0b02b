// SPDX-License-Identifier: MIT
/*
 * The records of TLS 1.3 that are made and read here, against OpenSSL's, and against made-up ones
 * of a server that knows the keys and keeps no rule.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "tls_keys.h"
#include "tls_records.h"
#include "tls_server.h"

static const char *const suites[] = {
	"TLS_AES_256_GCM_SHA384",
	"TLS_AES_128_GCM_SHA256",
	"TLS_CHACHA20_POLY1305_SHA256",
};

/* A pair whose records are made here from now on. */
struct rig {
	struct tls_pair p;
	struct gk_tls_keys keys; /* the server's, for made-up records */
	uint64_t n;		 /* ... so many were made */
	uint8_t bytes[400000];	 /* on their way to us */
	size_t len;
};

static void begin_with(struct rig *rig, const char *suite, int version)
{
	struct tls_server_wish wish = {.cert = "server", .suites = suite, .max_version = version};
	uint8_t byte;
	size_t used;

	memset(rig, 0, sizeof(*rig));
	tls_pair_begin(&rig->p, &wish, SIZE_MAX);
	rig->len = tls_server_said(&rig->p.s, rig->bytes, sizeof(rig->bytes));
	for (size_t at = 0; at < rig->len; at += used) { /* its tickets */
		(void)gk_tls_collect(rig->p.tls, rig->bytes + at, rig->len - at, &used);
		assert_int_equal(gk_tls_read(rig->p.tls, &byte, 1), -EAGAIN);
	}
	rig->len = 0;
	rig->n = gk_tls_received_records(rig->p.tls);
	assert_true(gk_tls_find_keys(rig->p.tls, GK_TLS_SERVERS, &rig->keys));
	assert_int_equal(gk_tls_offload(rig->p.tls, -1, 0), 0);
}

static void begin(struct rig *rig, const char *suite)
{
	begin_with(rig, suite, TLS1_3_VERSION);
	assert_non_null(rig->p.tls->records);
}

static void end(struct rig *rig)
{
	tls_pair_end(&rig->p);
}

static void pattern(uint8_t *bytes, size_t len)
{
	uint32_t x = 1;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525 + 1013904223;
		bytes[i] = (uint8_t)(x >> 24);
	}
}

static void server_says(struct rig *rig, const void *bytes, size_t len)
{
	if (len)
		assert_int_equal(SSL_write(rig->p.s.ssl, bytes, (int)len), len);
	rig->len +=
		tls_server_said(&rig->p.s, rig->bytes + rig->len, sizeof(rig->bytes) - rig->len);
}

/* A record with this inside: content, type, padding. By the book (RFC 8446, 5.2), not by our code.
 */
static void make_up(struct rig *rig, const uint8_t *inner, size_t len)
{
	uint8_t *out = rig->bytes + rig->len, nonce[12];
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	size_t body = len + 16;
	int n;

	memcpy(nonce, rig->keys.iv, 12);
	for (int i = 0; i < 8; i++)
		nonce[11 - i] ^= (uint8_t)(rig->n >> 8 * i);
	rig->n++;
	memcpy(out, (uint8_t[]){23, 3, 3, (uint8_t)(body >> 8), (uint8_t)body}, 5);
	assert_true(EVP_EncryptInit(ctx, EVP_get_cipherbynid(rig->keys.nid), rig->keys.key, nonce));
	assert_true(EVP_EncryptUpdate(ctx, NULL, &n, out, 5));
	assert_true(EVP_EncryptUpdate(ctx, out + 5, &n, inner, (int)len));
	assert_true(EVP_EncryptFinal(ctx, out + 5 + len, &n));
	assert_true(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, out + 5 + len));
	EVP_CIPHER_CTX_free(ctx);
	rig->len += 5 + body;
}

static void make_up_typed(struct rig *rig, uint8_t type, const void *content, size_t len)
{
	uint8_t inner[20000];

	memcpy(inner, content, len);
	inner[len] = type;
	make_up(rig, inner, len + 1);
}

/*
 * Reads all that is on its way, lent in pieces, into buf with reads of that size; how much. The
 * last result of a read in *ret_last.
 */
static size_t take(struct rig *rig, size_t piece, size_t read, uint8_t *buf, ssize_t *ret_last)
{
	size_t n = 0;

	*ret_last = -EAGAIN;
	for (size_t at = 0; at < rig->len && *ret_last == -EAGAIN; at += piece) {
		size_t len = rig->len - at < piece ? rig->len - at : piece;
		ssize_t got;

		gk_tls_lend(rig->p.tls, rig->bytes + at, len);
		while ((got = gk_tls_read(rig->p.tls, buf + n, read)) > 0) {
			assert_true((size_t)got <= read);
			n += (size_t)got;
		}
		*ret_last = got;
	}
	rig->len = 0;
	return n;
}

static void assert_takes(struct rig *rig, const void *bytes, size_t len)
{
	static uint8_t buf[400000];
	ssize_t last;

	assert_int_equal(take(rig, SIZE_MAX / 2, sizeof(buf), buf, &last), len);
	assert_int_equal(last, -EAGAIN);
	assert_memory_equal(buf, bytes, len);
}

static void assert_refuses(struct rig *rig, int error, const char *says)
{
	static uint8_t buf[400000];
	ssize_t last;

	assert_int_equal(take(rig, SIZE_MAX / 2, sizeof(buf), buf, &last), 0);
	assert_int_equal(last, error);
	if (!strstr(rig->p.tls->why, says))
		fail_msg("\"%s\" does not say \"%s\"", rig->p.tls->why, says);
}

static void assert_server_hears(struct rig *rig, const uint8_t *bytes, size_t len)
{
	static uint8_t buf[400000];
	size_t back = 0;

	tls_server_hear(&rig->p.s, rig->p.tls);
	while (back < len) {
		int got = SSL_read(rig->p.s.ssl, buf + back, (int)(sizeof(buf) - back));

		if (got <= 0)
			fail_msg("the server heard %zu bytes of %zu", back, len);
		back += (size_t)got;
	}
	assert_int_equal(back, len);
	assert_memory_equal(buf, bytes, len);
}

/* As it is cut on its way, as the server pads it, as it is wanted: one and the same stream. */
static void pieces_of_any_size_are_the_same_stream(void **state)
{
	static const size_t pieces[] = {1,     4,     5,     6,	     1000,
					16405, 16406, 16407, 100000, SIZE_MAX / 2};
	static const size_t reads[] = {1, 15, 16, 17, 28, 4096, 16383, 16384, 16385, 100000};
	static const size_t padding[] = {0, 64, 16384};
	static uint8_t data[100000], buf[100000 + 16385];
	struct rig rig;

	(void)state;
	pattern(data, sizeof(data));
	for (int suite = 0; suite < 3; suite++) {
		begin(&rig, suites[suite]);
		for (size_t i = 0; i < 10 * 10 * 3; i++) {
			/* Short ones too: a header, a header with its payload. */
			size_t lens[] = {16, 28, 1, 16384, 16 + 512, 50000 - 16384 - 557};
			size_t n = 0;
			ssize_t last;

			assert_true(SSL_set_block_padding(rig.p.s.ssl, padding[i / 100]));
			for (size_t k = 0; k < 6; n += lens[k++])
				server_says(&rig, data + n, lens[k]);
			assert_int_equal(take(&rig, pieces[i % 10], reads[i / 10 % 10], buf, &last),
					 n);
			assert_int_equal(last, -EAGAIN);
			assert_memory_equal(buf, data, n);
			assert_false(gk_tls_pending(rig.p.tls));
		}
		end(&rig);
	}
}

static void what_we_write_is_what_the_server_reads(void **state)
{
	static const size_t lens[] = {1, 15, 16, 17, 28, 4124, 16383, 16384, 16385, 40000, 262144};
	static uint8_t data[262144 + 16];
	struct rig rig;

	(void)state;
	pattern(data, sizeof(data));
	for (int suite = 0; suite < 3; suite++) {
		begin(&rig, suites[suite]);
		for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
			uint64_t before = rig.p.tls->sent.records;

			assert_int_equal(gk_tls_write(rig.p.tls, data + i, lens[i]), 0);
			assert_int_equal(rig.p.tls->sent.records - before,
					 (lens[i] + 16383) / 16384);
			assert_server_hears(&rig, data + i, lens[i]);
		}
		end(&rig);
	}
}

static void new_keys_of_either_side_are_followed(void **state)
{
	static uint8_t data[60000];
	struct rig rig;

	(void)state;
	pattern(data, sizeof(data));
	for (int suite = 0; suite < 3; suite++) {
		begin(&rig, suites[suite]);
		for (int i = 0; i < 40; i++) {
			size_t n = 1 + (size_t)i * 1000;

			server_says(&rig, data, 7);
			assert_true(
				SSL_key_update(rig.p.s.ssl, i % 2 ? SSL_KEY_UPDATE_REQUESTED
								  : SSL_KEY_UPDATE_NOT_REQUESTED));
			server_says(&rig, data + 7, n);
			assert_takes(&rig, data, 7 + n);
			assert_true(rig.p.tls->rekeyed);
			assert_int_equal(rig.p.tls->out_len > 0, i % 2);
			assert_int_equal(gk_tls_write(rig.p.tls, data, n), 0);
			assert_server_hears(&rig, data, n);
		}
		end(&rig);
	}
}

static void our_keys_are_renewed_in_time(void **state)
{
	static uint8_t data[20000];
	struct gk_tls_records *records;
	uint8_t iv[12];
	struct rig rig;
	int renewals = 0;

	(void)state;
	pattern(data, sizeof(data));
	begin(&rig, suites[0]);
	records = rig.p.tls->records;
	assert_int_equal(records->renew_after, 1 << 24);
	records->renew_after = 5;
	for (int i = 0; i < 50; i++) {
		memcpy(iv, records->seal.iv, sizeof(iv));
		assert_int_equal(gk_tls_write(rig.p.tls, data, sizeof(data)), 0);
		assert_server_hears(&rig, data, sizeof(data));
		assert_true(records->seal.n <= 5);
		renewals += memcmp(iv, records->seal.iv, sizeof(iv)) != 0;
	}
	assert_int_equal(renewals, (100 - 1) / 5);
	end(&rig);
}

static void tickets_are_thrown_away(void **state)
{
	uint8_t ticket[604] = {4, 0, 600 >> 8, 600 & 255};
	struct rig rig;

	(void)state;
	begin(&rig, suites[0]);
	assert_true(SSL_new_session_ticket(rig.p.s.ssl));
	server_says(&rig, "data", 4);
	assert_takes(&rig, "data", 4);
	end(&rig);
	/* In pieces too, and two in one record. */
	begin(&rig, suites[0]);
	for (size_t i = 0; i < 4; i++)
		make_up_typed(&rig, 22, ticket + i, 1);
	make_up_typed(&rig, 22, ticket + 4, 300);
	make_up_typed(&rig, 22, ticket + 304, 300);
	for (int i = 0; i < 2; i++)
		memcpy(rig.bytes + sizeof(rig.bytes) - 1208 + i * 604, ticket, 604);
	make_up_typed(&rig, 22, rig.bytes + sizeof(rig.bytes) - 1208, 1208);
	make_up_typed(&rig, 23, "data", 4);
	assert_takes(&rig, "data", 4);
	end(&rig);
}

static void empty_records_and_padding_are_no_end(void **state)
{
	static uint8_t inner[16385];
	struct rig rig;

	(void)state;
	begin(&rig, suites[0]);
	make_up_typed(&rig, 23, "", 0);
	make_up_typed(&rig, 23, "one", 3);
	memset(inner, 0, sizeof(inner));
	inner[0] = 23;
	make_up(&rig, inner, sizeof(inner)); /* nothing, padded to the most */
	memcpy(inner, "two\x17", 4);
	make_up(&rig, inner, sizeof(inner));
	make_up_typed(&rig, 21, (uint8_t[]){1, 90}, 2); /* user_canceled */
	make_up_typed(&rig, 23, "three", 5);
	assert_takes(&rig, "onetwothree", 11);
	end(&rig);
}

static void the_end_and_alerts_are_told_apart(void **state)
{
	static uint8_t buf[100];
	struct rig rig;
	ssize_t last;

	(void)state;
	begin(&rig, suites[0]);
	server_says(&rig, "data", 4);
	SSL_shutdown(rig.p.s.ssl);
	server_says(&rig, NULL, 0);
	assert_int_equal(take(&rig, 3, 100, buf, &last), 4);
	assert_int_equal(last, 0);
	assert_int_equal(gk_tls_eof(rig.p.tls), -ECONNRESET);
	assert_non_null(strstr(rig.p.tls->why, "the server closed the connection"));
	/* Ours. */
	gk_tls_close(rig.p.tls);
	tls_server_hear(&rig.p.s, rig.p.tls);
	assert_int_equal(SSL_read(rig.p.s.ssl, buf, 1), 0);
	assert_int_equal(SSL_get_error(rig.p.s.ssl, 0), SSL_ERROR_ZERO_RETURN);
	end(&rig);
	begin(&rig, suites[0]);
	make_up_typed(&rig, 21, (uint8_t[]){2, 80}, 2);
	assert_refuses(&rig, -ECONNRESET, "with the alert \"internal error\"");
	end(&rig);
}

static void a_changed_byte_ends_the_connection(void **state)
{
	struct rig rig;

	(void)state;
	for (size_t at = 0; at < 62; at++) {
		for (int bit = 0; bit < 8; bit++) {
			uint8_t buf[100];
			ssize_t last;

			begin(&rig, suites[(at + (size_t)bit) % 3]);
			server_says(&rig, rig.keys.key, 40);
			assert_int_equal(rig.len, 62);
			rig.bytes[at] ^= (uint8_t)(1 << bit);
			assert_int_equal(take(&rig, 100, 100, buf, &last), 0);
			/* A length that grew leaves the record incomplete: no data either way. */
			if (last != -EPROTO && (last != -EAGAIN || at < 3 || at > 4))
				fail_msg("byte %zu, bit %d: %zd", at, bit, last);
			end(&rig);
		}
	}
}

/* The same record again, and a record left out. */
static void records_have_their_order(void **state)
{
	struct rig rig;
	size_t one;

	(void)state;
	begin(&rig, suites[0]);
	server_says(&rig, "one", 3);
	one = rig.len;
	memcpy(rig.bytes + 1000, rig.bytes, one);
	assert_takes(&rig, "one", 3);
	memcpy(rig.bytes, rig.bytes + 1000, one);
	rig.len = one;
	assert_refuses(&rig, -EPROTO, "decryption failed");
	end(&rig);
	begin(&rig, suites[0]);
	server_says(&rig, "one", 3);
	rig.len = 0;
	server_says(&rig, "two", 3);
	assert_refuses(&rig, -EPROTO, "decryption failed");
	end(&rig);
}

static void what_has_no_place_ends_the_connection(void **state)
{
	static const uint8_t update[] = {24, 0, 0, 1, 0};
	static const struct {
		uint8_t type;
		uint8_t content[8];
		size_t len;
		const char *says;
	} cases[] = {
		{0, {0}, 0, "without a type"},
		{0, {0}, 7, "without a type"},
		{20, {1}, 1, "does not belong here"},
		{99, {1, 2, 3}, 3, "does not belong here"},
		{21, {1}, 1, "wrong length"},
		{21, {1, 0, 0}, 3, "wrong length"},
		{22, {0}, 0, "handshake message"},
		{22, {0, 0, 0, 0}, 4, "handshake message"},	/* HelloRequest */
		{22, {13, 0, 0, 1, 0}, 5, "handshake message"}, /* CertificateRequest */
		{22, {24, 0, 0, 2, 0, 0}, 6, "handshake message"},
		{22, {24, 0, 0, 1, 2}, 5, "makes no sense"},
		{22, {24, 0, 0, 1, 0, 4}, 6, "handshake message"},
	};
	static uint8_t inner[16400];
	struct rig rig;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin(&rig, suites[0]);
		make_up_typed(&rig, cases[i].type, cases[i].content, cases[i].len);
		assert_refuses(&rig, -EPROTO, cases[i].says);
		end(&rig);
	}
	/* Data and alerts between the pieces of a message. */
	for (int i = 0; i < 4; i++) {
		begin(&rig, suites[0]);
		make_up_typed(&rig, 22, i % 2 ? (uint8_t[]){4, 0, 1, 0} : update, i % 2 ? 4 : 3);
		make_up_typed(&rig, i / 2 ? 21 : 23, (uint8_t[]){1, 0}, 2);
		assert_refuses(&rig, -EPROTO, "does not belong here");
		end(&rig);
	}
	/* Longer than a record may be, by a little; and by what its header says. */
	begin(&rig, suites[0]);
	memset(inner, 23, sizeof(inner));
	make_up(&rig, inner, 16386);
	assert_refuses(&rig, -EPROTO, "too long");
	end(&rig);
	for (int i = 0; i < 3; i++) {
		static const uint8_t headers[][5] = {
			{23, 3, 3, 0x41, 0x01}, {23, 3, 3, 0, 16}, {22, 3, 3, 0, 40}};

		begin(&rig, suites[0]);
		memcpy(rig.bytes, headers[i], 5);
		rig.len = 5;
		assert_refuses(&rig, -EPROTO, "makes no sense");
		end(&rig);
	}
}

static void endless_new_keys_are_refused(void **state)
{
	static uint8_t buf[100];
	struct rig rig;
	ssize_t last = -EAGAIN;
	int n = 0;

	(void)state;
	begin(&rig, suites[0]);
	for (; n < 100 && last == -EAGAIN; n++) {
		/* OpenSSL sends what it has been told with the next data; here there is none. */
		assert_true(SSL_key_update(rig.p.s.ssl, SSL_KEY_UPDATE_REQUESTED));
		(void)SSL_do_handshake(rig.p.s.ssl);
		server_says(&rig, NULL, 0);
		assert_true(rig.len > 0);
		assert_int_equal(take(&rig, 100, 100, buf, &last), 0);
	}
	assert_int_equal(n, 33);
	assert_int_equal(last, -EPROTO);
	end(&rig);
}

/* What is not made here OpenSSL makes; secrets stay only for those who follow a KeyUpdate. */
static void secrets_go_when_nobody_needs_them(void **state)
{
	static const uint8_t none[64];
	struct rig rig;

	(void)state;
	begin_with(&rig, NULL, TLS1_2_VERSION);
	assert_null(rig.p.tls->records);
	assert_int_equal(gk_tls_write(rig.p.tls, rig.bytes, 100), 0);
	assert_server_hears(&rig, rig.bytes, 100);
	end(&rig);

	begin(&rig, suites[0]);
	assert_memory_not_equal(rig.p.tls->secret[GK_TLS_OURS], none, 48);
	assert_memory_not_equal(rig.p.tls->secret[GK_TLS_SERVERS], none, 48);
	gk_tls_records_end(rig.p.tls->records);
	gk_tls_records_begin(rig.p.tls, GK_TLS_RECV);
	assert_null(rig.p.tls->records->seal.cipher);
	assert_non_null(rig.p.tls->records->open.cipher);
	assert_memory_equal(rig.p.tls->secret[GK_TLS_OURS], none, 64);
	assert_memory_not_equal(rig.p.tls->secret[GK_TLS_SERVERS], none, 48);
	gk_tls_records_end(rig.p.tls->records);
	gk_tls_records_begin(rig.p.tls, 0);
	assert_null(rig.p.tls->records);
	assert_memory_equal(rig.p.tls->secret, none, 64);
	assert_memory_equal(rig.p.tls->secret[GK_TLS_SERVERS], none, 64);
	end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_of_any_size_are_the_same_stream),
		cmocka_unit_test(what_we_write_is_what_the_server_reads),
		cmocka_unit_test(new_keys_of_either_side_are_followed),
		cmocka_unit_test(our_keys_are_renewed_in_time),
		cmocka_unit_test(tickets_are_thrown_away),
		cmocka_unit_test(empty_records_and_padding_are_no_end),
		cmocka_unit_test(the_end_and_alerts_are_told_apart),
		cmocka_unit_test(a_changed_byte_ends_the_connection),
		cmocka_unit_test(records_have_their_order),
		cmocka_unit_test(what_has_no_place_ends_the_connection),
		cmocka_unit_test(endless_new_keys_are_refused),
		cmocka_unit_test(secrets_go_when_nobody_needs_them),
	};

	return cmocka_run_group_tests(tests, tls_pair_begin_all, tls_pair_end_all);
}
