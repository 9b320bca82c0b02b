// SPDX-License-Identifier: MIT
#include "nbd_handshake.h"

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbd_refusal.h"

/*
 * What the bytes being collected are, and so what comes next:
 *
 *   MAGIC -> KIND -> FLAGS -+-> HEADER <-> PAYLOAD   (fixed newstyle: one option at a time)
 *                           |      |
 *                           +------+--> EXPORT_NAME  (old servers: its answer has no header)
 *
 * With TLS the first option is NBD_OPT_STARTTLS; its answer ends what is sent in the clear.
 */
enum {
	STATE_MAGIC,	   /* "NBDMAGIC" */
	STATE_KIND,	   /* newstyle or oldstyle */
	STATE_FLAGS,	   /* handshake flags */
	STATE_HEADER,	   /* of an option reply */
	STATE_PAYLOAD,	   /* ... and the rest of it */
	STATE_EXPORT_NAME, /* size, flags and perhaps zeroes */
};

#define MAGIC_BYTES	    8U
#define REPLY_HEADER_BYTES  20U
#define OPTION_HEADER_BYTES 16U
#define EXPORT_NAME_BYTES   10U
#define EXPORT_NAME_ZEROES  124U
#define SHOWN_NAME_BYTES    80U /* of a name in a sentence */

static uint16_t get16(const unsigned char *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return be16toh(v);
}

