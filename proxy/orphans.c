// SPDX-License-Identifier: MIT
#include "orphans.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "log.h"
#include "recovery.h"
#include "ublk_ctrl.h"

#define CLASS_DIR "/sys/class/ublk-char"

/* What is known of a device, from the kernel and from the note of the gkproxy that made it. */
struct found {
	struct ublksrv_ctrl_dev_info info;
	uint64_t size_bytes;
	bool ours;
	char name[NAME_MAX + 1]; /* "": not known */
};

/*
 * Whether a process holds the lock of a device name. The lock is not tried: a daemon that starts
 * in that moment would be refused it. proc_locks(5).
 */
static bool is_locked(const char *state_dir, const char *name)
{
	char path[PATH_MAX];
	char wanted[64];
	char *line = NULL;
	size_t size = 0;
	bool locked = false;
	struct stat st;
	FILE *locks;

	snprintf(path, sizeof(path), "%s/%s.lock", state_dir, name);
	if (stat(path, &st) < 0)
		return false;
	snprintf(wanted, sizeof(wanted), " %02x:%02x:%ju ", major(st.st_dev), minor(st.st_dev),
		 (uintmax_t)st.st_ino);
	locks = fopen("/proc/locks", "re");
	while (locks && !locked && getline(&line, &size, locks) > 0)
		locked = strstr(line, " FLOCK ") && strstr(line, wanted);
	free(line);
	if (locks)
		fclose(locks);
	return locked;
}

