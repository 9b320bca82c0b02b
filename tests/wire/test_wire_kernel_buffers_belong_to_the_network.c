// SPDX-License-Identifier: MIT
/*
 * SEND_ZC: the network refers to a request's pages until it says that it does not. Until then the
 * request may not end, whatever the server answers, and a connection that dies must get them back.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "datapath.h"
#include "fake_kernel.h"
#include "gk_io_uring.h"

#define THRESHOLD 64
#define LEN	  200
#define N	  3
#define HEADER	  sizeof(struct nbd_request)

static const struct gk_path *const paths[] = {&mem_path_single, &mem_path_paired};

/* A session that sends by SEND_ZC, on the rig's socket pair or on TCP. */
static void begin(struct fake_kernel *kernel, const struct rig_options *options, bool tcp)
{
	struct rig_options with_size = *options;

	with_size.threshold_bytes = THRESHOLD;
	if (!with_size.max_io_bytes)
		with_size.max_io_bytes = 8192;
	fake_kernel_begin(kernel, &with_size);
	if (tcp)
		fake_kernel_connect_tcp(kernel, true);
	else
		kernel->rig.queue.sessions[0].send_zc = true;
}

static void submit_write(struct fake_kernel *kernel, uint16_t tag, uint32_t len)
{
	rig_pattern(mem_front_data(&kernel->rig.queue, tag), tag * 4096, len, 9);
	mem_front_submit(&kernel->rig.queue, tag, NBD_CMD_WRITE, 0, tag * 4096, len);
}

/* The server takes the WRITE that must come next, from byte `from` of its request on. */
static uint64_t take_write(struct fake_kernel *kernel, uint16_t tag, uint32_t from, uint32_t len)
{
	struct fake_request request = fake_kernel_take(kernel);
	uint8_t expected[8192];
	uint8_t payload[8192];

	assert_int_equal(request.type, NBD_CMD_WRITE);
	assert_int_equal(request.offset, tag * 4096 + from);
	assert_int_equal(request.length, len);
	rig_pattern(expected, request.offset, len, 9);
	fake_kernel_take_bytes(kernel, payload, len);
	assert_memory_equal(payload, expected, len);
	return request.cookie;
}

static void answer(struct fake_kernel *kernel, uint64_t cookie, uint32_t error)
{
	struct fake_bytes reply = {0};
	uint16_t tag;
	int32_t result;

	fake_put_simple(&reply, cookie, error);
	rig_say(&kernel->rig, 0, &reply);
	fake_bytes_done(&reply);
	fake_kernel_settle(kernel);
	while (mem_front_next(&kernel->rig.front, &tag, &result))
		;
}

static bool busy(const struct fake_kernel *kernel, uint16_t tag)
{
	return kernel->rig.front.slots[tag].busy;
}

/* The kernel's own SEND_ZC, with its notifications, where there is one leader's CQE less. */
static void real_notifications_end_requests(void **state)
{
	struct fake_kernel kernel;
	struct gk_counters *counters = &kernel.rig.queue.counters;

	(void)state;
	begin(&kernel, &(struct rig_options){.path = &mem_path_single}, true);
	for (unsigned int round = 0; round < 20; round++) {
		uint64_t cookies[N];

		for (uint16_t t = 0; t < N; t++)
			submit_write(&kernel, t, 8192 - t);
		for (uint16_t t = 0; t < N; t++)
			cookies[t] = take_write(&kernel, t, 0, 8192 - t);
		for (uint16_t t = 0; t < N; t++)
			answer(&kernel, cookies[t], 0);
		fake_kernel_run(&kernel);
		for (uint16_t t = 0; t < N; t++)
			assert_int_equal(kernel.rig.front.slots[t].result, 8192 - t);
		assert_int_equal(kernel.rig.queue.sessions[0].lent, 0);
	}
	assert_int_equal(counters->zc_sends, 20 * N);
	assert_int_equal(counters->direct_sends, 20 * N);
	assert_int_equal(counters->fallbacks, 0);
	rig_end(&kernel.rig);
}

/* A Unix socket refuses SEND_ZC; each request is then sent from the same pages, without it. */
static void a_socket_that_cannot_do_it_gets_a_send(void **state)
{
	struct fake_kernel kernel;
	struct gk_counters *counters = &kernel.rig.queue.counters;

	(void)state;
	begin(&kernel, &(struct rig_options){.path = &mem_path_single}, false);
	for (uint16_t t = 0; t < N; t++)
		submit_write(&kernel, t, LEN);
	for (uint16_t t = 0; t < N; t++)
		answer(&kernel, take_write(&kernel, t, 0, LEN), 0);
	fake_kernel_run(&kernel);
	for (uint16_t t = 0; t < N; t++)
		assert_int_equal(kernel.rig.front.slots[t].result, LEN);
	assert_true(counters->zc_sends >= N);
	assert_int_equal(counters->bytes_direct, N * LEN);
	assert_int_equal(counters->fallbacks, 0);
	assert_int_equal(counters->partial_sends, 0);
	rig_end(&kernel.rig);
}

