// SPDX-License-Identifier: MIT
/* The handshake's modes of a probe, and what holds for every mode. */
#include "nbd_script.h"

static void list_asks_about_each_export_and_leaves(void **state)
{
	struct script s = {0};

	(void)state;
	script_list(&s);
	for (size_t chunk = 1; chunk < 40; chunk += 19) {
		const struct gk_nbd_export *e;
		struct run r;
		size_t at;

		start(&r, GK_NBD_HANDSHAKE_LIST, "", true);
		assert_int_equal(play(&r, &s, s.n, chunk), 0);
		assert_int_equal(r.h->list.list_error, 0);
		assert_int_equal(r.h->list.n, 2);
		assert_int_equal(r.h->list.n_listed, 2);
		e = &r.h->list.exports[0];
		assert_string_equal(e->name, "one");
		assert_string_equal(e->description, "said later");
		assert_int_equal(e->error, 0);
		assert_int_equal(e->facts.size_bytes, SIZE);
		assert_int_equal(e->facts.block_max, UINT32_MAX);
		assert_true(e->facts.structured);
		e = &r.h->list.exports[1];
		assert_string_equal(e->name, "");
		assert_int_equal(e->error, -ENOENT);
		assert_non_null(strstr(e->why, "gone"));
		at = sent_flags(&r, FIXED);
		at = sent_option(&r, at, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
		at = sent_option(&r, at, NBD_OPT_LIST, NULL, 0);
		at = sent_option(&r, at, NBD_OPT_INFO, "\0\0\0\3one\0\2\0\3\0\2", 13);
		at = sent_option(&r, at, NBD_OPT_INFO, "\0\0\0\0\0\2\0\3\0\2", 10);
		at = sent_option(&r, at, NBD_OPT_ABORT, NULL, 0);
		assert_int_equal(at, r.n_sent);
		end(&r);
	}
	forget(&s);
}

static void an_empty_list_is_a_result(void **state)
{
	struct script s = {0};
	struct run r;
	size_t at;

	(void)state;
	greet(&s, FIXED);
	final(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL);
	start(&r, GK_NBD_HANDSHAKE_LIST, "", false);
	assert_int_equal(play_all(&r, &s), 0);
	assert_int_equal(r.h->list.n, 0);
	at = sent_option(&r, sent_flags(&r, FIXED), NBD_OPT_LIST, NULL, 0);
	assert_int_equal(sent_option(&r, at, NBD_OPT_ABORT, NULL, 0), r.n_sent);
	end(&r);
	forget(&s);
}

static void more_exports_than_a_list_holds_are_only_counted(void **state)
{
	struct script s = {0};
	struct run r;
	char name[16];

	(void)state;
	greet(&s, FIXED);
	for (unsigned int i = 0; i < GK_NBD_EXPORT_LIST_MAX + 50; i++) {
		snprintf(name, sizeof(name), "e%u", i);
		listed(&s, name, "");
	}
	final(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL);
	for (unsigned int i = 0; i < GK_NBD_EXPORT_LIST_MAX; i++) {
		info_export(&s, NBD_OPT_INFO, i + 1, FLAGS);
		final(&s, NBD_OPT_INFO, NBD_REP_ACK, NULL);
	}
	start(&r, GK_NBD_HANDSHAKE_LIST, "", false);
	assert_int_equal(play_all(&r, &s), 0);
	assert_int_equal(r.h->list.n, GK_NBD_EXPORT_LIST_MAX);
	assert_int_equal(r.h->list.n_listed, GK_NBD_EXPORT_LIST_MAX + 50);
	assert_string_equal(r.h->list.exports[255].name, "e255");
	assert_int_equal(r.h->list.exports[255].facts.size_bytes, 256);
	end(&r);
	forget(&s);
}

static void a_server_that_does_not_list_is_asked_about_the_planned_export(void **state)
{
	struct script s = {0};
	struct run r;
	size_t at;

	(void)state;
	greet(&s, FIXED);
	final(&s, NBD_OPT_LIST, NBD_REP_ERR_POLICY, "no list for you");
	info_export(&s, NBD_OPT_INFO, SIZE, FLAGS);
	final(&s, NBD_OPT_INFO, NBD_REP_ACK, NULL);
	start(&r, GK_NBD_HANDSHAKE_LIST, "vol0", false);
	assert_int_equal(play(&r, &s, s.n, 1), 0);
	assert_int_equal(r.h->list.list_error, -EPERM);
	assert_non_null(strstr(r.h->list.list_why, "no list for you"));
	assert_int_equal(r.h->list.n, 1);
	assert_int_equal(r.h->list.n_listed, 0);
	assert_string_equal(r.h->list.exports[0].name, "vol0");
	assert_int_equal(r.h->list.exports[0].facts.size_bytes, SIZE);
	at = sent_option(&r, sent_flags(&r, FIXED), NBD_OPT_LIST, NULL, 0);
	at = sent_option(&r, at, NBD_OPT_INFO, "\0\0\0\4vol0\0\2\0\3\0\2", 14);
	assert_int_equal(sent_option(&r, at, NBD_OPT_ABORT, NULL, 0), r.n_sent);
	end(&r);
	forget(&s);
}

/* What an old server is asked ends in transmission, so the probe leaves with NBD_CMD_DISC. */
static void a_probe_of_an_old_server_ends_with_a_disconnect(void **state)
{
	static const enum gk_nbd_handshake_mode modes[] = {GK_NBD_HANDSHAKE_INFO,
							   GK_NBD_HANDSHAKE_LIST};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct nbd_request want = {.magic = htobe32(NBD_REQUEST_MAGIC),
					   .type = htobe16(NBD_CMD_DISC)};
		struct script s = {0};
		struct run r;
		size_t at;

		greet(&s, 0);
		say64(&s, SIZE);
		say16(&s, FLAGS);
		say(&s, (char[124]){0}, 124);
		start(&r, modes[i], "vol0", true);
		assert_int_equal(play_all(&r, &s), 0);
		assert_int_equal(r.h->list.n, 1);
		assert_int_equal(r.h->list.exports[0].facts.size_bytes, SIZE);
		assert_int_equal(r.h->list.list_error, i == 1 ? -ENOTSUP : 0);
		at = sent_option(&r, sent_flags(&r, 0), NBD_OPT_EXPORT_NAME, "vol0", 4);
		assert_int_equal(at + sizeof(want), r.n_sent);
		assert_memory_equal(r.sent + at, &want, sizeof(want));
		end(&r);
		forget(&s);
	}
}

