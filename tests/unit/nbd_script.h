/* SPDX-License-Identifier: MIT */
/*
 * For the tests of the NBD handshake: what a server says, written down as a script, and a run of
 * the handshake over it in pieces of any size.
 */
#ifndef GK_TEST_NBD_SCRIPT_H
#define GK_TEST_NBD_SCRIPT_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbd_handshake.h"

#define SIZE  UINT64_C(0x123456789a00)
#define FLAGS (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN)
#define FIXED (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)

/* What a server says, with the places at which it waits for the client. */
struct script {
	unsigned char *bytes;
	size_t n, room;
	size_t pause[600];
	size_t n_pauses;
};

/* One handshake and everything that it sent. */
struct run {
	struct gk_nbd_handshake *h;
	struct gk_nbd_handshake_plan plan;
	unsigned char *sent;
	size_t n_sent, room, used;
	int result;
};

static inline void say(struct script *s, const void *bytes, size_t n)
{
	if (s->n + n > s->room) {
		s->room = 2 * (s->n + n);
		s->bytes = realloc(s->bytes, s->room);
		assert_non_null(s->bytes);
	}
	if (n)
		memcpy(s->bytes + s->n, bytes, n);
	s->n += n;
}

static inline void say16(struct script *s, uint16_t v)
{
	say(s, (uint16_t[]){htobe16(v)}, 2);
}

static inline void say32(struct script *s, uint32_t v)
{
	say(s, (uint32_t[]){htobe32(v)}, 4);
}

static inline void say64(struct script *s, uint64_t v)
{
	say(s, (uint64_t[]){htobe64(v)}, 8);
}

static inline void pause_script(struct script *s)
{
	assert_in_range(s->n_pauses, 0, 599);
	s->pause[s->n_pauses++] = s->n;
}

static inline void greet(struct script *s, uint16_t flags)
{
	say64(s, NBD_MAGIC);
	say64(s, NBD_OPTION_MAGIC);
	say16(s, flags);
	pause_script(s);
}

static inline void reply(struct script *s, uint32_t option, uint32_t type, const void *data,
			 size_t len)
{
	say64(s, NBD_REP_MAGIC);
	say32(s, option);
	say32(s, type);
	say32(s, (uint32_t)len);
	say(s, data, len);
}

static inline void info_export(struct script *s, uint32_t option, uint64_t size, uint16_t flags)
{
	reply(s, option, NBD_REP_INFO, NULL, 0);
	s->bytes[s->n - 1] = 12;
	say16(s, NBD_INFO_EXPORT);
	say64(s, size);
	say16(s, flags);
}

static inline void info_blocks(struct script *s, uint32_t option, uint32_t min, uint32_t preferred,
			       uint32_t max)
{
	reply(s, option, NBD_REP_INFO, NULL, 0);
	s->bytes[s->n - 1] = 14;
	say16(s, NBD_INFO_BLOCK_SIZE);
	say32(s, min);
	say32(s, preferred);
	say32(s, max);
}

static inline void info_text(struct script *s, uint32_t option, uint16_t kind, const char *text)
{
	reply(s, option, NBD_REP_INFO, NULL, 0);
	s->bytes[s->n - 1] = (unsigned char)(2 + strlen(text));
	say16(s, kind);
	say(s, text, strlen(text));
}

static inline void listed(struct script *s, const char *name, const char *description)
{
	reply(s, NBD_OPT_LIST, NBD_REP_SERVER, NULL, 0);
	s->bytes[s->n - 1] = (unsigned char)(4 + strlen(name) + strlen(description));
	say32(s, (uint32_t)strlen(name));
	say(s, name, strlen(name));
	say(s, description, strlen(description));
}

/* The last reply to an option: the client speaks next. */
static inline void final(struct script *s, uint32_t option, uint32_t type, const char *text)
{
	reply(s, option, type, text, text ? strlen(text) : 0);
	pause_script(s);
}

static inline void start(struct run *r, enum gk_nbd_handshake_mode mode, const char *name,
			 bool structured)
{
	*r = (struct run){
		.plan = {.mode = mode, .structured = structured, .export_name = name},
		.result = -EAGAIN,
	};
	r->h = malloc(sizeof(*r->h));
	assert_non_null(r->h);
	assert_int_equal(gk_nbd_handshake_init(r->h, &r->plan), 0);
}

static inline void end(struct run *r)
{
	gk_nbd_handshake_done(r->h);
	free(r->h);
	free(r->sent);
	memset(r, 0, sizeof(*r));
}

