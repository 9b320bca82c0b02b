// SPDX-License-Identifier: MIT
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <liburing.h>

#include "gk_io_uring.h"
#include "gk_ublk.h"

/* Long enough for a loaded machine; only a broken kernel or a filtered loopback makes us wait. */
#define ANSWER_TIMEOUT_S 5

static int ring_init(struct io_uring *ring, unsigned int flags, unsigned int *ret_features)
{
	struct io_uring_params params = {.flags = flags};
	int r = io_uring_queue_init_params(8, ring, &params);

	if (r == 0 && ret_features)
		*ret_features = params.features;
	return r;
}

/* The next completion's result; false when there is none in time, with -errno as the result. */
static bool next_result(struct io_uring *ring, int *ret_res, unsigned int *ret_flags)
{
	struct __kernel_timespec timeout = {.tv_sec = ANSWER_TIMEOUT_S};
	struct io_uring_cqe *cqe;
	int r = io_uring_wait_cqe_timeout(ring, &cqe, &timeout);

	if (r < 0) {
		*ret_res = r;
		return false;
	}
	*ret_res = cqe->res;
	if (ret_flags)
		*ret_flags = cqe->flags;
	io_uring_cqe_seen(ring, cqe);
	return true;
}

static int submit_one(struct io_uring *ring, unsigned int *ret_flags)
{
	int res;
	int r = io_uring_submit(ring);

	if (r < 0)
		return r;
	next_result(ring, &res, ret_flags);
	return res;
}

static int probe_ring(unsigned int *ret_features)
{
	struct io_uring ring;
	int r = ring_init(&ring, 0, ret_features);

	if (r == 0)
		io_uring_queue_exit(&ring);
	return r;
}

static int probe_defer_taskrun(void)
{
	struct io_uring ring;
	int r = ring_init(&ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, NULL);

	if (r < 0)
		return r;
	io_uring_prep_nop(io_uring_get_sqe(&ring));
	r = submit_one(&ring, NULL);
	io_uring_queue_exit(&ring);
	return r;
}

static int ublk_get_features(int fd, struct io_uring *ring, uint64_t *ret_features)
{
	uint64_t features = 0;
	struct ublksrv_ctrl_cmd cmd = {
		.queue_id = UINT16_MAX,
		.addr = (uintptr_t)&features,
		.len = sizeof(features),
	};
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	int r;

	if (!sqe)
		return -EAGAIN;
	/* An SQE128 slot is two entries long. */
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = fd;
	sqe->cmd_op = UBLK_U_CMD_GET_FEATURES;
	memcpy(sqe->cmd, &cmd, sizeof(cmd));
	r = submit_one(ring, NULL);
	if (r < 0)
		return r;
	*ret_features = features;
	return 0;
}

static int probe_ublk(uint64_t *ret_features)
{
	struct io_uring ring;
	int r, fd = open(UBLK_CONTROL_PATH, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	r = ring_init(&ring, IORING_SETUP_SQE128, NULL);
	if (r < 0)
		goto close_control;
	r = ublk_get_features(fd, &ring, ret_features);
	io_uring_queue_exit(&ring);
close_control:
	close(fd);
	return r;
}

/*
 * No feature bit tells that plain SEND and RECV take a registered buffer. A kernel that knows the
 * flag looks into the (empty) table and says -EFAULT; one that does not refuses the flag, -EINVAL.
 */
static int try_fixed_buf(struct io_uring *ring, unsigned int opcode, int fd)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	int r;

	io_uring_prep_rw(opcode, sqe, fd, NULL, 1, 0);
	sqe->msg_flags = MSG_DONTWAIT;
	sqe->ioprio = IORING_RECVSEND_FIXED_BUF;
	r = submit_one(ring, NULL);
	if (r == -EFAULT)
		return 0;
	return r < 0 ? r : -EINVAL;
}

