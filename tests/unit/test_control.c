/* SPDX-License-Identifier: MIT */
/* The control socket and what clients may do to it: scripted clients on the other end, in this process. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "control.h"

/* The clock that control.c sees, so that patience ends when a test says so. */
static uint64_t skipped_ms;

int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	int r = __real_clock_gettime(id, ts);

	ts->tv_sec += (time_t)(skipped_ms / 1000);
	return r;
}

/* Who the clients are, as the kernel tells it; -1: who they really are. */
static int peer_uid;

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	int r = __real_getsockopt(fd, level, name, value, len);

	if (level == SOL_SOCKET && name == SO_PEERCRED && peer_uid >= 0)
		((struct ucred *)value)->uid = (uid_t)peer_uid;
	return r;
}

struct rig {
	char dir[32];
	char path[64];
	int listen_fd;
	struct gk_control *control;
	unsigned int handled;
	uint64_t later; /* ticket of a request that is answered later; 0: none */
};

/* "echo" gives its text back, "later" is answered by the test, "big" with a megabyte. */
static json_t *handle(void *arg, uint64_t ticket, const json_t *request)
{
	struct rig *rig = arg;
	const char *command = json_string_value(json_object_get(request, "command"));

	rig->handled++;
	if (command && !strcmp(command, "echo"))
		return gk_control_ok(json_incref(json_object_get(request, "text")));
	if (command && !strcmp(command, "big")) {
		char *text = malloc(1 << 20);
		json_t *big;

		memset(text, 'x', 1 << 20);
		big = json_stringn(text, 1 << 20);
		free(text);
		return gk_control_ok(big);
	}
	if (command && !strcmp(command, "later")) {
		rig->later = ticket;
		return NULL;
	}
	return gk_control_error("unknown-command", "no such command");
}

static int set_up(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	strcpy(rig->dir, "/tmp/gk-test-control-XXXXXX");
	if (!mkdtemp(rig->dir))
		return -1;
	snprintf(rig->path, sizeof(rig->path), "%s/socket", rig->dir);
	rig->listen_fd = gk_control_listen(rig->path);
	skipped_ms = 0;
	peer_uid = -1;
	*state = rig;
	return rig->listen_fd < 0 ||
	       gk_control_new(rig->listen_fd, handle, rig, &rig->control) < 0;
}

static int tear_down(void **state)
{
	struct rig *rig = *state;

	gk_control_free(rig->control);
	close(rig->listen_fd);
	unlink(rig->path);
	rmdir(rig->dir);
	free(rig);
	return 0;
}

/* Lets the daemon's side do all that it can do now. */
static void turn(struct rig *rig)
{
	struct pollfd ready = {.fd = gk_control_fd(rig->control), .events = POLLIN};

	while (poll(&ready, 1, 0) > 0)
		gk_control_step(rig->control);
}

static int try_client(struct rig *rig)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(addr.sun_path, rig->path);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int client(struct rig *rig)
{
	int fd = try_client(rig);

	assert_true(fd >= 0);
	return fd;
}

static void say(struct rig *rig, int fd, const char *text)
{
	size_t n = strlen(text);

	while (n) {
		ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);

		if (sent < 0) {
			assert_int_equal(errno, EAGAIN);
			turn(rig);
			continue;
		}
		text += sent;
		n -= (size_t)sent;
	}
	turn(rig);
}

/* Whether the line with that text has come; "" for the end of the connection. */
static void hears(struct rig *rig, int fd, const char *part)
{
	char line[8192] = "";
	size_t n = 0;

	turn(rig);
	while (n < sizeof(line) - 1 && !memchr(line, '\n', n)) {
		ssize_t got = recv(fd, line + n, 1, 0);

		if (got < 0 && errno == EAGAIN)
			fail_msg("nothing more after '%s', expected '%s'", line, part);
		if (got <= 0)
			break;
		n += (size_t)got;
	}
	if (part[0] ? !strstr(line, part) : n > 0)
		fail_msg("'%s', expected '%s'", line, part);
}

