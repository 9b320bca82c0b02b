// SPDX-License-Identifier: MIT
#include "nbd_reply.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fake_server.h"

#define COOKIE UINT64_C(0x1122334455667788)

/*
 * Parses every prefix from memory that ends with it, so that a read beyond it is a fault under
 * ASan: each asks for more and leaves the reply alone. Returns what the whole says.
 */
static int parse(struct fake_bytes *bytes, bool structured, struct gk_nbd_reply *ret_reply)
{
	int r = 0;

	for (size_t len = 0; len <= bytes->n; len++) {
		struct gk_nbd_reply untouched;
		struct gk_nbd_reply reply;
		uint8_t *exact = malloc(len ? len : 1);

		assert_non_null(exact);
		memset(&untouched, 0xc3, sizeof(untouched));
		reply = untouched;
		memcpy(exact, bytes->p, len);
		r = gk_nbd_reply_parse(exact, len, structured, &reply);
		free(exact);
		if (r == 1) {
			*ret_reply = reply;
			assert_true(len >= reply.header_size);
		} else {
			assert_memory_equal(&reply, &untouched, sizeof(reply));
		}
		/* Once it is refused, no further byte makes it good. */
		if (r < 0)
			break;
		assert_int_equal(r, len >= (structured && bytes->p[1] == 0x8e ? 20 : 16));
	}
	fake_bytes_done(bytes);
	return r;
}

static void a_simple_reply_is_sixteen_bytes(void **state)
{
	struct fake_bytes bytes = {0};
	struct gk_nbd_reply reply;

	(void)state;
	for (unsigned int structured = 0; structured < 2; structured++) {
		fake_put_simple(&bytes, COOKIE, NBD_ENOSPC);
		assert_int_equal(parse(&bytes, structured, &reply), 1);
		assert_int_equal(reply.kind, GK_NBD_REPLY_SIMPLE);
		assert_int_equal(reply.cookie, COOKIE);
		assert_int_equal(reply.error, -ENOSPC);
		assert_int_equal(reply.header_size, 16);
		assert_int_equal(reply.length, 0);
		assert_true(reply.done);
	}
}

static void a_chunk_is_twenty_bytes(void **state)
{
	static const struct {
		uint16_t flags;
		uint16_t type;
		uint32_t length;
		enum gk_nbd_reply_kind kind;
	} chunks[] = {
		{1, NBD_REPLY_TYPE_NONE, 0, GK_NBD_REPLY_NONE},
		{0, NBD_REPLY_TYPE_OFFSET_DATA, 9, GK_NBD_REPLY_DATA},
		{1, NBD_REPLY_TYPE_OFFSET_DATA, UINT32_MAX, GK_NBD_REPLY_DATA},
		{0, NBD_REPLY_TYPE_OFFSET_HOLE, 12, GK_NBD_REPLY_HOLE},
		{1, NBD_REPLY_TYPE_OFFSET_HOLE, 12, GK_NBD_REPLY_HOLE},
		{0, NBD_REPLY_TYPE_ERROR, 6, GK_NBD_REPLY_ERROR},
		{1, NBD_REPLY_TYPE_ERROR, GK_NBD_ERROR_CHUNK_MAX, GK_NBD_REPLY_ERROR},
		{1, NBD_REPLY_TYPE_ERROR_OFFSET, 14, GK_NBD_REPLY_ERROR},
		{1, UINT16_MAX, 6, GK_NBD_REPLY_ERROR},
	};
	struct gk_nbd_reply reply;

	(void)state;
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		struct fake_bytes bytes = {0};

		fake_put_chunk(&bytes, chunks[i].flags, chunks[i].type, COOKIE, chunks[i].length);
		assert_int_equal(parse(&bytes, true, &reply), 1);
		assert_int_equal(reply.kind, chunks[i].kind);
		assert_int_equal(reply.cookie, COOKIE);
		assert_int_equal(reply.error, 0);
		assert_int_equal(reply.done, chunks[i].flags & 1);
		assert_int_equal(reply.type, chunks[i].type);
		assert_int_equal(reply.length, chunks[i].length);
		assert_int_equal(reply.header_size, 20);
	}
}