static int probe_fixed_buf_sendrecv(void)
{
	struct io_uring ring;
	int fds[2], r;

	r = ring_init(&ring, 0, NULL);
	if (r < 0)
		return r;
	r = io_uring_register_buffers_sparse(&ring, 1);
	if (r < 0)
		goto exit_ring;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
		r = -errno;
		goto exit_ring;
	}
	r = try_fixed_buf(&ring, IORING_OP_SEND, fds[0]);
	if (r == 0)
		r = try_fixed_buf(&ring, IORING_OP_RECV, fds[0]);
	close(fds[0]);
	close(fds[1]);
exit_ring:
	io_uring_queue_exit(&ring);
	return r;
}

/* A connected pair of TCP sockets over the loopback device. */
static int tcp_pair(int ret_fds[2])
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};
	socklen_t len = sizeof(addr);
	int listener, client, server, r;

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0)
		return -errno;
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client < 0) {
		r = -errno;
		goto close_listener;
	}
	/* SO_SNDTIMEO bounds connect(), SO_RCVTIMEO accept(). */
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, (struct sockaddr *)&addr, &len) < 0 ||
	    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    connect(client, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		r = -errno;
		goto close_client;
	}
	server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (server < 0) {
		r = -errno;
		goto close_client;
	}
	ret_fds[0] = client;
	ret_fds[1] = server;
	close(listener);
	return 0;

close_client:
	close(client);
close_listener:
	close(listener);
	return r;
}

static int send_one_zc(struct io_uring *ring, int fd)
{
	static const char byte;
	unsigned int flags = 0;
	int r, notif;

	io_uring_prep_send_zc(io_uring_get_sqe(ring), fd, &byte, sizeof(byte), 0, 0);
	r = submit_one(ring, &flags);
	if (r < 0)
		return r;
	/* Without its notification the operation is of no use: the buffer would never come back. */
	if (!(flags & IORING_CQE_F_MORE))
		return -EPROTO;
	if (!next_result(ring, &notif, &flags))
		return notif;
	return flags & IORING_CQE_F_NOTIF ? 0 : -EPROTO;
}

static int probe_send_zc(int fd)
{
	struct io_uring ring;
	int r = ring_init(&ring, 0, NULL);

	if (r < 0)
		return r;
	r = send_one_zc(&ring, fd);
	io_uring_queue_exit(&ring);
	return r;
}

static int probe_ktls(int fd)
{
	return setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) < 0 ? -errno : 0;
}

static void probe_tcp(struct gk_probe *probe)
{
	int fds[2] = {-1, -1};
	int r = tcp_pair(fds);

	if (r < 0) {
		probe->send_zc = r;
		probe->ktls = r;
		return;
	}
	probe->send_zc = probe_send_zc(fds[0]);
	/* The upper-layer protocol changes the socket for good, so it comes last. */
	probe->ktls = probe_ktls(fds[0]);
	close(fds[0]);
	close(fds[1]);
}

/* What the layer below said when it failed, else whether all of `wanted` is there. */
static int has_bits(int below, uint64_t features, uint64_t wanted)
{
	if (below < 0)
		return below;
	return (features & wanted) == wanted ? 0 : -EOPNOTSUPP;
}

void gk_probe_run(struct gk_probe *ret_probe)
{
	struct gk_probe p = {0};
	unsigned int features = 0;

	p.io_uring = probe_ring(&features);
	p.defer_taskrun = probe_defer_taskrun();
	p.sqe_group = has_bits(p.io_uring, features, IORING_FEAT_SQE_GROUP);
	p.group_kbuf = has_bits(p.sqe_group, features, IORING_FEAT_GROUP_KBUF);
	p.fixed_buf_sendrecv = probe_fixed_buf_sendrecv();

	p.ublk = probe_ublk(&p.ublk_features);
	p.ublk_group_kbuf = has_bits(p.group_kbuf < 0 ? p.group_kbuf : p.ublk, p.ublk_features,
				     UBLK_F_GROUP_KBUF);
	p.ublk_auto_buf_reg = has_bits(p.ublk, p.ublk_features, UBLK_F_AUTO_BUF_REG);
	p.ublk_user_copy = has_bits(p.ublk, p.ublk_features, UBLK_F_USER_COPY);
	p.ublk_user_recovery = has_bits(p.ublk, p.ublk_features,
					UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE);
	probe_tcp(&p);
	*ret_probe = p;
}