static void without_info_a_single_export_is_asked_by_name_and_several_are_not(void **state)
{
	struct script one = {0}, two = {0};
	struct run r;

	(void)state;
	greet(&one, FIXED);
	listed(&one, "vol0", "");
	final(&one, NBD_OPT_LIST, NBD_REP_ACK, NULL);
	final(&one, NBD_OPT_INFO, NBD_REP_ERR_UNSUP, NULL);
	say64(&one, SIZE);
	say16(&one, FLAGS);
	start(&r, GK_NBD_HANDSHAKE_LIST, "", false);
	assert_int_equal(play_all(&r, &one), 0);
	assert_int_equal(r.h->list.exports[0].facts.size_bytes, SIZE);
	end(&r);

	greet(&two, FIXED);
	listed(&two, "vol0", "");
	listed(&two, "vol1", "");
	final(&two, NBD_OPT_LIST, NBD_REP_ACK, NULL);
	final(&two, NBD_OPT_INFO, NBD_REP_ERR_UNSUP, NULL);
	final(&two, NBD_OPT_INFO, NBD_REP_ERR_UNSUP, NULL);
	start(&r, GK_NBD_HANDSHAKE_LIST, "", false);
	assert_int_equal(play_all(&r, &two), 0);
	assert_int_equal(r.h->list.exports[0].error, -ENOTSUP);
	assert_int_equal(r.h->list.exports[1].error, -ENOTSUP);
	end(&r);
	forget(&one);
	forget(&two);
}

static void info_about_an_unknown_export_fails_the_probe(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	greet(&s, FIXED);
	final(&s, NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN, NULL);
	start(&r, GK_NBD_HANDSHAKE_INFO, "vol9", false);
	assert_int_equal(play_all(&r, &s), -ENOENT);
	assert_sentence(&r, "\"vol9\"");
	end(&r);
	forget(&s);
}

static void one_export_with_impossible_facts_does_not_hide_the_others(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	greet(&s, FIXED);
	listed(&s, "bad", "");
	listed(&s, "good", "");
	final(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL);
	info_export(&s, NBD_OPT_INFO, SIZE, FLAGS);
	info_blocks(&s, NBD_OPT_INFO, 3, 3, 3);
	final(&s, NBD_OPT_INFO, NBD_REP_ACK, NULL);
	info_export(&s, NBD_OPT_INFO, SIZE, FLAGS);
	final(&s, NBD_OPT_INFO, NBD_REP_ACK, NULL);
	start(&r, GK_NBD_HANDSHAKE_LIST, "", false);
	assert_int_equal(play_all(&r, &s), 0);
	assert_int_equal(r.h->list.exports[0].error, -EPROTO);
	assert_non_null(strstr(r.h->list.exports[0].why, "minimum 3"));
	assert_int_equal(r.h->list.exports[1].error, 0);
	assert_int_equal(r.h->list.exports[1].facts.block_min, 1);
	end(&r);
	forget(&s);
}

