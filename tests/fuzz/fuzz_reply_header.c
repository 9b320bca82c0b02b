// SPDX-License-Identifier: MIT
/*
 * A session's stream of replies, simple or structured, taken apart as on the data path, with no
 * socket operations. The first two bytes choose what was negotiated, the rest is what the server
 * says to the requests below, whose cookies are always the same.
 *
 * Whatever it says: every request ends once, only bytes of its own part are written, and a READ
 * that succeeds was filled to the last byte.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "datapath.h"
#include "fuzz.h"

#define DEPTH	   8
#define MAX_IO	   16384U
#define PART_BYTES 4096U

static const struct {
	uint16_t type;
	uint64_t offset;
	uint32_t len;
} asked[DEPTH] = {
	{NBD_CMD_READ, 0, 512},	      {NBD_CMD_READ, 65536, 4096},
	{NBD_CMD_READ, 8192, MAX_IO}, {NBD_CMD_WRITE, 0, 8192},
	{NBD_CMD_FLUSH, 0, 0},	      {NBD_CMD_TRIM, 4096, 1U << 20},
	{NBD_CMD_READ, 1024, 1024},   {NBD_CMD_WRITE_ZEROES, 4096, 4096},
};

static struct gk_queue queue;
static bool covered[DEPTH][MAX_IO];
static bool busy[DEPTH];

static int start(struct gk_queue *q)
{
	(void)q;
	return 0;
}

static void complete(struct gk_queue *q, uint16_t tag, int res)
{
	(void)q;
	(void)tag;
	(void)res;
	CHECK(!"this front has no commands");
}

static void commit(struct gk_queue *q, struct gk_tag *tag, int32_t result)
{
	(void)q;
	CHECK(busy[tag->id] && tag->state == GK_TAG_IDLE);
	busy[tag->id] = false;
	if (result < 0)
		return;
	CHECK(result == (int32_t)asked[tag->id].len);
	for (uint32_t i = 0; tag->type == NBD_CMD_READ && i < tag->len; i++)
		CHECK(covered[tag->id][i]);
}

static int copy_in(struct gk_queue *q, const struct gk_tag *tag, void *to, uint32_t offset,
		   uint32_t len)
{
	(void)q;
	(void)tag;
	(void)offset;
	memset(to, 0, len);
	return 0;
}

static int copy_out(struct gk_queue *q, const struct gk_tag *tag, const void *from, uint32_t offset,
		    uint32_t len)
{
	uint8_t sum = 0;

	(void)q;
	CHECK(busy[tag->id] && tag->type == NBD_CMD_READ);
	CHECK(offset >= tag->done && len <= tag->part && offset - tag->done <= tag->part - len);
	/* All of it can be read. */
	for (uint32_t i = 0; i < len; i++)
		sum ^= ((const uint8_t *)from)[i];
	(void)sum;
	memset(covered[tag->id] + offset, true, len);
	return 0;
}

static const struct gk_front front = {.start = start, .complete = complete, .commit = commit};
static const struct gk_path path = {
	.name = "fuzz",
	.kernel_buffers = true,
	.copy_in = copy_in,
	.copy_out = copy_out,
};

static void set_up(void)
{
	struct gk_queue_params params = {
		.front = &front,
		.path = &path,
		.depth = DEPTH,
		.n_sessions = 1,
		.max_io_bytes = MAX_IO,
		.threshold_bytes = UINT32_MAX,
	};

	gk_log_set_level((enum gk_log_level) - 1);
	CHECK(gk_queue_init(&queue, &params) == 0);
}

/* As if the send operation had taken all that waits; every other one is still in it if `slow`. */
static void send_waiting(struct gk_session *session, bool slow)
{
	struct gk_tag *tag;

	/* What waited on a session that died has ended. */
	if (session->state != GK_SESSION_UP)
		return;
	while ((tag = session->fifo)) {
		session->fifo = tag->next;
		tag->state = slow && tag->id % 2 ? GK_TAG_SENDING : GK_TAG_SENT;
	}
	session->fifo_tail = &session->fifo;
}

static void finish_sending(void)
{
	for (unsigned int i = 0; i < DEPTH; i++)
		if (queue.tags[i].state == GK_TAG_SENDING)
			gk_tag_sent(&queue, &queue.tags[i]);
}

static void begin(const uint8_t *choice, bool slow)
{
	struct gk_session *session = &queue.sessions[0];
	struct gk_session_facts facts = {
		.structured = choice[0] & 1,
		.df = choice[0] & 2,
		.max_payload = choice[0] & 4 ? PART_BYTES : MAX_IO,
	};
	int fds[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	close(fds[1]);
	queue.secret = 42;
	gk_session_up(session, 0, fds[0], &facts);
	memset(covered, 0, sizeof(covered));
	for (uint16_t i = 0; i < DEPTH; i++) {
		busy[i] = true;
		queue.tags[i].generation = 0;
		gk_tag_begin(&queue, &queue.tags[i], asked[i].type, 0, asked[i].offset,
			     asked[i].len);
		gk_queue_submit(&queue, &queue.tags[i]);
	}
	send_waiting(session, slow);
}

/* Puts bytes where a receive puts them; how many fit is the receiver's business, as in
 * recv_group.c. */
static size_t receive(struct gk_session *session, const uint8_t *said, size_t n)
{
	size_t staged = session->wr - session->rd;

	memmove(session->staging, session->staging + session->rd, staged);
	session->rd = 0;
	session->wr = staged;
	CHECK(staged < GK_STAGING_BYTES);
	if (n > GK_STAGING_BYTES - staged)
		n = GK_STAGING_BYTES - staged;
	memcpy(session->staging + staged, said, n);
	session->wr += n;
	gk_reply_consume(session);
	CHECK(session->rd <= session->wr);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gk_session *session;
	size_t piece;
	bool slow;

	if (size < 2)
		return 0;
	if (!queue.tags)
		set_up();
	session = &queue.sessions[0];
	slow = data[0] & 8;
	piece = data[1] ? data[1] : GK_STAGING_BYTES;
	begin(data, slow);
	for (size_t at = 2; at < size && session->state == GK_SESSION_UP;) {
		at += receive(session, data + at, size - at < piece ? size - at : piece);
		send_waiting(session, slow);
		if (data[0] & 16)
			finish_sending();
	}
	finish_sending();
	gk_session_fail(session, -ECONNRESET, "the input ends");
	CHECK(session->state == GK_SESSION_DEAD);
	for (unsigned int i = 0; i < DEPTH; i++)
		CHECK(!busy[i] && queue.tags[i].state == GK_TAG_IDLE);
	return 0;
}
