/* SPDX-License-Identifier: MIT */
/*
 * The daemon with its control socket, jobs and signals, on devices that are none: what ublk and the
 * servers would do is told by the device's name. The daemon runs on a thread, the test is its client.
 */
#include <errno.h>
#include <poll.h>
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
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "control_ask.h"
#include "daemon.h"
#include "log.h"
#include "no_devices.h"

static char dir[] = "/tmp/gk-test-daemon-XXXXXX";
static char conf[64], socket_path[64];

/* -- the daemon on its thread -- */

static pthread_t thread;
static bool running;
static int result;

static void write_conf(const char *devices)
{
	FILE *file = fopen(conf, "w");

	assert_non_null(file);
	fprintf(file, "state_dir = \"%s\"; control = { socket = \"%s\"; };\n%s\n", dir, socket_path,
		devices);
	assert_int_equal(fclose(file), 0);
}

static void no_mistake(void *arg, const char *message)
{
	(void)arg;
	fail_msg("%s", message);
}

static void *daemon_thread(void *arg)
{
	result = gk_daemon_run(arg);
	return NULL;
}

static json_t *ask(const char *request, char *why, size_t why_size)
{
	json_t *json = json_loads(request, 0, NULL);
	json_t *answer;

	assert_non_null(json);
	answer = gk_control_ask(socket_path, json, why, why_size);
	json_decref(json);
	return answer;
}

static void start_daemon(const char *devices)
{
	struct gk_config *config;

	write_conf(devices);
	assert_int_equal(gk_config_load(conf, no_mistake, NULL, &config), 0);
	assert_int_equal(pthread_create(&thread, NULL, daemon_thread, config), 0);
	running = true;
}