static uint32_t get32(const unsigned char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static uint64_t get64(const unsigned char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static void put(struct gk_nbd_handshake *h, const void *bytes, size_t len)
{
	assert(len <= sizeof(h->out) - h->out_len);
	memcpy(h->out + h->out_len, bytes, len);
	h->out_len += len;
}

static void put16(struct gk_nbd_handshake *h, uint16_t v)
{
	v = htobe16(v);
	put(h, &v, sizeof(v));
}

static void put32(struct gk_nbd_handshake *h, uint32_t v)
{
	v = htobe32(v);
	put(h, &v, sizeof(v));
}

static void put64(struct gk_nbd_handshake *h, uint64_t v)
{
	v = htobe64(v);
	put(h, &v, sizeof(v));
}

__attribute__((format(printf, 3, 4))) static int fail(struct gk_nbd_handshake *h, int error,
						      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(h->why, sizeof(h->why), format, args);
	va_end(args);
	return error;
}

static bool probing(const struct gk_nbd_handshake *h)
{
	return h->plan.mode != GK_NBD_HANDSHAKE_GO;
}

/* The export that the present option is about. */
static const char *asked_name(const struct gk_nbd_handshake *h)
{
	return h->asked < h->list.n ? h->list.exports[h->asked].name : h->plan.export_name;
}

/* "export "NAME"", shortened and printable. */
static const char *shown_export(const struct gk_nbd_handshake *h, char *dst, size_t dst_size)
{
	const char *name = asked_name(h);
	char shown[SHOWN_NAME_BYTES];

	if (name[0] == '\0')
		snprintf(dst, dst_size, "default export (empty name)");
	else
		snprintf(dst, dst_size, "export \"%s\"",
			 gk_nbd_export_printable(shown, sizeof(shown), name, strlen(name)));
	return dst;
}

/* -- what we send -- */

static void expect(struct gk_nbd_handshake *h, int state, size_t need)
{
	h->state = state;
	h->need = need;
	h->have = 0;
}

static void send_option(struct gk_nbd_handshake *h, uint32_t option, uint32_t len)
{
	put64(h, NBD_OPTION_MAGIC);
	put32(h, option);
	put32(h, len);
	h->option = option;
	h->n_replies = 0;
	expect(h, STATE_HEADER, REPLY_HEADER_BYTES);
}

static void forget_export(struct gk_nbd_handshake *h)
{
	bool structured = h->current.structured;

	gk_nbd_export_facts_init(&h->current);
	h->current.structured = structured;
	h->have_export_info = false;
}

/* NBD_OPT_GO or NBD_OPT_INFO for the export being asked about. */
static void ask_info(struct gk_nbd_handshake *h, uint32_t option)
{
	static const uint16_t wanted[] = {NBD_INFO_BLOCK_SIZE, NBD_INFO_DESCRIPTION};
	const char *name = asked_name(h);
	uint32_t name_len = (uint32_t)strlen(name);
	uint16_t n_wanted = option == NBD_OPT_GO ? 1 : 2;

	forget_export(h);
	send_option(h, option, 4 + name_len + 2 + 2U * n_wanted);
	put32(h, name_len);
	put(h, name, name_len);
	put16(h, n_wanted);
	for (uint16_t i = 0; i < n_wanted; i++)
		put16(h, wanted[i]);
}

/* The option of old servers: after it comes transmission, or the end of the connection. */
static void ask_export_name(struct gk_nbd_handshake *h)
{
	const char *name = asked_name(h);
	bool zeroes = !(h->server_flags & NBD_FLAG_NO_ZEROES);

	forget_export(h);
	send_option(h, NBD_OPT_EXPORT_NAME, (uint32_t)strlen(name));
	put(h, name, strlen(name));
	expect(h, STATE_EXPORT_NAME, EXPORT_NAME_BYTES + (zeroes ? EXPORT_NAME_ZEROES : 0));
}

/* The protocol lets a client close after NBD_OPT_ABORT without waiting for an answer. */
static int leave(struct gk_nbd_handshake *h)
{
	send_option(h, NBD_OPT_ABORT, 0);
	return 0;
}

/* Asks about the one export that the plan names, with whatever the server understands. */
static int ask_planned(struct gk_nbd_handshake *h)
{
	const char *name = h->plan.export_name;

	h->asked = 0;
	if (probing(h)) {
		int r = gk_nbd_export_list_add(&h->list, name, strlen(name), "", 0);

		if (r < 0)
			return fail(h, r, "out of memory");
	}
	if (!(h->server_flags & NBD_FLAG_FIXED_NEWSTYLE))
		ask_export_name(h);
	else
		ask_info(h, probing(h) ? NBD_OPT_INFO : NBD_OPT_GO);
	return -EAGAIN;
}

static int ask_next_listed(struct gk_nbd_handshake *h)
{
	if (h->asked == h->list.n)
		return leave(h);
	ask_info(h, NBD_OPT_INFO);
	return -EAGAIN;
}

static int list_refused(struct gk_nbd_handshake *h, int error)
{
	h->list.list_error = error;
	memcpy(h->list.list_why, h->why, sizeof(h->list.list_why));
	return ask_planned(h);
}

/* The option that the plan is about, once what modifies the session is settled. */
static int ask_main(struct gk_nbd_handshake *h)
{
	if (h->plan.mode != GK_NBD_HANDSHAKE_LIST)
		return ask_planned(h);
	if (!(h->server_flags & NBD_FLAG_FIXED_NEWSTYLE)) {
		fail(h, -ENOTSUP, "the server is too old to list its exports");
		return list_refused(h, -ENOTSUP);
	}
	send_option(h, NBD_OPT_LIST, 0);
	return -EAGAIN;
}

/* -- the server's greeting -- */

static int bad_greeting(struct gk_nbd_handshake *h)
{
	char shown[4 * MAGIC_BYTES];

	gk_nbd_export_printable(shown, sizeof(shown), h->in, h->have);
	return fail(h, -EPROTO, "this is no NBD server: it greets with \"%s\"; check host and port",
		    shown);
}

static int take_kind(struct gk_nbd_handshake *h)
{
	uint64_t kind = get64(h->in);

	if (kind == NBD_OLDSTYLE_MAGIC)
		return fail(h, -EPROTO,
			    "the server speaks the oldstyle handshake, which the NBD protocol has "
			    "given up: start it in newstyle mode, with named exports");
	if (kind != NBD_OPTION_MAGIC)
		return fail(h, -EPROTO,
			    "the server's greeting is neither newstyle nor oldstyle NBD");
	expect(h, STATE_FLAGS, 2);
	return -EAGAIN;
}

/* The first option, of those that are sent through TLS where there is TLS. */
static int ask_first(struct gk_nbd_handshake *h)
{
	if (h->plan.structured && (h->server_flags & NBD_FLAG_FIXED_NEWSTYLE)) {
		send_option(h, NBD_OPT_STRUCTURED_REPLY, 0);
		return -EAGAIN;
	}
	return ask_main(h);
}

static int take_flags(struct gk_nbd_handshake *h)
{
	/* What the server does not know must not be set, what it does is accepted as a pair. */
	h->server_flags = get16(h->in) & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	put32(h, h->server_flags);
	if (!h->plan.tls)
		return ask_first(h);
	if (!(h->server_flags & NBD_FLAG_FIXED_NEWSTYLE))
		return fail(h, -ENOTSUP,
			    "the server is too old for TLS, which the URI asks for (nbds)");
	send_option(h, NBD_OPT_STARTTLS, 0);
	return -EAGAIN;
}

/* Everything about the export being asked about is known; error and h->why if it is bad news. */
static int settle_export(struct gk_nbd_handshake *h, int error)
{
	struct gk_nbd_export *export;

	if (h->plan.mode == GK_NBD_HANDSHAKE_GO) {
		h->facts = h->current;
		return error;
	}
	if (h->plan.mode == GK_NBD_HANDSHAKE_INFO && error)
		return error;
	export = &h->list.exports[h->asked++];
	export->facts = h->current;
	export->error = error;
	if (error) {
		export->why = strdup(h->why);
		if (!export->why)
			return fail(h, -ENOMEM, "out of memory");
	}
	return 0;
}

static int take_export_name(struct gk_nbd_handshake *h)
{
	struct nbd_request disconnect = {
		.magic = htobe32(NBD_REQUEST_MAGIC),
		.type = htobe16(NBD_CMD_DISC),
	};
	int r;

	h->current.size_bytes = get64(h->in);
	h->current.flags = get16(h->in + 8);
	h->option = 0;
	r = settle_export(h, gk_nbd_export_facts_check(&h->current, h->why, sizeof(h->why)));
	if (r == 0 && probing(h))
		put(h, &disconnect, sizeof(disconnect));
	return r;
}

/* -- option replies -- */

static int refused(struct gk_nbd_handshake *h)
{
	char export[SHOWN_NAME_BYTES + 32];
	const struct gk_nbd_refusal refusal = {
		.type = h->reply_type,
		.option = h->option,
		.export = shown_export(h, export, sizeof(export)),
		.message = h->in,
		.message_len = h->need,
	};

	return gk_nbd_refusal_explain(&refusal, h->why, sizeof(h->why));
}

static int unexpected_reply(struct gk_nbd_handshake *h)
{
	return fail(h, -EPROTO, "the server answers %s with a reply of type %u and %zu bytes",
		    gk_nbd_option_name(h->option), h->reply_type, h->need);
}

/* A session-wide refusal: whatever was asked, nothing else will be answered either. */
static bool hopeless(const struct gk_nbd_handshake *h)
{
	return h->reply_type == NBD_REP_ERR_TLS_REQD || h->reply_type == NBD_REP_ERR_SHUTDOWN;
}

/* Whatever the refusal: what the URI asks for is not there, and nothing less will do. */
static int reply_to_starttls(struct gk_nbd_handshake *h)
{
	char said[GK_NBD_REFUSAL_SHOWN_BYTES];

	if (h->reply_type & NBD_REP_FLAG_ERROR)
		return fail(h, -ENOTSUP,
			    "the server has no TLS, which the URI asks for (nbds): start it with TLS "
			    "(nbdkit --tls=require, qemu-nbd --tls-creds)%s%s",
			    h->need ? "; it says: " : "",
			    gk_nbd_export_printable(said, sizeof(said), h->in, h->need));
	if (h->reply_type != NBD_REP_ACK || h->need != 0)
		return unexpected_reply(h);
	return GK_NBD_HANDSHAKE_STARTTLS;
}

static int reply_to_structured(struct gk_nbd_handshake *h)
{
	if (h->reply_type & NBD_REP_FLAG_ERROR) {
		int r = refused(h);

		return hopeless(h) ? r : ask_main(h);
	}
	if (h->reply_type != NBD_REP_ACK || h->need != 0)
		return unexpected_reply(h);
	h->current.structured = true;
	return ask_main(h);
}

static int take_listed(struct gk_nbd_handshake *h)
{
	uint32_t name_len;
	int r;

	if (h->need < 4)
		return unexpected_reply(h);
	name_len = get32(h->in);
	if (name_len > h->need - 4 || name_len > NBD_MAX_STRING)
		return fail(h, -EPROTO, "the server lists an export with a name of %u bytes",
			    name_len);
	h->list.n_listed++;
	r = gk_nbd_export_list_add(&h->list, h->in + 4, name_len, h->in + 4 + name_len,
				   h->need - 4 - name_len);
	if (r < 0)
		return fail(h, r, "the server's list of exports cannot be kept: %s",
			    r == -EPROTO ? "a name has a zero byte" : "out of memory");
	expect(h, STATE_HEADER, REPLY_HEADER_BYTES);
	return -EAGAIN;
}

static int reply_to_list(struct gk_nbd_handshake *h)
{
	if (h->reply_type & NBD_REP_FLAG_ERROR) {
		int r = refused(h);

		return hopeless(h) || h->list.n > 0 ? r : list_refused(h, r);
	}
	if (h->reply_type == NBD_REP_SERVER)
		return take_listed(h);
	if (h->reply_type != NBD_REP_ACK || h->need != 0)
		return unexpected_reply(h);
	h->asked = 0;
	return ask_next_listed(h);
}

static int take_description(struct gk_nbd_handshake *h)
{
	struct gk_nbd_export *export;
	char *copy;

	if (!probing(h))
		return 0;
	export = &h->list.exports[h->asked];
	copy = strndup((const char *)h->in + 2, h->need - 2);
	if (!copy)
		return fail(h, -ENOMEM, "out of memory");
	free(export->description);
	export->description = copy;
	return 0;
}

/* NBD_REP_INFO. Kinds that we do not know are to be ignored, by the protocol. */
static int take_info(struct gk_nbd_handshake *h)
{
	const unsigned char *p = h->in;
	uint16_t kind;
	int r = 0;

	if (h->need < 2)
		return unexpected_reply(h);
	kind = get16(p);
	if ((kind == NBD_INFO_EXPORT && h->need != 12) ||
	    (kind == NBD_INFO_BLOCK_SIZE && h->need != 14) ||
	    ((kind == NBD_INFO_NAME || kind == NBD_INFO_DESCRIPTION) &&
	     h->need > 2 + NBD_MAX_STRING))
		return fail(h, -EPROTO, "the server sent information of kind %u with %zu bytes",
			    kind, h->need);
	switch (kind) {
	case NBD_INFO_EXPORT:
		h->current.size_bytes = get64(p + 2);
		h->current.flags = get16(p + 10);
		h->have_export_info = true;
		break;
	case NBD_INFO_BLOCK_SIZE:
		h->current.block_min = get32(p + 2);
		h->current.block_preferred = get32(p + 6);
		h->current.block_max = get32(p + 10);
		h->current.has_block_size = true;
		break;
	case NBD_INFO_DESCRIPTION:
		r = take_description(h);
		break;
	}
	if (r < 0)
		return r;
	expect(h, STATE_HEADER, REPLY_HEADER_BYTES);
	return -EAGAIN;
}

/* The final reply to NBD_OPT_GO or NBD_OPT_INFO. */
static int reply_to_info(struct gk_nbd_handshake *h)
{
	int r;

	if (h->reply_type == NBD_REP_INFO)
		return take_info(h);
	if (h->reply_type & NBD_REP_FLAG_ERROR) {
		r = refused(h);
		/* With one export to ask about, the way of old servers tells as much. */
		if (h->reply_type == NBD_REP_ERR_UNSUP && h->list.n <= 1) {
			ask_export_name(h);
			return -EAGAIN;
		}
		if (h->reply_type == NBD_REP_ERR_SHUTDOWN)
			return r;
	} else if (h->reply_type != NBD_REP_ACK || h->need != 0) {
		return unexpected_reply(h);
	} else if (!h->have_export_info) {
		r = fail(h, -EPROTO, "the server accepts %s without telling the size of the export",
			 gk_nbd_option_name(h->option));
	} else {
		r = gk_nbd_export_facts_check(&h->current, h->why, sizeof(h->why));
	}
	h->option = 0;
	r = settle_export(h, r);
	if (r < 0 || !probing(h))
		return r;
	return ask_next_listed(h);
}

static int take_header(struct gk_nbd_handshake *h)
{
	uint32_t option = get32(h->in + 8), len = get32(h->in + 16);
	uint32_t limit = h->option == NBD_OPT_LIST ? GK_NBD_HANDSHAKE_MAX_LISTED
						   : GK_NBD_HANDSHAKE_MAX_REPLIES;

	h->reply_type = get32(h->in + 12);
	if (get64(h->in) != NBD_REP_MAGIC)
		return fail(h, -EPROTO, "the server's answer to %s does not start with NBD's magic",
			    gk_nbd_option_name(h->option));
	if (option != h->option)
		return fail(h, -EPROTO, "the server answers option %u while %s was asked", option,
			    gk_nbd_option_name(h->option));
	if (len > GK_NBD_HANDSHAKE_MAX_PAYLOAD)
		return fail(h, -EPROTO, "the server's answer to %s is too long (%u bytes)",
			    gk_nbd_option_name(h->option), len);
	if (++h->n_replies > limit)
		return fail(h, -EPROTO, "the server does not come to an end answering %s",
			    gk_nbd_option_name(h->option));
	expect(h, STATE_PAYLOAD, len);
	return -EAGAIN;
}

static int take_payload(struct gk_nbd_handshake *h)
{
	switch (h->option) {
	case NBD_OPT_STARTTLS:
		return reply_to_starttls(h);
	case NBD_OPT_STRUCTURED_REPLY:
		return reply_to_structured(h);
	case NBD_OPT_LIST:
		return reply_to_list(h);
	default:
		return reply_to_info(h);
	}
}

static int take_message(struct gk_nbd_handshake *h)
{
	switch (h->state) {
	case STATE_MAGIC:
		expect(h, STATE_KIND, 8);
		return -EAGAIN;
	case STATE_KIND:
		return take_kind(h);
	case STATE_FLAGS:
		return take_flags(h);
	case STATE_HEADER:
		return take_header(h);
	case STATE_PAYLOAD:
		return take_payload(h);
	default:
		return take_export_name(h);
	}
}

/* -- the interface -- */

int gk_nbd_handshake_init(struct gk_nbd_handshake *h, const struct gk_nbd_handshake_plan *plan)
{
	memset(h, 0, sizeof(*h));
	h->plan = *plan;
	h->result = -EAGAIN;
	expect(h, STATE_MAGIC, MAGIC_BYTES);
	if (strlen(plan->export_name) > NBD_MAX_STRING)
		h->result = fail(h, -ENAMETOOLONG,
				 "the export name is longer than the %d bytes that NBD allows",
				 NBD_MAX_STRING);
	return h->result == -EAGAIN ? 0 : h->result;
}

/* Looks at a greeting as it comes in, for a server that is not NBD may never send 8 bytes. */
static bool greeting_is_wrong(const struct gk_nbd_handshake *h)
{
	uint64_t magic = htobe64(NBD_MAGIC);

	return h->state == STATE_MAGIC && memcmp(h->in, &magic, h->have) != 0;
}

int gk_nbd_handshake_step(struct gk_nbd_handshake *h, const void *bytes, size_t len,
			  size_t *ret_used)
{
	const unsigned char *p = bytes;
	size_t used = 0;

	while (h->result == -EAGAIN) {
		size_t n = h->need - h->have;

		/* Every message after the greeting answers one of ours, so none may come early. */
		if (h->out_len > 0 && used < len) {
			h->result = fail(h, -EPROTO, "the server answers before it is asked");
			break;
		}
		if (n > len - used)
			n = len - used;
		if (n > 0)
			memcpy(h->in + h->have, p + used, n);
		h->have += n;
		used += n;
		if (greeting_is_wrong(h))
			h->result = bad_greeting(h);
		else if (h->have == h->need)
			h->result = take_message(h);
		else
			break;
	}
	/* Somebody in between could put plain bytes in front of those that TLS protects. */
	if (h->result == GK_NBD_HANDSHAKE_STARTTLS && used < len)
		h->result = fail(h, -EPROTO,
				 "the server, or somebody in between, sends bytes in the clear after "
				 "it agreed to TLS");
	if (h->result < 0 && h->result != -EAGAIN)
		h->out_len = 0;
	*ret_used = used;
	return h->result;
}

void gk_nbd_handshake_secured(struct gk_nbd_handshake *h)
{
	assert(h->result == GK_NBD_HANDSHAKE_STARTTLS);
	h->option = 0;
	h->result = ask_first(h);
}

const char *gk_nbd_handshake_awaited(const struct gk_nbd_handshake *h)
{
	switch (h->option) {
	case 0:
		return "its greeting";
	case NBD_OPT_EXPORT_NAME:
		return "its answer to NBD_OPT_EXPORT_NAME";
	case NBD_OPT_LIST:
		return "its answer to NBD_OPT_LIST";
	case NBD_OPT_STARTTLS:
		return "its answer to NBD_OPT_STARTTLS";
	case NBD_OPT_INFO:
		return "its answer to NBD_OPT_INFO";
	case NBD_OPT_GO:
		return "its answer to NBD_OPT_GO";
	default:
		return "its answer to NBD_OPT_STRUCTURED_REPLY";
	}
}

int gk_nbd_handshake_eof(struct gk_nbd_handshake *h)
{
	char export[SHOWN_NAME_BYTES + 32];

	if (h->result < 0 && h->result != -EAGAIN)
		return h->result;
	if (h->state == STATE_EXPORT_NAME && h->have == 0)
		h->result = fail(h, -ENOENT,
				 "the server closed the connection when asked for the %s: it has "
				 "none of this name, or forbids it to this client",
				 shown_export(h, export, sizeof(export)));
	else if (h->state == STATE_MAGIC && h->have == 0)
		h->result = fail(h, -ECONNRESET,
				 "the server closed the connection without a greeting: it forbids "
				 "this client, has too many, or is no NBD server");
	else
		h->result = fail(h, -ECONNRESET, "the server closed the connection instead of %s",
				 gk_nbd_handshake_awaited(h));
	return h->result;
}

void gk_nbd_handshake_done(struct gk_nbd_handshake *h)
{
	if (h)
		gk_nbd_export_list_done(&h->list);
}