static void refused_by_the_kernel_it_is_a_send(void **state)
{
	static const int errors[] = {-EOPNOTSUPP, -ENOMEM, -ENOBUFS};

	(void)state;
	for (unsigned int i = 0; i < 2; i++)
		for (unsigned int e = 0; e < 3; e++)
			for (unsigned int nth = 1; nth <= N; nth++) {
				struct fake_kernel kernel;
				uint64_t cookies[N];
				/* What was linked behind it is cancelled, and goes as a SEND too.
				 */
				unsigned int by_zc = i ? N - 1 : nth - 1;

				begin(&kernel, &(struct rig_options){.path = paths[i]}, false);
				kernel.withhold = true;
				kernel.fail_transfer = nth;
				kernel.fail_error = errors[e];
				for (uint16_t t = 0; t < N; t++)
					submit_write(&kernel, t, LEN);
				for (uint16_t t = 0; t < N; t++)
					cookies[t] = take_write(&kernel, t, 0, LEN);
				for (uint16_t t = 0; t < N; t++)
					answer(&kernel, cookies[t], 0);
				assert_int_equal(fake_kernel_withheld(&kernel), by_zc);
				assert_int_equal(fake_kernel_notify_cancelled(&kernel),
						 N - 1 - by_zc);
				assert_int_equal(kernel.rig.front.n_busy, by_zc);
				for (uint16_t t = 0; t < N; t++) {
					if (busy(&kernel, t))
						fake_kernel_notify(&kernel, t);
					assert_int_equal(kernel.rig.front.slots[t].result, LEN);
				}
				assert_int_equal(kernel.rig.queue.counters.fallbacks, 0);
				assert_int_equal(kernel.rig.queue.counters.bytes_direct, N * LEN);
				rig_end(&kernel.rig);
			}
}

/* The lending fails, not the sending: then it is copied like any other. */
static void not_lent_it_is_copied(void **state)
{
	(void)state;
	for (unsigned int nth = 1; nth <= N; nth++) {
		struct fake_kernel kernel;

		begin(&kernel, &(struct rig_options){.path = &mem_path_paired}, false);
		kernel.withhold = true;
		kernel.fail_transfer = nth;
		kernel.fail_error = -ENOMEM;
		kernel.fail_leader = true;
		for (uint16_t t = 0; t < N; t++)
			submit_write(&kernel, t, LEN);
		for (uint16_t t = 0; t < N; t++)
			answer(&kernel, take_write(&kernel, t, 0, LEN), 0);
		for (uint16_t t = 0; t < N; t++)
			if (t + 1U != nth)
				fake_kernel_notify(&kernel, t);
		assert_int_equal(kernel.rig.front.n_busy, 0);
		assert_int_equal(kernel.rig.queue.counters.fallbacks, 1);
		assert_int_equal(kernel.rig.queue.counters.errors, 0);
		rig_end(&kernel.rig);
	}
}

static void a_request_ends_with_the_later_of_answer_and_notification(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		bool notified_first = i % 2;
		struct fake_kernel kernel;
		uint64_t cookie;

		begin(&kernel, &(struct rig_options){.path = paths[i / 2]}, false);
		kernel.withhold = true;
		submit_write(&kernel, 5, LEN);
		cookie = take_write(&kernel, 5, 0, LEN);
		assert_int_equal(kernel.rig.queue.sessions[0].lent, paths[i / 2]->transfer_cqes);
		if (notified_first)
			fake_kernel_notify(&kernel, 5);
		else
			answer(&kernel, cookie, 0);
		assert_true(busy(&kernel, 5));
		if (notified_first)
			answer(&kernel, cookie, 0);
		else
			fake_kernel_notify(&kernel, 5);
		assert_false(busy(&kernel, 5));
		assert_int_equal(kernel.rig.front.slots[5].result, LEN);
		assert_int_equal(kernel.rig.queue.sessions[0].lent, 0);
		assert_int_equal(kernel.rig.front.slots[5].commits, 1);
		rig_end(&kernel.rig);
	}
}

