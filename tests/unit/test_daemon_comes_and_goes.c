// SPDX-License-Identifier: MIT
/*
 * A daemon whose clients attach and detach a device, again and again, has neither more descriptors
 * nor more memory. The devices are none, as in test_daemon; what a real one makes of its own comes
 * and goes in test_wire_comes_and_goes, and all of it together, with the kernel's ublk, in e2e.
 */
#include <errno.h>
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
#include "growth.h"
#include "log.h"
#include "no_devices.h"

static char dir[] = "/tmp/gk-test-comings-XXXXXX";
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

static void is_done(const char *request)
{
	char why[4096] = "";
	json_t *json = json_loads(request, 0, NULL);
	json_t *answer;

	assert_non_null(json);
	answer = gk_control_ask(socket_path, json, why, sizeof(why));
	json_decref(json);
	if (!answer)
		fail_msg("%s: %s", request, why);
	json_decref(answer);
}

/* Until it listens, and has nothing to attach any more. */
static void wait_until_ready(void)
{
	const char *request = "{\"command\":\"detach\",\"name\":\"-\"}";
	char why[4096] = "";

	do {
		json_t *json = json_loads(request, 0, NULL);

		assert_null(gk_control_ask(socket_path, json, why, sizeof(why)));
		json_decref(json);
	} while (!strstr(why, "no device is named"));
}

static void devices_come_and_go(void **state)
{
	struct growth_holdings before = {0};
	struct gk_config *config;
	pthread_t thread;
	void *result;
	FILE *file = fopen(conf, "we");

	(void)state;
	assert_non_null(file);
	fprintf(file, "state_dir = \"%s\"; log_level = \"error\"; control = { socket = \"%s\"; };\n"
		"devices = ( { name = \"a\"; remote = \"nbd://h/\"; } );\n", dir, socket_path);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(gk_config_load(conf, no_mistake, NULL, &config), 0);
	assert_int_equal(pthread_create(&thread, NULL, daemon_thread, config), 0);
	wait_until_ready();
	for (unsigned int i = 0; i < GROWTH_WARM_UP + GROWTH_ROUNDS; i++) {
		if (i == GROWTH_WARM_UP)
			before = growth_measure();
		is_done("{\"command\":\"attach\",\"remote\":\"nbd://h/x\",\"name\":\"b\"}");
		is_done("{\"command\":\"status\"}");
		is_done("{\"command\":\"detach\",\"name\":\"b\"}");
	}
	growth_assert_none("a device attached and detached", before);
	kill(getpid(), SIGTERM);
	pthread_join(thread, &result);
	assert_null(result);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(devices_come_and_go),
	};
	sigset_t set;
	int failed;

	(void)argc;
	growth_prepare(argv);
	no_devices_reset();
	/* As main() leaves it to the daemon, but for all threads of this process. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	gk_log_set_level(GK_LOG_ERROR);
	if (!mkdtemp(dir)) {
		perror(dir);
		return EXIT_FAILURE;
	}
	snprintf(conf, sizeof(conf), "%s/proxy.conf", dir);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(conf);
	rmdir(dir);
	return failed;
}
