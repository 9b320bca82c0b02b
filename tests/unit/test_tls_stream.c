// SPDX-License-Identifier: MIT
/*
 * Our side of TLS against OpenSSL's server side: no way of cutting the stream into pieces changes
 * anything, and what breaks it is said.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "tls_server.h"

static void assert_says(const struct gk_tls *tls, const char *part)
{
	if (!strstr(tls->why, part))
		fail_msg("\"%s\" does not say \"%s\"", tls->why, part);
}

static void pair_begin(struct tls_pair *p, int version, size_t piece)
{
	tls_pair_begin(p, &(struct tls_server_wish){.cert = "server", .max_version = version},
		       piece);
}

/* Takes the server's records in pieces; appends what is in them to buf. The last result of a read.
 */
static ssize_t drain(struct tls_pair *p, size_t piece, uint8_t *buf, size_t *n)
{
	uint8_t bytes[40000];
	ssize_t got = -EAGAIN;
	size_t len;

	while ((len = tls_server_said(&p->s, bytes, piece)) > 0) {
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
			struct tls_pair p;

			pair_begin(&p, versions[v], pieces[i]);
			assert_int_equal(SSL_write(p.s.ssl, data, sizeof(data)), sizeof(data));
			assert_int_equal(drain(&p, pieces[i], buf, &n), -EAGAIN);
			assert_int_equal(n, sizeof(data));
			assert_memory_equal(buf, data, n);
			assert_int_equal(gk_tls_write(p.tls, data, sizeof(data)), 0);
			tls_server_hear(&p.s, p.tls);
			while (back < sizeof(data)) {
				int got = SSL_read(p.s.ssl, buf + back, (int)sizeof(buf));

				assert_true(got > 0);
				back += (size_t)got;
			}
			assert_memory_equal(buf, data, back);
			tls_pair_end(&p);
		}
	}
}

/* Lent in one go, as a session does it; with a new key in the middle. */
static void new_keys_and_tickets_are_no_data(void **state)
{
	uint8_t bytes[65536], buf[4096];
	struct tls_pair p;
	size_t n = 0;
	ssize_t got;

	(void)state;
	pair_begin(&p, TLS1_3_VERSION, SIZE_MAX);
	assert_true(SSL_new_session_ticket(p.s.ssl));
	assert_int_equal(SSL_write(p.s.ssl, "before", 6), 6);
	assert_true(SSL_key_update(p.s.ssl, SSL_KEY_UPDATE_REQUESTED));
	assert_int_equal(SSL_write(p.s.ssl, "behind", 6), 6);
	gk_tls_lend(p.tls, bytes, tls_server_said(&p.s, bytes, sizeof(bytes)));
	while ((got = gk_tls_read(p.tls, buf + n, sizeof(buf) - n)) > 0)
		n += (size_t)got;
	assert_int_equal(got, -EAGAIN);
	assert_int_equal(n, 12);
	assert_memory_equal(buf, "beforebehind", 12);
	assert_true(p.tls->rekeyed);
	/* What we say next is in our new key, behind the answer to theirs. */
	assert_int_equal(gk_tls_write(p.tls, "answer", 6), 0);
	tls_server_hear(&p.s, p.tls);
	assert_int_equal(SSL_read(p.s.ssl, buf, sizeof(buf)), 6);
	/* The kernel is not told keys that are not those of the handshake. */
	assert_int_equal(gk_tls_offload(p.tls, -1, GK_TLS_SEND | GK_TLS_RECV), 0);
	tls_pair_end(&p);
}

static void a_cut_is_no_close(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	uint8_t buf[65536];

	(void)state;
	for (int v = 0; v < 2; v++) {
		struct tls_pair p;
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
		tls_pair_end(&p);
	}
}

static void a_changed_byte_ends_the_connection(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	uint8_t bytes[4096], buf[4096];

	(void)state;
	for (int v = 0; v < 2; v++) {
		for (size_t at = 0; at < 60; at++) {
			struct tls_pair p;
			size_t n, used;
			int r;

			pair_begin(&p, versions[v], SIZE_MAX);
			n = 0;
			(void)drain(&p, 40000, buf, &n); /* session tickets */
			assert_int_equal(SSL_write(p.s.ssl, bytes, 40), 40);
			n = tls_server_said(&p.s, bytes, sizeof(bytes));
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
			tls_pair_end(&p);
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
			struct gk_tls_options options =
				tls_server_options(&tls_pair_ca, "disk.example");
			struct tls_server_wish wish = {.cert = "server",
						       .max_version = TLS1_2_VERSION};
			struct gk_tls_context *context = tls_server_context(&options);
			struct gk_tls *tls = gk_tls_new(context);
			struct tls_server s;
			size_t n, used;
			int r;

			tls_server_begin(&s, &tls_pair_ca, &wish);
			assert_int_equal(gk_tls_handshake(tls, NULL, 0, &used), -EAGAIN);
			tls_server_hear(&s, tls);
			(void)SSL_do_handshake(s.ssl);
			n = tls_server_said(&s, buf, sizeof(buf));
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
			tls_server_end(&s);
			if (cut >= n)
				break;
		}
	}
}

static void what_is_no_tls_is_said_at_once(void **state)
{
	static const char *const texts[] = {"HTTP/1.1 400 Bad Request", "\x16\x02", "NBDMAGIC",
					    "\0"};
	struct gk_tls_options options = tls_server_options(&tls_pair_ca, "disk.example");

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct gk_tls_context *context = tls_server_context(&options);
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
		struct tls_pair p;
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
		tls_pair_end(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_of_any_size_are_the_same_stream),
		cmocka_unit_test(new_keys_and_tickets_are_no_data),
		cmocka_unit_test(a_cut_is_no_close),
		cmocka_unit_test(a_changed_byte_ends_the_connection),
		cmocka_unit_test(the_handshake_may_end_anywhere),
		cmocka_unit_test(what_is_no_tls_is_said_at_once),
		cmocka_unit_test(records_are_counted_from_the_first_with_the_keys),
	};

	return cmocka_run_group_tests(tests, tls_pair_begin_all, tls_pair_end_all);
}
