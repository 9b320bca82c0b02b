// SPDX-License-Identifier: MIT
/*
 * Payloads so large that we ask the kernel to wake us only for many bytes (SO_RCVLOWAT): nothing is
 * waited for that does not come, however the server cuts what it sends, and wherever it ends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "fake_kernel.h"

#define LEN    (512 * 1024)
#define MAX    (1024 * 1024)
#define HEADER sizeof(struct nbd_simple_reply)

static const struct gk_path *const paths[] = {&gk_path_copy, &mem_path_single, &mem_path_paired};

static void begin(struct fake_kernel *kernel, const struct gk_path *path, bool tcp)
{
	fake_kernel_begin(kernel, &(struct rig_options){.path = path,
							.depth = 2,
							.max_io_bytes = MAX,
							.threshold_bytes = GK_LARGE_BYTES});
	if (tcp)
		fake_kernel_connect_tcp(kernel, false);
}

static int low_water(const struct fake_kernel *kernel)
{
	socklen_t size = sizeof(int);
	int value = -1;

	assert_int_equal(getsockopt(kernel->rig.queue.sessions[0].fd, SOL_SOCKET, SO_RCVLOWAT,
				    &value, &size),
			 0);
	return value;
}

/* Submits a READ and builds the whole answer to it. */
static void read_and_answer(struct fake_kernel *kernel, uint16_t tag, uint32_t len,
			    struct fake_bytes *reply)
{
	struct fake_request request;
	uint8_t *content = malloc(len);

	assert_non_null(content);
	memset(mem_front_data(&kernel->rig.queue, tag), 0x5a, MAX);
	mem_front_submit(&kernel->rig.queue, tag, NBD_CMD_READ, 0, tag * MAX, len);
	request = fake_kernel_take(kernel);
	rig_pattern(content, request.offset, len, 1);
	fake_put_simple(reply, request.cookie, 0);
	fake_put(reply, content, len);
	free(content);
}

/* The server says the bytes up to `end`, at most `piece` at a time, while the loop turns. */
static void say_until(struct fake_kernel *kernel, const struct fake_bytes *bytes, size_t *at,
		      size_t end, size_t piece)
{
	while (*at < end) {
		size_t left = end - *at < piece ? end - *at : piece;
		ssize_t n = send(kernel->rig.peer[0], bytes->p + *at, left,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		assert_true(n > 0 || errno == EAGAIN);
		*at += n > 0 ? (size_t)n : 0;
		fake_kernel_settle(kernel);
	}
}

static void check(struct fake_kernel *kernel, uint16_t tag, uint32_t len)
{
	const uint8_t *data = mem_front_data(&kernel->rig.queue, tag);
	uint8_t *expected = malloc(len);

	assert_non_null(expected);
	rig_pattern(expected, tag * MAX, len, 1);
	assert_int_equal(kernel->rig.front.slots[tag].result, len);
	assert_memory_equal(data, expected, len);
	free(expected);
	for (uint32_t i = len; i < MAX; i++)
		assert_int_equal(data[i], 0x5a);
}

static void a_large_payload_is_awaited_and_a_header_is_not(void **state)
{
	static const struct {
		uint32_t len;
		int awaited;
	} cases[] = {
		{256 * 1024 - 512, 1},
		{256 * 1024, 256 * 1024},
		{LEN, LEN},
		{MAX, 512 * 1024},
	};

	(void)state;
	for (unsigned int i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct fake_kernel kernel;

		begin(&kernel, paths[i], true);
		for (unsigned int c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
			const struct gk_session *session = &kernel.rig.queue.sessions[0];
			struct fake_bytes reply = {0};
			size_t at = 0;

			read_and_answer(&kernel, 0, cases[c].len, &reply);
			assert_int_equal(low_water(&kernel), 1);
			say_until(&kernel, &reply, &at, HEADER, SIZE_MAX);
			assert_int_equal(low_water(&kernel), cases[c].awaited);
			/* A piece wakes nobody who awaits more. */
			say_until(&kernel, &reply, &at, HEADER + 1000, SIZE_MAX);
			assert_true(session->rx_left == cases[c].len ||
				    (cases[c].awaited == 1 && session->rx_left));
			say_until(&kernel, &reply, &at, reply.n, SIZE_MAX);
			fake_kernel_run(&kernel);
			check(&kernel, 0, cases[c].len);
			fake_kernel_settle(&kernel);
			assert_int_equal(low_water(&kernel), 1);
			fake_bytes_done(&reply);
		}
		rig_end(&kernel.rig);
	}
}

/* Every byte near the points at which something is awaited comes alone. */
static void the_server_dribbles(void **state)
{
	static const size_t points[] = {0, HEADER, LEN / 2, LEN, MAX - LEN / 2, MAX};

	(void)state;
	for (unsigned int i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct fake_kernel kernel;

		begin(&kernel, paths[i], true);
		for (uint32_t len = LEN / 2; len <= MAX; len *= 2) {
			struct fake_bytes reply = {0};
			size_t at = 0;

			read_and_answer(&kernel, 0, len, &reply);
			for (unsigned int p = 0; p < sizeof(points) / sizeof(points[0]); p++) {
				size_t from = points[p] + HEADER - 12;
				size_t to = points[p] + HEADER + 20;

				if (points[p] > len)
					continue;
				say_until(&kernel, &reply, &at, from, 100000);
				say_until(&kernel, &reply, &at, to < reply.n ? to : reply.n, 1);
			}
			assert_int_equal(at, reply.n);
			fake_kernel_run(&kernel);
			check(&kernel, 0, len);
			fake_bytes_done(&reply);
		}
		rig_end(&kernel.rig);
	}
}

/* Nothing follows the answers, so that whoever awaits more than there is waits for ever. */
static void answers_come_close_together(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct fake_kernel kernel;

		begin(&kernel, paths[i], true);
		for (size_t piece = 9973; piece < MAX; piece *= 3) {
			struct fake_bytes replies = {0};
			size_t at = 0;

			read_and_answer(&kernel, 0, MAX, &replies);
			read_and_answer(&kernel, 1, 300000 / 512 * 512, &replies);
			say_until(&kernel, &replies, &at, replies.n, piece);
			fake_kernel_run(&kernel);
			check(&kernel, 0, MAX);
			check(&kernel, 1, 300000 / 512 * 512);
			fake_bytes_done(&replies);
		}
		rig_end(&kernel.rig);
	}
}

