// SPDX-License-Identifier: MIT
/* Lines that a server can trigger are few, and none is lost without a word. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"

static time_t now_s = 1000;

int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	(void)id;
	*ts = (struct timespec){.tv_sec = now_s};
	return 0;
}

/* -- stderr in memory -- */

static int real_stderr;
static int memory;

static int catch_stderr(void **state)
{
	(void)state;
	real_stderr = dup(STDERR_FILENO);
	memory = memfd_create("stderr", 0);
	return memory < 0 || dup2(memory, STDERR_FILENO) < 0;
}

static int release_stderr(void **state)
{
	(void)state;
	dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	close(memory);
	return 0;
}

/* How many lines were written, and whether the text is among them. */
static unsigned int lines_with(const char *text)
{
	static char bytes[65536];
	ssize_t n = pread(memory, bytes, sizeof(bytes) - 1, 0);
	unsigned int found = 0;

	assert_true(n >= 0);
	bytes[n] = '\0';
	for (char *line = bytes, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		found += strstr(line, text) != NULL;
	}
	return found;
}

static void a_flood_of_lines_is_five_in_ten_seconds(void **state)
{
	struct gk_log_limit limit = {0};

	(void)state;
	for (unsigned int i = 0; i < 1000; i++)
		GK_LOG_LIMITED(&limit, GK_LOG_ERROR, "the server lies");
	assert_int_equal(lines_with("the server lies"), 5);
	now_s += 9;
	GK_LOG_LIMITED(&limit, GK_LOG_ERROR, "the server lies");
	assert_int_equal(lines_with(""), 5);
}

static void what_was_left_out_is_told_by_the_next_line(void **state)
{
	struct gk_log_limit limit = {0};

	(void)state;
	for (unsigned int i = 0; i < 25; i++)
		GK_LOG_LIMITED(&limit, GK_LOG_ERROR, "the server lies");
	now_s += 11;
	GK_LOG_LIMITED(&limit, GK_LOG_ERROR, "the server lies");
	assert_int_equal(lines_with("20 similar lines were left out"), 1);
	assert_int_equal(lines_with("the server lies"), 6);
	now_s += 11;
	GK_LOG_LIMITED(&limit, GK_LOG_ERROR, "the server lies");
	assert_int_equal(lines_with("left out"), 1);
}

static void one_server_does_not_silence_another(void **state)
{
	struct gk_log_limit limits[2] = {{0}, {0}};

	(void)state;
	for (unsigned int i = 0; i < 100; i++)
		GK_LOG_LIMITED(&limits[0], GK_LOG_ERROR, "the first one lies");
	GK_LOG_LIMITED(&limits[1], GK_LOG_ERROR, "the second one lies");
	assert_int_equal(lines_with("the second one lies"), 1);
}

/* Whatever a server says, it is one line. */
static void a_long_text_is_cut_and_stays_one_line(void **state)
{
	char text[8192];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	gk_log(GK_LOG_ERROR, "%s", text);
	assert_int_equal(lines_with("xxxx"), 1);
	assert_int_equal(lines_with(""), 1);
}

/* Takes all lines out of it; the number of those with the text. */
static unsigned int drain(int fd, const char *text, unsigned int *ret_lines)
{
	static char bytes[1 << 20];
	size_t n = 0;
	ssize_t r;
	unsigned int found = 0;

	while ((r = recv(fd, bytes + n, sizeof(bytes) - 1 - n, MSG_DONTWAIT)) > 0 ||
	       (r < 0 && errno == ENOTSOCK && (r = read(fd, bytes + n, sizeof(bytes) - 1 - n)) > 0))
		n += (size_t)r;
	bytes[n] = '\0';
	*ret_lines = 0;
	for (char *line = bytes, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		found += strstr(line, text) != NULL;
		++*ret_lines;
	}
	return found;
}

/* A thread with requests to serve would stand still with whoever should read the log. */
static void fill_unread(int reader, int writer)
{
	unsigned int n_lines, n_read, n_lost;
	char notice[64];

	assert_true(dup2(writer, STDERR_FILENO) >= 0);
	for (unsigned int i = 0; i < 20000; i++)
		gk_log(GK_LOG_ERROR, "nobody reads this, and some of it will be lost");
	n_read = drain(reader, "nobody reads this", &n_lines);
	assert_int_equal(n_read, n_lines);
	assert_in_range(n_lines, 100, 19999);
	n_lost = 20000 - n_lines;
	gk_log(GK_LOG_ERROR, "now somebody does");
	gk_log(GK_LOG_ERROR, "and goes on");
	snprintf(notice, sizeof(notice), ": lost lines: %u", n_lost);
	assert_int_equal(drain(reader, notice, &n_lines), 1);
	assert_int_equal(n_lines, 3);
	close(reader);
	close(writer);
}

static void an_unread_pipe_makes_nobody_wait(void **state)
{
	int fds[2];

	(void)state;
	assert_return_code(pipe(fds), errno);
	assert_return_code(fcntl(fds[0], F_SETFL, O_NONBLOCK), errno);
	fill_unread(fds[0], fds[1]);
}

/* As journald's are. */
static void an_unread_socket_makes_nobody_wait(void **state)
{
	int fds[2];

	(void)state;
	assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), errno);
	fill_unread(fds[0], fds[1]);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, catch_stderr, release_stderr)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_flood_of_lines_is_five_in_ten_seconds),
		TEST(what_was_left_out_is_told_by_the_next_line),
		TEST(one_server_does_not_silence_another),
		TEST(a_long_text_is_cut_and_stays_one_line),
		TEST(an_unread_pipe_makes_nobody_wait),
		TEST(an_unread_socket_makes_nobody_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