/* One piece, from memory of just its size, so that the sanitizer sees a read beyond it. */
static inline void feed(struct run *r, const unsigned char *bytes, size_t n)
{
	unsigned char *piece = malloc(n ? n : 1);
	size_t used = n + 1;

	assert_non_null(piece);
	memcpy(piece, bytes, n);
	r->result = gk_nbd_handshake_step(r->h, piece, n, &used);
	free(piece);
	assert_in_range(used, 0, n);
	r->used += used;
	if (r->result == -EAGAIN)
		assert_int_equal(used, n);
	if (r->result < 0 && r->result != -EAGAIN) {
		assert_int_not_equal(r->h->why[0], '\0');
		assert_int_equal(r->h->out_len, 0);
	}
	if (r->n_sent + r->h->out_len > r->room) {
		r->room = 2 * (r->n_sent + r->h->out_len);
		r->sent = realloc(r->sent, r->room);
		assert_non_null(r->sent);
	}
	if (r->h->out_len)
		memcpy(r->sent + r->n_sent, r->h->out, r->h->out_len);
	r->n_sent += r->h->out_len;
	r->h->out_len = 0;
}

/* The first n bytes of a script, in pieces of at most chunk bytes that end where the server waits.
 */
static inline int play(struct run *r, const struct script *s, size_t n, size_t chunk)
{
	size_t at = 0, turn = 0;

	while (at < n && r->result == -EAGAIN) {
		size_t len = n - at < chunk ? n - at : chunk;

		while (turn < s->n_pauses && s->pause[turn] <= at)
			turn++;
		if (turn < s->n_pauses && len > s->pause[turn] - at)
			len = s->pause[turn] - at;
		feed(r, s->bytes + at, len);
		at += len;
	}
	return r->result;
}

static inline int play_all(struct run *r, const struct script *s)
{
	return play(r, s, s->n, s->n);
}

static inline void forget(struct script *s)
{
	free(s->bytes);
	memset(s, 0, sizeof(*s));
}

/* Expects the next bytes that the client sent to be this option; returns where the next one starts.
 */
static inline size_t sent_option(const struct run *r, size_t at, uint32_t option, const void *data,
				 size_t len)
{
	struct script want = {0};

	say64(&want, NBD_OPTION_MAGIC);
	say32(&want, option);
	say32(&want, (uint32_t)len);
	say(&want, data, len);
	assert_in_range(at + want.n, 0, r->n_sent);
	assert_memory_equal(r->sent + at, want.bytes, want.n);
	forget(&want);
	return at + 16 + len;
}

static inline size_t sent_flags(const struct run *r, uint32_t flags)
{
	assert_in_range(r->n_sent, 4, SIZE_MAX);
	assert_memory_equal(r->sent, (uint32_t[]){htobe32(flags)}, 4);
	return 4;
}

static inline void assert_sentence(const struct run *r, const char *part)
{
	if (!strstr(r->h->why, part))
		fail_msg("\"%s\" does not say \"%s\"", r->h->why, part);
}

/* A whole, rich handshake of mode GO. */
static inline void script_go(struct script *s)
{
	greet(s, FIXED);
	final(s, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL);
	info_text(s, NBD_OPT_GO, NBD_INFO_NAME, "vol0");
	info_export(s, NBD_OPT_GO, SIZE, FLAGS | NBD_FLAG_SEND_DF);
	info_text(s, NBD_OPT_GO, 77, "of a later protocol");
	info_blocks(s, NBD_OPT_GO, 4096, 65536, 1U << 20);
	info_text(s, NBD_OPT_GO, NBD_INFO_DESCRIPTION, "a disk");
	final(s, NBD_OPT_GO, NBD_REP_ACK, NULL);
}

static inline void script_export_name(struct script *s)
{
	greet(s, NBD_FLAG_FIXED_NEWSTYLE);
	final(s, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_UNSUP, "what?");
	final(s, NBD_OPT_GO, NBD_REP_ERR_UNSUP, NULL);
	say64(s, SIZE);
	say16(s, FLAGS);
	say(s, (char[124]){0}, 124);
	pause_script(s);
}

static inline void script_list(struct script *s)
{
	greet(s, FIXED);
	final(s, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL);
	listed(s, "one", "the first");
	listed(s, "", "");
	final(s, NBD_OPT_LIST, NBD_REP_ACK, NULL);
	info_export(s, NBD_OPT_INFO, SIZE, FLAGS);
	info_blocks(s, NBD_OPT_INFO, 1, 4096, UINT32_MAX);
	info_text(s, NBD_OPT_INFO, NBD_INFO_DESCRIPTION, "said later");
	final(s, NBD_OPT_INFO, NBD_REP_ACK, NULL);
	final(s, NBD_OPT_INFO, NBD_REP_ERR_UNKNOWN, "gone");
}

#endif