static void the_server_closes_in_the_middle(void **state)
{
	static const size_t ends[] = {0, 1, 4096, LEN / 2 - 1, LEN / 2, LEN / 2 + 1, LEN - 1};

	(void)state;
	rig_quiet();
	for (unsigned int i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct fake_kernel kernel;

		begin(&kernel, paths[i], true);
		for (unsigned int e = 0; e < sizeof(ends) / sizeof(ends[0]); e++) {
			struct fake_bytes reply = {0};
			size_t at = 0;

			read_and_answer(&kernel, 0, LEN, &reply);
			say_until(&kernel, &reply, &at, HEADER + ends[e], SIZE_MAX);
			rig_close_peer(&kernel.rig, 0);
			fake_kernel_run(&kernel);
			rig_wait_dead(&kernel.rig, 0);
			assert_int_equal(kernel.rig.front.slots[0].result, -EIO);
			fake_bytes_done(&reply);
			fake_kernel_connect_tcp(&kernel, false);
		}
		rig_end(&kernel.rig);
	}
}

/* TLS in the kernel and Unix sockets count other bytes, or none. */
static void only_tcp_is_asked_to_wait(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct fake_kernel kernel;
		struct fake_bytes reply = {0};
		size_t at = 0;

		begin(&kernel, paths[i], false);
		read_and_answer(&kernel, 0, LEN, &reply);
		say_until(&kernel, &reply, &at, HEADER, SIZE_MAX);
		assert_int_equal(low_water(&kernel), 1);
		say_until(&kernel, &reply, &at, reply.n, SIZE_MAX);
		fake_kernel_run(&kernel);
		check(&kernel, 0, LEN);
		fake_bytes_done(&reply);
		rig_end(&kernel.rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_large_payload_is_awaited_and_a_header_is_not),
		cmocka_unit_test(the_server_dribbles),
		cmocka_unit_test(answers_come_close_together),
		cmocka_unit_test(the_server_closes_in_the_middle),
		cmocka_unit_test(only_tcp_is_asked_to_wait),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