static void a_chunk_with_an_impossible_length_is_refused(void **state)
{
	static const struct {
		uint16_t flags;
		uint16_t type;
		uint32_t length;
	} chunks[] = {
		{1, NBD_REPLY_TYPE_NONE, 1},
		{1, NBD_REPLY_TYPE_NONE, UINT32_MAX},
		{0, NBD_REPLY_TYPE_NONE, 0}, /* without DONE */
		{1, NBD_REPLY_TYPE_OFFSET_DATA, 0},
		{1, NBD_REPLY_TYPE_OFFSET_DATA, 7},
		{1, NBD_REPLY_TYPE_OFFSET_DATA, 8}, /* no data */
		{1, NBD_REPLY_TYPE_OFFSET_HOLE, 11},
		{1, NBD_REPLY_TYPE_OFFSET_HOLE, 13},
		{1, NBD_REPLY_TYPE_ERROR, 0},
		{1, NBD_REPLY_TYPE_ERROR, 5},
		{1, NBD_REPLY_TYPE_ERROR, GK_NBD_ERROR_CHUNK_MAX + 1},
		{1, NBD_REPLY_TYPE_ERROR, UINT32_MAX},
		{1, NBD_REPLY_TYPE_BLOCK_STATUS, 12}, /* never asked for */
		{1, 3, 0},
		{1, 0x7fff, 6},
	};
	struct gk_nbd_reply reply;

	(void)state;
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		struct fake_bytes bytes = {0};

		fake_put_chunk(&bytes, chunks[i].flags, chunks[i].type, COOKIE, chunks[i].length);
		assert_int_equal(parse(&bytes, true, &reply), -EPROTO);
	}
}

/* Decided by the magic alone: the rest may never come. */
static void a_chunk_without_negotiation_is_refused_at_its_magic(void **state)
{
	struct fake_bytes bytes = {0};
	struct gk_nbd_reply reply;

	(void)state;
	fake_put32(&bytes, NBD_STRUCTURED_REPLY_MAGIC);
	assert_int_equal(gk_nbd_reply_parse(bytes.p, 3, false, &reply), 0);
	assert_int_equal(gk_nbd_reply_parse(bytes.p, 4, false, &reply), -EPROTO);
	assert_int_equal(gk_nbd_reply_parse(bytes.p, 4, true, &reply), 0);
	fake_bytes_done(&bytes);
}

/* Every single wrong bit of either magic. */
static void a_bad_magic_is_refused(void **state)
{
	static const uint32_t magics[] = {NBD_SIMPLE_REPLY_MAGIC, NBD_STRUCTURED_REPLY_MAGIC};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		for (unsigned int bit = 0; bit < 32; bit++) {
			struct fake_bytes bytes = {0};
			struct gk_nbd_reply reply;

			fake_put32(&bytes, magics[i] ^ (UINT32_C(1) << bit));
			fake_put64(&bytes, 0);
			fake_put64(&bytes, 0);
			assert_int_equal(gk_nbd_reply_parse(bytes.p, bytes.n, true, &reply),
					 -EPROTO);
			assert_int_equal(gk_nbd_reply_parse(bytes.p, 4, true, &reply), -EPROTO);
			fake_bytes_done(&bytes);
		}
	}
}

static void every_nbd_error_has_its_errno_and_the_rest_is_eio(void **state)
{
	static const struct {
		uint32_t nbd;
		int result;
	} known[] = {
		{0, 0},         {1, -EPERM},   {5, -EIO},        {12, -ENOMEM},
		{22, -EINVAL},  {28, -ENOSPC}, {75, -EOVERFLOW}, {95, -EOPNOTSUPP},
		{108, -ESHUTDOWN},
	};
	const size_t n = sizeof(known) / sizeof(known[0]);

	(void)state;
	for (uint32_t error = 0; error < 200; error++) {
		int expected = -EIO;

		for (size_t i = 0; i < n; i++)
			if (known[i].nbd == error)
				expected = known[i].result;
		assert_int_equal(gk_nbd_errno(error), expected);
	}
	assert_int_equal(gk_nbd_errno(UINT32_MAX), -EIO);
	/* No sum of errors and sign bits makes a success. */
	assert_int_equal(gk_nbd_errno(0x80000000), -EIO);
}