static void is_answered(const char *request, const char *want)
{
	char why[4096] = "";
	json_t *answer = ask(request, why, sizeof(why));
	char *text = answer ? json_dumps(answer, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	if (!text || !strstr(text, want))
		fail_msg("%s: '%s', '%s'", request, text ? text : "", why);
	free(text);
	json_decref(answer);
}

static void is_refused(const char *request, const char *want)
{
	char why[4096] = "";
	json_t *answer = ask(request, why, sizeof(why));

	if (answer || !strstr(why, want))
		fail_msg("%s: '%s'", request, answer ? "was answered" : why);
}

/* "a up, b attaching": all devices in their order. NULL: no daemon answers yet. To be freed. */
static char *devices(void)
{
	char why[256];
	json_t *status = ask("{\"command\": \"status\"}", why, sizeof(why));
	char *list = calloc(1, 4096);
	json_t *device;
	size_t i;

	json_array_foreach(json_object_get(status, "devices"), i, device)
		snprintf(list + strlen(list), 4096 - strlen(list), "%s%s %s", i ? ", " : "",
			 json_string_value(json_object_get(device, "name")),
			 json_string_value(json_object_get(device, "state")));
	if (!status) {
		free(list);
		return NULL;
	}
	json_decref(status);
	return list;
}

/* Until they are; the test's own time limit is the end of patience. */
static void devices_become(const char *want)
{
	for (;;) {
		char *list = devices();
		bool same = list && !strcmp(list, want);

		free(list);
		if (same)
			return;
		sched_yield();
	}
}

static void devices_are(const char *want)
{
	char *list = devices();

	assert_non_null(list);
	assert_string_equal(list, want);
	free(list);
}

static void is_ready(void)
{
	char why[256] = "";
	json_t *answer;

	/* Refused with another reason once it is ready. */
	do {
		answer = ask("{\"command\": \"detach\", \"name\": \"-\"}", why, sizeof(why));
		assert_null(answer);
	} while (!strstr(why, "no device is named"));
}

static void end_daemon(int want)
{
	kill(getpid(), SIGTERM);
	pthread_join(thread, NULL);
	running = false;
	assert_int_equal(result, want);
	assert_int_equal(no_devices.n_alive, 0);
}

static int set_up(void **state)
{
	(void)state;
	no_devices_reset();
	return 0;
}

/* After a test that failed half-way: the next one gets a daemon of its own. */
static int tear_down(void **state)
{
	(void)state;
	if (!running)
		return 0;
	no_devices_go_on(true);
	kill(getpid(), SIGTERM);
	pthread_join(thread, NULL);
	running = false;
	no_devices.n_alive = 0;
	return 0;
}

static int make_directory(void **state)
{
	sigset_t set;

	(void)state;
	/* As main() leaves it to the daemon, but for all threads of this process. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	gk_log_set_level(GK_LOG_ERROR);
	if (!mkdtemp(dir))
		return -1;
	snprintf(conf, sizeof(conf), "%s/proxy.conf", dir);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
	return 0;
}

static int remove_directory(void **state)
{
	(void)state;
	unlink(conf);
	return rmdir(dir);
}

#define DEVICE(name) "{ name = \"" name "\"; remote = \"nbd://h/x\"; }"
#define ONE          "devices = ( " DEVICE("a") " );"
#define ATTACH(name) "{\"command\":\"attach\",\"remote\":\"nbd://h/x\",\"name\":\"" name "\"}"
#define DETACH(name) "{\"command\":\"detach\",\"name\":\"" name "\"}"
#define FORCE(name)  "{\"command\":\"detach\",\"name\":\"" name "\",\"force\":true}"
#define RELOAD       "{\"command\":\"reload\"}"

static void devices_are_attached_and_detached(void **state)
{
	(void)state;
	start_daemon("defaults = { queue_depth = 8; }; " ONE);
	is_ready();
	is_answered(ATTACH("b"), "{\"name\":\"b\",\"path\":\"/dev/ublkb1\",\"size_bytes\":4096}");
	is_answered("{\"command\":\"attach\",\"remote\":[\"nbd://h/y\",\"nbd://i/y\"]}", "\"name\":\"y\"");
	is_answered("{\"command\":\"attach\",\"remote\":\"nbd://h/y\"}", "\"name\":\"vol0\"");
	is_answered("{\"command\":\"attach\",\"remote\":\"nbd://h/\",\"keys\":{\"queue_depth\":16,"
		    "\"send_zc\":true,\"fence\":\"strict\"}}", "\"name\":\"vol1\"");
	devices_are("a up, b up, y up, vol0 up, vol1 up");
	is_answered("{\"command\":\"status\",\"name\":\"vol1\"}", "\"queue_depth\":16");
	is_answered("{\"command\":\"status\",\"name\":\"vol0\"}", "\"queue_depth\":8");
	is_answered("{\"command\":\"status\",\"name\":\"vol0\"}", "\"origin\":\"request\"");
	is_refused(ATTACH("b"), "a device is named b already");
	is_refused(ATTACH("bad1"), "bad1: no server there");
	is_refused("{\"command\":\"attach\",\"remote\":\"http://h/\"}", "remote: expected an NBD URI");
	is_refused("{\"command\":\"attach\",\"remote\":[]}", "at least one NBD URI");
	is_refused("{\"command\":\"attach\",\"remote\":\"nbd://h/\",\"keys\":{\"queues\":-1}}",
		   "queues: expected a whole number");
	is_refused("{\"command\":\"attach\",\"remote\":\"nbd://h/\",\"keys\":{\"queues\":[]}}",
		   "queues: expected a text");
	is_refused("{\"command\":\"attach\",\"remote\":\"nbd://h/\",\"keys\":[]}", "keys");
	is_refused("{\"command\":\"attach\",\"remote\":\"nbd://h/\",\"depth\":1}", "depth");
	is_refused("{\"command\":\"attach\"}", "remote");
	is_refused("{\"command\":\"status\",\"name\":7}", "Expected string, got integer");
	is_answered(DETACH("b"), "\"name\":\"b\"");
	is_refused(DETACH("b"), "no device is named b");
	devices_are("a up, y up, vol0 up, vol1 up");
	end_daemon(0);
}

static void a_device_in_use_is_detached_only_by_force(void **state)
{
	(void)state;
	start_daemon("devices = ( " DEVICE("a") ", " DEVICE("b") " );");
	is_ready();
	__atomic_store_n(&no_devices.held_id, 1, __ATOMIC_RELAXED);
	is_refused(DETACH("b"), "b: /dev/ublkb1 is mounted at /mnt");
	devices_are("a up, b up");
	is_answered(FORCE("b"), "\"warning\":\"b: removed by force\"");
	assert_int_equal(__atomic_load_n(&no_devices.n_forced, __ATOMIC_RELAXED), 1);
	devices_are("a up");
	end_daemon(0);
}

/* A request on a connection of its own, whose answer is read later. */
static int begin(const char *request)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, socket_path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
	assert_int_equal(send(fd, "\n", 1, 0), 1);
	return fd;
}

static void ends_with(int fd, const char *want)
{
	char text[4096] = "";
	ssize_t n = recv(fd, text, sizeof(text) - 1, 0);

	assert_true(n > 0);
	if (!strstr(text, want))
		fail_msg("'%s' instead of '%s'", text, want);
	close(fd);
}

static void nobody_waits_for_what_takes_long(void **state)
{
	int attach, detach;

	(void)state;
	start_daemon("devices = ( " DEVICE("a") ", " DEVICE("lingering") " );");
	is_ready();
	attach = begin(ATTACH("slow"));
	detach = begin(DETACH("lingering"));
	devices_become("a up, lingering detaching, slow attaching");
	is_answered(ATTACH("b"), "\"name\":\"b\"");
	is_refused(ATTACH("slow"), "already");
	is_refused(DETACH("lingering"), "being detached already");
	is_refused(RELOAD, "being attached or detached");
	is_answered(DETACH("b"), "\"name\":\"b\"");
	no_devices_go_on(true);
	ends_with(attach, "\"ok\":true");
	ends_with(detach, "\"ok\":true");
	devices_are("a up, slow up");
	end_daemon(0);
}

static void what_is_being_attached_can_be_given_up(void **state)
{
	int attach;

	(void)state;
	start_daemon(ONE);
	is_ready();
	attach = begin(ATTACH("slow"));
	devices_become("a up, slow attaching");
	is_answered(DETACH("slow"), "\"cancelled\":true");
	ends_with(attach, "\"code\":\"cancelled\"");
	devices_are("a up");
	/* Also when whoever asked has gone. */
	attach = begin(ATTACH("slow"));
	devices_become("a up, slow attaching");
	close(attach);
	is_answered(DETACH("slow"), "\"cancelled\":true");
	devices_are("a up");
	end_daemon(0);
}

static void reload_attaches_detaches_and_leaves_alone(void **state)
{
	(void)state;
	start_daemon("devices = ( " DEVICE("a") ", " DEVICE("b") ", " DEVICE("c") " );");
	is_ready();
	is_answered(ATTACH("extra"), "extra");
	write_conf("devices = ( " DEVICE("d") ", " DEVICE("bad1") ", " DEVICE("a") ",\n"
		   "{ name = \"c\"; remote = \"nbd://h/x\"; queue_depth = 64; } );");
	is_answered(RELOAD, "{\"attached\":[\"d\"],"
			    "\"changed\":[{\"difference\":\"queue_depth is 128 and would be 64\","
			    "\"name\":\"c\"}],"
			    "\"detached\":[\"b\"],"
			    "\"failed\":[{\"error\":\"bad1: no server there\",\"name\":\"bad1\"}],"
			    "\"unchanged\":[\"a\"]}");
	devices_are("a up, c up, extra up, d up");
	/* What failed is tried again; what is detached by hand comes back; what the file names is its. */
	is_answered(DETACH("a"), "a");
	write_conf("devices = ( " DEVICE("a") ", " DEVICE("extra") " );");
	is_answered(RELOAD, "\"attached\":[\"a\"],\"changed\":[],\"detached\":[\"c\",\"d\"],\"failed\":[],"
			    "\"unchanged\":[\"extra\"]");
	is_answered("{\"command\":\"status\",\"name\":\"extra\"}", "\"origin\":\"file\"");
	/* In use: it stays, and goes with the next reload that finds it free. */
	__atomic_store_n(&no_devices.held_id, 3, __ATOMIC_RELAXED);
	write_conf(ONE);
	is_answered(RELOAD, "\"error\":\"extra: /dev/ublkb3 is mounted at /mnt");
	devices_are("extra up, a up");
	__atomic_store_n(&no_devices.held_id, -1, __ATOMIC_RELAXED);
	is_answered(RELOAD, "\"detached\":[\"extra\"]");
	devices_are("a up");
	end_daemon(0);
}

static void a_file_with_mistakes_changes_nothing(void **state)
{
	(void)state;
	start_daemon(ONE);
	is_ready();
	write_conf("devices = ( { name = \"b\"; remote = \"nbd://h/\"; queues = 99; what = 1; } );");
	is_refused(RELOAD, "2 mistakes in the file, nothing was changed:\n");
	is_refused(RELOAD, "devices[0].queues: expected a whole number from 0 to 64");
	is_refused(RELOAD, "devices[0].what: unknown key");
	unlink(conf);
	is_refused(RELOAD, "No such file");
	devices_are("a up");
	end_daemon(0);
}

static void sighup_reloads_also_when_something_else_goes_on(void **state)
{
	int attach;

	(void)state;
	start_daemon(ONE);
	is_ready();
	write_conf("devices = ( " DEVICE("b") " );");
	kill(getpid(), SIGHUP);
	devices_become("b up");
	attach = begin(ATTACH("slow"));
	devices_become("b up, slow attaching");
	write_conf(ONE);
	kill(getpid(), SIGHUP);
	is_answered(ATTACH("c"), "c");
	no_devices_go_on(true);
	ends_with(attach, "\"ok\":true");
	devices_become("slow up, c up, a up");
	end_daemon(0);
}

static void a_device_that_fails_at_the_start_ends_it(void **state)
{
	(void)state;
	start_daemon("devices = ( " DEVICE("a") ", " DEVICE("bad") ", " DEVICE("c") " );");
	pthread_join(thread, NULL);
	running = false;
	assert_int_equal(result, -ECONNREFUSED);
	assert_int_equal(no_devices.n_alive, 0);
	assert_int_equal(no_devices.next_id, 1);
}

/* -- devices that a former daemon left -- */

static char note_path[64];

static void leave_device(const char *name)
{
	FILE *file;

	snprintf(note_path, sizeof(note_path), "%s/%s.json", dir, name);
	file = fopen(note_path, "w");
	assert_non_null(file);
	assert_int_equal(fclose(file), 0);
}

static int remove_note(void **state)
{
	unlink(note_path);
	return tear_down(state);
}

static void what_was_left_is_served_whatever_becomes_of_others(void **state)
{
	(void)state;
	leave_device("a");
	start_daemon("devices = ( " DEVICE("bad") ", " DEVICE("a") ", " DEVICE("c") " );");
	is_ready();
	devices_are("bad attaching, a up, c up");
	is_refused(ATTACH("bad"), "a device is named bad already");
	is_answered(DETACH("bad"), "\"cancelled\":false");
	devices_are("a up, c up");
	end_daemon(0);
}

static void what_was_left_waits_for_no_other_device(void **state)
{
	(void)state;
	leave_device("a");
	start_daemon("devices = ( " DEVICE("slow") ", " DEVICE("a") " );");
	devices_become("slow attaching, a up");
	no_devices_go_on(true);
	is_ready();
	devices_are("slow up, a up");
	end_daemon(0);
}

static void what_cannot_be_attached_is_tried_again(void **state)
{
	(void)state;
	leave_device("late");
	__atomic_store_n(&no_devices.early, true, __ATOMIC_RELAXED);
	start_daemon("devices = ( " DEVICE("a") ", " DEVICE("late") " );");
	is_ready();
	devices_are("a up, late attaching");
	__atomic_store_n(&no_devices.early, false, __ATOMIC_RELAXED);
	devices_become("a up, late up");
	is_answered(DETACH("late"), "\"cancelled\":false");
	end_daemon(0);
}

/* Refused as long as it is being tried. */
static void reload_gives(const char *want)
{
	char why[4096];
	json_t *answer;
	char *text;

	do
		answer = ask(RELOAD, why, sizeof(why));
	while (!answer && strstr(why, "try again"));
	text = answer ? json_dumps(answer, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	if (!text || !strstr(text, want))
		fail_msg("'%s', '%s'", text ? text : "", why);
	free(text);
	json_decref(answer);
}

static void reload_has_its_say_about_what_is_tried_again(void **state)
{
	(void)state;
	leave_device("a");
	__atomic_store_n(&no_devices.early, true, __ATOMIC_RELAXED);
	start_daemon("devices = ( " DEVICE("bad") ", " DEVICE("late") ", " DEVICE("a") " );");
	is_ready();
	write_conf("devices = ( " DEVICE("late") ", " DEVICE("a") " );");
	reload_gives("\"failed\":[{\"error\":\"late: no server there\",\"name\":\"late\"}],"
		     "\"unchanged\":[\"a\"]");
	devices_are("a up, late attaching");
	__atomic_store_n(&no_devices.early, false, __ATOMIC_RELAXED);
	devices_become("a up, late up");
	write_conf(ONE);
	reload_gives("\"detached\":[\"late\"],\"failed\":[],\"unchanged\":[\"a\"]");
	end_daemon(0);
}

static void with_none_that_can_be_attached_the_start_fails(void **state)
{
	(void)state;
	leave_device("bad1");
	start_daemon("devices = ( " DEVICE("bad1") ", " DEVICE("bad2") " );");
	pthread_join(thread, NULL);
	running = false;
	assert_int_equal(result, -ECONNREFUSED);
}

static void a_signal_ends_the_start(void **state)
{
	(void)state;
	start_daemon("devices = ( " DEVICE("a") ", " DEVICE("slow") ", " DEVICE("c") " );");
	devices_become("a up, slow attaching, c attaching");
	is_refused(ATTACH("d"), "still being attached");
	is_refused(RELOAD, "still being attached");
	end_daemon(-ECANCELED);
}

static void a_signal_gives_up_what_is_being_attached(void **state)
{
	int attach;

	(void)state;
	start_daemon(ONE);
	is_ready();
	attach = begin(ATTACH("slow"));
	devices_become("a up, slow attaching");
	end_daemon(0);
	ends_with(attach, "cancelled");
}

/* Ten seconds for each device of a dead server would be more than systemd waits for. */
static void at_the_end_no_device_waits_for_another_one(void **state)
{
	(void)state;
	start_daemon("devices = ( " DEVICE("a") ", " DEVICE("b-lingering") ", " DEVICE("c-lingering") " );");
	is_ready();
	kill(getpid(), SIGTERM);
	while (__atomic_load_n(&no_devices.n_leaving, __ATOMIC_RELAXED) < 3)
		sched_yield();
	no_devices_go_on(true);
	pthread_join(thread, NULL);
	running = false;
	assert_int_equal(result, 0);
	assert_int_equal(no_devices.n_alive, 0);
}

static void log_level_and_probe_are_answered(void **state)
{
	(void)state;
	start_daemon("log_level = \"error\"; " ONE);
	is_ready();
	is_answered("{\"command\":\"log-level\"}", "\"error\"");
	is_answered("{\"command\":\"log-level\",\"level\":\"warning\"}", "\"warning\"");
	assert_int_equal(gk_log_get_level(), GK_LOG_WARNING);
	is_refused("{\"command\":\"log-level\",\"level\":\"loud\"}", "level: expected");
	is_answered("{\"command\":\"log-level\",\"level\":\"error\"}", "\"error\"");
	is_answered("{\"command\":\"probe\"}", "CAP_SYS_ADMIN");
	is_refused("{\"command\":\"dance\"}", "command: expected status, attach");
	is_refused("{}", "command: expected status, attach");
	end_daemon(0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define LEFT(f) cmocka_unit_test_setup_teardown(f, set_up, remove_note)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(devices_are_attached_and_detached),
		TEST(a_device_in_use_is_detached_only_by_force),
		TEST(nobody_waits_for_what_takes_long),
		TEST(what_is_being_attached_can_be_given_up),
		TEST(reload_attaches_detaches_and_leaves_alone),
		TEST(a_file_with_mistakes_changes_nothing),
		TEST(sighup_reloads_also_when_something_else_goes_on),
		TEST(a_device_that_fails_at_the_start_ends_it),
		LEFT(what_was_left_is_served_whatever_becomes_of_others),
		LEFT(what_was_left_waits_for_no_other_device),
		LEFT(what_cannot_be_attached_is_tried_again),
		LEFT(reload_has_its_say_about_what_is_tried_again),
		LEFT(with_none_that_can_be_attached_the_start_fails),
		TEST(a_signal_ends_the_start),
		TEST(a_signal_gives_up_what_is_being_attached),
		TEST(at_the_end_no_device_waits_for_another_one),
		TEST(log_level_and_probe_are_answered),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
