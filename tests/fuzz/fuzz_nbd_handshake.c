// SPDX-License-Identifier: MIT
/*
 * The handshake against any server. The first byte is the plan, the rest what the server says. It
 * is said twice, a byte at a time and a message at a time: both must come out the same.
 */
#include <errno.h>
#include <string.h>

#include "fuzz.h"
#include "nbd_handshake.h"

struct outcome {
	int result;
	size_t used;
	size_t n_sent;
	uint64_t sent; /* hash of what we sent */
	struct nbd_export_facts facts;
	size_t n_listed;
};

static void take_output(struct gk_nbd_handshake *h, struct outcome *outcome)
{
	CHECK(h->out_len <= sizeof(h->out));
	for (size_t i = 0; i < h->out_len; i++)
		outcome->sent = (outcome->sent ^ h->out[i]) * UINT64_C(0x100000001b3);
	outcome->n_sent += h->out_len;
	h->out_len = 0;
}

static void check_sentence(const char *why)
{
	CHECK(why[0] != '\0' && strlen(why) < GK_NBD_EXPORT_WHY_BYTES);
	for (; *why; why++)
		CHECK(*why >= 0x20 && *why < 0x7f);
}

static void check_facts(const struct nbd_export_facts *facts)
{
	CHECK(facts->size_bytes <= INT64_MAX);
	CHECK(facts->block_min && !(facts->block_min & (facts->block_min - 1)));
	CHECK(facts->block_min <= 65536 && facts->block_preferred >= facts->block_min);
	CHECK(facts->block_max == UINT32_MAX || facts->block_max % facts->block_min == 0);
	CHECK(facts->structured || !(facts->flags & NBD_FLAG_SEND_DF));
	CHECK(facts->flags & NBD_FLAG_HAS_FLAGS || !(facts->flags & ~NBD_FLAG_READ_ONLY));
}

static void check_end(const struct gk_nbd_handshake *h, enum gk_nbd_handshake_mode mode)
{
	if (h->result < 0) {
		check_sentence(h->why);
		CHECK(h->out_len == 0);
		return;
	}
	CHECK(h->result == 0);
	if (mode == GK_NBD_HANDSHAKE_GO)
		check_facts(&h->facts);
	CHECK(h->list.n <= GK_NBD_EXPORT_LIST_MAX && (mode != GK_NBD_HANDSHAKE_GO || !h->list.n));
	for (size_t i = 0; i < h->list.n; i++) {
		const struct gk_nbd_export *export = &h->list.exports[i];

		CHECK(export->name && export->description &&
		      strlen(export->name) <= NBD_MAX_STRING);
		CHECK(!export->error == !export->why);
		if (export->error)
			check_sentence(export->why);
		else
			check_facts(&export->facts);
	}
}

static void play(uint8_t plan_byte, const uint8_t *said, size_t n, bool by_message,
		 struct outcome *ret_outcome)
{
	static const char *const names[] = {"", "vol0", "a name with spaces and \xff", "x"};
	static struct gk_nbd_handshake h;
	struct gk_nbd_handshake_plan plan = {
		.mode = (enum gk_nbd_handshake_mode)(plan_byte % 3),
		.structured = plan_byte & 0x10,
		.export_name = names[plan_byte >> 6],
	};
	struct outcome outcome = {0};
	size_t at = 0;
	int r;

	CHECK(gk_nbd_handshake_init(&h, &plan) == 0);
	r = gk_nbd_handshake_step(&h, said, 0, &outcome.used);
	CHECK(r == -EAGAIN);
	while (r == -EAGAIN && at < n) {
		size_t piece = by_message && h.need > h.have ? h.need - h.have : 1;
		size_t used;

		if (piece > n - at)
			piece = n - at;
		take_output(&h, &outcome);
		CHECK(*gk_nbd_handshake_awaited(&h));
		r = gk_nbd_handshake_step(&h, said + at, piece, &used);
		CHECK(used <= piece && (used == piece || r != -EAGAIN));
		at += used;
	}
	if (r == -EAGAIN) {
		r = gk_nbd_handshake_eof(&h);
		CHECK(r < 0 && r != -EAGAIN);
		h.out_len = 0;
	}
	check_end(&h, plan.mode);
	take_output(&h, &outcome);
	outcome.result = r;
	/* How far a bad greeting is read depends on how it comes. */
	outcome.used = r ? 0 : at;
	if (r)
		outcome.n_sent = outcome.sent = 0;
	else
		outcome.facts = h.facts;
	outcome.n_listed = h.list.n_listed;
	gk_nbd_handshake_done(&h);
	*ret_outcome = outcome;
}

/* All at once: a server that does not wait for its questions. Only memory is at stake. */
static void play_at_once(uint8_t plan_byte, const uint8_t *said, size_t n)
{
	struct gk_nbd_handshake_plan plan = {
		.mode = (enum gk_nbd_handshake_mode)(plan_byte % 3),
		.structured = plan_byte & 0x10,
		.export_name = "vol0",
	};
	static struct gk_nbd_handshake h;
	size_t used;
	int r;

	CHECK(gk_nbd_handshake_init(&h, &plan) == 0);
	r = gk_nbd_handshake_step(&h, said, n, &used);
	CHECK(used <= n);
	if (r == -EAGAIN)
		CHECK(gk_nbd_handshake_eof(&h) < 0);
	gk_nbd_handshake_done(&h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome bytes, messages;

	if (!size)
		return 0;
	play(data[0], data + 1, size - 1, false, &bytes);
	play(data[0], data + 1, size - 1, true, &messages);
	CHECK(bytes.result == messages.result && bytes.used == messages.used);
	CHECK(bytes.n_sent == messages.n_sent && bytes.sent == messages.sent);
	CHECK(!memcmp(&bytes.facts, &messages.facts, sizeof(bytes.facts)));
	CHECK(bytes.n_listed == messages.n_listed);
	play_at_once(data[0], data + 1, size - 1);
	return 0;
}
