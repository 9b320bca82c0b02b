/* SPDX-License-Identifier: MIT */
/* What a client makes of a daemon: the one on the other end of the socket is the test's. */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "control.h"
#include "control_ask.h"

struct place {
	char dir[32];
	char path[64];
	int listen_fd;
};

static int set_up(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	strcpy(place->dir, "/tmp/gk-test-control-XXXXXX");
	if (!mkdtemp(place->dir))
		return -1;
	snprintf(place->path, sizeof(place->path), "%s/socket", place->dir);
	place->listen_fd = gk_control_listen(place->path);
	*state = place;
	return place->listen_fd < 0;
}

static int tear_down(void **state)
{
	struct place *place = *state;

	close(place->listen_fd);
	unlink(place->path);
	rmdir(place->dir);
	free(place);
	return 0;
}

static char *last_words; /* of a daemon that hangs up in the middle of a request; NULL: none */

static void *hang_up(void *arg)
{
	int listen_fd = *(int *)arg;
	struct pollfd come = {.fd = listen_fd, .events = POLLIN};
	int fd;

	while (poll(&come, 1, -1) < 0)
		;
	fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (last_words)
		(void)!send(fd, last_words, strlen(last_words), MSG_NOSIGNAL);
	close(fd);
	return NULL;
}

/* More than a socket holds, so that it is still being said when the daemon hangs up. */
static void is_told(struct place *place, char *words, const char *want)
{
	size_t n = 4 << 20;
	char *text = malloc(n + 1), why[256] = "";
	pthread_t thread;
	json_t *request;

	memset(text, 'x', n);
	text[n] = '\0';
	last_words = words;
	request = json_pack("{s:s}", "command", text);
	assert_int_equal(pthread_create(&thread, NULL, hang_up, &place->listen_fd), 0);
	assert_null(gk_control_ask(place->path, request, why, sizeof(why)));
	pthread_join(thread, NULL);
	if (!strstr(why, want))
		fail_msg("'%s', expected '%s'", why, want);
	json_decref(request);
	free(text);
}

static void a_daemon_that_hangs_up_does_not_end_its_client(void **state)
{
	struct place *place = *state;
	char words[] = "{\"ok\":false,\"error\":{\"message\":\"go away\"}}\n";

	is_told(place, NULL, "gave no answer");
	is_told(place, words, "go away");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_daemon_that_hangs_up_does_not_end_its_client, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
