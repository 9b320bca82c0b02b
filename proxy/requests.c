// SPDX-License-Identifier: MIT
/* What clients of the control socket may ask for. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cmd_probe.h"
#include "config_device.h"
#include "daemon.h"
#include "log.h"
#include "notify.h"

static json_t *no_memory(void)
{
	return gk_control_error("failed", "out of memory");
}

/* Unpacks a request's members; NULL, or the error when one is missing, unknown or of a wrong type. */
#define UNPACK(request, format, ...)                                                               \
	__extension__({                                                                            \
		json_error_t unpack_error_;                                                        \
		json_unpack_ex((json_t *)(uintptr_t)(request), &unpack_error_, JSON_STRICT,        \
			       format, __VA_ARGS__) < 0                                            \
			? gk_control_error("bad-request", "%s", unpack_error_.text)                \
			: NULL;                                                                    \
	})

static json_t *not_found(const char *name)
{
	return gk_control_error("not-found", "no device is named %.100s", name);
}

static json_t *status(struct gk_daemon *daemon, uint64_t ticket, const json_t *request)
{
	struct gk_devices *devices = &daemon->devices;
	size_t n = devices->n_entries;
	struct gk_status_device *list;
	const char *command;
	const char *name = NULL;
	json_t *answer = UNPACK(request, "{s:s, s?:s}", "command", &command, "name", &name);
	size_t used = 0;

	(void)ticket;
	if (answer)
		return answer;
	list = calloc(n ? n : 1, sizeof(*list));
	if (!list)
		return no_memory();
	for (size_t i = 0; i < n; i++)
		if (!name || !strcmp(devices->entries[i]->config->name, name))
			gk_devices_status(devices->entries[i], &list[used++]);
	answer = name && !used ? not_found(name) : gk_control_ok(gk_status_json(list, used));
	free(list);
	return answer;
}

static json_t *entry_json(struct gk_entry *entry)
{
	return json_pack("{s:s, s:o, s:I}", "name", entry->config->name, "path",
			 json_sprintf("/dev/ublkb%d", entry->device->dev_id), "size_bytes",
			 (json_int_t)entry->device->plan.size_bytes);
}

static json_t *step_error(const struct gk_step *step, const char *verb)
{
	const char *code = step->result == -ECANCELED ? "cancelled" :
			   step->result == -EBUSY     ? "in-use" :
							"failed";

	return step->why[0] ? gk_control_error(code, "%s", step->why)
			    : gk_control_error(code, "%s: %s: %s", step->name, verb,
					       gk_strerror(step->result));
}

static void attach_done(void *arg, uint64_t ticket, struct gk_step *steps, size_t n_steps)
{
	struct gk_daemon *daemon = arg;

	(void)n_steps;
	gk_control_answer(daemon->control, ticket,
			  steps->entry ? gk_control_ok(entry_json(steps->entry))
				       : step_error(steps, "cannot attach"));
	gk_requests_gone(daemon, steps);
}

/* JSON's numbers and words are those of the configuration file. */
static int set_key(struct gk_device_config *config, const char *key, const json_t *value, char *why,
		   size_t why_size)
{
	char *text = NULL;
	int r;

	if (json_is_string(value)) {
		text = strdup(json_string_value(value));
	} else if (json_is_boolean(value)) {
		text = strdup(json_is_true(value) ? "true" : "false");
	} else if (json_is_number(value)) {
		text = json_dumps(value, JSON_ENCODE_ANY);
	} else {
		snprintf(why, why_size, "%.64s: expected a text, a number, true or false", key);
		return -EINVAL;
	}
	if (!text)
		return -ENOMEM;
	r = gk_config_device_set(config, key, text, why, why_size);
	free(text);
	return r;
}

/* The name of the export if it is fit and free, else vol0, vol1, ... */
static int choose_name(const struct gk_daemon *daemon, struct gk_device_config *config, char *why,
		       size_t why_size)
{
	const char *export = config->remotes[0].export_name;
	char name[65];

	if (gk_config_device_is_name(export) && !gk_devices_find(&daemon->devices, export))
		return gk_config_device_set(config, "name", export, why, why_size);
	for (unsigned int i = 0;; i++) {
		snprintf(name, sizeof(name), "vol%u", i);
		if (!gk_devices_find(&daemon->devices, name))
			return gk_config_device_set(config, "name", name, why, why_size);
	}
}