/* Finds the note whose cookie the device bears. */
static void find_name(const char *state_dir, struct found *found)
{
	DIR *dir = opendir(state_dir);
	struct dirent *entry;

	while (dir && !found->name[0] && (entry = readdir(dir))) {
		char path[PATH_MAX];
		size_t len = strlen(entry->d_name);
		const char *hex;
		json_t *note;

		if (len <= 5 || strcmp(entry->d_name + len - 5, ".json") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", state_dir, entry->d_name);
		note = json_load_file(path, 0, NULL);
		hex = json_string_value(json_object_get(note, "cookie"));
		if (hex && strtoull(hex, NULL, 16) == found->info.ublksrv_flags)
			snprintf(found->name, sizeof(found->name), "%.*s", (int)len - 5,
				 entry->d_name);
		json_decref(note);
	}
	if (dir)
		closedir(dir);
}

static bool is_alive(int pid)
{
	return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

/* 1 and *ret_found when nobody serves the device, 0 when somebody does, or -errno. */
static int look_at(struct gk_ublk_ctrl *ctrl, const char *state_dir, unsigned int id,
		   struct found *ret_found)
{
	struct found found = {.info.dev_id = id};
	struct ublk_params params;
	int r = gk_ublk_ctrl_get_info(ctrl, &found.info);

	if (r)
		return r;
	/* LIVE with a server that is gone: the kernel is about to notice. */
	if (found.info.state == UBLK_S_DEV_LIVE && is_alive(found.info.ublksrv_pid))
		return 0;
	found.ours = gk_recovery_is_cookie(found.info.ublksrv_flags);
	if (found.ours)
		find_name(state_dir, &found);
	if (found.name[0] && is_locked(state_dir, found.name))
		return 0;
	if (!gk_ublk_ctrl_get_params(ctrl, id, &params))
		found.size_bytes = params.basic.dev_sectors << 9;
	*ret_found = found;
	return 1;
}

static const char *state_name(const struct found *found)
{
	switch (found->info.state) {
	case UBLK_S_DEV_QUIESCED:
		return "quiesced";
	case UBLK_S_DEV_FAIL_IO:
		return "failing";
	case UBLK_S_DEV_LIVE:
		return "abandoned";
	}
	return "dead";
}

static const char *recover_text(const struct found *found)
{
	bool kept = found->info.flags & UBLK_F_USER_RECOVERY &&
		    found->info.state != UBLK_S_DEV_DEAD;

	if (!kept)
		return "not possible: the kernel does not keep this device for another server";
	if (!found->ours)
		return "by the program that made it, which is not gkproxy";
	if (found->name[0])
		return "start gkproxy with the configuration that it had: gkproxy -c FILE";
	return "not possible: no note of it is in the state directory (another one? --state-dir)";
}

static json_t *describe(const struct found *found)
{
	json_t *remove = json_sprintf("gkproxy probe --remove %u", found->info.dev_id);

	return json_pack("{s:i, s:o, s:s, s:I, s:b, s:s?, s:s, s:o}", "id", (int)found->info.dev_id,
			 "path", json_sprintf("/dev/ublkb%u", found->info.dev_id), "state",
			 state_name(found), "size_bytes", (json_int_t)found->size_bytes, "gkproxy",
			 found->ours, "name", found->name[0] ? found->name : NULL, "recover",
			 recover_text(found), "remove", remove);
}

static int by_number(const void *a, const void *b)
{
	unsigned int x = *(const unsigned int *)a;
	unsigned int y = *(const unsigned int *)b;

	return x < y ? -1 : x > y;
}

/* The ids of all ublk devices, in order: *ret_ids is the caller's. How many, or -ENOMEM. */
static int list_ids(unsigned int **ret_ids)
{
	DIR *dir = opendir(CLASS_DIR);
	struct dirent *entry;
	unsigned int *ids = NULL;
	int n = 0;

	while (dir && (entry = readdir(dir))) {
		unsigned int *more;
		unsigned int id;

		if (sscanf(entry->d_name, "ublkc%u", &id) != 1)
			continue;
		more = realloc(ids, ((size_t)n + 1) * sizeof(*ids));
		if (!more) {
			free(ids);
			closedir(dir);
			return -ENOMEM;
		}
		ids = more;
		ids[n++] = id;
	}
	if (dir)
		closedir(dir);
	if (n)
		qsort(ids, (size_t)n, sizeof(*ids), by_number);
	*ret_ids = ids;
	return n;
}

json_t *gk_orphans_json(const char *state_dir)
{
	json_t *orphans = json_array();
	struct gk_ublk_ctrl ctrl;
	unsigned int *ids = NULL;
	int n = list_ids(&ids);

	if (n > 0 && !gk_ublk_ctrl_open(&ctrl)) {
		for (int i = 0; i < n; i++) {
			struct found found;

			if (look_at(&ctrl, state_dir, ids[i], &found) > 0)
				json_array_append_new(orphans, describe(&found));
		}
		gk_ublk_ctrl_close(&ctrl);
	}
	free(ids);
	return orphans;
}

void gk_orphans_print(const json_t *orphans)
{
	const json_t *o;
	size_t i;

	if (!json_array_size(orphans)) {
		printf("devices that no process serves: none\n");
		return;
	}
	printf("devices that no process serves\n");
	json_array_foreach(orphans, i, o) {
		const char *name = json_string_value(json_object_get(o, "name"));

		printf("  %s  %s, %" JSON_INTEGER_FORMAT " bytes, %s%s%s\n    recover: %s\n"
		       "    remove: %s (what waits in it fails)\n",
		       json_string_value(json_object_get(o, "path")),
		       json_string_value(json_object_get(o, "state")),
		       json_integer_value(json_object_get(o, "size_bytes")),
		       json_is_true(json_object_get(o, "gkproxy")) ? "gkproxy's" : "not gkproxy's",
		       name ? " " : "", name ? name : "",
		       json_string_value(json_object_get(o, "recover")),
		       json_string_value(json_object_get(o, "remove")));
	}
}

static int remove_found(struct gk_ublk_ctrl *ctrl, const char *state_dir, const struct found *found)
{
	int r = 0;

	if (found->info.state != UBLK_S_DEV_DEAD)
		r = gk_ublk_ctrl_stop(ctrl, found->info.dev_id, NULL, NULL);
	if (!r)
		r = gk_ublk_ctrl_del(ctrl, found->info.dev_id);
	if (r) {
		fprintf(stderr, "gkproxy: cannot remove /dev/ublkb%u: %s\n", found->info.dev_id,
			gk_strerror(r));
		return 1;
	}
	if (found->name[0])
		gk_recovery_forget(state_dir, found->name);
	printf("/dev/ublkb%u is removed\n", found->info.dev_id);
	return 0;
}

int gk_orphans_remove(const char *state_dir, unsigned int id)
{
	struct gk_ublk_ctrl ctrl;
	struct found found;
	int status = 1;
	int r;

	if (gk_ublk_ctrl_open(&ctrl))
		return 1;
	r = look_at(&ctrl, state_dir, id, &found);
	if (r > 0)
		status = remove_found(&ctrl, state_dir, &found);
	else if (!r)
		fprintf(stderr, "gkproxy: /dev/ublkb%u is being served: detach it there, or stop that "
			"process first\n", id);
	else
		fprintf(stderr, "gkproxy: there is no ublk device %u: %s\n", id, gk_strerror(r));
	gk_ublk_ctrl_close(&ctrl);
	return status;
}
