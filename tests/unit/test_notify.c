// SPDX-License-Identifier: MIT
/* What the service manager hears: readiness, and a watchdog that is fed in time but not at every turn. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "notify.h"

static int manager_fd;

/* An abstract socket, so that nothing is left behind. */
static int start_manager(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char name[64];

	(void)state;
	snprintf(name, sizeof(name), "@gkproxy-test-notify-%d", (int)getpid());
	setenv("NOTIFY_SOCKET", name, 1);
	memcpy(addr.sun_path + 1, name + 1, strlen(name) - 1);
	manager_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	return manager_fd < 0 ||
	       bind(manager_fd, (const struct sockaddr *)&addr,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))) < 0;
}

static int stop_manager(void **state)
{
	(void)state;
	close(manager_fd);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	return 0;
}

/* "" when nothing was said. */
static const char *heard(void)
{
	static char text[64];
	ssize_t n = recv(manager_fd, text, sizeof(text) - 1, 0);

	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static void readiness_is_one_datagram(void **state)
{
	(void)state;
	gk_notify("READY=1");
	assert_string_equal(heard(), "READY=1");
	assert_string_equal(heard(), "");
}

static void without_a_watchdog_nothing_is_sent(void **state)
{
	(void)state;
	assert_int_equal(gk_notify_alive(), -1);
	assert_string_equal(heard(), "");
}

static void the_watchdog_of_another_process_is_not_fed(void **state)
{
	(void)state;
	setenv("WATCHDOG_USEC", "60000000", 1);
	setenv("WATCHDOG_PID", "1", 1);
	assert_int_equal(gk_notify_alive(), -1);
	assert_string_equal(heard(), "");
}

static void the_watchdog_is_fed_four_times_in_its_time(void **state)
{
	char pid[16];
	const char *said;
	int ms;

	(void)state;
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_USEC", "60000000", 1);
	setenv("WATCHDOG_PID", pid, 1);
	ms = gk_notify_alive();
	assert_in_range(ms, 1, 15000);
	assert_string_equal(heard(), "WATCHDOG=1");
	assert_in_range(gk_notify_alive(), 1, ms);
	assert_string_equal(heard(), "");
	/* A watchdog of four milliseconds wants it again after one. */
	setenv("WATCHDOG_USEC", "4000", 1);
	do {
		assert_in_range(gk_notify_alive(), 0, 1);
		said = heard();
	} while (!said[0]);
	assert_string_equal(said, "WATCHDOG=1");
}

/* It may wait for a disk of ours. */
static void a_manager_that_does_not_read_is_not_waited_for(void **state)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	(void)state;
	assert_return_code(fd, errno);
	assert_return_code(getsockname(manager_fd, (struct sockaddr *)&addr, &len), errno);
	while (sendto(fd, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&addr, len) == 1)
		;
	assert_int_equal(errno, EAGAIN);
	gk_notify("READY=1");
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(readiness_is_one_datagram, start_manager,
						stop_manager),
		cmocka_unit_test_setup_teardown(a_manager_that_does_not_read_is_not_waited_for,
						start_manager, stop_manager),
		cmocka_unit_test_setup_teardown(without_a_watchdog_nothing_is_sent, start_manager,
						stop_manager),
		cmocka_unit_test_setup_teardown(the_watchdog_of_another_process_is_not_fed,
						start_manager, stop_manager),
		cmocka_unit_test_setup_teardown(the_watchdog_is_fed_four_times_in_its_time,
						start_manager, stop_manager),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
