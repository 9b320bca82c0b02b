// SPDX-License-Identifier: MIT
#include "ublk_ctrl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

static void explain_open(int error)
{
	if (error == -ENOENT || error == -ENODEV || error == -ENXIO)
		gk_log(GK_LOG_ERROR,
		       "this kernel has no ublk (%s is missing): try 'modprobe ublk_drv'; if the "
		       "module does not exist, boot a kernel that has it (Debian 12's default 6.1 "
		       "does not: apt install linux-image-6.12-amd64, then reboot)",
		       UBLK_CONTROL_PATH);
	else if (error == -EACCES || error == -EPERM)
		gk_log(GK_LOG_ERROR, "no permission to use %s: run as root, or with CAP_SYS_ADMIN "
				     "and access to that file", UBLK_CONTROL_PATH);
	else
		gk_log(GK_LOG_ERROR, "cannot open %s: %s", UBLK_CONTROL_PATH, gk_strerror(error));
}

int gk_ublk_ctrl_open(struct gk_ublk_ctrl *ctrl)
{
	int r;

	ctrl->fd = open(UBLK_CONTROL_PATH, O_RDWR | O_CLOEXEC);
	if (ctrl->fd < 0) {
		r = -errno;
		explain_open(r);
		return r;
	}
	r = io_uring_queue_init(4, &ctrl->ring, IORING_SETUP_SQE128);
	if (r) {
		gk_log(GK_LOG_ERROR,
		       "io_uring is not available (%s): see sysctl kernel.io_uring_disabled, and "
		       "in a container its seccomp profile", gk_strerror(r));
		close(ctrl->fd);
		ctrl->fd = -1;
		return r;
	}
	pthread_mutex_init(&ctrl->lock, NULL);
	return 0;
}

void gk_ublk_ctrl_close(struct gk_ublk_ctrl *ctrl)
{
	if (ctrl->fd < 0)
		return;
	pthread_mutex_destroy(&ctrl->lock);
	io_uring_queue_exit(&ctrl->ring);
	close(ctrl->fd);
	ctrl->fd = -1;
}

static int command_locked(struct gk_ublk_ctrl *ctrl, const char *name, uint32_t op,
		   const struct ublksrv_ctrl_cmd *cmd, gk_ublk_stuck_fn *stuck, void *arg)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ctrl->ring);
	struct timespec pause = {.tv_nsec = 10000000};
	struct io_uring_cqe *cqe;
	unsigned int waited = 0;
	int r;

	assert(sqe); /* one command at a time on a ring of four */
	memset(sqe, 0, 128);
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = ctrl->fd;
	sqe->off = op;
	memcpy(sqe->cmd, cmd, sizeof(*cmd));
	/* What the kernel does not take, for want of memory, the next submit would send along. */
	while ((r = io_uring_submit(&ctrl->ring)) == -EAGAIN || r == -EINTR || r == -ENOMEM)
		nanosleep(&pause, NULL);
	if (r < 0)
		return r;
	/* The buffers of a command are the caller's, so it is never given up while it runs. */
	for (;;) {
		struct __kernel_timespec timeout = {.tv_sec = GK_UBLK_STUCK_SECONDS};

		r = io_uring_wait_cqe_timeout(&ctrl->ring, &cqe, &timeout);
		if (!r)
			break;
		if (r != -ETIME && r != -EINTR)
			return r;
		if (r == -ETIME) {
			waited += GK_UBLK_STUCK_SECONDS;
			gk_log(GK_LOG_WARNING, "dev%d: %s has not ended for %u s, still waiting",
			       (int)cmd->dev_id, name, waited);
			if (stuck)
				stuck(arg);
		}
	}
	r = cqe->res;
	io_uring_cqe_seen(&ctrl->ring, cqe);
	return r < 0 ? r : 0;
}

static int command(struct gk_ublk_ctrl *ctrl, const char *name, uint32_t op,
		   const struct ublksrv_ctrl_cmd *cmd, gk_ublk_stuck_fn *stuck, void *arg)
{
	int r;

	pthread_mutex_lock(&ctrl->lock);
	r = command_locked(ctrl, name, op, cmd, stuck, arg);
	pthread_mutex_unlock(&ctrl->lock);
	return r;
}

static struct ublksrv_ctrl_cmd about_device(uint32_t dev_id, void *addr, size_t len)
{
	return (struct ublksrv_ctrl_cmd){
		.dev_id = dev_id,
		.queue_id = (uint16_t)-1,
		.addr = (uintptr_t)addr,
		.len = (uint16_t)len,
	};
}

int gk_ublk_ctrl_add(struct gk_ublk_ctrl *ctrl, struct ublksrv_ctrl_dev_info *info)
{
	struct ublksrv_ctrl_cmd cmd = about_device(info->dev_id, info, sizeof(*info));

	return command(ctrl, "UBLK_U_CMD_ADD_DEV", UBLK_U_CMD_ADD_DEV, &cmd, NULL, NULL);
}

