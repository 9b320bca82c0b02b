// SPDX-License-Identifier: MIT
#include "live_device.h"

#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "control_ask.h"

/* A new reference to the result; takes the request's. */
static json_t *ask(json_t *request)
{
	char why[1024];
	json_t *result = gk_control_ask(GK_DEFAULT_SOCKET, request, why, sizeof(why));

	if (!result) {
		fprintf(stderr, "gkproxy does not: %s\n", why);
		exit(1);
	}
	json_decref(request);
	return result;
}

static void forbid_merges(const char *path)
{
	char knob[128];
	int fd;

	snprintf(knob, sizeof(knob), "/sys/block/%s/queue/nomerges", strrchr(path, '/') + 1);
	fd = open(knob, O_WRONLY | O_CLOEXEC);
	LIVE_CHECK(fd >= 0 && write(fd, "2", 1) == 1);
	close(fd);
}

struct live_device live_device_attach(const char *name, const char *uri, const char *const *keys)
{
	json_t *request = json_pack("{s:s, s:s, s:s, s:{}}", "command", "attach", "remote", uri,
				    "name", name, "keys");
	struct live_device device;
	json_t *result;
	const char *path;

	for (; *keys; keys += 2)
		json_object_set_new(json_object_get(request, "keys"), keys[0], json_string(keys[1]));
	result = ask(request);
	path = json_string_value(json_object_get(result, "path"));
	snprintf(device.name, sizeof(device.name), "%s", name);
	forbid_merges(path);
	device.fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	LIVE_CHECK(device.fd >= 0);
	json_decref(result);
	return device;
}

uint64_t live_device_counter(const struct live_device *device, const char *counter)
{
	json_t *result = ask(json_pack("{s:s, s:s}", "command", "status", "name", device->name));
	json_int_t value;

	LIVE_CHECK(!json_unpack(result, "{s:[{s:{s:I}}]}", "devices", "counters", counter, &value));
	json_decref(result);
	return (uint64_t)value;
}

void live_device_detach(struct live_device *device)
{
	close(device->fd);
	device->fd = -1;
	json_decref(ask(json_pack("{s:s, s:s}", "command", "detach", "name", device->name)));
}
