// SPDX-License-Identifier: MIT
#include "nbd_script.h"

static void go_yields_the_facts_however_the_bytes_come(void **state)
{
	const size_t chunks[] = {1, 2, 3, 7, 19, 64, SIZE_MAX};
	struct script s = {0};

	(void)state;
	script_go(&s);
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		struct run r;
		size_t at;

		start(&r, GK_NBD_HANDSHAKE_GO, "vol0", true);
		assert_int_equal(play(&r, &s, s.n, chunks[i]), 0);
		assert_int_equal(r.used, s.n);
		assert_int_equal(r.h->facts.size_bytes, SIZE);
		assert_int_equal(r.h->facts.flags, FLAGS | NBD_FLAG_SEND_DF);
		assert_true(r.h->facts.structured);
		assert_true(r.h->facts.has_block_size);
		assert_int_equal(r.h->facts.block_min, 4096);
		assert_int_equal(r.h->facts.block_preferred, 65536);
		assert_int_equal(r.h->facts.block_max, 1U << 20);
		at = sent_flags(&r, FIXED);
		at = sent_option(&r, at, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		at = sent_option(&r, at, NBD_OPT_GO, "\0\0\0\4vol0\0\1\0\3", 12);
		assert_int_equal(at, r.n_sent);
		end(&r);
	}
	forget(&s);
}

static void structured_replies_are_not_asked_for_unless_wanted(void **state)
{
	struct script s = {0};
	struct run r;
	size_t at;

	(void)state;
	greet(&s, FIXED);
	info_export(&s, NBD_OPT_GO, SIZE, FLAGS | NBD_FLAG_SEND_DF);
	final(&s, NBD_OPT_GO, NBD_REP_ACK, NULL);
	start(&r, GK_NBD_HANDSHAKE_GO, "", false);
	assert_int_equal(play_all(&r, &s), 0);
	assert_false(r.h->facts.structured);
	assert_int_equal(r.h->facts.flags, FLAGS);
	at = sent_option(&r, sent_flags(&r, FIXED), NBD_OPT_GO, "\0\0\0\0\0\1\0\3", 8);
	assert_int_equal(at, r.n_sent);
	end(&r);
	forget(&s);
}

static void block_sizes_default_when_the_server_sends_none(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	greet(&s, FIXED);
	info_export(&s, NBD_OPT_GO, SIZE, FLAGS);
	final(&s, NBD_OPT_GO, NBD_REP_ACK, NULL);
	start(&r, GK_NBD_HANDSHAKE_GO, "", false);
	assert_int_equal(play_all(&r, &s), 0);
	assert_false(r.h->facts.has_block_size);
	assert_int_equal(r.h->facts.block_min, 1);
	assert_int_equal(r.h->facts.block_preferred, 4096);
	assert_int_equal(r.h->facts.block_max, 32U << 20);
	end(&r);
	forget(&s);
}