static void hears_nothing(struct rig *rig, int fd)
{
	char byte;

	turn(rig);
	assert_int_equal(recv(fd, &byte, 1, MSG_PEEK), -1);
	assert_int_equal(errno, EAGAIN);
}

static void still_serves(struct rig *rig)
{
	int fd = client(rig);

	say(rig, fd, "{\"command\": \"echo\", \"text\": \"alive\"}\n");
	hears(rig, fd, "{\"protocol\":1,\"ok\":true,\"result\":\"alive\"}\n");
	close(fd);
	turn(rig);
}

static void the_socket_is_for_its_owner(void **state)
{
	struct rig *rig = *state;
	struct stat st;

	assert_int_equal(stat(rig->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_second_daemon_is_refused_and_a_dead_ones_socket_replaced(void **state)
{
	struct rig *rig = *state;

	assert_int_equal(gk_control_listen(rig->path), -EADDRINUSE);
	close(rig->listen_fd);
	gk_control_free(rig->control);
	rig->listen_fd = gk_control_listen(rig->path);
	assert_true(rig->listen_fd >= 0);
	assert_int_equal(gk_control_new(rig->listen_fd, handle, rig, &rig->control), 0);
	still_serves(rig);
}

/* A typing mistake in control.socket must not cost anybody a file. */
static void a_file_in_the_way_stays(void **state)
{
	struct rig *rig = *state;
	char path[80], text[8] = "";
	FILE *file;

	snprintf(path, sizeof(path), "%s/file", rig->dir);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs("mine", file);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(gk_control_listen(path), -EADDRINUSE);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_non_null(fgets(text, sizeof(text), file));
	assert_string_equal(text, "mine");
	fclose(file);
	unlink(path);
}

/* Whatever the mode of the socket: another user is told so, and nothing of it is carried out. */
static void a_stranger_is_refused_whatever_it_says(void **state)
{
	static const char request[] = "{\"command\": \"echo\", \"text\": 1}\n";
	struct rig *rig = *state;
	int fd, late;

	peer_uid = (int)geteuid() + 4711;
	fd = client(rig);
	late = client(rig);
	/* It is there before the stranger is, and behind the refusal. */
	assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
	hears(rig, fd, "\"code\":\"forbidden\"");
	hears(rig, late, "\"code\":\"forbidden\"");
	turn(rig);
	(void)!send(late, request, strlen(request), MSG_NOSIGNAL);
	turn(rig);
	assert_int_equal(rig->handled, 0);
	peer_uid = -1;
	still_serves(rig);
	close(fd);
	close(late);
}

static void what_is_no_request_gets_an_error_and_the_next_one_is_answered(void **state)
{
	static const char *const bad[] = {
		"\n", "x\n", "[]\n", "7\n", "{\n", "{\"command\": \"echo\"\n",
		"{\"command\": \"a\", \"command\": \"b\"}\n", "\"\\u0000\"\n", "{\"a\": \"\xff\"}\n",
		"{} {}\n",
	};
	struct rig *rig = *state;
	int fd = client(rig);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		say(rig, fd, bad[i]);
		hears(rig, fd, "\"ok\":false,\"error\":{\"code\":\"bad-request\"");
	}
	assert_int_equal(rig->handled, 0);
	say(rig, fd, "{\"command\": \"nonsense\"}\n");
	hears(rig, fd, "\"code\":\"unknown-command\"");
	say(rig, fd, "{\"command\": \"echo\", \"text\": 1}\n");
	hears(rig, fd, "\"result\":1");
	close(fd);
}

static void deep_nesting_is_an_error(void **state)
{
	struct rig *rig = *state;
	int fd = client(rig);
	char *text = malloc(60002);

	memset(text, '[', 60000);
	strcpy(text + 60000, "\n");
	say(rig, fd, text);
	hears(rig, fd, "bad-request");
	free(text);
	close(fd);
}

static void requests_may_come_in_pieces_or_together(void **state)
{
	static const char three[] = "{\"command\":\"echo\",\"text\":1}\n"
				    "{\"command\":\"echo\",\"text\":2}\n"
				    "{\"command\":\"echo\",\"text\":3}\n";
	struct rig *rig = *state;
	int fd = client(rig);

	say(rig, fd, three);
	hears(rig, fd, "\"result\":1");
	hears(rig, fd, "\"result\":2");
	hears(rig, fd, "\"result\":3");
	for (const char *c = three; *c; c++)
		say(rig, fd, (char[]){*c, '\0'});
	hears(rig, fd, "\"result\":1");
	hears(rig, fd, "\"result\":2");
	hears(rig, fd, "\"result\":3");
	/* Who says no more still gets the answer. */
	say(rig, fd, three);
	shutdown(fd, SHUT_WR);
	hears(rig, fd, "\"result\":1");
	hears(rig, fd, "\"result\":2");
	hears(rig, fd, "\"result\":3");
	hears(rig, fd, "");
	close(fd);
}

static void half_a_line_for_ever_is_cut_off_after_a_while(void **state)
{
	struct rig *rig = *state;
	int fd = client(rig);

	say(rig, fd, "{\"command\": ");
	skipped_ms = GK_CONTROL_PATIENCE_MS - 1000;
	gk_control_tick(rig->control);
	hears_nothing(rig, fd);
	/* A byte now and then does not help. */
	say(rig, fd, " ");
	still_serves(rig);
	skipped_ms = GK_CONTROL_PATIENCE_MS + 1000;
	gk_control_tick(rig->control);
	hears(rig, fd, "");
	still_serves(rig);
	close(fd);
}

static void a_line_of_ten_megabytes_is_an_error(void **state)
{
	struct rig *rig = *state;
	size_t n = 10 << 20;
	char *text = malloc(n + 2);
	int fd = client(rig);

	memset(text, 'x', n);
	strcpy(text + n, "\n");
	say(rig, fd, text);
	hears(rig, fd, "\"code\":\"too-long\"");
	say(rig, fd, "{\"command\": \"echo\", \"text\": 1}\n");
	hears(rig, fd, "\"result\":1");
	assert_int_equal(rig->handled, 1);
	free(text);
	close(fd);
}

static void the_longest_line_is_carried_out_and_one_byte_more_is_not(void **state)
{
	struct rig *rig = *state;
	char *text = malloc(GK_CONTROL_REQUEST_BYTES + 2);
	int fd = client(rig);

	memset(text, ' ', GK_CONTROL_REQUEST_BYTES);
	memcpy(text, "{\"command\": \"echo\", \"text\": 1}", 30);
	strcpy(text + GK_CONTROL_REQUEST_BYTES - 1, "\n");
	say(rig, fd, text);
	hears(rig, fd, "\"result\":1");
	strcpy(text + GK_CONTROL_REQUEST_BYTES - 1, " \n");
	say(rig, fd, text);
	hears(rig, fd, "too-long");
	free(text);
	close(fd);
}

static void a_line_without_end_is_cut_off(void **state)
{
	struct rig *rig = *state;
	int fd = client(rig);
	char text[4097];
	ssize_t n = 0;

	memset(text, 'x', sizeof(text));
	for (unsigned int i = 0; i < 10000 && n >= 0; i++) {
		n = send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			n = 0;
		turn(rig);
	}
	assert_int_equal(n, -1);
	assert_int_equal(errno, EPIPE);
	still_serves(rig);
	close(fd);
}

static void who_never_reads_the_answer_is_cut_off(void **state)
{
	struct rig *rig = *state;
	int fd = client(rig);

	say(rig, fd, "{\"command\": \"big\"}\n{\"command\": \"big\"}\n");
	assert_int_equal(rig->handled, 1);
	still_serves(rig);
	skipped_ms = GK_CONTROL_PATIENCE_MS + 1000;
	gk_control_tick(rig->control);
	still_serves(rig);
	/* What the socket held comes, then the end: not the whole answer, and not the second one. */
	for (size_t total = 0;;) {
		char bytes[65536];
		ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

		assert_true(n >= 0 || errno == ECONNRESET);
		if (n <= 0)
			break;
		total += (size_t)n;
		assert_true(total < 1 << 20);
	}
	close(fd);
}

static void an_answer_may_come_later_and_holds_up_nobody(void **state)
{
	struct rig *rig = *state;
	int fd = client(rig);

	say(rig, fd, "{\"command\": \"later\"}\n{\"command\": \"echo\", \"text\": 2}\n");
	assert_true(rig->later);
	still_serves(rig);
	/* Not what patience is for: the device takes as long as it takes. */
	skipped_ms = 10 * GK_CONTROL_PATIENCE_MS;
	gk_control_tick(rig->control);
	hears_nothing(rig, fd);
	gk_control_answer(rig->control, rig->later, gk_control_ok(json_integer(1)));
	hears(rig, fd, "\"result\":1");
	hears(rig, fd, "\"result\":2");
	close(fd);
}

static void an_answer_to_somebody_gone_goes_to_nobody_else(void **state)
{
	struct rig *rig = *state;
	int gone = client(rig);
	uint64_t ticket;
	int fd;

	say(rig, gone, "{\"command\": \"later\"}\n");
	ticket = rig->later;
	close(gone);
	turn(rig);
	fd = client(rig);
	say(rig, fd, "{\"command\": \"later\"}\n");
	assert_int_not_equal(rig->later, ticket);
	gk_control_answer(rig->control, ticket, gk_control_ok(json_string("not yours")));
	hears_nothing(rig, fd);
	gk_control_answer(rig->control, rig->later, gk_control_ok(json_string("yours")));
	hears(rig, fd, "\"yours\"");
	close(fd);
}

/* More than there are places, and each of them says something. */
static void a_crowd_is_served(void **state)
{
	enum { N = 100 };
	struct rig *rig = *state;
	int fds[N];

	for (unsigned int i = 0; i < N; i++) {
		fds[i] = client(rig);
		turn(rig);
	}
	for (unsigned int i = 0; i < N; i++)
		assert_int_equal(send(fds[i], "{\"command\":\"echo\",\"text\":5}\n", 28, 0), 28);
	for (unsigned int i = 0; i < N; i++)
		hears(rig, fds[i], "\"result\":5");
	still_serves(rig);
	for (unsigned int i = 0; i < N; i++)
		close(fds[i]);
}

/* Whoever came and says nothing gives way; those who wait for an answer do not. */
static void idle_clients_give_way_to_new_ones(void **state)
{
	struct rig *rig = *state;
	int idle[GK_CONTROL_CLIENTS];
	int waiting = client(rig);
	int late;

	say(rig, waiting, "{\"command\": \"later\"}\n");
	for (unsigned int i = 1; i < GK_CONTROL_CLIENTS; i++) {
		idle[i] = client(rig);
		turn(rig);
	}
	late = client(rig);
	say(rig, late, "{\"command\": \"echo\", \"text\": 3}\n");
	hears_nothing(rig, late);
	skipped_ms = 2000;
	gk_control_tick(rig->control);
	hears(rig, late, "\"result\":3");
	hears(rig, idle[1], "");
	hears_nothing(rig, idle[2]);
	gk_control_answer(rig->control, rig->later, gk_control_ok(json_integer(1)));
	hears(rig, waiting, "\"result\":1");
	for (unsigned int i = 1; i < GK_CONTROL_CLIENTS; i++)
		close(idle[i]);
	close(late);
	close(waiting);
}

#define LIMIT 64 /* descriptors */

/* Takes all that are left: how many. */
static unsigned int take_descriptors(int *ret_fds)
{
	unsigned int n = 0;

	while (n < LIMIT && (ret_fds[n] = dup(STDIN_FILENO)) >= 0)
		n++;
	return n;
}

static void close_all(const int *fds, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		close(fds[i]);
}

/* Some wait to be accepted, and there is no descriptor for any of them. */
static void without_descriptors_they_are_served_one_by_one(void **state)
{
	enum { N = 5 };
	struct rig *rig = *state;
	int fds[N], all[LIMIT], more[LIMIT];
	struct rlimit usual, limit;
	unsigned int n;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
	limit = usual;
	limit.rlim_cur = LIMIT;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (unsigned int i = 0; i < N; i++)
		fds[i] = client(rig);
	n = take_descriptors(all);
	for (unsigned int i = 0; i < N; i++) {
		unsigned int left;

		say(rig, fds[i], "{\"command\": \"later\"}\n");
		assert_int_equal(rig->handled, i + 1);
		/* What it asks for may need some as well. */
		left = take_descriptors(more);
		assert_true(left >= 2);
		close_all(more, left);
		gk_control_answer(rig->control, rig->later, gk_control_ok(json_integer(i)));
		hears(rig, fds[i], "\"ok\":true");
		close(fds[i]);
		turn(rig);
		gk_control_tick(rig->control);
		/* And none is lost on the way. */
		fds[i] = dup(STDIN_FILENO);
		assert_true(fds[i] >= 0);
		assert_int_equal(take_descriptors(more), 0);
	}
	close_all(fds, N);
	close_all(all, n);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
	still_serves(rig);
}

/* Of a process or a server, say; or of ours, when it was cut. */
static void text_that_is_not_utf8_is_told_all_the_same(void **state)
{
	static const struct {
		const char *text, *told;
	} texts[] = {
		{"", ""}, {"plain", "plain"}, {"\xc3\xa4", "\xc3\xa4"}, {"a\xff", "a?"},
		{"cut \xc3", "cut ?"}, {"\xc3\xa4 \xe4", "?? ?"},
	};
	json_t *answer = gk_control_error("failed", "because of %s", "\xe4");
	const char *message;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		json_t *told = gk_control_text(texts[i].text);

		assert_string_equal(json_string_value(told), texts[i].told);
		json_decref(told);
	}
	assert_int_equal(json_unpack(answer, "{s:{s:s}}", "error", "message", &message), 0);
	assert_string_equal(message, "because of ?");
	json_decref(answer);
}

/* Random bytes with line ends among them: an answer to each line, and nothing worse. */
static void noise_is_answered_line_by_line(void **state)
{
	struct rig *rig = *state;
	unsigned int seed = 1;

	for (unsigned int round = 0; round < 200; round++) {
		static const char alphabet[] = "{}[]\",:\\ \n\x01\xc3" "command123echo";
		int fd = client(rig);
		unsigned int lines = 0;
		char text[400];
		size_t n = 1 + (size_t)rand_r(&seed) % (sizeof(text) - 2);

		for (size_t i = 0; i < n; i++) {
			text[i] = alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
			lines += text[i] == '\n';
		}
		text[n] = '\0';
		say(rig, fd, text);
		for (unsigned int i = 0; i < lines; i++)
			hears(rig, fd, "\"ok\":false");
		hears_nothing(rig, fd);
		close(fd);
	}
	still_serves(rig);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_socket_is_for_its_owner),
		TEST(a_second_daemon_is_refused_and_a_dead_ones_socket_replaced),
		TEST(a_file_in_the_way_stays),
		TEST(a_stranger_is_refused_whatever_it_says),
		TEST(what_is_no_request_gets_an_error_and_the_next_one_is_answered),
		TEST(deep_nesting_is_an_error),
		TEST(requests_may_come_in_pieces_or_together),
		TEST(half_a_line_for_ever_is_cut_off_after_a_while),
		TEST(a_line_of_ten_megabytes_is_an_error),
		TEST(the_longest_line_is_carried_out_and_one_byte_more_is_not),
		TEST(a_line_without_end_is_cut_off),
		TEST(who_never_reads_the_answer_is_cut_off),
		TEST(an_answer_may_come_later_and_holds_up_nobody),
		TEST(an_answer_to_somebody_gone_goes_to_nobody_else),
		TEST(a_crowd_is_served),
		TEST(idle_clients_give_way_to_new_ones),
		TEST(without_descriptors_they_are_served_one_by_one),
		TEST(text_that_is_not_utf8_is_told_all_the_same),
		TEST(noise_is_answered_line_by_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
