// SPDX-License-Identifier: MIT
/*
 * A device whose attaching gets no memory, no thread or no descriptor: each allocation on the way
 * fails once, the first, the second and so on, and each time nothing is left behind, be it in the
 * kernel, in the state directory, or of descriptors. The server is a process of its own; what stands
 * for ublk makes devices, and its queues have no threads.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "config_device.h"
#include "device_queues.h"
#include "handshake_server.h"
#include "log.h"
#include "no_memory.h"

/* -- what stands for ublk -- */

static unsigned int n_devices; /* of the kernel */

int __wrap_gk_ublk_ctrl_add(struct gk_ublk_ctrl *ctrl, struct ublksrv_ctrl_dev_info *info);
int __wrap_gk_ublk_ctrl_set_params(struct gk_ublk_ctrl *ctrl, uint32_t dev_id,
				   struct ublk_params *params);
int __wrap_gk_ublk_ctrl_start(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, gk_ublk_stuck_fn *stuck,
			      void *arg);
int __wrap_gk_ublk_ctrl_del(struct gk_ublk_ctrl *ctrl, uint32_t dev_id);
int __wrap_gk_device_queue_start(struct gk_device *device, unsigned int index);
int __wrap_gk_udev_name_save(int dev_id, const char *name, int *ret_fd);
void __wrap_gk_udev_name_forget(int dev_id, const char *name, int fd);
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);

int __wrap_gk_ublk_ctrl_add(struct gk_ublk_ctrl *ctrl, struct ublksrv_ctrl_dev_info *info)
{
	(void)ctrl;
	info->dev_id = 7;
	n_devices++;
	return 0;
}

int __wrap_gk_ublk_ctrl_set_params(struct gk_ublk_ctrl *ctrl, uint32_t dev_id,
				   struct ublk_params *params)
{
	(void)ctrl;
	(void)params;
	assert_int_equal(dev_id, 7);
	return 0;
}

int __wrap_gk_ublk_ctrl_start(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, gk_ublk_stuck_fn *stuck,
			      void *arg)
{
	(void)ctrl;
	(void)stuck;
	(void)arg;
	assert_int_equal(dev_id, 7);
	return 0;
}

int __wrap_gk_ublk_ctrl_del(struct gk_ublk_ctrl *ctrl, uint32_t dev_id)
{
	(void)ctrl;
	assert_int_equal(dev_id, 7);
	n_devices--;
	return 0;
}

int __wrap_gk_device_queue_start(struct gk_device *device, unsigned int index)
{
	assert_true(index < device->n_queues);
	return 0;
}

int __wrap_gk_udev_name_save(int dev_id, const char *name, int *ret_fd)
{
	(void)dev_id;
	(void)name;
	*ret_fd = __real_open("/dev/null", O_RDONLY | O_CLOEXEC);
	return 0;
}

void __wrap_gk_udev_name_forget(int dev_id, const char *name, int fd)
{
	(void)dev_id;
	(void)name;
	if (fd >= 0)
		close(fd);
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list args;
	int mode;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, int) : 0;
	va_end(args);
	return __real_open(strcmp(path, "/dev/ublkc7") ? path : "/dev/null", flags, mode);
}

/* -- */

static char dir[] = "/tmp/gk-test-device-XXXXXX";
static char state_dir[64], socket_path[64];
static pid_t server;

static unsigned int count_entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void attaching_leaves_nothing_behind(void **state)
{
	const struct gk_probe probe = {.ublk_user_recovery = 0};
	struct gk_ublk_ctrl ctrl = {.fd = -1};
	struct gk_config *config = calloc(1, sizeof(*config));
	struct gk_device_config *device_config;
	char uri[128], why[256];
	unsigned int n = 0, n_fds;
	bool is_over;

	(void)state;
	assert_int_equal(gk_config_device_copy(&config->defaults, &device_config), 0);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", socket_path);
	assert_int_equal(gk_config_device_set(device_config, "remote", uri, why, sizeof(why)), 0);
	assert_int_equal(gk_config_device_set(device_config, "name", "vol0", why, sizeof(why)), 0);
	device_config->data_path = GK_PATH_COPY;
	device_config->queue_depth = 4;
	device_config->queues = 2;
	device_config->connections = 2;
	n_fds = count_entries("/proc/self/fd");
	do {
		struct gk_device *device = NULL;
		char told[2048];
		int r;

		gk_log_tell(GK_LOG_ERROR, told, sizeof(told));
		no_memory_fail(++n);
		r = gk_device_attach(&ctrl, &probe, device_config, state_dir, -1, &device);
		is_over = !no_memory_failed();
		no_memory_fail(0);
		gk_log_tell(GK_LOG_ERROR, NULL, 0);
		if (is_over)
			assert_int_equal(r, 0);
		if (r && !told[0])
			fail_msg("allocation %u: %s, and not a word", n, strerror(-r));
		/* Nor is it attached without something that it needs. */
		if (!r) {
			assert_true(is_over);
			assert_int_equal(n_devices, 1);
			gk_device_detach(device);
		}
		assert_int_equal(n_devices, 0);
		assert_int_equal(count_entries("/proc/self/fd"), n_fds);
		/* "." and ".." */
		assert_int_equal(count_entries(state_dir), 2);
	} while (!is_over);
	print_message("%u allocations\n", n - 1);
	/* It has shown nothing otherwise. */
	assert_true(n > 20);
	gk_config_device_free(device_config);
	free(config);
}

/* Two connections, to be closed by whoever came. */
static void serve(int ready_fd)
{
	const struct gk_handshake_server_script script = {
		.size_bytes = 1 << 20,
		.flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_CAN_MULTI_CONN,
		.accepted_fd = -1,
	};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!gk_handshake_server_new(socket_path, &script) || write(ready_fd, "", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attaching_leaves_nothing_behind),
	};
	int ready[2], failed, status;
	char byte;

	/* What the log says is looked at by the test. */
	gk_log_set_level(GK_LOG_ERROR);
	if (!mkdtemp(dir) || pipe2(ready, O_CLOEXEC))
		return EXIT_FAILURE;
	snprintf(state_dir, sizeof(state_dir), "%s/state", dir);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
	if (mkdir(state_dir, 0755) || (server = fork()) < 0)
		return EXIT_FAILURE;
	if (!server)
		serve(ready[1]);
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		return EXIT_FAILURE;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	kill(server, SIGKILL);
	waitpid(server, &status, 0);
	unlink(socket_path);
	rmdir(state_dir);
	rmdir(dir);
	return failed;
}
