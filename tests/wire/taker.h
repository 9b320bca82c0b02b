/* SPDX-License-Identifier: MIT */
/*
 * The server that takes one large WRITE, on a thread of its own: it must not wait for the turns of
 * the loop. For a rig, from the test's thread.
 */
#ifndef TAKER_H
#define TAKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "wire_rig.h"

#define TAKER_BYTES (512U * 1024)

struct taker {
	int fd;
	bool is_second; /* a READ comes before it */
	pthread_t thread;
	struct fake_request first;
	uint8_t bytes[sizeof(struct nbd_request) + TAKER_BYTES];
	bool whole;
};

static void *taker_take(void *arg)
{
	struct taker *taker = arg;

	taker->whole = (!taker->is_second || fake_take(taker->fd, &taker->first)) &&
		       fake_take_bytes(taker->fd, taker->bytes, sizeof(taker->bytes));
	return NULL;
}

/* The server of that session takes what comes from now on. is_second is the caller's to set. */
static inline void taker_start(struct taker *taker, const struct rig *rig, unsigned int session)
{
	taker->fd = rig->peer[session];
	assert_int_equal(pthread_create(&taker->thread, NULL, taker_take, taker), 0);
}

/* Turns the loop until the server has it all, which is the pattern with that salt, and answers. */
static inline void taker_check(struct taker *taker, struct rig *rig, unsigned int session,
			       unsigned int salt)
{
	static uint8_t want[TAKER_BYTES];
	struct fake_request request;

	rig_send_all(rig);
	assert_int_equal(pthread_join(taker->thread, NULL), 0);
	assert_true(taker->whole);
	request = fake_parse(taker->bytes);
	assert_int_equal(request.type, NBD_CMD_WRITE);
	assert_int_equal(request.length, TAKER_BYTES);
	rig_pattern(want, request.offset, sizeof(want), salt);
	assert_memory_equal(taker->bytes + sizeof(struct nbd_request), want, sizeof(want));
	rig_answer(rig, session, &request, NULL);
}

#endif
