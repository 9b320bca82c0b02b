// SPDX-License-Identifier: MIT
#include "devices.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "config_device.h"
#include "holders.h"
#include "join.h"
#include "log.h"
#include "recovery.h"

#define LET_GO_MS   2000 /* udev and its like look at a new device for a moment */
#define FIRST_RETRY 3    /* of reconnect.h's delays: a few hundred ms */
#define PATIENCE_S  1    /* at the end, for a device to go before the next one */

struct gk_job {
	struct gk_job *next;
	struct gk_devices *devices;
	pthread_t thread;
	struct gk_step *steps;
	size_t n_steps;
	pthread_mutex_t lock; /* of what both threads write: n_done, n_begun, given_up */
	size_t n_done;  /* all: the thread ends */
	size_t n_begun;
	size_t n_seen;  /* by the control thread */
	bool stop_at_failure;
	bool all_given_up;
	int cancel_fd;  /* eventfd: give up what is being attached; -1: the job attaches nothing */
	gk_job_done_fn *done;
	void *arg;
	uint64_t ticket;
};

static void ring(int event_fd)
{
	uint64_t one = 1;

	/* Fails only when the counter is full, and then it is readable as it should be. */
	(void)!write(event_fd, &one, sizeof(one));
}

int gk_devices_init(struct gk_devices *devices, const struct gk_probe *probe, const char *state_dir)
{
	*devices = (struct gk_devices){.probe = probe, .state_dir = state_dir};
	devices->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return devices->done_fd < 0 ? -errno : 0;
}

static void entry_free(struct gk_entry *entry)
{
	gk_ublk_ctrl_close(&entry->ctrl);
	gk_config_device_free(entry->config);
	free(entry);
}

void gk_devices_forget(struct gk_devices *devices, struct gk_entry *entry)
{
	size_t i = 0;

	/* A job of several steps goes on after one of its devices has been detached again. */
	for (struct gk_job *job = devices->jobs; job; job = job->next)
		for (size_t seen = 0; seen < job->n_seen; seen++)
			if (job->steps[seen].entry == entry)
				job->steps[seen].entry = NULL;
	while (devices->entries[i] != entry)
		i++;
	devices->n_entries--;
	memmove(&devices->entries[i], &devices->entries[i + 1],
		(devices->n_entries - i) * sizeof(struct gk_entry *));
	entry_free(entry);
}

void gk_devices_done(struct gk_devices *devices)
{
	while (devices->n_entries)
		gk_devices_forget(devices, devices->entries[devices->n_entries - 1]);
	free(devices->entries);
	if (devices->done_fd >= 0)
		close(devices->done_fd);
	*devices = (struct gk_devices){.done_fd = -1};
}

struct gk_entry *gk_devices_find(const struct gk_devices *devices, const char *name)
{
	for (size_t i = 0; i < devices->n_entries; i++)
		if (!strcmp(devices->entries[i]->config->name, name))
			return devices->entries[i];
	return NULL;
}

struct gk_entry *gk_devices_add(struct gk_devices *devices, struct gk_device_config *config,
				bool from_file)
{
	struct gk_entry **entries = realloc(devices->entries,
					    (devices->n_entries + 1) * sizeof(*entries));
	struct gk_entry *entry = calloc(1, sizeof(*entry));

	if (entries)
		devices->entries = entries;
	if (!entries || !entry) {
		gk_config_device_free(config);
		free(entry);
		return NULL;
	}
	entry->config = config;
	entry->ctrl.fd = -1;
	entry->from_file = from_file;
	entry->state = GK_ENTRY_ATTACHING;
	entries[devices->n_entries++] = entry;
	return entry;
}

/* Whether nobody wants it any more. Under the job's lock. */
static bool is_given_up(const struct gk_job *job, const struct gk_step *step)
{
	return step->attach && (job->all_given_up || step->given_up);
}

static int attach(const struct gk_job *job, struct gk_step *step)
{
	struct gk_entry *entry = step->entry;
	int r;

	gk_log_tell(GK_LOG_ERROR, step->why, sizeof(step->why));
	r = gk_ublk_ctrl_open(&entry->ctrl);
	if (!r)
		r = gk_device_attach(&entry->ctrl, job->devices->probe, entry->config,
				     job->devices->state_dir, job->cancel_fd, &entry->device);
	gk_log_tell(GK_LOG_ERROR, NULL, 0);
	return r;
}