/* One URI or a list of them. */
static int set_remotes(struct gk_device_config *config, const json_t *remote, char *why, size_t why_size)
{
	size_t n = json_is_array(remote) ? json_array_size(remote) : 1;
	int r = 0;

	gk_config_device_clear_remotes(config);
	if (!n) {
		snprintf(why, why_size, "remote: expected at least one NBD URI");
		return -EINVAL;
	}
	for (size_t i = 0; i < n && !r; i++) {
		const json_t *uri = json_is_array(remote) ? json_array_get(remote, i) : remote;

		if (json_is_string(uri)) {
			r = gk_config_device_set(config, "remote", json_string_value(uri), why,
						 why_size);
		} else {
			snprintf(why, why_size, "remote: expected an NBD URI or a list of them");
			r = -EINVAL;
		}
	}
	return r;
}

static int make_config(const struct gk_daemon *daemon, const json_t *remote, const char *name,
		       json_t *keys, char *why, size_t why_size, struct gk_device_config **ret_config)
{
	struct gk_device_config *config;
	const char *key;
	json_t *value;
	int r = gk_config_device_copy(&daemon->config->defaults, &config);

	if (r)
		return r;
	r = set_remotes(config, remote, why, why_size);
	json_object_foreach(keys, key, value)
		if (!r)
			r = set_key(config, key, value, why, why_size);
	if (!r && (gk_config_device_bad_remotes(config) || gk_config_device_bad_tls(config))) {
		const char *remotes = gk_config_device_bad_remotes(config);

		snprintf(why, why_size, "%s: %s", remotes ? "remote" : "tls",
			 remotes ? remotes : gk_config_device_bad_tls(config));
		r = -EINVAL;
	}
	if (!r && name)
		r = gk_config_device_set(config, "name", name, why, why_size);
	else if (!r && !config->name)
		r = choose_name(daemon, config, why, why_size);
	if (r)
		gk_config_device_free(config);
	else
		*ret_config = config;
	return r;
}

/* Takes the step (malloc()). */
static json_t *start_one(struct gk_daemon *daemon, struct gk_step *step, gk_job_done_fn *done,
			 uint64_t ticket)
{
	int r = gk_devices_start(&daemon->devices, step, 1, false, done, daemon, ticket);

	return r ? gk_control_error("failed", "cannot start a thread: %s", gk_strerror(r)) : NULL;
}

static json_t *attach(struct gk_daemon *daemon, uint64_t ticket, const json_t *request)
{
	struct gk_device_config *config;
	struct gk_step *step;
	const char *command;
	const char *name = NULL;
	json_t *remote = NULL;
	json_t *keys = NULL;
	char why[1024] = "out of memory";
	json_t *answer = UNPACK(request, "{s:s, s:o, s?:s, s?:o}", "command", &command, "remote",
				&remote, "name", &name, "keys", &keys);
	int r;

	if (answer)
		return answer;
	if (keys && !json_is_object(keys))
		return gk_control_error("bad-request", "keys: expected an object");
	r = make_config(daemon, remote, name, keys, why, sizeof(why), &config);
	if (r)
		return gk_control_error(r == -EINVAL ? "bad-request" : "failed", "%s", why);
	if (gk_devices_find(&daemon->devices, config->name)) {
		answer = gk_control_error("exists", "a device is named %s already: detach that one, "
					  "or choose another name", config->name);
		gk_config_device_free(config);
		return answer;
	}
	step = calloc(1, sizeof(*step));
	if (!step) {
		gk_config_device_free(config);
		return no_memory();
	}
	step->attach = true;
	step->entry = gk_devices_add(&daemon->devices, config, false);
	if (step->entry)
		return start_one(daemon, step, attach_done, ticket);
	free(step);
	return no_memory();
}