/* A notification that nothing waits for ends nothing, of a slot in use or not. */
static void a_notification_for_nothing_is_ignored(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_kernel kernel;
		struct gk_queue *queue = &kernel.rig.queue;
		uint64_t cookie;

		begin(&kernel, &(struct rig_options){.path = paths[i]}, false);
		kernel.withhold = true;
		gk_send_zc_done(queue, 0, 0, IORING_CQE_F_NOTIF);
		submit_write(&kernel, 0, LEN);
		cookie = take_write(&kernel, 0, 0, LEN);
		fake_kernel_notify(&kernel, 0);
		gk_send_zc_done(queue, 0, 0, IORING_CQE_F_NOTIF);
		assert_true(busy(&kernel, 0));
		assert_int_equal(queue->sessions[0].lent, 0);
		answer(&kernel, cookie, 0);
		assert_int_equal(kernel.rig.front.slots[0].result, LEN);
		rig_end(&kernel.rig);
	}
}

/* An error of the server's does not give the pages back either. */
static void an_error_waits_for_the_notification(void **state)
{
	(void)state;
	rig_quiet();
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_kernel kernel;

		begin(&kernel, &(struct rig_options){.path = paths[i]}, false);
		kernel.withhold = true;
		submit_write(&kernel, 0, LEN);
		answer(&kernel, take_write(&kernel, 0, 0, LEN), NBD_ENOSPC);
		assert_true(busy(&kernel, 0));
		fake_kernel_notify(&kernel, 0);
		assert_int_equal(kernel.rig.front.slots[0].result, -ENOSPC);
		rig_end(&kernel.rig);
	}
}

/* The stream does not wait: other requests pass one whose pages are still out. */
static void others_go_on_meanwhile(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_kernel kernel;
		uint64_t first;

		begin(&kernel, &(struct rig_options){.path = paths[i]}, false);
		kernel.withhold = true;
		submit_write(&kernel, 0, LEN);
		first = take_write(&kernel, 0, 0, LEN);
		kernel.withhold = false;
		kernel.rig.queue.sessions[0].send_zc = false;
		for (unsigned int round = 0; round < 5; round++) {
			submit_write(&kernel, 1, LEN);
			submit_write(&kernel, 2, 40);
			answer(&kernel, take_write(&kernel, 1, 0, LEN), 0);
			answer(&kernel, take_write(&kernel, 2, 0, 40), 0);
			assert_false(busy(&kernel, 1) || busy(&kernel, 2));
		}
		answer(&kernel, first, 0);
		assert_true(busy(&kernel, 0));
		fake_kernel_notify(&kernel, 0);
		assert_false(busy(&kernel, 0));
		rig_end(&kernel.rig);
	}
}

/*
 * One that ends short has lent its pages as well; the rest goes as a SEND, for it is in their way.
 * One that was cancelled has lent none, but a notification of it comes, sooner or later.
 */
static void cut_at_every_byte_it_goes_on_as_a_send(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < 8; i++) {
		bool no_wait_all = i % 2;
		bool late = i / 2 % 2;
		struct fake_kernel kernel;
		struct gk_counters *counters = &kernel.rig.queue.counters;
		unsigned int strays = 0;

		begin(&kernel,
		      &(struct rig_options){.path = paths[i / 4], .no_wait_all = no_wait_all},
		      false);
		kernel.withhold = true;
		for (size_t at = 0; at < 2 * (HEADER + LEN); at++) {
			uint64_t cookies[2];

			kernel.cut_send = at;
			submit_write(&kernel, 0, LEN);
			submit_write(&kernel, 1, LEN);
			if (!late) {
				fake_kernel_turn(&kernel);
				strays += fake_kernel_notify_cancelled(&kernel);
			}
			for (uint16_t t = 0; t < 2; t++)
				cookies[t] = take_write(&kernel, t, 0, LEN);
			answer(&kernel, cookies[0], 0);
			answer(&kernel, cookies[1], 0);
			strays += fake_kernel_notify_cancelled(&kernel);
			/* Those that were sent by a SEND after all have ended. */
			assert_int_equal(kernel.rig.front.n_busy, fake_kernel_withheld(&kernel));
			for (uint16_t t = 0; t < 2; t++)
				if (busy(&kernel, t))
					fake_kernel_notify(&kernel, t);
			assert_int_equal(kernel.rig.front.n_busy, 0);
			fake_kernel_run(&kernel);
		}
		assert_true(no_wait_all ? !strays : strays >= 2 * HEADER);
		assert_true(counters->zc_sends > 2 * (HEADER + LEN));
		assert_int_equal(counters->errors, 0);
		assert_int_equal(counters->bytes_direct, 2 * (HEADER + LEN) * 2 * LEN);
		rig_end(&kernel.rig);
	}
}

