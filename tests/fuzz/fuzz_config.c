// SPDX-License-Identifier: MIT
/* Any text as proxy.conf. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config.h"
#include "fuzz.h"

/* libconfig forgets a text before a syntax error; what it has made of the file is still watched. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:strbuf_append\nleak:libconfig_yylex";
}

static char path[64];
static unsigned int n_reports;

static void take_report(void *arg, const char *message)
{
	(void)arg;
	n_reports++;
	CHECK(!strncmp(message, path, strlen(path)) && message[strlen(path)] == ':');
}

static void check_device(const struct gk_device_config *device)
{
	size_t n = strlen(device->name);

	CHECK(n >= 1 && n <= 64 && device->name[0] != '.');
	CHECK(strspn(device->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				   "0123456789._-") == n);
	CHECK(device->n_remotes >= 1 && device->n_remotes <= 16);
	CHECK(device->id >= -1 && device->id <= 1048575);
	CHECK(device->queues <= 64 && device->connections <= 64);
	CHECK(device->queue_depth >= 1 && device->queue_depth <= 4096);
	CHECK(device->zero_copy_threshold_bytes <= 32U << 20);
	CHECK(device->data_path <= GK_PATH_COPY && device->unflushed <= GK_UNFLUSHED_FUA);
	CHECK(device->fence <= GK_FENCE_STRICT && device->on_exit <= GK_ON_EXIT_KEEP);
	/* Written so that a NaN fails too. */
	CHECK(device->connect_timeout_s >= 0 && device->connect_timeout_s <= 86400);
	CHECK(device->request_timeout_s >= 0 && device->request_timeout_s <= 86400);
	CHECK(device->reconnect_timeout_s >= 0 && device->reconnect_timeout_s <= 31536000);
	CHECK(device->fence_timeout_s >= 0 && device->fence_timeout_s <= 86400);
}

static void check_config(const struct gk_config *config)
{
	CHECK(config->log_level <= GK_LOG_DEBUG && config->n_devices >= 1);
	CHECK(config->state_dir && config->control_socket && config->metrics);
	for (size_t i = 0; i < config->n_devices; i++) {
		check_device(&config->devices[i]);
		for (size_t j = 0; j < i; j++)
			CHECK(strcmp(config->devices[i].name, config->devices[j].name) != 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct gk_config *config = NULL;
	int r;

	if (fd < 0) {
		fd = memfd_create("proxy.conf", MFD_CLOEXEC);
		CHECK(fd >= 0);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	n_reports = 0;
	r = gk_config_load(path, take_report, NULL, &config);
	CHECK(r == 0 || r == -EINVAL || r == -EFBIG);
	CHECK((r != 0) == (n_reports > 0));
	if (!r)
		check_config(config);
	gk_config_free(config);
	return 0;
}