static void detach_done(void *arg, uint64_t ticket, struct gk_step *steps, size_t n_steps)
{
	struct gk_daemon *daemon = arg;
	json_t *answer;

	(void)n_steps;
	if (steps->result)
		answer = step_error(steps, "cannot detach");
	else
		answer = gk_control_ok(json_pack("{s:s, s:b, s:o}", "name", steps->name,
						 "cancelled", 0, "warning",
						 gk_control_text(steps->why)));
	gk_control_answer(daemon->control, ticket, answer);
}

static json_t *start_detach(struct gk_daemon *daemon, struct gk_entry *entry, bool force,
			    uint64_t ticket)
{
	struct gk_step *step = calloc(1, sizeof(*step));

	if (!step)
		return no_memory();
	*step = (struct gk_step){.entry = entry, .force = force};
	return start_one(daemon, step, detach_done, ticket);
}

void gk_requests_gone(struct gk_daemon *daemon, const struct gk_step *step)
{
	struct gk_entry *entry = step->entry;
	json_t *answer = NULL;
	uint64_t ticket = entry ? entry->detach_ticket : step->detach_ticket;

	if (!ticket)
		return;
	if (entry) {
		/* It was being tried once more: now what is left of it can go. */
		entry->detach_ticket = 0;
		answer = start_detach(daemon, entry, entry->detach_force, ticket);
	} else {
		answer = gk_control_ok(json_pack("{s:s, s:b}", "name", step->name, "cancelled", 1));
	}
	if (answer)
		gk_control_answer(daemon->control, ticket, answer);
}

static json_t *detach(struct gk_daemon *daemon, uint64_t ticket, const json_t *request)
{
	const char *command;
	const char *name;
	int force = 0;
	json_t *answer = UNPACK(request, "{s:s, s:s, s?:b}", "command", &command, "name", &name,
				"force", &force);
	struct gk_entry *entry;

	if (answer)
		return answer;
	entry = gk_devices_find(&daemon->devices, name);
	if (entry && entry->state == GK_ENTRY_ATTACHING && !entry->detach_ticket) {
		if (gk_devices_cancel(&daemon->devices, entry)) {
			entry->detach_ticket = ticket;
			entry->detach_force = force;
			return NULL;
		}
		/* Too late: it has come up, or failed, in this moment. */
		gk_devices_step(&daemon->devices);
		entry = gk_devices_find(&daemon->devices, name);
	}
	if (!entry)
		return not_found(name);
	if (entry->state == GK_ENTRY_DETACHING || entry->detach_ticket)
		return gk_control_error("busy", "%s is being detached already", name);
	return start_detach(daemon, entry, force, ticket);
}

static json_t *log_level(struct gk_daemon *daemon, uint64_t ticket, const json_t *request)
{
	enum gk_log_level level = gk_log_get_level();
	const char *name = NULL;
	const char *command;
	json_t *answer = UNPACK(request, "{s:s, s?:s}", "command", &command, "level", &name);

	(void)daemon;
	(void)ticket;
	if (answer)
		return answer;
	if (name && !gk_config_log_level(name, &level))
		return gk_control_error("bad-request",
					"level: expected error, warning, info or debug");
	gk_log_set_level(level);
	return gk_control_ok(json_pack("{s:s}", "level", gk_config_log_level_name(level)));
}

static json_t *probe(struct gk_daemon *daemon, uint64_t ticket, const json_t *request)
{
	const char *command;
	json_t *answer = UNPACK(request, "{s:s}", "command", &command);

	(void)ticket;
	return answer ? answer : gk_control_ok(gk_cmd_probe_host(&daemon->probe));
}

/* -- reload -- */

static void reload_done(void *arg, uint64_t ticket, struct gk_step *steps, size_t n_steps);

struct mistakes {
	char text[3072];
	unsigned int n;
};

static void note_mistake(void *arg, const char *message)
{
	struct mistakes *mistakes = arg;
	size_t n = strlen(mistakes->text);

	gk_log(GK_LOG_ERROR, "%s", message);
	snprintf(mistakes->text + n, sizeof(mistakes->text) - n, "\n%s", message);
	mistakes->n++;
}

