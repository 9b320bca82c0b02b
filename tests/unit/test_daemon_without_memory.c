// SPDX-License-Identifier: MIT
/*
 * A running daemon that gets no memory: whatever is asked of it, each allocation on the way fails
 * once, the first, the second and so on. The client is told so, nothing is left behind or half done,
 * and the other device stays. Threads and events are allocations, too. The devices are none, as in
 * test_daemon; what libraries allocate for themselves does not fail here, but for jansson's.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "control_ask.h"
#include "daemon.h"
#include "log.h"
#include "no_devices.h"
#include "no_memory.h"

/* -- the daemon on its thread -- */

static char dir[] = "/tmp/gk-test-no-memory-XXXXXX";
static char conf[64], socket_path[64];

static void *daemon_thread(void *arg)
{
	return (void *)(intptr_t)gk_daemon_run(arg);
}

static void no_mistake(void *arg, const char *message)
{
	(void)arg;
	fail_msg("%s", message);
}

static void write_conf(const char *devices)
{
	FILE *file = fopen(conf, "we");

	assert_non_null(file);
	fprintf(file, "state_dir = \"%s\"; log_level = \"error\"; control = { socket = \"%s\"; };\n"
		"devices = ( { name = \"a\"; remote = \"nbd://h/\"; }%s );\n", dir, socket_path,
		devices);
	assert_int_equal(fclose(file), 0);
}

/* The answer as a text, or NULL and why; both to be freed. */
static char *ask(const char *request, char **ret_why)
{
	char why[4096] = "";
	json_t *json = json_loads(request, 0, NULL);
	json_t *answer;
	char *text;

	assert_non_null(json);
	answer = gk_control_ask(socket_path, json, why, sizeof(why));
	json_decref(json);
	text = answer ? json_dumps(answer, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(answer);
	*ret_why = strdup(why);
	return text;
}

/* "a up, b attaching" */
static void list_devices(char *list, size_t size)
{
	char why[256];
	json_t *request = json_pack("{s:s}", "command", "status");
	json_t *status = gk_control_ask(socket_path, request, why, sizeof(why));
	json_t *device;
	size_t i, n = 0;

	assert_non_null(status);
	list[0] = '\0';
	json_array_foreach(json_object_get(status, "devices"), i, device)
		n += (size_t)snprintf(list + n, size - n, "%s%s %s", i ? ", " : "",
				      json_string_value(json_object_get(device, "name")),
				      json_string_value(json_object_get(device, "state")));
	json_decref(status);
	json_decref(request);
}

/* Until it is so: what failed may still be put away. */
static void devices_become(const char *want)
{
	char list[256];

	do {
		sched_yield();
		list_devices(list, sizeof(list));
	} while (strcmp(list, want) != 0);
}

static void do_it(const char *request)
{
	char *why, *text = ask(request, &why);

	if (!text)
		fail_msg("%s: %s", request, why);
	free(text);
	free(why);
}

/* What is said must tell the reason. */
static bool tells(const char *text)
{
	static const char *const reasons[] = {"out of memory", "Cannot allocate memory",
					      "cannot start a thread", "gave no answer"};

	for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if (strstr(text, reasons[i]))
			return true;
	return false;
}

/*
 * Asks again and again, until no allocation is left that could fail; then it is done, and is to be
 * undone. Where the client is told of success nothing failed that matters: it is done as well.
 */
static void fail_each(const char *request, const char *whole, const char *undo)
{
	unsigned int n = 0;
	bool is_over;

	do {
		char before[256], after[256];
		char *text, *why;

		list_devices(before, sizeof(before));
		no_memory_fail(++n);
		text = ask(request, &why);
		is_over = !no_memory_failed();
		no_memory_fail(0);
		if (is_over && !text)
			fail_msg("%s: %s", request, why);
		if (text && !strstr(text, whole) && !tells(text))
			fail_msg("%s, allocation %u: '%s' lacks something", request, n, text);
		if (!text && !tells(why))
			fail_msg("%s, allocation %u: '%s'", request, n, why);
		free(text);
		free(why);
		/* Nothing is left in between. It may have been done, and only the answer failed. */
		do {
			sched_yield();
			list_devices(after, sizeof(after));
		} while (strstr(after, "ing"));
		assert_ptr_equal(strstr(after, "a up"), after);
		if (undo && strcmp(before, after) != 0)
			do_it(undo);
	} while (!is_over);
	print_message("%s: %u allocations\n", request, n - 1);
	/* It has shown nothing otherwise. */
	assert_true(n > 5);
}

#define STATUS	 "{\"command\":\"status\"}"
#define ATTACH_B "{\"command\":\"attach\",\"remote\":[\"nbd://h/x\",\"nbd://i/x\"],\"name\":\"b\"," \
		 "\"keys\":{\"queue_depth\":16,\"send_zc\":true,\"tls.hostname\":\"x\"}}"
#define DETACH_B "{\"command\":\"detach\",\"name\":\"b\"}"
#define RELOAD	 "{\"command\":\"reload\"}"

static void status_is_whole_or_refused(void **state)
{
	(void)state;
	fail_each(STATUS, "\"state\":\"up\"", NULL);
	fail_each("{\"command\":\"probe\"}", "\"capabilities\":", NULL);
}

static void attaching_fails_as_a_whole(void **state)
{
	(void)state;
	fail_each(ATTACH_B, "\"path\":\"/dev/ublkb", DETACH_B);
	devices_become("a up");
}

static void detaching_can_be_tried_again(void **state)
{
	(void)state;
	do_it(ATTACH_B);
	fail_each(DETACH_B, "\"cancelled\":false", ATTACH_B);
	devices_become("a up, b up");
	do_it(DETACH_B);
}

static void a_reload_changes_all_nothing_or_says_what(void **state)
{
	(void)state;
	write_conf(", { name = \"b\"; remote = \"nbd://h/\"; }");
	fail_each(RELOAD, "\"attached\":[\"b\"]", DETACH_B);
	write_conf("");
	do_it(RELOAD);
	devices_become("a up");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(status_is_whole_or_refused),
		cmocka_unit_test(attaching_fails_as_a_whole),
		cmocka_unit_test(detaching_can_be_tried_again),
		cmocka_unit_test(a_reload_changes_all_nothing_or_says_what),
	};
	struct gk_config *config;
	pthread_t thread;
	sigset_t set;
	int failed;

	/* The client, that is. */
	no_memory_spare_me(true);
	/* As main() leaves it to the daemon, but for all threads of this process. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	gk_log_set_level(GK_LOG_ERROR);
	no_devices_reset();
	if (!mkdtemp(dir))
		return EXIT_FAILURE;
	snprintf(conf, sizeof(conf), "%s/proxy.conf", dir);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
	write_conf("");
	if (gk_config_load(conf, no_mistake, NULL, &config) ||
	    pthread_create(&thread, NULL, daemon_thread, config))
		return EXIT_FAILURE;
	for (;;) {
		char *why, *text = ask("{\"command\":\"detach\",\"name\":\"-\"}", &why);
		bool is_ready = strstr(why, "no device is named");

		free(text);
		free(why);
		if (is_ready)
			break;
	}
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	kill(getpid(), SIGTERM);
	pthread_join(thread, NULL);
	unlink(conf);
	rmdir(dir);
	return failed;
}
