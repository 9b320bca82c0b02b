// SPDX-License-Identifier: MIT
/*
 * A server that ends its connections again and again: after each the requests that were out are
 * sent again, and neither descriptors nor memory have grown. 10,000 connections, fewer with a
 * sanitizer.
 */
#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "commands.h"
#include "dial.h"
#include "handshake_server.h"

#define WARM_UP 200 /* connections, after which nothing grows any more */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true /* has a malloc() of its own, and finds what is lost by itself */
#define ROUNDS	  500
#else
#define SANITIZED false
#define ROUNDS	  10000
#endif
#define A_SERVER 32 /* dials to one server, which keeps what it accepted until its end */

/* What the test's process holds. */
struct holdings {
	unsigned int descriptors;
	size_t heap_bytes; /* handed out by malloc() */
	size_t resident_pages;
};

static struct holdings measure(void)
{
	struct mallinfo2 info = mallinfo2();
	struct holdings now = {.heap_bytes = info.uordblks + info.hblkhd};
	DIR *dir = opendir("/proc/self/fd");
	FILE *file = fopen("/proc/self/statm", "re");

	assert_non_null(dir);
	assert_non_null(file);
	while (readdir(dir))
		now.descriptors++;
	closedir(dir);
	assert_int_equal(fscanf(file, "%*u %zu", &now.resident_pages), 1);
	fclose(file);
	return now;
}

/* Of resident memory a few pages come and go with what the C library caches. */
static void assert_not_grown(const char *what, struct holdings before)
{
	struct holdings after = measure();
	long pages = (long)after.resident_pages - (long)before.resident_pages;

	print_message("%s, %u times: %+d descriptors, %+ld bytes of heap, %+ld pages resident\n",
		      what, ROUNDS, (int)(after.descriptors - before.descriptors),
		      (long)(after.heap_bytes - before.heap_bytes), pages);
	assert_int_equal(after.descriptors, before.descriptors);
	assert_int_equal(after.heap_bytes, before.heap_bytes);
	assert_true(SANITIZED || pages < 64);
}

/* The connection ends with requests out; on the next one they are answered. */
static void lose_a_connection(struct rig *rig)
{
	struct fake_request request[N];

	for (size_t i = 0; i < N; i++)
		submit(rig, &commands[i]);
	rig_send_all(rig);
	for (size_t i = 0; i < N; i++)
		take(rig, 0, &commands[i]);
	rig_close_peer(rig, 0);
	rig_wait_dead(rig, 0);
	rig_offer(rig, 0);
	rig_send_all(rig);
	for (size_t i = 0; i < N; i++)
		request[i] = take(rig, 0, &commands[i]);
	for (size_t i = 0; i < N; i++)
		answer(rig, 0, &request[i], 3);
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(rig_result(rig, commands[i].tag), commands[i].len);
		assert_int_equal(rig->front.slots[commands[i].tag].busy, false);
	}
}

static void a_queue_that_reconnects(void **state)
{
	(void)state;
	rig_quiet();
	for (size_t p = 0; p < PATHS; p++) {
		struct holdings before = {0};
		struct rig rig;

		rig_begin(&rig, &all_paths[p]);
		for (unsigned int i = 0; i < WARM_UP + ROUNDS; i++) {
			if (i == WARM_UP)
				before = measure();
			lose_a_connection(&rig);
		}
		assert_not_grown("a connection lost with six requests out", before);
		assert_int_equal(rig.queue.counters.replays, N * (WARM_UP + ROUNDS));
		assert_int_equal(rig.queue.counters.errors, 0);
		rig_end(&rig);
	}
}

static void dial_and_hang_up(const char *where, unsigned int n)
{
	const struct gk_handshake_server_script script = {
		.size_bytes = 1 << 20,
		.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH,
		.accepted_fd = -1,
	};
	const struct gk_dial_options options = {
		.mode = GK_NBD_HANDSHAKE_GO,
		.connect_timeout_s = 30,
		.cancel_fd = -1,
	};

	while (n) {
		struct gk_handshake_server *server = gk_handshake_server_new(where, &script);
		char text[64], why[GK_DIAL_WHY_BYTES];
		struct gk_nbd_uri uri;

		assert_non_null(server);
		snprintf(text, sizeof(text), "nbd://%s:%s/", where,
			 gk_handshake_server_port(server));
		assert_int_equal(gk_nbd_uri_parse(text, why, sizeof(why), &uri), 0);
		for (unsigned int i = 0; i < A_SERVER && n; i++, n--) {
			struct gk_dialled dialled;

			if (gk_dial(&uri, &options, why, sizeof(why), &dialled))
				fail_msg("%s: %s", text, why);
			assert_int_equal(dialled.facts.size_bytes, 1 << 20);
			gk_dial_done(&dialled);
		}
		gk_nbd_uri_done(&uri);
		gk_handshake_server_free(server);
	}
}

static void dialling(void **state)
{
	struct holdings before;

	(void)state;
	dial_and_hang_up("127.0.0.1", WARM_UP);
	before = measure();
	dial_and_hang_up("127.0.0.1", ROUNDS);
	assert_not_grown("dialled and hung up", before);
}

/* The test would see it: a descriptor, and memory. */
static void growth_is_seen(void **state)
{
	struct holdings before = measure(), after;
	int fd = dup(0);
	void *volatile memory = malloc(100);

	(void)state;
	after = measure();
	assert_int_equal(after.descriptors, before.descriptors + 1);
	close(fd);
	if (!SANITIZED)
		assert_in_range(after.heap_bytes - before.heap_bytes, 100, 200);
	free(memory);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(growth_is_seen),
		cmocka_unit_test(a_queue_that_reconnects),
		cmocka_unit_test(dialling),
	};

	/* All of malloc() is in mallinfo2(): one heap for all threads, and no cache of each. */
	(void)argc;
	if (!getenv("GLIBC_TUNABLES")) {
		setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1", 1);
		execv("/proc/self/exe", argv);
	}
	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