/* What only counts at the start. */
static void compare_start(const struct gk_daemon *daemon, const struct gk_config *config)
{
	const struct {
		const char *key, *is, *would_be;
	} texts[] = {
		{"state_dir", daemon->state_dir, config->state_dir},
		{"control.socket", daemon->control_socket, config->control_socket},
		{"control.metrics", daemon->metrics_address, config->metrics},
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (strcmp(texts[i].is, texts[i].would_be))
			gk_log(GK_LOG_WARNING, "reload: %s is \"%s\" and stays so until gkproxy is "
			       "started again", texts[i].key, texts[i].is);
}

static bool is_in(const struct gk_config *config, const char *name)
{
	for (size_t i = 0; i < config->n_devices; i++)
		if (!strcmp(config->devices[i].name, name))
			return true;
	return false;
}

/*
 * First those that go, so that their ids are free for those that come. What waits is tried as the file
 * now is.
 */
static size_t plan_reload(struct gk_daemon *daemon, const struct gk_config *config,
			  struct gk_step *steps)
{
	struct gk_devices *devices = &daemon->devices;
	size_t n = 0;


	for (size_t i = 0; i < devices->n_entries; i++) {
		struct gk_entry *entry = devices->entries[i];

		if (entry->from_file && !is_in(config, entry->config->name))
			steps[n++] = (struct gk_step){.entry = entry};
	}
	for (size_t i = 0; i < config->n_devices; i++) {
		struct gk_entry *entry = gk_devices_find(devices, config->devices[i].name);
		struct gk_device_config *copy;
		bool waits = entry && entry->state == GK_ENTRY_WAITING;
		int r;

		if (entry && !waits) {
			entry->from_file = true;
			continue;
		}
		if (waits)
			gk_devices_forget(devices, entry);
		r = gk_config_device_copy(&config->devices[i], &copy);
		entry = r ? NULL : gk_devices_add(devices, copy, true);
		if (!entry) {
			gk_log(GK_LOG_ERROR, "reload: out of memory for %s", config->devices[i].name);
			continue;
		}
		entry->keep_trying = waits;
		steps[n++] = (struct gk_step){.entry = entry, .attach = true};
	}
	return n;
}

/* Also for the log, since nobody hears the answer to SIGHUP. */
static json_t *reload_failed(const char *why)
{
	gk_log(GK_LOG_ERROR, "reload: %s: nothing was changed", why);
	return gk_control_error("failed", "%s: nothing was changed", why);
}

json_t *gk_requests_reload(struct gk_daemon *daemon, uint64_t ticket)
{
	struct mistakes mistakes = {.n = 0};
	struct gk_config *config;
	struct gk_step *steps;
	struct timespec ts;
	char state[64], why[128];
	size_t n;
	int r;

	if (!daemon->ready || daemon->devices.jobs)
		return gk_control_error("busy", "a device is being attached or detached: try again "
					"when that has ended");
	r = gk_config_load(daemon->config->path, note_mistake, &mistakes, &config);
	if (r == -ENOMEM)
		return reload_failed("out of memory");
	if (r) {
		gk_log(GK_LOG_ERROR, "reload: nothing was changed");
		return gk_control_error("mistakes", "%u mistake%s in the file, nothing was changed:%s",
					mistakes.n, mistakes.n == 1 ? "" : "s", mistakes.text);
	}
	steps = calloc(config->n_devices + daemon->devices.n_entries, sizeof(*steps));
	if (!steps) {
		gk_config_free(config);
		return reload_failed("out of memory");
	}
	clock_gettime(CLOCK_MONOTONIC, &ts);
	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%lld",
		 (long long)ts.tv_sec * 1000000 + ts.tv_nsec / 1000);
	gk_notify(state);
	compare_start(daemon, config);
	if (config->log_level != daemon->config->log_level)
		gk_log_set_level(config->log_level);
	n = plan_reload(daemon, config, steps);
	gk_config_free(daemon->config);
	daemon->config = config;
	r = gk_devices_start(&daemon->devices, steps, n, false, reload_done, daemon, ticket);
	if (!r)
		return NULL;
	gk_notify("READY=1");
	snprintf(why, sizeof(why), "cannot start a thread: %s", gk_strerror(r));
	return reload_failed(why);
}

