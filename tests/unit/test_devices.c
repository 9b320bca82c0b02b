// SPDX-License-Identifier: MIT
/*
 * Devices that come and go at the same moment: the control thread is the test, which takes its turn
 * when the test says so, and the requests are those that clients send. The devices are none.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "config_device.h"
#include "daemon.h"
#include "log.h"
#include "no_devices.h"

static struct gk_daemon daemon_;

static int set_up(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	(void)state;
	no_devices_reset();
	daemon_ = (struct gk_daemon){.ready = true, .state_dir = (char[]){""}};
	daemon_.config = calloc(1, sizeof(*daemon_.config));
	daemon_.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The kernel picks a name; nobody comes. */
	if (bind(daemon_.listen_fd, (struct sockaddr *)&address, sizeof(sa_family_t)) ||
	    listen(daemon_.listen_fd, 1))
		return -1;
	return gk_control_new(daemon_.listen_fd, gk_requests_handle, &daemon_, &daemon_.control) ||
	       gk_devices_init(&daemon_.devices, &daemon_.probe, "");
}

static int tear_down(void **state)
{
	(void)state;
	gk_devices_end(&daemon_.devices);
	gk_devices_done(&daemon_.devices);
	gk_control_free(daemon_.control);
	close(daemon_.listen_fd);
	free(daemon_.config);
	return no_devices.n_alive != 0;
}

/* Until a step of a job has ended; what follows from it is for the next turn. */
static void wait_for_step(void)
{
	struct pollfd done = {.fd = daemon_.devices.done_fd, .events = POLLIN};

	while (poll(&done, 1, -1) < 0)
		;
}

static void turn_until_idle(void)
{
	while (daemon_.devices.jobs) {
		wait_for_step();
		gk_devices_step(&daemon_.devices);
	}
}

static struct gk_entry *add(const char *name)
{
	struct gk_device_config *config;
	char why[256];

	assert_int_equal(gk_config_device_copy(&daemon_.config->defaults, &config), 0);
	assert_int_equal(gk_config_device_set(config, "remote", "nbd://h/", why, sizeof(why)), 0);
	assert_int_equal(gk_config_device_set(config, "name", name, why, sizeof(why)), 0);
	return gk_devices_add(&daemon_.devices, config, false);
}

static void no_word(void *arg, uint64_t ticket, struct gk_step *steps, size_t n_steps)
{
	(void)arg;
	(void)ticket;
	for (size_t i = 0; i < n_steps; i++)
		assert_ptr_equal(steps[i].entry, gk_devices_find(&daemon_.devices, steps[i].name));
	for (size_t i = 0; i < n_steps; i++)
		gk_requests_gone(&daemon_, &steps[i]);
}

/* A job of attaching these, as a reload is one; keep_trying: as of what a former daemon left. */
static void attach_those(const char *const *names, size_t n, bool keep_trying)
{
	struct gk_step *steps = calloc(n, sizeof(*steps));

	for (size_t i = 0; i < n; i++) {
		steps[i] = (struct gk_step){.entry = add(names[i]), .attach = true};
		steps[i].entry->keep_trying = keep_trying;
	}
	assert_int_equal(gk_devices_start(&daemon_.devices, steps, n, false, no_word, NULL, 0), 0);
}

static void attach(const char *const *names, size_t n)
{
	attach_those(names, n, false);
}

/* It is answered later. */
static void ask_to_detach(const char *name)
{
	json_t *request = json_pack("{s:s, s:s}", "command", "detach", "name", name);

	assert_null(gk_requests_handle(&daemon_, 1, request));
	json_decref(request);
}

/* Between its last look at whether somebody gave it up, and the control thread's at what it did. */
static void a_device_that_just_came_up_can_be_detached(void **state)
{
	static const char *const name[] = {"a"};

	(void)state;
	attach(name, 1);
	wait_for_step();
	assert_int_equal(gk_devices_find(&daemon_.devices, "a")->state, GK_ENTRY_ATTACHING);
	ask_to_detach("a");
	turn_until_idle();
	assert_null(gk_devices_find(&daemon_.devices, "a"));
	assert_int_equal(no_devices.n_alive, 0);
}

static void giving_up_one_gives_up_no_other(void **state)
{
	static const char *const names[] = {"slow1", "slow2", "slow3"};

	(void)state;
	attach(names, 3);
	/* The one under way, and one that is not begun. */
	ask_to_detach("slow1");
	ask_to_detach("slow3");
	wait_for_step();
	gk_devices_step(&daemon_.devices);
	assert_null(gk_devices_find(&daemon_.devices, "slow1"));
	no_devices_go_on(true);
	turn_until_idle();
	assert_null(gk_devices_find(&daemon_.devices, "slow3"));
	assert_non_null(gk_devices_find(&daemon_.devices, "slow2"));
	assert_int_equal(gk_devices_find(&daemon_.devices, "slow2")->state, GK_ENTRY_ATTACHED);
	assert_int_equal(no_devices.n_alive, 1);
}

/* The job's done() then finds one that is there no more. */
static void one_can_be_detached_before_all_of_its_job_are_up(void **state)
{
	static const char *const names[] = {"a", "slow"};

	(void)state;
	attach(names, 2);
	wait_for_step();
	gk_devices_step(&daemon_.devices);
	assert_int_equal(gk_devices_find(&daemon_.devices, "a")->state, GK_ENTRY_ATTACHED);
	ask_to_detach("a");
	while (gk_devices_find(&daemon_.devices, "a")) {
		wait_for_step();
		gk_devices_step(&daemon_.devices);
	}
	assert_int_equal(gk_devices_find(&daemon_.devices, "slow")->state, GK_ENTRY_ATTACHING);
	no_devices_go_on(true);
	turn_until_idle();
	assert_int_equal(gk_devices_find(&daemon_.devices, "slow")->state, GK_ENTRY_ATTACHED);
	assert_int_equal(no_devices.n_alive, 1);
}

static void what_is_to_be_detached_is_not_tried_again(void **state)
{
	static const char *const names[] = {"slow1", "slow2"};
	struct gk_entry *entry;

	(void)state;
	attach_those(names, 2, true);
	ask_to_detach("slow1");
	wait_for_step();
	gk_devices_step(&daemon_.devices);
	entry = gk_devices_find(&daemon_.devices, "slow1");
	assert_int_equal(entry->state, GK_ENTRY_WAITING);
	entry->retry_ms = 0;
	gk_devices_retry(&daemon_.devices, no_word, NULL);
	assert_int_equal(entry->state, GK_ENTRY_WAITING);
	no_devices_go_on(true);
	turn_until_idle();
	assert_null(gk_devices_find(&daemon_.devices, "slow1"));
	assert_int_equal(no_devices.n_alive, 1);
}

static void all_are_given_up_at_the_end(void **state)
{
	static const char *const names[] = {"slow1", "slow2", "b"};

	(void)state;
	attach(names, 3);
	gk_devices_cancel(&daemon_.devices, NULL);
	turn_until_idle();
	assert_int_equal(daemon_.devices.n_entries, 0);
	assert_int_equal(no_devices.n_alive, 0);
	assert_int_equal(no_devices.next_id, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_device_that_just_came_up_can_be_detached),
		TEST(giving_up_one_gives_up_no_other),
		TEST(one_can_be_detached_before_all_of_its_job_are_up),
		TEST(what_is_to_be_detached_is_not_tried_again),
		TEST(all_are_given_up_at_the_end),
	};

	gk_log_set_level(GK_LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