static void an_export_without_a_size_is_told_apart_from_the_one_before(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	greet(&s, FIXED);
	listed(&s, "sized", "");
	listed(&s, "unsized", "");
	final(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL);
	info_export(&s, NBD_OPT_INFO, SIZE, FLAGS);
	final(&s, NBD_OPT_INFO, NBD_REP_ACK, NULL);
	final(&s, NBD_OPT_INFO, NBD_REP_ACK, NULL);
	start(&r, GK_NBD_HANDSHAKE_LIST, "", false);
	assert_int_equal(play_all(&r, &s), 0);
	assert_int_equal(r.h->list.exports[0].error, 0);
	assert_int_equal(r.h->list.exports[1].error, -EPROTO);
	end(&r);
	forget(&s);
}

static void a_server_that_goes_down_in_mid_list_ends_the_probe(void **state)
{
	struct script s = {0};
	struct run r;

	(void)state;
	greet(&s, FIXED);
	listed(&s, "one", "");
	listed(&s, "two", "");
	final(&s, NBD_OPT_LIST, NBD_REP_ACK, NULL);
	final(&s, NBD_OPT_INFO, NBD_REP_ERR_SHUTDOWN, NULL);
	start(&r, GK_NBD_HANDSHAKE_LIST, "", false);
	assert_int_equal(play_all(&r, &s), -ESHUTDOWN);
	end(&r);
	forget(&s);
}

static void a_list_entry_that_lies_about_its_name_ends_the_handshake(void **state)
{
	static const struct {
		uint32_t len, name_len;
		const char *name, *says;
	} table[] = {
		{3, 0, "", "type 2 and 3 bytes"}, /* no room for the length of the name */
		{6, 3, "ab", "name of 3 bytes"},
		{4, UINT32_MAX, "", "name of 4294967295 bytes"},
		{4 + NBD_MAX_STRING + 1, NBD_MAX_STRING + 1, NULL, "name of 4097 bytes"},
		{7, 3, "a\0b", "zero byte"},
	};
	static char spaces[NBD_MAX_STRING + 1];

	memset(spaces, ' ', sizeof(spaces));
	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct script s = {0};
		struct run r;
		size_t start_of_entry;

		greet(&s, FIXED);
		reply(&s, NBD_OPT_LIST, NBD_REP_SERVER, NULL, 0);
		s.n -= 4;
		say32(&s, table[i].len);
		start_of_entry = s.n;
		say32(&s, table[i].name_len);
		if (table[i].len > 4)
			say(&s, table[i].name ? table[i].name : spaces, table[i].len - 4);
		s.n = start_of_entry + table[i].len;
		start(&r, GK_NBD_HANDSHAKE_LIST, "", false);
		assert_int_equal(play_all(&r, &s), -EPROTO);
		assert_sentence(&r, table[i].says);
		end(&r);
		forget(&s);
	}
}

static void the_longest_export_name_is_sent_and_a_longer_one_refused(void **state)
{
	static char name[NBD_MAX_STRING + 2];
	const struct gk_nbd_handshake_plan plan = {.export_name = name};
	struct gk_nbd_handshake *h = malloc(sizeof(*h));
	struct script s = {0};
	struct run r;

	(void)state;
	assert_non_null(h);
	memset(name, 'n', NBD_MAX_STRING + 1);
	assert_int_equal(gk_nbd_handshake_init(h, &plan), -ENAMETOOLONG);
	assert_int_not_equal(h->why[0], '\0');
	gk_nbd_handshake_done(h);
	free(h);

	name[NBD_MAX_STRING] = '\0';
	greet(&s, FIXED);
	final(&s, NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN, NULL);
	start(&r, GK_NBD_HANDSHAKE_INFO, name, false);
	assert_int_equal(play_all(&r, &s), -ENOENT);
	assert_int_equal(r.n_sent, 4 + 16 + 4 + NBD_MAX_STRING + 2 + 4);
	assert_sentence(&r, "nnn...\"");
	end(&r);
	forget(&s);
}