static void a_server_without_go_is_asked_by_export_name(void **state)
{
	struct script s = {0};
	struct run r;
	size_t at;

	(void)state;
	script_export_name(&s);
	start(&r, GK_NBD_HANDSHAKE_GO, "vol0", true);
	assert_int_equal(play(&r, &s, s.n, 1), 0);
	assert_int_equal(r.used, s.n);
	assert_int_equal(r.h->facts.size_bytes, SIZE);
	assert_int_equal(r.h->facts.flags, FLAGS);
	assert_false(r.h->facts.structured);
	at = sent_flags(&r, NBD_FLAG_FIXED_NEWSTYLE);
	at = sent_option(&r, at, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	at = sent_option(&r, at, NBD_OPT_GO, "\0\0\0\4vol0\0\1\0\3", 12);
	at = sent_option(&r, at, NBD_OPT_EXPORT_NAME, "vol0", 4);
	assert_int_equal(at, r.n_sent);
	end(&r);
	forget(&s);
}

static void the_zeroes_after_export_name_depend_on_the_flags(void **state)
{
	(void)state;
	for (uint16_t flags = 0; flags < 4; flags++) {
		struct script s = {0};
		struct run r;
		size_t at;

		greet(&s, flags);
		if (flags & NBD_FLAG_FIXED_NEWSTYLE)
			final(&s, NBD_OPT_GO, NBD_REP_ERR_UNSUP, NULL);
		say64(&s, SIZE);
		say16(&s, FLAGS);
		if (!(flags & NBD_FLAG_NO_ZEROES))
			say(&s, (char[124]){0}, 124);
		start(&r, GK_NBD_HANDSHAKE_GO, "x", false);
		assert_int_equal(play(&r, &s, s.n - 1, SIZE_MAX), -EAGAIN);
		feed(&r, s.bytes + s.n - 1, 1);
		assert_int_equal(r.result, 0);
		at = sent_flags(&r, flags);
		if (flags & NBD_FLAG_FIXED_NEWSTYLE)
			at = sent_option(&r, at, NBD_OPT_GO, "\0\0\0\1x\0\1\0\3", 9);
		at = sent_option(&r, at, NBD_OPT_EXPORT_NAME, "x", 1);
		assert_int_equal(at, r.n_sent);
		end(&r);
		forget(&s);
	}
}

static void an_old_server_that_hangs_up_has_no_such_export(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	greet(&s, 0);
	start(&r, GK_NBD_HANDSHAKE_GO, "nothere", true);
	assert_int_equal(play_all(&r, &s), -EAGAIN);
	assert_int_equal(gk_nbd_handshake_eof(r.h), -ENOENT);
	assert_sentence(&r, "\"nothere\"");
	end(&r);
	forget(&s);
}

static void every_error_reply_has_its_errno_and_the_servers_words(void **state)
{
	static const struct {
		uint32_t type;
		int error;
		const char *says;
	} table[] = {
		{NBD_REP_ERR_POLICY, -EPERM, "policy"},
		{NBD_REP_ERR_INVALID, -EINVAL, "invalid"},
		{NBD_REP_ERR_PLATFORM, -ENOTSUP, "platform"},
		{NBD_REP_ERR_TLS_REQD, -ENOTSUP, "TLS"},
		{NBD_REP_ERR_UNKNOWN, -ENOENT, "no export \"vol0\""},
		{NBD_REP_ERR_SHUTDOWN, -ESHUTDOWN, "shutting down"},
		{NBD_REP_ERR_BLOCK_SIZE_REQD, -EPROTO, "block sizes"},
		{NBD_REP_ERR_TOO_BIG, -E2BIG, "too large"},
		{NBD_REP_FLAG_ERROR | 4711, -EPROTO, "4711"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct script s = {0};
		struct run r;

		greet(&s, FIXED);
		final(&s, NBD_OPT_GO, table[i].type, "go\033[2Jaway\n");
		start(&r, GK_NBD_HANDSHAKE_GO, "vol0", false);
		assert_int_equal(play_all(&r, &s), table[i].error);
		assert_sentence(&r, table[i].says);
		assert_sentence(&r, "go?[2Jaway?");
		/* It stays failed, whatever else comes. */
		feed(&r, s.bytes, s.n);
		assert_int_equal(r.result, table[i].error);
		assert_int_equal(gk_nbd_handshake_eof(r.h), table[i].error);
		end(&r);
		forget(&s);
	}
}

static void a_server_that_wants_tls_or_goes_down_says_so_at_the_first_option(void **state)
{
	static const uint32_t types[] = {NBD_REP_ERR_TLS_REQD, NBD_REP_ERR_SHUTDOWN};
	static const int errors[] = {-ENOTSUP, -ESHUTDOWN};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct script go = {0}, list = {0};
		struct run r;

		greet(&go, FIXED);
		final(&go, NBD_OPT_STRUCTURED_REPLY, types[i], NULL);
		start(&r, GK_NBD_HANDSHAKE_GO, "", true);
		assert_int_equal(play_all(&r, &go), errors[i]);
		end(&r);
		greet(&list, FIXED);
		final(&list, NBD_OPT_LIST, types[i], NULL);
		start(&r, GK_NBD_HANDSHAKE_LIST, "", false);
		assert_int_equal(play_all(&r, &list), errors[i]);
		end(&r);
		forget(&go);
		forget(&list);
	}
}

static void what_is_not_nbd_is_found_at_its_first_wrong_byte(void **state)
{
	static const char *const banners[] = {"SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 400 Bad Request",
					      "220 ready\r\n", "NBDMAGIK"};
	static const size_t wrong_at[] = {1, 1, 1, 8};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct script s = {0};
		struct run r;

		say(&s, banners[i], strlen(banners[i]));
		start(&r, GK_NBD_HANDSHAKE_GO, "", false);
		assert_int_equal(play(&r, &s, s.n, 1), -EPROTO);
		assert_int_equal(r.used, wrong_at[i]);
		end(&r);
		start(&r, GK_NBD_HANDSHAKE_GO, "", false);
		assert_int_equal(play_all(&r, &s), -EPROTO);
		assert_sentence(&r, "no NBD server");
		assert_sentence(&r, ((char[9]){banners[i][0], banners[i][1], banners[i][2]}));
		assert_int_equal(r.n_sent, 0);
		end(&r);
		forget(&s);
	}
}

