// SPDX-License-Identifier: MIT
/* NBD_OPT_STARTTLS: it comes first, nothing less will do, and what it ends stays ended. */
#include "nbd_script.h"

static void start_tls(struct run *r, enum gk_nbd_handshake_mode mode)
{
	*r = (struct run){
		.plan = {.mode = mode, .tls = true, .structured = true, .export_name = "vol0"},
		.result = -EAGAIN,
	};
	r->h = malloc(sizeof(*r->h));
	assert_non_null(r->h);
	assert_int_equal(gk_nbd_handshake_init(r->h, &r->plan), 0);
}

static void script_until_tls(struct script *s)
{
	greet(s, FIXED);
	final(s, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL);
}

/* TLS is up: what we say next. */
static void go_on(struct run *r)
{
	assert_int_equal(r->result, GK_NBD_HANDSHAKE_STARTTLS);
	gk_nbd_handshake_secured(r->h);
	r->result = -EAGAIN;
	feed(r, (const unsigned char *)"", 0);
}

static void the_name_of_the_export_is_not_said_before_tls(void **state)
{
	static const size_t chunks[] = {1, 3, 1000};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct script before = {0}, behind = {0};
		struct run r;
		size_t at;

		script_until_tls(&before);
		start_tls(&r, GK_NBD_HANDSHAKE_GO);
		assert_int_equal(play(&r, &before, before.n, chunks[i]), GK_NBD_HANDSHAKE_STARTTLS);
		at = sent_option(&r, sent_flags(&r, FIXED), NBD_OPT_STARTTLS, NULL, 0);
		assert_int_equal(at, r.n_sent);
		go_on(&r);
		sent_option(&r, at, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		assert_string_equal(gk_nbd_handshake_awaited(r.h),
				    "its answer to NBD_OPT_STRUCTURED_REPLY");
		final(&behind, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL);
		info_export(&behind, NBD_OPT_GO, SIZE, FLAGS);
		final(&behind, NBD_OPT_GO, NBD_REP_ACK, NULL);
		assert_int_equal(play(&r, &behind, behind.n, chunks[i]), 0);
		assert_int_equal(r.h->facts.size_bytes, SIZE);
		assert_true(r.h->facts.structured);
		end(&r);
		forget(&before);
		forget(&behind);
	}
}

static void a_list_is_asked_for_through_tls_too(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	script_until_tls(&s);
	start_tls(&r, GK_NBD_HANDSHAKE_LIST);
	assert_int_equal(play_all(&r, &s), GK_NBD_HANDSHAKE_STARTTLS);
	assert_int_equal(r.n_sent, 4 + 16);
	end(&r);
	forget(&s);
}

/* Plain bytes in front of what TLS protects would count as the server's own. */
static void bytes_behind_the_agreement_are_not_taken(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	script_until_tls(&s);
	final(&s, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL);
	start_tls(&r, GK_NBD_HANDSHAKE_GO);
	feed(&r, s.bytes, 18);
	feed(&r, s.bytes + 18, s.n - 18);
	assert_int_equal(r.result, -EPROTO);
	assert_sentence(&r, "sends bytes in the clear after it agreed to TLS");
	end(&r);
	forget(&s);
}

static void whoever_has_no_tls_is_left(void **state)
{
	static const uint32_t types[] = {
		NBD_REP_ERR_UNSUP,	NBD_REP_ERR_POLICY,   NBD_REP_ERR_INVALID,
		NBD_REP_ERR_PLATFORM,	NBD_REP_ERR_TLS_REQD, NBD_REP_ERR_UNKNOWN,
		NBD_REP_ERR_SHUTDOWN,	NBD_REP_FLAG_ERROR | 77,
	};

	(void)state;
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		struct script s = {0};
		struct run r;

		greet(&s, FIXED);
		final(&s, NBD_OPT_STARTTLS, types[i], "not\nhere");
		start_tls(&r, GK_NBD_HANDSHAKE_GO);
		assert_int_equal(play_all(&r, &s), -ENOTSUP);
		assert_sentence(&r, "the server has no TLS, which the URI asks for");
		assert_sentence(&r, "it says: not");
		assert_null(strchr(r.h->why, '\n'));
		/* The flags and one option, and then not a word. */
		assert_int_equal(r.n_sent, 4 + 16);
		end(&r);
		forget(&s);
	}
}

static void an_old_server_is_left_before_any_option(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	greet(&s, NBD_FLAG_NO_ZEROES);
	start_tls(&r, GK_NBD_HANDSHAKE_GO);
	assert_int_equal(play_all(&r, &s), -ENOTSUP);
	assert_sentence(&r, "too old for TLS");
	assert_int_equal(r.n_sent, 0);
	end(&r);
	forget(&s);
}

static void an_answer_that_is_none_is_refused(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	greet(&s, FIXED);
	final(&s, NBD_OPT_STARTTLS, NBD_REP_ACK, "payload");
	start_tls(&r, GK_NBD_HANDSHAKE_GO);
	assert_int_equal(play_all(&r, &s), -EPROTO);
	assert_sentence(&r, "NBD_OPT_STARTTLS");
	end(&r);
	forget(&s);

	greet(&s, FIXED);
	start_tls(&r, GK_NBD_HANDSHAKE_GO);
	assert_int_equal(play_all(&r, &s), -EAGAIN);
	assert_int_equal(gk_nbd_handshake_eof(r.h), -ECONNRESET);
	assert_sentence(&r, "instead of its answer to NBD_OPT_STARTTLS");
	end(&r);
	forget(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_name_of_the_export_is_not_said_before_tls),
		cmocka_unit_test(a_list_is_asked_for_through_tls_too),
		cmocka_unit_test(bytes_behind_the_agreement_are_not_taken),
		cmocka_unit_test(whoever_has_no_tls_is_left),
		cmocka_unit_test(an_old_server_is_left_before_any_option),
		cmocka_unit_test(an_answer_that_is_none_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