int gk_ublk_ctrl_set_params(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, struct ublk_params *params)
{
	struct ublksrv_ctrl_cmd cmd = about_device(dev_id, params, sizeof(*params));

	params->len = sizeof(*params);
	return command(ctrl, "UBLK_U_CMD_SET_PARAMS", UBLK_U_CMD_SET_PARAMS, &cmd, NULL, NULL);
}

int gk_ublk_ctrl_get_info(struct gk_ublk_ctrl *ctrl, struct ublksrv_ctrl_dev_info *info)
{
	struct ublksrv_ctrl_cmd cmd = about_device(info->dev_id, info, sizeof(*info));

	return command(ctrl, "UBLK_U_CMD_GET_DEV_INFO", UBLK_U_CMD_GET_DEV_INFO, &cmd, NULL, NULL);
}

int gk_ublk_ctrl_get_params(struct gk_ublk_ctrl *ctrl, uint32_t dev_id,
			    struct ublk_params *ret_params)
{
	struct ublk_params params = {.len = sizeof(params)};
	struct ublksrv_ctrl_cmd cmd = about_device(dev_id, &params, sizeof(params));
	int r = command(ctrl, "UBLK_U_CMD_GET_PARAMS", UBLK_U_CMD_GET_PARAMS, &cmd, NULL, NULL);

	if (!r)
		*ret_params = params;
	return r;
}

int gk_ublk_ctrl_start_recovery(struct gk_ublk_ctrl *ctrl, uint32_t dev_id)
{
	struct ublksrv_ctrl_cmd cmd = about_device(dev_id, NULL, 0);

	return command(ctrl, "UBLK_U_CMD_START_USER_RECOVERY", UBLK_U_CMD_START_USER_RECOVERY, &cmd,
		       NULL, NULL);
}

int gk_ublk_ctrl_end_recovery(struct gk_ublk_ctrl *ctrl, uint32_t dev_id)
{
	struct ublksrv_ctrl_cmd cmd = about_device(dev_id, NULL, 0);

	cmd.data[0] = (uint64_t)getpid();
	return command(ctrl, "UBLK_U_CMD_END_USER_RECOVERY", UBLK_U_CMD_END_USER_RECOVERY, &cmd,
		       NULL, NULL);
}

int gk_ublk_ctrl_affinity(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, uint16_t q_id,
			  cpu_set_t *ret_cpus)
{
	cpu_set_t cpus;
	struct ublksrv_ctrl_cmd cmd = about_device(dev_id, &cpus, sizeof(cpus));
	int r;

	CPU_ZERO(&cpus);
	cmd.data[0] = q_id;
	r = command(ctrl, "UBLK_U_CMD_GET_QUEUE_AFFINITY", UBLK_U_CMD_GET_QUEUE_AFFINITY, &cmd, NULL, NULL);
	if (!r)
		*ret_cpus = cpus;
	return r;
}

int gk_ublk_ctrl_start(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, gk_ublk_stuck_fn *stuck,
		       void *arg)
{
	struct ublksrv_ctrl_cmd cmd = about_device(dev_id, NULL, 0);

	cmd.data[0] = (uint64_t)getpid();
	return command(ctrl, "UBLK_U_CMD_START_DEV", UBLK_U_CMD_START_DEV, &cmd, stuck, arg);
}

int gk_ublk_ctrl_stop(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, gk_ublk_stuck_fn *stuck, void *arg)
{
	struct ublksrv_ctrl_cmd cmd = about_device(dev_id, NULL, 0);

	return command(ctrl, "UBLK_U_CMD_STOP_DEV", UBLK_U_CMD_STOP_DEV, &cmd, stuck, arg);
}

int gk_ublk_ctrl_update_size(struct gk_ublk_ctrl *ctrl, uint32_t dev_id, uint64_t sectors)
{
	struct ublksrv_ctrl_cmd cmd = about_device(dev_id, NULL, 0);

	cmd.data[0] = sectors;
	return command(ctrl, "UBLK_U_CMD_UPDATE_SIZE", UBLK_U_CMD_UPDATE_SIZE, &cmd, NULL, NULL);
}

int gk_ublk_ctrl_del(struct gk_ublk_ctrl *ctrl, uint32_t dev_id)
{
	struct ublksrv_ctrl_cmd cmd = about_device(dev_id, NULL, 0);
	struct ublksrv_ctrl_dev_info info = {.dev_id = dev_id};
	struct timespec pause = {.tv_nsec = 10000000};
	int r = command(ctrl, "UBLK_U_CMD_DEL_DEV_ASYNC", UBLK_U_CMD_DEL_DEV_ASYNC, &cmd, NULL,
			NULL);

	/* Older kernels only have the one that waits for every opener. */
	if (r == -EOPNOTSUPP || r == -EINVAL)
		return command(ctrl, "UBLK_U_CMD_DEL_DEV", UBLK_U_CMD_DEL_DEV, &cmd, NULL, NULL);
	for (int tries = 0; !r && tries < 200; tries++) {
		if (gk_ublk_ctrl_get_info(ctrl, &info) == -ENODEV)
			return 0;
		nanosleep(&pause, NULL);
	}
	return r ? r : -EBUSY;
}
