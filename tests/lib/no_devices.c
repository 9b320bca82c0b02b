// SPDX-License-Identifier: MIT
#include "no_devices.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "device.h"
#include "log.h"

struct no_devices no_devices = {.go_on_fd = -1, .held_id = -1};

int __wrap_gk_ublk_ctrl_open(struct gk_ublk_ctrl *ctrl);
void __wrap_gk_probe_run(struct gk_probe *probe);
int __wrap_gk_device_attach(struct gk_ublk_ctrl *ctrl, const struct gk_probe *probe,
			    const struct gk_device_config *config, const char *state_dir,
			    int cancel_fd, struct gk_device **ret_device);
void __wrap_gk_device_detach(struct gk_device *device);
void __wrap_gk_device_keep(struct gk_device *device);
bool __wrap_gk_holders_find(int dev_id, char *what, size_t size);

void no_devices_go_on(bool on)
{
	eventfd_t count;

	if (on ? eventfd_write(no_devices.go_on_fd, 1)
	       : eventfd_read(no_devices.go_on_fd, &count) && errno != EAGAIN)
		abort();
}

void no_devices_reset(void)
{
	int fd = no_devices.go_on_fd < 0 ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
					 : no_devices.go_on_fd;

	if (fd < 0)
		abort();
	no_devices = (struct no_devices){
		.go_on_fd = fd, .held_id = -1, .n_alive = no_devices.n_alive};
	no_devices_go_on(false);
}

int __wrap_gk_ublk_ctrl_open(struct gk_ublk_ctrl *ctrl)
{
	ctrl->fd = -1;
	return 0;
}

void __wrap_gk_probe_run(struct gk_probe *probe)
{
	*probe = (struct gk_probe){.ublk = -ENOENT};
}

/* 0, or -ECANCELED. */
static int wait_to_go_on(int cancel_fd)
{
	struct pollfd fds[] = {{.fd = no_devices.go_on_fd, .events = POLLIN},
			       {.fd = cancel_fd, .events = POLLIN}};

	while (poll(fds, 2, -1) < 0)
		;
	return fds[1].revents ? -ECANCELED : 0;
}

int __wrap_gk_device_attach(struct gk_ublk_ctrl *ctrl, const struct gk_probe *probe,
			    const struct gk_device_config *config, const char *state_dir,
			    int cancel_fd, struct gk_device **ret_device)
{
	struct gk_device *device;
	int r = 0;

	if (!probe || !state_dir || !config->name || !config->n_remotes)
		abort();
	if (no_devices.all_slow || !strncmp(config->name, "slow", 4))
		r = wait_to_go_on(cancel_fd);
	if (r)
		return r;
	if (no_devices.refuse || !strncmp(config->name, "bad", 3) ||
	    (!strncmp(config->name, "late", 4) &&
	     __atomic_load_n(&no_devices.early, __ATOMIC_RELAXED))) {
		gk_log(GK_LOG_ERROR, "%s: no server there", config->name);
		return -ECONNREFUSED;
	}
	device = calloc(1, sizeof(*device));
	if (!device)
		return -ENOMEM;
	*device = (struct gk_device){.config = config, .ctrl = ctrl, .path = &gk_path_copy};
	device->dev_id = (int)__atomic_fetch_add(&no_devices.next_id, 1, __ATOMIC_RELAXED);
	device->plan.size_bytes = 4096;
	r = gk_reconnect_init(&device->reconnect);
	if (r) {
		free(device);
		return r;
	}
	__atomic_fetch_add(&no_devices.n_alive, 1, __ATOMIC_RELAXED);
	*ret_device = device;
	return 0;
}

void __wrap_gk_device_detach(struct gk_device *device)
{
	__atomic_fetch_add(&no_devices.n_leaving, 1, __ATOMIC_RELAXED);
	if (strstr(device->config->name, "lingering"))
		(void)wait_to_go_on(-1);
	if (device->impatient) {
		gk_log(GK_LOG_WARNING, "%s: removed by force", device->config->name);
		__atomic_fetch_add(&no_devices.n_forced, 1, __ATOMIC_RELAXED);
	}
	gk_reconnect_done(&device->reconnect);
	__atomic_fetch_sub(&no_devices.n_alive, 1, __ATOMIC_RELAXED);
	free(device);
}

void __wrap_gk_device_keep(struct gk_device *device)
{
	__atomic_fetch_add(&no_devices.n_kept, 1, __ATOMIC_RELAXED);
	__wrap_gk_device_detach(device);
}

bool __wrap_gk_holders_find(int dev_id, char *what, size_t size)
{
	snprintf(what, size, "mounted at /mnt");
	return dev_id == __atomic_load_n(&no_devices.held_id, __ATOMIC_RELAXED);
}
