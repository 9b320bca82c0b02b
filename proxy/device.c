// SPDX-License-Identifier: MIT
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "datapath.h"
#include "device_queues.h"
#include "fence_child.h"
#include "join.h"
#include "log.h"
#include "memory.h"
#include "udev_name.h"
#include "writeback.h"

#define FENCE_SLACK_MS	  2000 /* beyond fence_timeout, which is watched by a tick */
#define IMPATIENT_SECONDS 1  /* for a server to answer something, while a device is forced out */
#define TAKE_OVER_SECONDS 60 /* how long the kernel may take to let go of the old daemon */

/* One daemon per device name: two of them writing to one export would destroy it. */
static int take_lock(struct gk_device *device, const char *state_dir)
{
	char pid[32] = "";
	struct stat st;

	if (asprintf(&device->lock_path, "%s/%s.lock", state_dir, device->config->name) < 0) {
		device->lock_path = NULL;
		gk_log(GK_LOG_ERROR, "%s: cannot attach: out of memory", device->config->name);
		return -ENOMEM;
	}
	for (;;) {
		int r;

		device->lock_fd = open(device->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (device->lock_fd < 0) {
			r = -errno;
			gk_log(GK_LOG_ERROR, "%s: cannot create %s: %s", device->config->name,
			       device->lock_path, gk_strerror(r));
			return r;
		}
		if (flock(device->lock_fd, LOCK_EX | LOCK_NB) < 0) {
			(void)!pread(device->lock_fd, pid, sizeof(pid) - 1, 0);
			gk_log(GK_LOG_ERROR,
			       "%s: already attached by the gkproxy with process id %s (%s): stop "
			       "that one first, or give this device another name",
			       device->config->name, pid[0] ? pid : "unknown", device->lock_path);
			close(device->lock_fd);
			device->lock_fd = -1;
			return -EBUSY;
		}
		/* The one who held it may have removed the file between our open and our lock. */
		if (fstat(device->lock_fd, &st) == 0 && st.st_nlink > 0)
			break;
		close(device->lock_fd);
	}
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (ftruncate(device->lock_fd, 0) < 0 ||
	    pwrite(device->lock_fd, pid, strlen(pid), 0) < 0)
		gk_log(GK_LOG_WARNING, "%s: cannot write to %s: %s", device->config->name,
		       device->lock_path, gk_strerror(errno));
	return 0;
}

static void drop_lock(struct gk_device *device)
{
	if (device->lock_fd >= 0) {
		unlink(device->lock_path);
		close(device->lock_fd);
	}
	free(device->lock_path);
}

struct gk_session_facts gk_device_session_facts(const struct gk_device *device,
						struct gk_dialled *dialled)
{
	const struct nbd_export_facts *facts = &dialled->facts;
	const struct gk_device_config *config = device->config;

	struct gk_tls_stream *tls = dialled->tls;

	dialled->tls = NULL;
	return (struct gk_session_facts){
		.tls = tls,
		.ktls = dialled->ktls,
		.tls_version = dialled->tls_version,
		.tls_cipher = dialled->tls_cipher,
		.structured = facts->structured,
		.df = facts->flags & NBD_FLAG_SEND_DF,
		.send_zc = config->send_zc &&
			   config->remotes[device->reconnect.remote].transport == GK_TRANSPORT_TCP,
		.max_payload = facts->block_max / device->plan.block_size * device->plan.block_size,
	};
}

struct gk_dial_options gk_device_dial_options(const struct gk_device *device, int cancel_fd)
{
	const struct gk_device_config *config = device->config;

	return (struct gk_dial_options){
		.mode = GK_NBD_HANDSHAKE_GO,
		.structured = config->structured_replies,
		.connect_timeout_s = config->connect_timeout_s,
		.tls = &config->tls,
		/*
		 * A peer that vanished does not keep the pages of SEND_ZC for ever. Later than
		 * request_timeout, which leaves the socket usable to see the connection's end.
		 */
		.user_timeout_s = config->request_timeout_s > 0
					  ? config->request_timeout_s + config->fence_timeout_s
					  : 0,
		.cancel_fd = cancel_fd,
	};
}

static int explain_add(const struct gk_device *device, int error)
{
	const char *name = device->config->name;

	if (error == -EEXIST)
		gk_log(GK_LOG_ERROR,
		       "%s: /dev/ublkb%d exists already: choose another id, or -1 for a free one",
		       name, device->config->id);
	else if (error == -EPERM || error == -EACCES)
		gk_log(GK_LOG_ERROR,
		       "%s: the kernel refuses a new ublk device (%s): run with CAP_SYS_ADMIN; "
		       "if you do, raise the ublks_max parameter of module ublk_drv", name,
		       gk_strerror(error));
	else
		gk_log(GK_LOG_ERROR, "%s: the kernel refuses a new ublk device: %s", name,
		       gk_strerror(error));
	return error;
}

static int open_cdev(struct gk_device *device)
{
	char path[32];
	int r;

	snprintf(path, sizeof(path), "/dev/ublkc%d", device->dev_id);
	device->cdev_fd = open(path, O_RDWR | O_CLOEXEC);
	if (device->cdev_fd >= 0)
		return 0;
	r = -errno;
	gk_log(GK_LOG_ERROR, "%s: cannot open %s: %s", device->config->name, path, gk_strerror(r));
	return r;
}

/* Takes over the device that a former daemon left: what add() is to a new one. */
static int take_over(struct gk_device *device)
{
	const struct ublksrv_ctrl_dev_info *info = &device->kept.info;
	struct timespec pause = {.tv_nsec = 50000000};
	char why[256];
	int r = gk_recovery_compare(device->config, &device->kept, &device->plan, why, sizeof(why));

	if (!r && device->n_connections < info->nr_hw_queues) {
		snprintf(why, sizeof(why), "it has %u queues, and the server takes %u connections",
			 info->nr_hw_queues, device->n_connections);
		r = -ESTALE;
	}
	if (r) {
		gk_log(GK_LOG_ERROR, "%s: /dev/ublkb%u, which a former gkproxy left, does not fit "
		       "any more: %s; undo that change, or remove the device",
		       device->config->name, info->dev_id, why);
		return r;
	}
	device->n_queues = info->nr_hw_queues;
	device->plan.max_io_bytes = info->max_io_buf_bytes;
	device->plan.size_bytes = device->kept.params.basic.dev_sectors << 9;
	device->cookie = info->ublksrv_flags;
	/* The kernel still ends what the daemon that died had under way; there is no event for it. */
	for (int tries = 0; tries < 20 * TAKE_OVER_SECONDS; tries++) {
		r = gk_ublk_ctrl_start_recovery(device->ctrl, info->dev_id);
		if (r != -EBUSY)
			break;
		nanosleep(&pause, NULL);
	}
	if (r) {
		gk_log(GK_LOG_ERROR, "%s: cannot take over /dev/ublkb%u: %s", device->config->name,
		       info->dev_id, gk_strerror(r));
		return r;
	}
	device->dev_id = (int)info->dev_id;
	return open_cdev(device);
}

static int add(struct gk_device *device)
{
	uint64_t flags = UBLK_F_CMD_IOCTL_ENCODE | device->path->ublk_flags | device->recovery_flags;
	struct ublksrv_ctrl_dev_info info = {
		.dev_id = (uint32_t)device->config->id,
		.nr_hw_queues = (uint16_t)device->n_queues,
		.queue_depth = (uint16_t)device->config->queue_depth,
		.max_io_buf_bytes = device->plan.max_io_bytes,
		.ublksrv_pid = -1,
		.flags = flags,
		.ublksrv_flags = device->cookie,
	};
	int r = gk_ublk_ctrl_add(device->ctrl, &info);

	if (r)
		return explain_add(device, r);
	device->dev_id = (int)info.dev_id;
	/* The kernel makes no more queues than it has CPUs. */
	device->n_queues = info.nr_hw_queues;
	r = open_cdev(device);
	if (r)
		return r;
	if (device->path->ublk_flags & ~info.flags) {
		gk_log(GK_LOG_ERROR, "%s: the kernel does not give the device what data path %s "
		       "needs (ublk flags 0x%llx): set data_path = \"copy\"", device->config->name,
		       device->path->name,
		       (unsigned long long)(device->path->ublk_flags & ~info.flags));
		return -EOPNOTSUPP;
	}
	r = gk_ublk_ctrl_set_params(device->ctrl, info.dev_id, &device->plan.params);
	if (r)
		gk_log(GK_LOG_ERROR, "%s: the kernel refuses the device's parameters (blocks of %u "
		       "bytes, requests of %u): %s", device->config->name, device->plan.block_size,
		       device->plan.max_io_bytes, gk_strerror(r));
	return r;
}

static void order(struct gk_device *device, bool abort)
{
	for (unsigned int i = 0; i < device->n_queues; i++)
		gk_mail_order(&device->queues[i].queue.mail, abort, true);
}

static bool is_cancelled(const struct gk_device *device)
{
	struct pollfd cancel = {.fd = device->cancel_fd, .events = POLLIN};

	return poll(&cancel, 1, 0) > 0;
}

/* The kernel waits for the partition table: who wants the device no more must not wait with it. */
static void start_is_stuck(void *arg)
{
	struct gk_device *device = arg;

	if (is_cancelled(device))
		order(device, true);
}

static int start_new(struct gk_device *device)
{
	int r = gk_ublk_ctrl_start(device->ctrl, (uint32_t)device->dev_id, start_is_stuck, device);

	return !r && is_cancelled(device) ? -ECANCELED : r;
}

void gk_device_grow(struct gk_device *device, uint64_t export_bytes)
{
	uint64_t old_bytes = device->plan.size_bytes;
	uint64_t bytes = export_bytes / device->plan.block_size * device->plan.block_size;
	int r;

	device->facts.size_bytes = export_bytes;
	if (bytes <= old_bytes)
		return;
	r = gk_ublk_ctrl_update_size(device->ctrl, (uint32_t)device->dev_id, bytes >> 9);
	if (r) {
		gk_log(GK_LOG_WARNING,
		       "dev%d: %s: the export grew to %" PRIu64 " bytes, which this kernel cannot "
		       "pass on (%s): detach and attach to see them",
		       device->dev_id, device->config->name, bytes, gk_strerror(r));
		return;
	}
	gk_log(GK_LOG_INFO, "dev%d: %s: the export grew from %" PRIu64 " to %" PRIu64 " bytes",
	       device->dev_id, device->config->name, old_bytes, bytes);
	__atomic_store_n(&device->plan.size_bytes, bytes, __ATOMIC_RELAXED);
}

static int start(struct gk_device *device, struct gk_dialled *dialled)
{
	int r = gk_device_queues_make(device, dialled);

	for (unsigned int i = 0; !r && i < device->n_queues; i++)
		r = gk_device_queue_start(device, i);
	if (!r && gk_udev_name_save(device->dev_id, device->config->name, &device->name_fd) < 0)
		return -EEXIST;
	if (!r && device->recovering)
		r = gk_ublk_ctrl_end_recovery(device->ctrl, (uint32_t)device->dev_id);
	else if (!r)
		r = start_new(device);
	if (!r && device->recovering)
		gk_device_grow(device, device->facts.size_bytes);
	if (!r)
		r = gk_reconnect_start(device);
	if (r)
		gk_log(GK_LOG_ERROR, "%s: cannot start /dev/ublkb%d: %s", device->config->name,
		       device->dev_id, gk_strerror(r));
	else
		device->live = true;
	if (!r && device->recovery_flags)
		(void)gk_recovery_save(device->state_dir, device->config, device->dev_id,
				       device->cookie);
	return r;
}

static int plan(struct gk_device *device)
{
	char why[256];
	int r = gk_plan_device(device->config, &device->facts, (uint32_t)sysconf(_SC_PAGESIZE), why,
			       sizeof(why), &device->plan);

	if (!r && device->config->unflushed == GK_UNFLUSHED_FUA &&
	    !(device->facts.flags & (NBD_FLAG_SEND_FUA | NBD_FLAG_READ_ONLY))) {
		snprintf(why, sizeof(why), "unflushed = \"fua\" needs a server with NBD_FLAG_SEND_FUA: "
			 "choose another policy");
		r = -EOPNOTSUPP;
	}
	if (r)
		gk_log(GK_LOG_ERROR, "%s: %s: %s", device->config->name,
		       device->config->remotes[device->reconnect.remote].text, why);
	else if (device->plan.tail_bytes)
		gk_log(GK_LOG_WARNING,
		       "%s: the export's size of %" PRIu64 " bytes is no multiple of its block size "
		       "of %u: the last %u bytes are left out", device->config->name,
		       device->facts.size_bytes, device->plan.block_size, device->plan.tail_bytes);
	return r;
}

/* Dials as many connections as are wanted and allowed. 0 and device->n_connections. */
static int dial(struct gk_device *device, int cancel_fd, unsigned int wanted,
		struct gk_dialled *dialled)
{
	const struct gk_device_config *config = device->config;
	struct gk_dial_options options = gk_device_dial_options(device, cancel_fd);
	char why[GK_DIAL_WHY_BYTES];
	int n = -ENOENT;

	for (size_t i = 0; i < config->n_remotes && n < 0 && n != -ECANCELED; i++) {
		n = gk_dial_parallel(&config->remotes[i], &options, wanted, why, sizeof(why),
				     dialled);
		device->reconnect.remote = i;
		if (n < 0)
			gk_log(GK_LOG_ERROR, "%s: %s", config->name, why);
	}
	if (n < 0)
		return n;
	device->n_connections = (unsigned int)n;
	device->facts = dialled[0].facts;
	gk_reconnect_set_peer(&device->reconnect, dialled[0].peer);
	gk_device_log_tls(device, &dialled[0]);
	return 0;
}

void gk_device_log_tls(const struct gk_device *device, const struct gk_dialled *dialled)
{
	const char *name = device->config->name;

	if (!dialled->tls_version)
		return;
	gk_log(GK_LOG_INFO, "%s: %s, %s (%s)", name, dialled->tls_version, dialled->tls_cipher,
	       gk_tls_stream_mode(dialled->tls_version, dialled->ktls));
	if (dialled->tls_warning[0])
		gk_log(GK_LOG_WARNING, "%s: %s", name, dialled->tls_warning);
}

/* TLS that the kernel does not do passes through user memory, whatever the data path. */
static void settle_path_for_tls(struct gk_device *device, const struct gk_dialled *dialled)
{
	const char *why = "TLS is done in user space: this kernel has none (modprobe tls), or not for "
			  "this cipher or transport, or tls.ktls forbids it";

	if (!dialled->tls || !device->path->kernel_buffers)
		return;
	if (device->recovering || device->config->data_path != GK_PATH_AUTO) {
		gk_log(GK_LOG_WARNING, "%s: data path %s copies all payload: %s", device->config->name,
		       device->path->name, why);
		return;
	}
	device->path = &gk_path_copy;
	snprintf(device->path_why, sizeof(device->path_why), "%s", why);
}

static void announce(const struct gk_device *device, unsigned int wanted)
{
	const char *alone = "";

	if (wanted > 1 && device->n_connections == 1)
		alone = " (the server does not advertise NBD_FLAG_CAN_MULTI_CONN)";
	gk_log(GK_LOG_INFO,
	       "dev%d: %s: /dev/ublkb%d is %s: %" PRIu64 " bytes, blocks of %u, %s, %u queue%s, "
	       "%u connection%s%s, data path %s%s%s%s, server %s",
	       device->dev_id, device->config->name, device->dev_id,
	       device->recovering ? "taken over" : "up", device->plan.size_bytes,
	       device->plan.block_size,
	       device->plan.params.basic.attrs & UBLK_ATTR_READ_ONLY ? "read-only" : "read-write",
	       device->n_queues, device->n_queues == 1 ? "" : "s", device->n_connections,
	       device->n_connections == 1 ? "" : "s", alone, device->path->name,
	       device->path_why[0] ? " (" : "", device->path_why, device->path_why[0] ? ")" : "",
	       device->reconnect.peer);
}

static int choose_path(struct gk_device *device, const struct gk_probe *probe)
{
	if (device->recovering) {
		enum gk_data_path wanted = device->config->data_path;
		char unused[512];

		device->path = gk_path_of_flags(device->kept.info.flags);
		if (wanted == GK_PATH_AUTO ||
		    gk_path_choose(wanted, probe, unused, sizeof(unused)) == device->path)
			return 0;
		gk_log(GK_LOG_ERROR, "%s: /dev/ublkb%u, which a former gkproxy left, has data path "
		       "%s: undo the change of data_path, or remove the device",
		       device->config->name, device->kept.info.dev_id, device->path->name);
		return -ESTALE;
	}
	device->path = gk_path_choose(device->config->data_path, probe, device->path_why,
				      sizeof(device->path_why));
	if (device->path)
		return 0;
	gk_log(GK_LOG_ERROR, "%s: this kernel cannot do the data path that is asked for: %s; set "
	       "data_path = \"auto\"", device->config->name, device->path_why);
	return -EOPNOTSUPP;
}

/* Memory is taken at attach or never: more than there is would end in the OOM killer. */
static int check_memory(const struct gk_device *device)
{
	struct gk_queue_params params = {
		.depth = device->config->queue_depth,
		.n_sessions = (device->n_connections + device->n_queues - 1) / device->n_queues,
		.max_io_bytes = device->plan.max_io_bytes,
		.path = device->path,
		.threshold_bytes = gk_path_threshold(
			device->path, device->config->zero_copy_threshold_bytes),
	};
	uint64_t needed = (uint64_t)gk_queue_bytes(&params) * device->n_queues;
	char limit[PATH_MAX];
	uint64_t available = gk_memory_available("", limit, sizeof(limit));

	if (needed <= available)
		return 0;
	gk_log(GK_LOG_ERROR,
	       "%s: its buffers need %" PRIu64 " MiB of memory (queue_depth %u, queues %u), and %s "
	       "has %" PRIu64 " MiB to spare: lower queue_depth or queues%s",
	       device->config->name, needed >> 20, params.depth, device->n_queues,
	       limit[0] ? limit : "this host", available >> 20,
	       limit[0] ? ", or raise that limit" : "");
	return -ENOMEM;
}

static int attach(struct gk_device *device, int cancel_fd)
{
	unsigned int n_cpus = (unsigned int)sysconf(_SC_NPROCESSORS_ONLN);
	unsigned int wanted = gk_plan_connections(device->config, n_cpus);
	unsigned int kept_queues = device->recovering ? device->kept.info.nr_hw_queues : 0;
	struct gk_dialled *dialled;
	int r = -ENOMEM;

	if (wanted < kept_queues)
		wanted = kept_queues;
	dialled = calloc(wanted, sizeof(*dialled));
	for (unsigned int i = 0; dialled && i < wanted; i++)
		dialled[i].fd = -1;
	if (dialled)
		r = gk_reconnect_init(&device->reconnect);
	if (r) {
		gk_log(GK_LOG_ERROR, "%s: cannot attach: %s", device->config->name, gk_strerror(r));
		goto out;
	}
	r = dial(device, cancel_fd, wanted, dialled);
	if (r)
		goto out;
	settle_path_for_tls(device, &dialled[0]);
	r = plan(device);
	if (r)
		goto out;
	device->n_queues = gk_plan_queues(device->config, device->n_connections, n_cpus);
	r = check_memory(device);
	if (r)
		goto out;
	r = device->recovering ? take_over(device) : add(device);
	if (!r)
		r = start(device, dialled);
	if (!r)
		announce(device, wanted);
out:
	for (unsigned int i = 0; dialled && i < wanted; i++)
		gk_dial_done(&dialled[i]);
	free(dialled);
	return r;
}

int gk_device_attach(struct gk_ublk_ctrl *ctrl, const struct gk_probe *probe,
		     const struct gk_device_config *config, const char *state_dir, int cancel_fd,
		     struct gk_device **ret_device)
{
	struct gk_device *device = malloc(sizeof(*device));
	int r;

	if (!device) {
		gk_log(GK_LOG_ERROR, "%s: cannot attach: out of memory", config->name);
		return -ENOMEM;
	}
	*device = (struct gk_device){
		.config = config,
		.ctrl = ctrl,
		.state_dir = state_dir,
		.dev_id = -1,
		.lock_fd = -1,
		.name_fd = -1,
		.fence_fd = -1,
		.cdev_fd = -1,
		.cookie = gk_recovery_cookie(),
		.cancel_fd = cancel_fd,
	};
	r = take_lock(device, state_dir);
	if (!r) {
		r = gk_recovery_find(ctrl, state_dir, config, &device->kept);
		device->recovering = r > 0 || r == -ESTALE;
	}
	if (r >= 0)
		r = choose_path(device, probe);
	/*
	 * With registered buffers too: the kernel takes requests back from a dead daemon only when
	 * their buffers are unregistered, which is when its ring, and with it every SEND and RECV on
	 * them, is gone (Linux 7.3, ublk_check_and_reset_active_ref()).
	 */
	if (!r && !probe->ublk_user_recovery)
		device->recovery_flags = UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE;
	if (!r && !device->recovery_flags && config->on_exit == GK_ON_EXIT_KEEP) {
		gk_log(GK_LOG_ERROR, "%s: on_exit = \"keep\" does not work: this kernel's ublk cannot "
		       "hand devices over", config->name);
		r = -EOPNOTSUPP;
	}
	if (!r)
		r = gk_fence_child_take(state_dir, config, device->recovering, cancel_fd,
					&device->fence_fd);
	if (!r)
		r = attach(device, cancel_fd);
	device->recovering = device->recovering && r;
	if (r)
		gk_device_detach(device);
	else
		*ret_device = device;
	return r;
}

void gk_device_hand_over(struct gk_device *device)
{
	gk_reconnect_stop(&device->reconnect);
	for (unsigned int i = 0; i < device->n_queues; i++)
		gk_mail_hand_over(&device->queues[i].queue.mail);
}

void gk_device_keep(struct gk_device *device)
{
	unsigned int ms = (unsigned int)(device->config->fence_timeout_s * 1000) + FENCE_SLACK_MS;

	if (!gk_device_queues_await_ends(device, ms))
		gk_log(GK_LOG_WARNING, "dev%d: %s: a connection did not end within fence_timeout: the "
		       "next gkproxy sends writes again that the server may still hold",
		       device->dev_id, device->config->name);
	gk_log(GK_LOG_INFO, "dev%d: %s: /dev/ublkb%d is kept: its requests wait for the next gkproxy "
	       "with this configuration", device->dev_id, device->config->name, device->dev_id);
}

static uint64_t requests_ended(const struct gk_device *device)
{
	uint64_t ended = 0;

	for (unsigned int i = 0; i < device->n_queues; i++)
		for (unsigned int op = 0; op < GK_OPS; op++)
			ended += gk_count_read(&device->queues[i].queue.counters.requests[op]);
	return ended;
}

/* STOP_DEV takes long: a server that answers slowly is waited for, one that does not is cut off. */
static void stop_is_stuck(void *arg)
{
	struct gk_device *device = arg;
	uint64_t ended = requests_ended(device);

	if (ended == device->last_progress) {
		gk_log(GK_LOG_ERROR, "dev%d: %s: the server does not answer: its connections are "
		       "cut, requests in flight fail", device->dev_id, device->config->name);
		order(device, true);
	}
	device->last_progress = ended;
}

static void *writeback_thread(void *arg)
{
	const struct gk_device *device = arg;

	gk_writeback(device->dev_id);
	return NULL;
}

/* On a thread of its own, so that a server that does not answer can be cut off meanwhile. */
static void write_back(struct gk_device *device)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, writeback_thread, device))
		return;
	while (!gk_join_within(thread, device->impatient ? IMPATIENT_SECONDS : GK_UBLK_STUCK_SECONDS))
		stop_is_stuck(device);
}

