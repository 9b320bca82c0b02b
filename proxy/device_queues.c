// SPDX-License-Identifier: MIT
#include "device_queues.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "datapath.h"
#include "fence_child.h"
#include "log.h"

#define DROPS_MAX 5 /* connections that one request may cost before it fails */

static void *queue_thread(void *arg)
{
	struct gk_device_queue *dq = arg;
	struct gk_queue *queue = &dq->queue;
	int r;

	/* Advisory: a cpuset may forbid it, and then the kernel's own choice is as good. */
	(void)pthread_setaffinity_np(pthread_self(), sizeof(dq->cpus), &dq->cpus);
	r = gk_queue_open(queue);
	dq->error = r;
	sem_post(&dq->opened);
	if (r)
		return NULL;
	r = queue->front->start(queue);
	while (!r && queue->front_live)
		r = gk_queue_turn(queue);
	if (r)
		gk_log(GK_LOG_ERROR, "dev%d q%u: io_uring failed: %s; the queue ends", queue->dev_id,
		       queue->id, gk_strerror(r));
	gk_queue_close(queue);
	return NULL;
}

int gk_device_queue_start(struct gk_device *device, unsigned int index)
{
	struct gk_device_queue *dq = &device->queues[index];
	char name[16];
	int r;

	if (gk_ublk_ctrl_affinity(device->ctrl, (uint32_t)device->dev_id, (uint16_t)index, &dq->cpus))
		sched_getaffinity(0, sizeof(dq->cpus), &dq->cpus);
	r = gk_ublk_queue_map(&dq->ublk, device->cdev_fd, index, device->config->queue_depth);
	if (r)
		return r;
	r = -pthread_create(&dq->thread, NULL, queue_thread, dq);
	if (r)
		return r;
	dq->started = true;
	snprintf(name, sizeof(name), "gk%dq%u", device->dev_id, index);
	pthread_setname_np(dq->thread, name);
	while (sem_wait(&dq->opened) < 0)
		;
	return dq->error;
}

static bool have_ended(const struct gk_device *device)
{
	for (unsigned int i = 0; i < device->n_queues; i++) {
		const struct gk_queue *queue = &device->queues[i].queue;

		for (unsigned int j = 0; j < queue->n_sessions; j++)
			if (__atomic_load_n(&queue->sessions[j].state, __ATOMIC_ACQUIRE) !=
			    GK_SESSION_DEAD)
				return false;
	}
	return true;
}

bool gk_device_queues_await_ends(const struct gk_device *device, unsigned int ms)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	/* Once in a daemon's life, and mostly for the time that one request takes. */
	while (!have_ended(device) && ms--)
		nanosleep(&pause, NULL);
	return have_ended(device);
}

static uint64_t ns_of(double seconds)
{
	return (uint64_t)(seconds * 1e9);
}

static struct gk_retry_policy retry_policy(const struct gk_device_config *config)
{
	return (struct gk_retry_policy){
		.replay = true,
		.fence_strict = config->fence == GK_FENCE_STRICT,
		.drops_max = DROPS_MAX,
		.fence_timeout_ns = ns_of(config->fence_timeout_s),
		.request_timeout_ns = ns_of(config->request_timeout_s),
		.reconnect_timeout_ns = ns_of(config->reconnect_timeout_s),
	};
}

int gk_device_queues_make(struct gk_device *device, struct gk_dialled *dialled)
{
	unsigned int n = device->n_queues;

	device->queues = calloc(n, sizeof(*device->queues));
	if (!device->queues) {
		device->n_queues = 0;
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < n; i++)
		sem_init(&device->queues[i].opened, 0, 0);
	for (unsigned int i = 0; i < n; i++) {
		struct gk_queue_params params = {
			.retry = retry_policy(device->config),
			.unflushed = &device->unflushed,
			.force_fua = device->config->unflushed == GK_UNFLUSHED_FUA,
			.on_dead = gk_reconnect_wake,
			.on_dead_arg = &device->reconnect,
			.front = &gk_ublk_front,
			.front_data = &device->queues[i].ublk,
			.dev_id = device->dev_id,
			.id = i,
			.depth = device->config->queue_depth,
			.n_sessions = (device->n_connections - i + n - 1) / n,
			.max_io_bytes = device->plan.max_io_bytes,
			.path = device->path,
			.threshold_bytes = gk_path_threshold(
				device->path, device->config->zero_copy_threshold_bytes),
		};
		int r = gk_queue_init(&device->queues[i].queue, &params);

		if (r)
			return r;
		/* Whether the former daemon's writes were flushed is not known. */
		device->queues[i].queue.dirty = device->recovering;
	}
	for (unsigned int c = 0; c < device->n_connections; c++) {
		struct gk_session_facts facts = gk_device_session_facts(device, &dialled[c]);

		gk_fence_child_hold(device->config, device->fence_fd, c, dialled[c].fd);
		gk_session_up(&device->queues[c % n].queue.sessions[c / n], c, dialled[c].fd, &facts);
		dialled[c].fd = -1;
	}
	return 0;
}
