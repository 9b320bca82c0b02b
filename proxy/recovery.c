// SPDX-License-Identifier: MIT
#include "recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "log.h"
#include "udev_name.h"

/* The upper bits of ublksrv_flags say whose device it is, the lower ones which. */
#define COOKIE_MARK UINT64_C(0x676b) /* "gk" */

uint64_t gk_recovery_cookie(void)
{
	uint64_t cookie = 0;

	if (getrandom(&cookie, sizeof(cookie), 0) < 0)
		cookie = (uint64_t)getpid();
	return COOKIE_MARK << 48 | cookie >> 16;
}

bool gk_recovery_is_cookie(uint64_t ublksrv_flags)
{
	return ublksrv_flags >> 48 == COOKIE_MARK;
}

static void note_path(const char *state_dir, const char *name, char *ret_path)
{
	snprintf(ret_path, PATH_MAX, "%s/%s.json", state_dir, name);
}

int gk_recovery_save(const char *state_dir, const struct gk_device_config *config, int dev_id,
		     uint64_t cookie)
{
	char path[PATH_MAX];
	char new_path[PATH_MAX + 4];
	char hex[20];
	json_t *note;
	int r = 0;

	note_path(state_dir, config->name, path);
	snprintf(new_path, sizeof(new_path), "%s.new", path);
	snprintf(hex, sizeof(hex), "%016" PRIx64, cookie);
	note = json_pack("{s:i, s:s, s:s}", "dev_id", dev_id, "cookie", hex, "export",
			 config->remotes[0].export_name);
	if (!note || json_dump_file(note, new_path, JSON_INDENT(2)) < 0 ||
	    rename(new_path, path) < 0) {
		r = errno ? -errno : -EIO;
		gk_log(GK_LOG_WARNING, "%s: cannot write %s: %s: should gkproxy die, the device "
		       "will not be found again", config->name, path, gk_strerror(r));
	}
	json_decref(note);
	return r;
}

bool gk_recovery_is_noted(const char *state_dir, const char *name)
{
	char path[PATH_MAX];

	note_path(state_dir, name, path);
	return access(path, F_OK) == 0 || errno != ENOENT;
}

void gk_recovery_forget(const char *state_dir, const char *name)
{
	char path[PATH_MAX];

	note_path(state_dir, name, path);
	unlink(path);
}

/* 1 when the device is the one that was noted and lives, 0 when it does not, or -errno: not known. */
static int is_there(struct gk_ublk_ctrl *ctrl, uint64_t cookie, struct gk_kept_device *kept)
{
	int r = gk_ublk_ctrl_get_info(ctrl, &kept->info);

	if (!r && (kept->info.ublksrv_flags != cookie || kept->info.state == UBLK_S_DEV_DEAD))
		return 0;
	if (!r)
		r = gk_ublk_ctrl_get_params(ctrl, kept->info.dev_id, &kept->params);
	/* -EINVAL: one of an unprivileged user, which ours is not. */
	if (r == -ENODEV || r == -EINVAL)
		return 0;
	return r ? r : 1;
}

int gk_recovery_find(struct gk_ublk_ctrl *ctrl, const char *state_dir,
		     const struct gk_device_config *config, struct gk_kept_device *ret_kept)
{
	struct gk_kept_device kept = {0};
	char path[PATH_MAX];
	const char *hex;
	const char *export;
	json_t *note;
	int r = 0;

	note_path(state_dir, config->name, path);
	/* A note that is there and cannot be read must not end in a second device. */
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	errno = 0;
	note = json_load_file(path, 0, NULL);
	if (!note && errno) {
		r = -errno;
		gk_log(GK_LOG_ERROR, "%s: cannot read %s, where a former gkproxy noted its device: %s",
		       config->name, path, gk_strerror(r));
		return r;
	}
	if (!note)
		return 0;
	hex = json_string_value(json_object_get(note, "cookie"));
	export = json_string_value(json_object_get(note, "export"));
	kept.info.dev_id = (uint32_t)json_integer_value(json_object_get(note, "dev_id"));
	if (hex && export)
		r = is_there(ctrl, strtoull(hex, NULL, 16), &kept);
	if (r < 0) {
		gk_log(GK_LOG_ERROR, "%s: cannot find out what became of /dev/ublkb%u, which a former "
		       "gkproxy made: %s", config->name, kept.info.dev_id, gk_strerror(r));
	} else if (r) {
		if (strcmp(export, config->remotes[0].export_name) != 0) {
			gk_log(GK_LOG_ERROR,
			       "%s: /dev/ublkb%u was attached to export \"%s\" and still is: it "
			       "cannot be taken over for export \"%s\"",
			       config->name, kept.info.dev_id, export,
			       config->remotes[0].export_name);
			r = -ESTALE;
		}
		*ret_kept = kept;
	} else {
		unlink(path);
		gk_udev_name_forget((int)kept.info.dev_id, config->name, -1);
	}
	json_decref(note);
	return r;
}