static void stop(struct gk_device *device)
{
	bool threads = false;
	int r;

	for (unsigned int i = 0; i < device->n_queues && device->queues; i++)
		threads |= device->queues[i].started;
	gk_reconnect_stop(&device->reconnect);
	if (!threads)
		return;
	device->last_progress = requests_ended(device);
	order(device, false);
	if (device->live)
		write_back(device);
	if (device->impatient)
		order(device, true);
	/* Also ends the commands of queues whose device was never started. */
	r = gk_ublk_ctrl_stop(device->ctrl, (uint32_t)device->dev_id, stop_is_stuck, device);
	if (r)
		gk_log(GK_LOG_ERROR, "dev%d: %s: cannot stop: %s", device->dev_id,
		       device->config->name, gk_strerror(r));
	for (unsigned int i = 0; i < device->n_queues; i++)
		if (device->queues[i].started)
			pthread_join(device->queues[i].thread, NULL);
}

void gk_device_detach(struct gk_device *device)
{
	int r;

	if (!device)
		return;
	if (device->recovering) {
		/* Whoever uses it waits until it can be taken over, by this daemon or another one. */
		gk_log(GK_LOG_ERROR, "%s: /dev/ublkb%u stays as it is, its requests wait",
		       device->config->name, device->kept.info.dev_id);
		/* Unless it got as far as threads, it can be tried again. */
		if (!device->queues) {
			gk_reconnect_done(&device->reconnect);
			if (device->cdev_fd >= 0)
				close(device->cdev_fd);
			gk_fence_child_let_go(device->state_dir, device->config->name,
					      device->fence_fd, false);
			drop_lock(device);
			free(device);
		}
		return;
	}
	stop(device);
	for (unsigned int i = 0; device->queues && i < device->n_queues; i++) {
		gk_ublk_queue_unmap(&device->queues[i].ublk);
		gk_queue_done(&device->queues[i].queue);
		sem_destroy(&device->queues[i].opened);
	}
	free(device->queues);
	if (device->fence_fd >= 0)
		gk_fence_child_drop_all(device->config->name);
	gk_reconnect_done(&device->reconnect);
	if (device->cdev_fd >= 0)
		close(device->cdev_fd);
	if (device->dev_id >= 0) {
		r = gk_ublk_ctrl_del(device->ctrl, (uint32_t)device->dev_id);
		if (r == -EBUSY)
			gk_log(GK_LOG_WARNING, "dev%d: %s: removed while it is mounted or open: "
			       "/dev/ublkb%d fails all requests, and its id is free when it is let go of",
			       device->dev_id, device->config->name, device->dev_id);
		else if (r)
			gk_log(GK_LOG_ERROR, "dev%d: %s: cannot remove: %s", device->dev_id,
			       device->config->name, gk_strerror(r));
		else if (device->live)
			gk_log(GK_LOG_INFO, "dev%d: %s: removed", device->dev_id,
			       device->config->name);
	}
	if (device->dev_id >= 0)
		gk_udev_name_forget(device->dev_id, device->config->name, device->name_fd);
	if (device->live)
		gk_recovery_forget(device->state_dir, device->config->name);
	gk_fence_child_let_go(device->state_dir, device->config->name, device->fence_fd, true);
	drop_lock(device);
	free(device);
}
