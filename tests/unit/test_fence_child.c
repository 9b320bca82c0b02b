// SPDX-License-Identifier: MIT
/*
 * The fence over the daemon's death. The daemon is a process of the test's, its connections are
 * socketpairs whose other ends, the server's, the test has; so is its fence process, the real one.
 */
#include "fence_child.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "log.h"

#define N	   2
#define LONG_S	   600
#define NOTHING_MS 100 /* how long nothing must happen */

static char dir[] = "/tmp/gk-fence.XXXXXX";
static int server[2 * N]; /* the server's ends */
static int client[2 * N]; /* the daemon's, until it has them */
static int orders;	  /* to the daemon, one byte each, which it answers when done */
static pid_t daemon_pid;
static pid_t fence_pid;

static struct gk_device_config config_of(enum gk_fence fence, double timeout_s)
{
	static char name[] = "vol0";

	return (struct gk_device_config){.name = name, .fence = fence,
					 .fence_timeout_s = timeout_s};
}

/* The test inherits orphans, to see them end. */
static int set_up(void **state)
{
	(void)state;
	gk_log_set_level(GK_LOG_ERROR);
	return !mkdtemp(dir) || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0;
}

static int tear_down(void **state)
{
	(void)state;
	return rmdir(dir);
}

static void make_connections(int family)
{
	for (int i = 0; i < 2 * N; i++) {
		struct sockaddr_in address = {.sin_family = AF_INET,
					      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t len = sizeof(address);
		int fds[2];

		if (family == AF_UNIX) {
			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		} else {
			int listener = socket(AF_INET, SOCK_STREAM, 0);

			assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
			assert_int_equal(listen(listener, 1), 0);
			assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
			fds[0] = socket(AF_INET, SOCK_STREAM, 0);
			assert_int_equal(connect(fds[0], (struct sockaddr *)&address, len), 0);
			fds[1] = accept(listener, NULL, NULL);
			close(listener);
		}
		client[i] = fds[0];
		server[i] = fds[1];
	}
}

/* What the daemon does when it is told to. */
static void obey(char order, const struct gk_device_config *config, int lock_fd)
{
	if (order == 'r') { /* connection 0 comes back */
		close(client[0]);
		gk_fence_child_hold(config, lock_fd, 0, client[N]);
	} else if (order == 'd') { /* connection 0 has ended */
		close(client[0]);
		gk_fence_child_drop(config->name, 0);
	} else if (order == 'D') { /* detach */
		for (int i = 0; i < N; i++)
			close(client[i]);
		gk_fence_child_drop_all(config->name);
		gk_fence_child_let_go(dir, config->name, lock_fd, true);
	} else if (order == 's') { /* notes that the fence process is gone */
		struct pollfd gone = {.fd = gk_fence_child_fd()};

		if (poll(&gone, 1, 30000) <= 0)
			_exit(3);
		gk_fence_child_step();
		if (gk_fence_child_fd() >= 0)
			_exit(3);
	}
}

static void live(const struct gk_device_config *config, int fd)
{
	char path[128], text[16] = "";
	int lock_fd = -1, text_fd;
	char order;

	for (int i = 0; i < 2 * N; i++)
		close(server[i]);
	if (gk_fence_child_start() || gk_fence_child_take(dir, config, false, -1, &lock_fd) ||
	    lock_fd < 0)
		_exit(2);
	for (unsigned int i = 0; i < N; i++)
		gk_fence_child_hold(config, lock_fd, i, client[i]);
	snprintf(path, sizeof(path), "%s/vol0.fence", dir);
	text_fd = open(path, O_RDONLY);
	if (text_fd < 0 || read(text_fd, text, sizeof(text) - 1) <= 0 ||
	    write(fd, text, sizeof(text)) != sizeof(text))
		_exit(2);
	close(text_fd);
	while (read(fd, &order, 1) == 1 && order != 'e') {
		obey(order, config, lock_fd);
		if (write(fd, &order, 1) != 1)
			_exit(2);
	}
	gk_fence_child_end();
	_exit(0);
}

static void start_daemon(const struct gk_device_config *config, int family)
{
	char text[16];
	int fds[2];

	make_connections(family);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	daemon_pid = fork();
	assert_true(daemon_pid >= 0);
	if (!daemon_pid) {
		close(fds[0]);
		live(config, fds[1]);
	}
	close(fds[1]);
	orders = fds[0];
	for (int i = 0; i < 2 * N; i++)
		close(client[i]);
	assert_int_equal(recv(orders, text, sizeof(text), MSG_WAITALL), sizeof(text));
	fence_pid = atoi(text);
	assert_true(fence_pid > 0);
}

static void tell_daemon(char order)
{
	char answer;

	assert_int_equal(write(orders, &order, 1), 1);
	assert_int_equal(read(orders, &answer, 1), 1);
	assert_int_equal(answer, order);
}

static void kill_daemon(void)
{
	assert_int_equal(kill(daemon_pid, SIGKILL), 0);
	assert_int_equal(waitpid(daemon_pid, NULL, 0), daemon_pid);
}

/* Both processes have ended, the fence process in order. */
static void await_fence_process(void)
{
	int status;

	assert_int_equal(waitpid(fence_pid, &status, 0), fence_pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(orders);
}

static bool has_event(int fd, int ms)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return poll(&poll_fd, 1, ms) > 0;
}

/* The server reads the end of the stream, and may still write: nobody has closed. */
static void expect_half_closed(int fd)
{
	char byte;

	assert_true(has_event(fd, 30000));
	assert_int_equal(read(fd, &byte, 1), 0);
	assert_int_equal(send(fd, "answer", 6, MSG_NOSIGNAL), 6);
}

static void expect_closed(int fd)
{
	char byte;

	assert_true(has_event(fd, 30000));
	assert_true(read(fd, &byte, 1) <= 0);
	while (send(fd, "answer", 6, MSG_NOSIGNAL) == 6)
		;
	assert_true(errno == EPIPE || errno == ECONNRESET);
}

static void close_servers(void)
{
	for (int i = 0; i < 2 * N; i++)
		if (server[i] >= 0)
			close(server[i]);
}

static void forget_file(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/vol0.fence", dir);
	assert_int_equal(unlink(path), 0);
}

/* As the next daemon does; it is told to end at once. Whether the lock is free. */
static bool can_take(const struct gk_device_config *config)
{
	int cancel_fd = eventfd(1, EFD_CLOEXEC);
	int lock_fd = -1;
	int r = gk_fence_child_take(dir, config, true, cancel_fd, &lock_fd);

	assert_true(r == 0 || r == -ECANCELED);
	assert_int_equal(lock_fd >= 0, !r);
	if (lock_fd >= 0)
		close(lock_fd);
	close(cancel_fd);
	return !r;
}

/* What the next daemon logs as a warning when it takes over. Whether it has the lock then. */
static bool take(const struct gk_device_config *config, char *why, size_t size)
{
	int lock_fd = -1;

	why[0] = '\0';
	gk_log_tell(GK_LOG_WARNING, why, size);
	assert_int_equal(gk_fence_child_take(dir, config, true, -1, &lock_fd), 0);
	gk_log_tell(GK_LOG_WARNING, NULL, 0);
	if (lock_fd >= 0)
		close(lock_fd);
	return lock_fd >= 0;
}

static void check_fence(int family)
{
	struct gk_device_config config = config_of(GK_FENCE_TIMEOUT, LONG_S);
	char why[512];

	start_daemon(&config, family);
	for (int i = 0; i < N; i++)
		assert_false(has_event(server[i], 0));
	kill_daemon();
	for (int i = 0; i < N; i++)
		expect_half_closed(server[i]);
	assert_false(can_take(&config));
	/* More than buffers hold: it is read and thrown away. */
	for (int i = 0; i < 100; i++) {
		static const char bytes[65536];

		assert_int_equal(send(server[0], bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
	}
	close(server[0]);
	server[0] = -1;
	/* The other one's end is still to come. */
	poll(NULL, 0, NOTHING_MS);
	assert_int_equal(send(server[1], "answer", 6, MSG_NOSIGNAL), 6);
	assert_false(can_take(&config));
	close_servers();
	assert_true(take(&config, why, sizeof(why)));
	assert_string_equal(why, "");
	await_fence_process();
	forget_file();
}

static void a_killed_daemons_connections_are_half_closed_and_their_ends_awaited(void **state)
{
	(void)state;
	check_fence(AF_UNIX);
	check_fence(AF_INET);
}

static void a_server_that_never_ends_costs_fence_timeout_and_a_warning(void **state)
{
	struct gk_device_config config = config_of(GK_FENCE_TIMEOUT, 0.1);
	char why[512];

	(void)state;
	start_daemon(&config, AF_INET);
	kill_daemon();
	assert_true(take(&config, why, sizeof(why)));
	assert_non_null(strstr(why, "not all connections of the former gkproxy are known to have ended"));
	await_fence_process();
	for (int i = 0; i < N; i++)
		expect_closed(server[i]);
	close_servers();
	forget_file();
}

static void a_strict_fence_has_no_limit(void **state)
{
	struct gk_device_config config = config_of(GK_FENCE_STRICT, 0.01);
	char why[512];

	(void)state;
	start_daemon(&config, AF_UNIX);
	kill_daemon();
	for (int i = 0; i < N; i++)
		expect_half_closed(server[i]);
	poll(NULL, 0, NOTHING_MS);
	assert_false(can_take(&config));
	close_servers();
	assert_true(take(&config, why, sizeof(why)));
	assert_string_equal(why, "");
	await_fence_process();
	forget_file();
}

static void one_that_does_not_end_is_not_waited_for_longer_than_fence_timeout(void **state)
{
	struct gk_device_config strict = config_of(GK_FENCE_STRICT, 0);
	struct gk_device_config config = config_of(GK_FENCE_TIMEOUT, 0.01);
	char why[512];

	(void)state;
	start_daemon(&strict, AF_UNIX);
	kill_daemon();
	/* This one has a limit, the one that has the connections has none. Without a fence no new file. */
	assert_false(take(&config, why, sizeof(why)));
	assert_non_null(strstr(why, "did not end within fence_timeout"));
	close_servers();
	await_fence_process();
}

static void a_connection_that_comes_back_or_ends_is_closed_at_once(void **state)
{
	struct gk_device_config config = config_of(GK_FENCE_TIMEOUT, LONG_S);
	char why[512];

	(void)state;
	start_daemon(&config, AF_INET);
	tell_daemon('r');
	expect_closed(server[0]);
	assert_false(has_event(server[N], 0));
	kill_daemon();
	expect_half_closed(server[N]);
	expect_half_closed(server[1]);
	close_servers();
	await_fence_process();

	start_daemon(&config, AF_INET);
	tell_daemon('d');
	expect_closed(server[0]);
	close(server[1]);
	server[1] = -1;
	kill_daemon();
	/* Nothing is left to be seen. */
	await_fence_process();
	assert_true(take(&config, why, sizeof(why)));
	assert_string_equal(why, "");
	close_servers();
	forget_file();
}

static void an_orderly_end_leaves_nothing(void **state)
{
	struct gk_device_config config = config_of(GK_FENCE_TIMEOUT, LONG_S);
	int status;

	(void)state;
	start_daemon(&config, AF_UNIX);
	tell_daemon('D');
	for (int i = 0; i < N; i++)
		expect_closed(server[i]);
	assert_int_equal(write(orders, "e", 1), 1);
	assert_int_equal(waitpid(daemon_pid, &status, 0), daemon_pid);
	assert_int_equal(status, 0);
	/* It has been waited for. */
	assert_int_equal(kill(fence_pid, 0), -1);
	close(orders);
	close_servers();
}

static void signals_for_the_daemon_do_not_end_it(void **state)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGABRT};
	struct gk_device_config config = config_of(GK_FENCE_TIMEOUT, LONG_S);

	(void)state;
	start_daemon(&config, AF_UNIX);
	/* It has the message, and so is past its beginning, when the replaced one is closed. */
	tell_daemon('r');
	expect_closed(server[0]);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		assert_int_equal(kill(fence_pid, signals[i]), 0);
	kill_daemon();
	expect_half_closed(server[1]);
	assert_false(can_take(&config));
	close_servers();
	await_fence_process();
	forget_file();
}

static void without_it_the_daemon_goes_on_and_the_next_one_warns(void **state)
{
	struct gk_device_config config = config_of(GK_FENCE_TIMEOUT, LONG_S);
	char why[512];

	(void)state;
	start_daemon(&config, AF_UNIX);
	assert_int_equal(kill(fence_pid, SIGKILL), 0);
	tell_daemon('s');
	tell_daemon('r');
	kill_daemon();
	assert_true(take(&config, why, sizeof(why)));
	assert_non_null(strstr(why, "not all connections of the former gkproxy are known to have ended"));
	close(orders);
	close_servers();
	forget_file();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_killed_daemons_connections_are_half_closed_and_their_ends_awaited),
		cmocka_unit_test(a_server_that_never_ends_costs_fence_timeout_and_a_warning),
		cmocka_unit_test(a_strict_fence_has_no_limit),
		cmocka_unit_test(one_that_does_not_end_is_not_waited_for_longer_than_fence_timeout),
		cmocka_unit_test(a_connection_that_comes_back_or_ends_is_closed_at_once),
		cmocka_unit_test(an_orderly_end_leaves_nothing),
		cmocka_unit_test(signals_for_the_daemon_do_not_end_it),
		cmocka_unit_test(without_it_the_daemon_goes_on_and_the_next_one_warns),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