/* Waits a little for those who only had a look. */
static bool is_held(int dev_id, char *what, size_t size)
{
	struct timespec pause = {.tv_nsec = 50000000};

	for (unsigned int ms = 0; ms < LET_GO_MS; ms += 50) {
		if (!gk_holders_find(dev_id, what, size))
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

/* Somebody has it, and --force was not said. */
static bool is_refused(struct gk_step *step, int dev_id)
{
	char what[512];

	if (step->force || !is_held(dev_id, what, sizeof(what)))
		return false;
	snprintf(step->why, sizeof(step->why),
		 "%s: /dev/ublkb%d is %s: end that first, or use --force, which fails what is in flight",
		 step->name, dev_id, what);
	gk_log(GK_LOG_WARNING, "%s", step->why);
	return true;
}

/* What a former daemon left, and this one could not take over. */
static int remove_left(const struct gk_devices *devices, struct gk_step *step)
{
	struct gk_entry *entry = step->entry;
	struct gk_kept_device kept;
	int r;

	gk_log_tell(GK_LOG_ERROR, step->why, sizeof(step->why));
	r = gk_ublk_ctrl_open(&entry->ctrl);
	if (!r)
		r = gk_recovery_find(&entry->ctrl, devices->state_dir, entry->config, &kept);
	gk_log_tell(GK_LOG_ERROR, NULL, 0);
	if (r > 0 && is_refused(step, (int)kept.info.dev_id))
		return -EBUSY;
	if (r > 0)
		r = gk_recovery_remove(&entry->ctrl, devices->state_dir, step->name, &kept);
	return r;
}

static int detach(const struct gk_devices *devices, struct gk_step *step)
{
	struct gk_device *device = step->entry->device;

	if (!device)
		return remove_left(devices, step);
	if (is_refused(step, device->dev_id))
		return -EBUSY;
	device->impatient = step->force;
	gk_log_tell(GK_LOG_WARNING, step->why, sizeof(step->why));
	gk_device_detach(device);
	gk_log_tell(GK_LOG_WARNING, NULL, 0);
	step->entry->device = NULL;
	return 0;
}

/* False: it is left out. */
static bool begin_step(struct gk_job *job, const struct gk_step *step)
{
	bool wanted;

	pthread_mutex_lock(&job->lock);
	job->n_begun++;
	wanted = !is_given_up(job, step);
	pthread_mutex_unlock(&job->lock);
	return wanted;
}

/* Whoever gives up a device before this is promised that it does not come; later is too late. */
static void end_step(struct gk_job *job, struct gk_step *step)
{
	pthread_mutex_lock(&job->lock);
	if (!step->result && is_given_up(job, step)) {
		pthread_mutex_unlock(&job->lock);
		gk_device_detach(step->entry->device);
		step->entry->device = NULL;
		step->result = -ECANCELED;
		pthread_mutex_lock(&job->lock);
	}
	/* Nothing of it for the next step. */
	if (step->given_up && !job->all_given_up)
		(void)eventfd_read(job->cancel_fd, &(eventfd_t){0});
	job->n_done++;
	pthread_mutex_unlock(&job->lock);
	ring(job->devices->done_fd);
}

static void *job_thread(void *arg)
{
	struct gk_job *job = arg;
	int failed = 0;

	for (size_t i = 0; i < job->n_steps; i++) {
		struct gk_step *step = &job->steps[i];

		if (!begin_step(job, step) || (failed && job->stop_at_failure))
			step->result = -ECANCELED;
		else if (step->attach)
			step->result = attach(job, step);
		else
			step->result = detach(job->devices, step);
		failed |= step->result;
		end_step(job, step);
	}
	if (!job->n_steps)
		ring(job->devices->done_fd);
	return NULL;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void see_step(struct gk_devices *devices, struct gk_step *step)
{
	struct gk_entry *entry = step->entry;

	if (entry->device) {
		/* Also who could not be detached. */
		entry->state = GK_ENTRY_ATTACHED;
		entry->keep_trying = false;
	} else if (entry->keep_trying && (step->attach || step->result)) {
		gk_ublk_ctrl_close(&entry->ctrl);
		entry->state = GK_ENTRY_WAITING;
		entry->retry_ms = now_ms() + gk_reconnect_delay_ms(FIRST_RETRY + entry->attempt++,
								   &devices->seed);
	} else {
		step->detach_ticket = entry->detach_ticket;
		gk_devices_forget(devices, entry);
		step->entry = NULL;
	}
}

/* Frees a job whose thread has ended, or was never there. */
static void job_free(struct gk_job *job)
{
	if (job->cancel_fd >= 0)
		close(job->cancel_fd);
	pthread_mutex_destroy(&job->lock);
	free(job->steps);
	free(job);
}

int gk_devices_start(struct gk_devices *devices, struct gk_step *steps, size_t n_steps,
		     bool stop_at_failure, gk_job_done_fn *done, void *arg, uint64_t ticket)
{
	struct gk_job *job = malloc(sizeof(*job));
	int r = job ? 0 : -ENOMEM;
	bool attaches = false;

	for (size_t i = 0; i < n_steps; i++)
		attaches |= steps[i].attach;
	if (job) {
		*job = (struct gk_job){
			.devices = devices,
			.steps = steps,
			.n_steps = n_steps,
			.stop_at_failure = stop_at_failure,
			/* Without descriptors it is still possible to detach. */
			.cancel_fd = attaches ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1,
			.done = done,
			.arg = arg,
			.ticket = ticket,
		};
		r = attaches && job->cancel_fd < 0 ? -errno : 0;
		pthread_mutex_init(&job->lock, NULL);
	}
	for (size_t i = 0; i < n_steps; i++) {
		snprintf(steps[i].name, sizeof(steps[i].name), "%s", steps[i].entry->config->name);
		if (!steps[i].attach && !r)
			steps[i].entry->state = GK_ENTRY_DETACHING;
	}
	if (!r)
		r = -pthread_create(&job->thread, NULL, job_thread, job);
	if (!r) {
		pthread_setname_np(job->thread, "gkjob");
		job->next = devices->jobs;
		devices->jobs = job;
		return 0;
	}
	for (size_t i = 0; i < n_steps; i++) {
		steps[i].result = r;
		see_step(devices, &steps[i]);
	}
	if (job)
		job_free(job);
	else
		free(steps);
	return r;
}

static void retry(struct gk_devices *devices, struct gk_entry *entry, gk_job_done_fn *done, void *arg)
{
	struct gk_step *step = calloc(1, sizeof(*step));

	/* Without memory for that it is tried again at once. */
	if (!step)
		return;
	*step = (struct gk_step){.entry = entry, .attach = true};
	entry->state = GK_ENTRY_ATTACHING;
	(void)gk_devices_start(devices, step, 1, false, done, arg, 0);
}

void gk_devices_retry(struct gk_devices *devices, gk_job_done_fn *done, void *arg)
{
	for (size_t i = 0; i < devices->n_entries; i++) {
		struct gk_entry *entry = devices->entries[i];

		/* What somebody wants detached is, as soon as the job that tried it has ended. */
		if (entry->state == GK_ENTRY_WAITING && !entry->detach_ticket &&
		    now_ms() >= entry->retry_ms)
			retry(devices, entry, done, arg);
	}
}

static bool cancel(struct gk_job *job, const struct gk_entry *entry)
{
	bool in_time = false;

	pthread_mutex_lock(&job->lock);
	job->all_given_up |= !entry;
	for (size_t i = job->n_done; i < job->n_steps; i++) {
		struct gk_step *step = &job->steps[i];

		if (!step->attach || (entry && step->entry != entry))
			continue;
		step->given_up = true;
		in_time = true;
		if (i < job->n_begun)
			ring(job->cancel_fd);
	}
	pthread_mutex_unlock(&job->lock);
	return in_time;
}

bool gk_devices_cancel(struct gk_devices *devices, const struct gk_entry *entry)
{
	bool in_time = false;

	for (struct gk_job *job = devices->jobs; job; job = job->next)
		in_time |= cancel(job, entry);
	return in_time;
}

void gk_devices_step(struct gk_devices *devices)
{
	struct gk_job **link = &devices->jobs;
	uint64_t count;

	(void)!read(devices->done_fd, &count, sizeof(count));
	while (*link) {
		struct gk_job *job = *link;
		size_t n_done;

		pthread_mutex_lock(&job->lock);
		n_done = job->n_done;
		pthread_mutex_unlock(&job->lock);
		while (job->n_seen < n_done)
			see_step(devices, &job->steps[job->n_seen++]);
		/* In one go with the last step, so that no request comes between the two. */
		if (n_done < job->n_steps) {
			link = &job->next;
			continue;
		}
		pthread_join(job->thread, NULL);
		*link = job->next;
		job->done(job->arg, job->ticket, job->steps, job->n_steps);
		job_free(job);
		/* done() may have started another one. */
		link = &devices->jobs;
	}
}

void gk_devices_tick(struct gk_devices *devices)
{
	for (size_t i = 0; i < devices->n_entries; i++) {
		struct gk_entry *entry = devices->entries[i];

		if (entry->state != GK_ENTRY_ATTACHED)
			continue;
		entry->readings[1] = entry->readings[0];
		gk_status_read(entry->device, &entry->readings[0]);
		if (entry->n_readings)
			gk_stats_diff(&entry->readings[0], &entry->readings[1], &entry->recent);
		entry->n_readings += entry->n_readings < 2;
	}
}

void gk_devices_remove_waiting(struct gk_devices *devices)
{
	for (size_t i = 0; i < devices->n_entries; i++) {
		struct gk_entry *entry = devices->entries[i];
		struct gk_step step = {.entry = entry, .force = true};

		if (entry->state != GK_ENTRY_WAITING || entry->config->on_exit == GK_ON_EXIT_KEEP)
			continue;
		snprintf(step.name, sizeof(step.name), "%s", entry->config->name);
		(void)remove_left(devices, &step);
	}
}

static void *end_thread(void *arg)
{
	gk_device_detach(arg);
	return NULL;
}

/* Whether it has gone; else *ret_thread is still at it. */
static bool end_device(struct gk_device *device, pthread_t *ret_thread)
{
	if (pthread_create(ret_thread, NULL, end_thread, device)) {
		gk_device_detach(device);
		return true;
	}
	return gk_join_within(*ret_thread, PATIENCE_S);
}

bool gk_devices_end(struct gk_devices *devices)
{
	pthread_t *slow = calloc(devices->n_entries + 1, sizeof(*slow));
	size_t n_slow = 0;
	bool kept = false;

	/* All of them at once, so that servers which do not answer cost their time once. */
	for (size_t i = 0; i < devices->n_entries; i++)
		if (devices->entries[i]->device &&
		    devices->entries[i]->config->on_exit == GK_ON_EXIT_KEEP)
			gk_device_hand_over(devices->entries[i]->device);
	for (size_t i = devices->n_entries; i > 0; i--) {
		struct gk_device *device = devices->entries[i - 1]->device;

		if (!device)
			continue;
		if (devices->entries[i - 1]->config->on_exit == GK_ON_EXIT_KEEP) {
			gk_device_keep(device);
			kept = true;
		} else if (!slow) {
			gk_device_detach(device);
		} else {
			n_slow += !end_device(device, &slow[n_slow]);
		}
	}
	while (n_slow)
		pthread_join(slow[--n_slow], NULL);
	free(slow);
	return kept;
}

void gk_devices_status(struct gk_entry *entry, struct gk_status_device *ret_status)
{
	*ret_status = (struct gk_status_device){
		.name = entry->config->name,
		.state = entry->state == GK_ENTRY_DETACHING ? "detaching" : "attaching",
		.remote = entry->config->remotes[0].text,
	};
	if (entry->state == GK_ENTRY_ATTACHED) {
		gk_status_of(entry->device, ret_status);
		gk_status_read(entry->device, &entry->total);
		ret_status->total = &entry->total;
		ret_status->recent = entry->n_readings == 2 ? &entry->recent : NULL;
	}
	ret_status->origin = entry->from_file ? "file" : "request";
}