static void oldstyle_and_unknown_greetings_are_told_apart(void **state)
{
	struct script old = {0}, unknown = {0};
	struct run r;

	(void)state;
	say64(&old, NBD_MAGIC);
	say64(&old, NBD_OLDSTYLE_MAGIC);
	start(&r, GK_NBD_HANDSHAKE_GO, "", false);
	assert_int_equal(play_all(&r, &old), -EPROTO);
	assert_sentence(&r, "oldstyle handshake");
	end(&r);
	say64(&unknown, NBD_MAGIC);
	say64(&unknown, 42);
	start(&r, GK_NBD_HANDSHAKE_GO, "", false);
	assert_int_equal(play_all(&r, &unknown), -EPROTO);
	assert_sentence(&r, "neither newstyle nor oldstyle");
	end(&r);
	forget(&old);
	forget(&unknown);
}

static void a_reply_against_the_protocol_ends_the_handshake(void **state)
{
	const uint32_t go = NBD_OPT_GO, info = NBD_REP_INFO;
	static const unsigned char zeroes[GK_NBD_HANDSHAKE_MAX_PAYLOAD];
	const struct {
		uint64_t magic;
		uint32_t option, type, len;
		const char *data; /* NULL: as many zeroes as the length asks for, up to a page */
		const char *says;
	} table[] = {
		{NBD_REP_MAGIC + 1, go, NBD_REP_ACK, 0, "", "magic"},
		{NBD_REP_MAGIC, NBD_OPT_LIST, NBD_REP_ACK, 0, "", "answers option 3"},
		{NBD_REP_MAGIC, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, 0, "", "answers option 8"},
		{NBD_REP_MAGIC, go, NBD_REP_ACK, 0, "", "without telling the size"},
		{NBD_REP_MAGIC, go, NBD_REP_ACK, 1, "x", "type 1 and 1 bytes"},
		{NBD_REP_MAGIC, go, NBD_REP_SERVER, 4, NULL, "type 2 and 4 bytes"},
		{NBD_REP_MAGIC, go, 99, 0, "", "type 99"},
		{NBD_REP_MAGIC, go, info, 0, "", "type 3 and 0 bytes"},
		{NBD_REP_MAGIC, go, info, 1, "x", "type 3 and 1 bytes"},
		{NBD_REP_MAGIC, go, info, 11, NULL, "kind 0 with 11 bytes"},
		{NBD_REP_MAGIC, go, info, 13, NULL, "kind 0 with 13 bytes"},
		{NBD_REP_MAGIC, go, info, 13, "\0\3xxxxxxxxxxx", "kind 3 with 13 bytes"},
		{NBD_REP_MAGIC, go, info, 15, "\0\3xxxxxxxxxxxxx", "kind 3 with 15 bytes"},
		{NBD_REP_MAGIC, go, info, GK_NBD_HANDSHAKE_MAX_PAYLOAD + 1, "", "too long"},
		{NBD_REP_MAGIC, go, info, UINT32_MAX, "", "too long"},
		{NBD_REP_MAGIC, go, NBD_REP_ERR_UNKNOWN, 1U << 20, "", "too long"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct script s = {0};
		struct run r;

		greet(&s, FIXED);
		say64(&s, table[i].magic);
		say32(&s, table[i].option);
		say32(&s, table[i].type);
		say32(&s, table[i].len);
		if (!table[i].data)
			say(&s, zeroes, table[i].len);
		else if (table[i].len <= 64)
			say(&s, table[i].data, table[i].len);
		start(&r, GK_NBD_HANDSHAKE_GO, "", false);
		assert_int_equal(play_all(&r, &s), -EPROTO);
		assert_sentence(&r, table[i].says);
		end(&r);
		forget(&s);
	}
}

static void the_longest_reply_allowed_is_taken_whole(void **state)
{
	static const char long_text[GK_NBD_HANDSHAKE_MAX_PAYLOAD] = {0, 77};
	struct script s = {0};
	struct run r;

	(void)state;
	greet(&s, FIXED);
	reply(&s, NBD_OPT_GO, NBD_REP_INFO, long_text, sizeof(long_text));
	info_export(&s, NBD_OPT_GO, SIZE, FLAGS);
	final(&s, NBD_OPT_GO, NBD_REP_ACK, NULL);
	start(&r, GK_NBD_HANDSHAKE_GO, "", false);
	assert_int_equal(play_all(&r, &s), 0);
	end(&r);
	forget(&s);
}

static void a_flood_of_replies_is_cut_off(void **state)
{
	struct script go = {0}, list = {0};
	struct run r;

	(void)state;
	greet(&go, FIXED);
	for (unsigned int i = 0; i < GK_NBD_HANDSHAKE_MAX_REPLIES; i++)
		info_export(&go, NBD_OPT_GO, SIZE, FLAGS);
	start(&r, GK_NBD_HANDSHAKE_GO, "", false);
	assert_int_equal(play_all(&r, &go), -EAGAIN);
	feed(&r, go.bytes + go.pause[0], 20);
	assert_int_equal(r.result, -EPROTO);
	assert_sentence(&r, "does not come to an end");
	end(&r);

	greet(&list, FIXED);
	for (unsigned int i = 0; i < GK_NBD_HANDSHAKE_MAX_LISTED; i++)
		listed(&list, "x", "");
	start(&r, GK_NBD_HANDSHAKE_LIST, "", false);
	assert_int_equal(play_all(&r, &list), -EAGAIN);
	assert_int_equal(r.h->list.n, GK_NBD_EXPORT_LIST_MAX);
	assert_int_equal(r.h->list.n_listed, GK_NBD_HANDSHAKE_MAX_LISTED);
	feed(&r, list.bytes + list.pause[0], 20);
	assert_int_equal(r.result, -EPROTO);
	end(&r);
	forget(&go);
	forget(&list);
}

static void a_server_that_answers_before_it_is_asked_is_not_trusted(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	script_list(&s);
	start(&r, GK_NBD_HANDSHAKE_LIST, "", true);
	feed(&r, s.bytes, s.n);
	assert_int_equal(r.result, -EPROTO);
	assert_sentence(&r, "before it is asked");
	assert_int_equal(r.used, s.pause[0]);
	end(&r);
	forget(&s);
}

static void bytes_of_the_transmission_phase_are_left_alone(void **state)
{
	struct script s = {0};
	struct run r;
	size_t handshake;

	(void)state;
	script_go(&s);
	handshake = s.n;
	s.n_pauses--;
	say(&s, "transmission", 12);
	start(&r, GK_NBD_HANDSHAKE_GO, "vol0", true);
	assert_int_equal(play_all(&r, &s), 0);
	assert_int_equal(r.used, handshake);
	end(&r);
	forget(&s);
}

static void block_sizes_are_checked_by_the_protocols_table(void **state)
{
	static const struct {
		uint32_t min, preferred, max;
		bool good;
	} table[] = {
		{1, 512, 1, true},
		{1, 4096, 1U << 20, true},
		{512, 4096, UINT32_MAX, true},
		{4096, 4096, 4096 * 3, true},
		{65536, 65536, 65536, true},
		{65536, 1U << 31, 1U << 31, true},
		{0, 4096, 1U << 20, false},
		{3, 4096, 1U << 20, false},
		{131072, 131072, 1U << 20, false},
		{1, 0, 1U << 20, false},
		{1, 256, 1U << 20, false},
		{1, 4097, 1U << 20, false},
		{4096, 512, 1U << 20, false},
		{512, 4096, 0, false},
		{512, 4096, 256, false},
		{512, 4096, (1U << 20) + 1, false},
		{4096, 4096, UINT32_MAX - 1, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct script s = {0};
		struct run r;

		greet(&s, FIXED);
		info_export(&s, NBD_OPT_GO, SIZE, FLAGS);
		info_blocks(&s, NBD_OPT_GO, table[i].min, table[i].preferred, table[i].max);
		final(&s, NBD_OPT_GO, NBD_REP_ACK, NULL);
		start(&r, GK_NBD_HANDSHAKE_GO, "", false);
		assert_int_equal(play_all(&r, &s), table[i].good ? 0 : -EPROTO);
		if (table[i].good)
			assert_int_equal(r.h->facts.block_max, table[i].max);
		else
			assert_sentence(&r, "block sizes");
		end(&r);
		forget(&s);
	}
}

static void sizes_and_flags_are_taken_with_care(void **state)
{
	static const struct {
		uint64_t size;
		uint16_t flags;
		int result;
		uint16_t believed;
	} table[] = {
		{0, FLAGS, 0, FLAGS},
		{1, FLAGS | NBD_FLAG_READ_ONLY, 0, FLAGS | NBD_FLAG_READ_ONLY},
		{INT64_MAX, FLAGS, 0, FLAGS},
		{UINT64_C(1) << 63, FLAGS, -EOVERFLOW, 0},
		{UINT64_MAX, FLAGS, -EOVERFLOW, 0},
		{SIZE, NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_FUA, 0, NBD_FLAG_READ_ONLY},
		{SIZE, NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		for (unsigned int old = 0; old < 2; old++) {
			struct script s = {0};
			struct run r;

			greet(&s, old ? NBD_FLAG_NO_ZEROES : FIXED);
			if (old) {
				say64(&s, table[i].size);
				say16(&s, table[i].flags);
			} else {
				info_export(&s, NBD_OPT_GO, table[i].size, table[i].flags);
				final(&s, NBD_OPT_GO, NBD_REP_ACK, NULL);
			}
			start(&r, GK_NBD_HANDSHAKE_GO, "", false);
			assert_int_equal(play_all(&r, &s), table[i].result);
			if (table[i].result == 0) {
				assert_int_equal(r.h->facts.size_bytes, table[i].size);
				assert_int_equal(r.h->facts.flags, table[i].believed);
			}
			end(&r);
			forget(&s);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(go_yields_the_facts_however_the_bytes_come),
		cmocka_unit_test(structured_replies_are_not_asked_for_unless_wanted),
		cmocka_unit_test(block_sizes_default_when_the_server_sends_none),
		cmocka_unit_test(a_server_without_go_is_asked_by_export_name),
		cmocka_unit_test(the_zeroes_after_export_name_depend_on_the_flags),
		cmocka_unit_test(an_old_server_that_hangs_up_has_no_such_export),
		cmocka_unit_test(every_error_reply_has_its_errno_and_the_servers_words),
		cmocka_unit_test(a_server_that_wants_tls_or_goes_down_says_so_at_the_first_option),
		cmocka_unit_test(what_is_not_nbd_is_found_at_its_first_wrong_byte),
		cmocka_unit_test(oldstyle_and_unknown_greetings_are_told_apart),
		cmocka_unit_test(a_reply_against_the_protocol_ends_the_handshake),
		cmocka_unit_test(the_longest_reply_allowed_is_taken_whole),
		cmocka_unit_test(a_flood_of_replies_is_cut_off),
		cmocka_unit_test(a_server_that_answers_before_it_is_asked_is_not_trusted),
		cmocka_unit_test(bytes_of_the_transmission_phase_are_left_alone),
		cmocka_unit_test(block_sizes_are_checked_by_the_protocols_table),
		cmocka_unit_test(sizes_and_flags_are_taken_with_care),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