int gk_recovery_remove(struct gk_ublk_ctrl *ctrl, const char *state_dir, const char *name,
		       const struct gk_kept_device *kept)
{
	uint32_t id = kept->info.dev_id;
	int r = gk_ublk_ctrl_stop(ctrl, id, NULL, NULL);

	if (!r)
		r = gk_ublk_ctrl_del(ctrl, id);
	/* Somebody has it open still, and gets errors. */
	if (r && r != -EBUSY) {
		gk_log(GK_LOG_ERROR, "%s: cannot remove /dev/ublkb%u, which a former gkproxy left: %s",
		       name, id, gk_strerror(r));
		return r;
	}
	gk_log(GK_LOG_INFO, "%s: /dev/ublkb%u, which a former gkproxy left, is removed", name, id);
	gk_udev_name_forget((int)id, name, -1);
	gk_recovery_forget(state_dir, name);
	return 0;
}

static int differs(char *why, size_t why_size, const char *what, unsigned long long kept,
		   unsigned long long wanted)
{
	snprintf(why, why_size, "%s is %llu there and would be %llu now", what, kept, wanted);
	return -ESTALE;
}

int gk_recovery_compare(const struct gk_device_config *config, const struct gk_kept_device *kept,
			const struct gk_device_plan *plan, char *why, size_t why_size)
{
	const struct ublksrv_ctrl_dev_info *info = &kept->info;
	const struct ublk_param_basic *was = &kept->params.basic;
	const struct ublk_param_basic *now = &plan->params.basic;

	if (config->id >= 0 && (uint32_t)config->id != info->dev_id)
		return differs(why, why_size, "id", info->dev_id, (unsigned int)config->id);
	if (config->queues && config->queues != info->nr_hw_queues)
		return differs(why, why_size, "queues", info->nr_hw_queues, config->queues);
	if (config->queue_depth != info->queue_depth)
		return differs(why, why_size, "queue_depth", info->queue_depth, config->queue_depth);
	if (was->logical_bs_shift != now->logical_bs_shift)
		return differs(why, why_size, "the block size", 1ULL << was->logical_bs_shift,
			       1ULL << now->logical_bs_shift);
	if (was->dev_sectors > now->dev_sectors)
		return differs(why, why_size, "the size in sectors", was->dev_sectors,
			       now->dev_sectors);
	if ((was->attrs ^ now->attrs) & UBLK_ATTR_READ_ONLY)
		return differs(why, why_size, "read-only", !!(was->attrs & UBLK_ATTR_READ_ONLY),
			       !!(now->attrs & UBLK_ATTR_READ_ONLY));
	/* What the kernel may send, the server must take. */
	if (was->attrs & ~now->attrs & (UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA))
		return differs(why, why_size, "support of flush and FUA", was->attrs, now->attrs);
	if (kept->params.types & UBLK_PARAM_TYPE_DISCARD &&
	    (kept->params.discard.max_discard_sectors > plan->params.discard.max_discard_sectors ||
	     kept->params.discard.max_write_zeroes_sectors >
		     plan->params.discard.max_write_zeroes_sectors))
		return differs(why, why_size, "support of trim and zeroes", 1, 0);
	return 0;
}