/* The next part uses the same pages at another place, but its tag's CQEs must be told apart. */
static void the_next_part_waits_for_the_notification(void **state)
{
	enum { PART = 128 };

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_kernel kernel;

		begin(&kernel, &(struct rig_options){.path = paths[i], .max_payload = PART}, false);
		kernel.withhold = true;
		submit_write(&kernel, 3, LEN);
		answer(&kernel, take_write(&kernel, 3, 0, PART), 0);
		assert_int_equal(recv(kernel.rig.peer[0], &(uint8_t){0}, 1, MSG_DONTWAIT), -1);
		fake_kernel_notify(&kernel, 3);
		answer(&kernel, take_write(&kernel, 3, PART, LEN - PART), 0);
		assert_true(busy(&kernel, 3));
		fake_kernel_notify(&kernel, 3);
		assert_int_equal(kernel.rig.front.slots[3].result, LEN);
		rig_end(&kernel.rig);
	}
}

/* The connection is lost; the requests are not settled before the last page is back. */
static void a_dead_session_waits_for_its_pages(void **state)
{
	(void)state;
	rig_quiet();
	for (unsigned int i = 0; i < 2; i++) {
		struct fake_kernel kernel;
		const struct gk_session *session;
		uint64_t answered;

		begin(&kernel, &(struct rig_options){.path = paths[i]}, false);
		session = &kernel.rig.queue.sessions[0];
		kernel.withhold = true;
		for (uint16_t t = 0; t < N; t++)
			submit_write(&kernel, t, LEN);
		answered = take_write(&kernel, 0, 0, LEN);
		for (uint16_t t = 1; t < N; t++)
			take_write(&kernel, t, 0, LEN);
		answer(&kernel, answered, 0);
		rig_close_peer(&kernel.rig, 0);
		fake_kernel_settle(&kernel);
		assert_int_equal(session->state, GK_SESSION_DRAINING);
		assert_true(session->reset);
		assert_int_equal(kernel.rig.front.n_busy, N);
		fake_kernel_notify(&kernel, 0);
		/* What was answered before that ends as it was answered. */
		assert_false(busy(&kernel, 0));
		assert_int_equal(kernel.rig.front.slots[0].result, LEN);
		for (uint16_t t = 1; t < N; t++) {
			assert_int_equal(session->state, GK_SESSION_DRAINING);
			assert_true(busy(&kernel, t));
			fake_kernel_notify(&kernel, t);
		}
		assert_int_equal(session->state, GK_SESSION_DEAD);
		for (uint16_t t = 1; t < N; t++) {
			assert_int_equal(kernel.rig.front.slots[t].result, -EIO);
			assert_int_equal(kernel.rig.front.slots[t].commits, 1);
		}
		rig_end(&kernel.rig);
	}
}

/*
 * A server that has stopped reading and half-closes: what it has not acknowledged stays in our
 * socket, with the pages, until the connection is reset.
 */
static void a_real_connection_is_reset_to_get_pages_back(void **state)
{
	enum { LARGE = 512 * 1024 };
	struct fake_kernel kernel;
	const struct gk_session *session;

	(void)state;
	rig_quiet();
	begin(&kernel, &(struct rig_options){.path = &mem_path_single, .max_io_bytes = LARGE},
	      true);
	session = &kernel.rig.queue.sessions[0];
	for (uint16_t t = 0; t < 8; t++)
		mem_front_submit(&kernel.rig.queue, t, NBD_CMD_WRITE, 0, t * LARGE, LARGE);
	fake_kernel_settle(&kernel);
	assert_true(kernel.rig.queue.counters.zc_sends > 0);
	assert_int_equal(shutdown(kernel.rig.peer[0], SHUT_WR), 0);
	rig_wait_dead(&kernel.rig, 0);
	assert_true(session->reset);
	assert_int_equal(session->lent, 0);
	for (uint16_t t = 0; t < 8; t++) {
		assert_int_equal(kernel.rig.front.slots[t].result, -EIO);
		assert_int_equal(kernel.rig.front.slots[t].commits, 1);
	}
	rig_end(&kernel.rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_notifications_end_requests),
		cmocka_unit_test(a_socket_that_cannot_do_it_gets_a_send),
		cmocka_unit_test(refused_by_the_kernel_it_is_a_send),
		cmocka_unit_test(not_lent_it_is_copied),
		cmocka_unit_test(a_request_ends_with_the_later_of_answer_and_notification),
		cmocka_unit_test(a_notification_for_nothing_is_ignored),
		cmocka_unit_test(an_error_waits_for_the_notification),
		cmocka_unit_test(others_go_on_meanwhile),
		cmocka_unit_test(cut_at_every_byte_it_goes_on_as_a_send),
		cmocka_unit_test(the_next_part_waits_for_the_notification),
		cmocka_unit_test(a_dead_session_waits_for_its_pages),
		cmocka_unit_test(a_real_connection_is_reset_to_get_pages_back),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