/* An error chunk's payload in memory of its exact size. */
static int error_chunk(uint16_t type, uint32_t length, uint32_t error, uint16_t message_len,
		       bool *ret_malformed)
{
	struct gk_nbd_reply reply = {.kind = GK_NBD_REPLY_ERROR, .type = type, .length = length};
	uint8_t *payload = calloc(1, length);
	int r;

	assert_non_null(payload);
	payload[0] = (uint8_t)(error >> 24);
	payload[1] = (uint8_t)(error >> 16);
	payload[2] = (uint8_t)(error >> 8);
	payload[3] = (uint8_t)error;
	payload[4] = (uint8_t)(message_len >> 8);
	payload[5] = (uint8_t)message_len;
	r = gk_nbd_error_chunk(&reply, payload, ret_malformed);
	free(payload);
	return r;
}

static void an_error_chunk_tells_its_errno(void **state)
{
	static const struct {
		uint16_t type;
		uint32_t length;
		uint32_t error;
		uint16_t message_len;
		int result;
	} chunks[] = {
		{NBD_REPLY_TYPE_ERROR, 6, NBD_ENOSPC, 0, -ENOSPC},
		{NBD_REPLY_TYPE_ERROR, 16, NBD_EPERM, 10, -EPERM},
		{NBD_REPLY_TYPE_ERROR, 16, NBD_EPERM, 3, -EPERM}, /* room for what is to come */
		{NBD_REPLY_TYPE_ERROR, 6, 0, 0, -EIO},            /* an error that is none */
		{NBD_REPLY_TYPE_ERROR, 6, 12345, 0, -EIO},
		{NBD_REPLY_TYPE_ERROR_OFFSET, 14, NBD_EINVAL, 0, -EINVAL},
		{NBD_REPLY_TYPE_ERROR_OFFSET, 20, NBD_EINVAL, 6, -EINVAL},
		{0xffff, 6, NBD_ENOMEM, 0, -ENOMEM},
		{0xffff, 4000, NBD_ENOMEM, 3994, -ENOMEM},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		bool malformed = true;

		assert_int_equal(error_chunk(chunks[i].type, chunks[i].length, chunks[i].error,
					     chunks[i].message_len, &malformed),
				 chunks[i].result);
		assert_false(malformed);
	}
}

static void an_error_chunk_whose_parts_do_not_fit_is_malformed(void **state)
{
	static const struct {
		uint16_t type;
		uint32_t length;
		uint16_t message_len;
	} chunks[] = {
		{NBD_REPLY_TYPE_ERROR, 6, 1},
		{NBD_REPLY_TYPE_ERROR, 6, UINT16_MAX},
		{NBD_REPLY_TYPE_ERROR, 16, 11},
		{NBD_REPLY_TYPE_ERROR_OFFSET, 6, 0}, /* no offset */
		{NBD_REPLY_TYPE_ERROR_OFFSET, 13, 0},
		{NBD_REPLY_TYPE_ERROR_OFFSET, 14, 1},
		{NBD_REPLY_TYPE_ERROR_OFFSET, 20, 7},
		{0x8123, 7, 2},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
		bool malformed = false;

		assert_int_equal(error_chunk(chunks[i].type, chunks[i].length, NBD_EPERM,
					     chunks[i].message_len, &malformed),
				 -EPROTO);
		assert_true(malformed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_simple_reply_is_sixteen_bytes),
		cmocka_unit_test(a_chunk_is_twenty_bytes),
		cmocka_unit_test(a_chunk_with_an_impossible_length_is_refused),
		cmocka_unit_test(a_chunk_without_negotiation_is_refused_at_its_magic),
		cmocka_unit_test(a_bad_magic_is_refused),
		cmocka_unit_test(every_nbd_error_has_its_errno_and_the_rest_is_eio),
		cmocka_unit_test(an_error_chunk_tells_its_errno),
		cmocka_unit_test(an_error_chunk_whose_parts_do_not_fit_is_malformed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
