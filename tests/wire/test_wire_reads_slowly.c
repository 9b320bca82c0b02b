// SPDX-License-Identifier: MIT
/*
 * A server that reads only what the socket holds, and only when the client can send no more: every
 * send that is longer than the socket's few KiB ends early, at any place in headers and payloads.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "wire_rig.h"

#define DISK_BYTES (512 * 1024)
#define SLOT_BYTES (DISK_BYTES / 8)

struct slow {
	struct rig rig;
	struct fake_bytes received; /* not taken apart yet */
	uint8_t disk[DISK_BYTES];
	uint8_t model[DISK_BYTES];
	unsigned int seed;
	unsigned int writes; /* received whole */
};

/* Takes whole requests off what was received, and answers them at once. */
static void serve(struct slow *s)
{
	size_t at = 0;

	while (s->received.n - at >= sizeof(struct nbd_request)) {
		const uint8_t *p = s->received.p + at;
		struct fake_request request = fake_parse(p);
		struct fake_bytes reply = {0};
		size_t whole = sizeof(struct nbd_request) + request.length;

		assert_int_equal(request.type, NBD_CMD_WRITE);
		assert_true(request.length <= SLOT_BYTES &&
			    request.offset <= DISK_BYTES - request.length);
		if (s->received.n - at < whole)
			break;
		memcpy(s->disk + request.offset, p + sizeof(struct nbd_request), request.length);
		fake_put_simple(&reply, request.cookie, 0);
		rig_say(&s->rig, 0, &reply);
		fake_bytes_done(&reply);
		at += whole;
		s->writes++;
	}
	s->received.n -= at;
	if (at)
		memmove(s->received.p, s->received.p + at, s->received.n);
}

static void take_available(struct slow *s)
{
	uint8_t buf[16384];
	ssize_t r;

	while ((r = recv(s->rig.peer[0], buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		fake_put(&s->received, buf, (size_t)r);
	serve(s);
}

/* A WRITE of random size and content within the slot's own stretch of the disk. */
static void submit(struct slow *s, uint16_t tag, unsigned int salt)
{
	uint32_t len = 1 + (uint32_t)rand_r(&s->seed) % SLOT_BYTES;
	uint64_t offset = tag * SLOT_BYTES + (uint32_t)rand_r(&s->seed) % (SLOT_BYTES - len + 1);

	rig_pattern(s->rig.queue.tags[tag].buf, offset, len, salt);
	memcpy(s->model + offset, s->rig.queue.tags[tag].buf, len);
	mem_front_submit(&s->rig.queue, tag, NBD_CMD_WRITE, 0, offset, len);
}

static void most_sends_end_early_and_every_byte_arrives(void **state)
{
	struct slow *s = calloc(1, sizeof(*s));
	const struct gk_counters *counters = &s->rig.queue.counters;
	unsigned int n = 0;
	uint16_t tag;
	int32_t result;

	(void)state;
	assert_non_null(s);
	s->seed = 1;
	rig_begin(&s->rig, &(struct rig_options){.sndbuf_bytes = 1});
	while (n < 150 || s->rig.front.n_busy) {
		for (tag = 0; tag < 8 && n < 150; tag++)
			if (!s->rig.front.slots[tag].busy)
				submit(s, tag, n++);
		rig_turn(&s->rig);
		while (mem_front_next(&s->rig.front, &tag, &result))
			assert_int_equal(result, s->rig.queue.tags[tag].len);
		take_available(s);
	}
	assert_int_equal(s->writes, 150);
	assert_int_equal(s->received.n, 0);
	assert_memory_equal(s->disk, s->model, DISK_BYTES);
	assert_true(counters->partial_sends > 100);
	assert_true(counters->partial_sends > counters->sends / 2);
	rig_end(&s->rig);
	fake_bytes_done(&s->received);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(most_sends_end_early_and_every_byte_arrives),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
