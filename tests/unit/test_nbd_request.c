// SPDX-License-Identifier: MIT
#include "nbd_request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void the_header_is_big_endian_in_the_order_of_the_protocol(void **state)
{
	static const uint8_t expected[28] = {
		0x25, 0x60, 0x95, 0x13,                         /* magic */
		0x00, 0x05,                                     /* FUA | DF */
		0x00, 0x06,                                     /* WRITE_ZEROES */
		0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, /* cookie */
		0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, /* offset */
		0xa1, 0xa2, 0xa3, 0xa4,                         /* length */
	};
	/* Headers lie back to back, at any alignment. */
	uint8_t room[29] = {0};

	(void)state;
	gk_nbd_request_build(NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF,
			     UINT64_C(0x0102030405060708), UINT64_C(0x1112131415161718),
			     0xa1a2a3a4, (struct nbd_request *)(room + 1));
	assert_memory_equal(room + 1, expected, sizeof(expected));
	assert_int_equal(room[0], 0);
}

static void every_field_takes_its_extremes(void **state)
{
	uint8_t expected[28];
	struct nbd_request header;

	(void)state;
	memset(expected, 0xff, sizeof(expected));
	memcpy(expected, "\x25\x60\x95\x13", 4);
	gk_nbd_request_build(UINT16_MAX, UINT16_MAX, UINT64_MAX, UINT64_MAX, UINT32_MAX, &header);
	assert_memory_equal(&header, expected, sizeof(expected));
	memset(expected + 4, 0, sizeof(expected) - 4);
	gk_nbd_request_build(NBD_CMD_READ, 0, 0, 0, 0, &header);
	assert_memory_equal(&header, expected, sizeof(expected));
}

static void a_cookie_gives_back_what_went_in(void **state)
{
	static const uint16_t tags[] = {0, 1, 127, 4095, UINT16_MAX};
	static const uint32_t generations[] = {0, 1, 0x80000000, UINT32_MAX};

	(void)state;
	for (size_t t = 0; t < sizeof(tags) / sizeof(tags[0]); t++) {
		for (size_t g = 0; g < sizeof(generations) / sizeof(generations[0]); g++) {
			uint16_t tag = 1234;
			uint32_t generation = 1234;
			uint64_t cookie = gk_nbd_cookie(tags[t], generations[g]);

			assert_int_equal(gk_nbd_cookie_split(cookie, &tag, &generation), 0);
			assert_int_equal(tag, tags[t]);
			assert_int_equal(generation, generations[g]);
		}
	}
}

static void cookies_of_different_requests_differ(void **state)
{
	(void)state;
	assert_true(gk_nbd_cookie(1, 0) != gk_nbd_cookie(0, 1));
	assert_true(gk_nbd_cookie(1, 1) != gk_nbd_cookie(1, 2));
	assert_true(gk_nbd_cookie(1, 1) != gk_nbd_cookie(2, 1));
}

/* Each single bit that we never set makes the cookie somebody else's. */
static void a_cookie_that_we_never_make_is_refused(void **state)
{
	(void)state;
	for (unsigned int bit = 0; bit < 64; bit++) {
		uint16_t tag = 7;
		uint32_t generation = 7;
		int r = gk_nbd_cookie_split(UINT64_C(1) << bit, &tag, &generation);

		if (bit >= 16 && bit < 32) {
			assert_int_equal(r, -1);
			assert_int_equal(tag, 7);
			assert_int_equal(generation, 7);
		} else {
			assert_int_equal(r, 0);
			assert_int_equal(gk_nbd_cookie(tag, generation), UINT64_C(1) << bit);
		}
	}
}

static void every_command_has_its_name(void **state)
{
	static const struct {
		uint16_t type;
		const char *name;
	} names[] = {
		{0, "NBD_CMD_READ"},  {1, "NBD_CMD_WRITE"}, {2, "NBD_CMD_DISC"},
		{3, "NBD_CMD_FLUSH"}, {4, "NBD_CMD_TRIM"},  {6, "NBD_CMD_WRITE_ZEROES"},
		{5, "NBD_CMD_?"},     {7, "NBD_CMD_?"},     {UINT16_MAX, "NBD_CMD_?"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_string_equal(gk_nbd_cmd_name(names[i].type), names[i].name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_header_is_big_endian_in_the_order_of_the_protocol),
		cmocka_unit_test(every_field_takes_its_extremes),
		cmocka_unit_test(a_cookie_gives_back_what_went_in),
		cmocka_unit_test(cookies_of_different_requests_differ),
		cmocka_unit_test(a_cookie_that_we_never_make_is_refused),
		cmocka_unit_test(every_command_has_its_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