static const struct {
	void (*write)(struct script *s);
	enum gk_nbd_handshake_mode mode;
} whole[] = {
	{script_go, GK_NBD_HANDSHAKE_GO},
	{script_export_name, GK_NBD_HANDSHAKE_GO},
	{script_list, GK_NBD_HANDSHAKE_LIST},
};

static void a_handshake_cut_short_at_any_byte_does_not_finish(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++) {
		struct script s = {0};
		struct run r;

		whole[i].write(&s);
		for (size_t n = 0; n < s.n; n++) {
			start(&r, whole[i].mode, "vol0", true);
			assert_int_equal(play(&r, &s, n, SIZE_MAX), -EAGAIN);
			assert_in_range(-gk_nbd_handshake_eof(r.h), 1, 4095);
			assert_int_not_equal(r.h->why[0], '\0');
			end(&r);
		}
		forget(&s);
	}
}

static void facts_are_sane(const struct nbd_export_facts *f)
{
	assert_true(f->size_bytes <= INT64_MAX);
	assert_in_range(f->block_min, 1, 65536);
	assert_true(f->block_preferred >= 512 && f->block_max > 0);
	assert_true(f->block_max == UINT32_MAX || f->block_max % f->block_min == 0);
}

/* Not one wrong byte may crash it, over-read, or get impossible facts through. */
static void any_wrong_byte_has_a_defined_outcome(void **state)
{
	static const unsigned char flips[] = {0x01, 0x02, 0x80, 0xff};

	(void)state;
	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++) {
		struct script s = {0};
		size_t failed = 0;

		whole[i].write(&s);
		for (size_t at = 0; at < s.n * sizeof(flips); at++) {
			unsigned char flip = flips[at % sizeof(flips)];
			struct run r;

			s.bytes[at / sizeof(flips)] ^= flip;
			start(&r, whole[i].mode, "vol0", true);
			play(&r, &s, s.n, 1);
			s.bytes[at / sizeof(flips)] ^= flip;
			if (r.result == 0 && whole[i].mode == GK_NBD_HANDSHAKE_GO)
				facts_are_sane(&r.h->facts);
			for (size_t e = 0; r.result == 0 && e < r.h->list.n; e++)
				if (r.h->list.exports[e].error == 0)
					facts_are_sane(&r.h->list.exports[e].facts);
			failed += r.result != 0 && r.result != -EAGAIN;
			end(&r);
		}
		/* The magics alone make a good part of the bytes fatal. */
		assert_in_range(failed, 8 * sizeof(flips), s.n * sizeof(flips));
		forget(&s);
	}
}

static void printable_text_is_bounded_and_harmless(void **state)
{
	char dst[8];

	(void)state;
	assert_string_equal(gk_nbd_export_printable(dst, sizeof(dst), "a\tb\xc3\xa4", 5), "a?b??");
	assert_string_equal(gk_nbd_export_printable(dst, sizeof(dst), "1234567", 7), "1234567");
	assert_string_equal(gk_nbd_export_printable(dst, sizeof(dst), "12345678", 8), "1234...");
	assert_string_equal(gk_nbd_export_printable(dst, sizeof(dst), "", 0), "");
	assert_string_equal(gk_nbd_export_printable(dst, 3, "abcdef", 6), "..");
	assert_string_equal(gk_nbd_export_printable(dst, 1, "abcdef", 6), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(list_asks_about_each_export_and_leaves),
		cmocka_unit_test(an_empty_list_is_a_result),
		cmocka_unit_test(more_exports_than_a_list_holds_are_only_counted),
		cmocka_unit_test(a_server_that_does_not_list_is_asked_about_the_planned_export),
		cmocka_unit_test(a_probe_of_an_old_server_ends_with_a_disconnect),
		cmocka_unit_test(without_info_a_single_export_is_asked_by_name_and_several_are_not),
		cmocka_unit_test(info_about_an_unknown_export_fails_the_probe),
		cmocka_unit_test(one_export_with_impossible_facts_does_not_hide_the_others),
		cmocka_unit_test(an_export_without_a_size_is_told_apart_from_the_one_before),
		cmocka_unit_test(a_server_that_goes_down_in_mid_list_ends_the_probe),
		cmocka_unit_test(a_list_entry_that_lies_about_its_name_ends_the_handshake),
		cmocka_unit_test(the_longest_export_name_is_sent_and_a_longer_one_refused),
		cmocka_unit_test(a_handshake_cut_short_at_any_byte_does_not_finish),
		cmocka_unit_test(any_wrong_byte_has_a_defined_outcome),
		cmocka_unit_test(printable_text_is_bounded_and_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