static void report_unchanged(struct gk_daemon *daemon, const struct gk_step *steps, size_t n_steps,
			     json_t *unchanged, json_t *changed, json_t *failed)
{
	const struct gk_config *config = daemon->config;

	for (size_t i = 0; i < config->n_devices; i++) {
		const struct gk_entry *entry =
			gk_devices_find(&daemon->devices, config->devices[i].name);
		char why[600];
		bool is_new = false;

		for (size_t s = 0; s < n_steps; s++)
			is_new |= !strcmp(steps[s].name, config->devices[i].name);
		if (!entry && !is_new)
			json_array_append_new(failed, json_pack("{s:s, s:s}", "name",
								config->devices[i].name, "error",
								"out of memory"));
		if (!entry || is_new)
			continue;
		if (gk_config_device_same(entry->config, &config->devices[i], why, sizeof(why))) {
			json_array_append_new(unchanged, json_string(entry->config->name));
			continue;
		}
		gk_log(GK_LOG_WARNING, "reload: %s is left as it is: %s; detach it and reload to "
		       "change it", entry->config->name, why);
		json_array_append_new(changed, json_pack("{s:s, s:o}", "name", entry->config->name,
							 "difference", gk_control_text(why)));
	}
}

static void reload_done(void *arg, uint64_t ticket, struct gk_step *steps, size_t n_steps)
{
	struct gk_daemon *daemon = arg;
	json_t *attached = json_array();
	json_t *detached = json_array();
	json_t *unchanged = json_array();
	json_t *changed = json_array();
	json_t *failed = json_array();

	report_unchanged(daemon, steps, n_steps, unchanged, changed, failed);
	for (size_t i = 0; i < n_steps; i++) {
		if (steps[i].result)
			json_array_append_new(
				failed, json_pack("{s:s, s:o}", "name", steps[i].name, "error",
						  gk_control_text(steps[i].why[0]
									  ? steps[i].why
									  : gk_strerror(steps[i].result))));
		else
			json_array_append_new(steps[i].attach ? attached : detached,
					      json_string(steps[i].name));
		gk_requests_gone(daemon, &steps[i]);
	}
	gk_log(GK_LOG_INFO, "reload: %zu attached, %zu detached, %zu unchanged, %zu changed and left "
	       "as they are, %zu failed", json_array_size(attached), json_array_size(detached),
	       json_array_size(unchanged), json_array_size(changed), json_array_size(failed));
	gk_notify("READY=1");
	gk_control_answer(daemon->control, ticket,
			  gk_control_ok(json_pack("{s:o, s:o, s:o, s:o, s:o}", "attached", attached,
						  "detached", detached, "unchanged", unchanged,
						  "changed", changed, "failed", failed)));
}

static json_t *reload(struct gk_daemon *daemon, uint64_t ticket, const json_t *request)
{
	const char *command;
	json_t *answer = UNPACK(request, "{s:s}", "command", &command);

	return answer ? answer : gk_requests_reload(daemon, ticket);
}

json_t *gk_requests_handle(void *arg, uint64_t ticket, const json_t *request)
{
	static const struct {
		const char *name;
		json_t *(*carry_out)(struct gk_daemon *daemon, uint64_t ticket, const json_t *request);
		bool when_ready; /* only once the devices of the file are up */
	} commands[] = {
		{"status", status, false},
		{"log-level", log_level, false},
		{"probe", probe, false},
		{"attach", attach, true},
		{"detach", detach, true},
		{"reload", reload, true},
	};
	struct gk_daemon *daemon = arg;
	const char *command = json_string_value(json_object_get(request, "command"));

	for (size_t i = 0; command && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(commands[i].name, command))
			continue;
		if (commands[i].when_ready && daemon->ending)
			return gk_control_error("ending", "gkproxy is ending");
		if (commands[i].when_ready && !daemon->ready)
			return gk_control_error("not-ready", "the devices of the file are still "
						"being attached: try again later");
		return commands[i].carry_out(daemon, ticket, request);
	}
	return gk_control_error("unknown-command", "command: expected status, attach, detach, reload, "
				"log-level or probe");
}
