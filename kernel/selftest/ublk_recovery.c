// SPDX-License-Identifier: GPL-2.0
/* Servers that die, stop or lose their ring while a request's pages are on loan. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "net.h"
#include "tap.h"
#include "ublk.h"

#define DEVICE_BYTES (1 << 20)
#define REQUEST	     131072
#define POSITION     524288
#define DATA	     3
#define DEPTH	     4
#define RECOVERY     (UBLK_FLAGS | UBLK_F_USER_RECOVERY)
#define REISSUE	     (RECOVERY | UBLK_F_USER_RECOVERY_REISSUE)

/* Shared with the server. */
struct stage {
	volatile bool park; /* the next request at POSITION goes to the socket, and stays there */
	volatile bool parked;
	volatile uint16_t tag; /* of the parked request */
	bool zero_copy;
	int socket; /* the server's end */
	int file;
};

static struct stage *new_stage(void)
{
	struct stage *stage =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	void *data = check_alloc(DEVICE_BYTES);

	CHECK(stage != MAP_FAILED);
	stage->file = (int)CHECK_SYS(memfd_create("ublk_recovery", MFD_CLOEXEC));
	pattern_fill(data, DATA, 0, DEVICE_BYTES);
	CHECK_EQ(write(stage->file, data, DEVICE_BYTES), DEVICE_BYTES);
	free(data);
	return stage;
}

static void parking_request(struct ublk_server *server, unsigned int tag)
{
	struct stage *stage = server->priv;
	const struct ublksrv_io_desc *iod = &server->iods[tag];
	uint8_t opcode = (uint8_t)iod->op_flags == UBLK_IO_OP_READ ? IORING_OP_RECV
			 : stage->zero_copy			   ? IORING_OP_SEND_ZC
								   : IORING_OP_SEND;

	if (!stage->park || iod->start_sector != POSITION >> 9) {
		ublk_loop_request(server, tag);
		return;
	}
	stage->tag = (uint16_t)tag;
	server->tags[tag] = (struct ublk_tag){.left = 2};
	ublk_server_provide(server, tag);
	ring_msg(&server->ring, opcode, ublk_key(UBLK_KIND_OTHER, tag), KBUF, stage->socket, 0,
		 iod->nr_sectors << 9, MSG_WAITALL);
	CHECK_EQ(ring_submit(&server->ring), 2);
	ring_run(&server->ring);
	if (opcode != IORING_OP_SEND_ZC)
		stage->parked = true;
}

static void parking_completed(struct ublk_server *server, const struct ring_cqe *cqe)
{
	struct stage *stage = server->priv;
	unsigned int tag = (uint16_t)cqe->user_data;
	struct ublk_tag *state = &server->tags[tag];

	if (cqe->user_data >> 16 != UBLK_KIND_OTHER) {
		ublk_loop_completed(server, cqe);
		return;
	}
	/* A zero-copy send is parked when its result is there and its notification is not. */
	if (cqe->flags & IORING_CQE_F_MORE) {
		CHECK_EQ(cqe->res, server->iods[tag].nr_sectors << 9);
		stage->parked = true;
		return;
	}
	if (!(cqe->flags & IORING_CQE_F_NOTIF))
		state->result = cqe->res;
	/* What is short here was cut off by the peer or by a cancel. */
	if (state->result != (int)(server->iods[tag].nr_sectors << 9))
		state->result = -EIO;
	if (--state->left == 0)
		ublk_server_commit(server, tag, state->result);
}

static volatile bool told;

static void tell(int signal_number)
{
	(void)signal_number;
	told = true;
}

static void open_parking_server(struct ublk_server *server, struct ublk_dev *dev, void *arg)
{
	struct stage *stage = arg;

	*server = (struct ublk_server){
		.file = stage->file,
		.request = parking_request,
		.completed = parking_completed,
		.priv = stage,
	};
	ublk_server_open(server, dev, 0);
}

static void parking_server(struct ublk_dev *dev, void *arg)
{
	struct ublk_server server;

	open_parking_server(&server, dev, arg);
	ublk_server_run(&server);
}

static void wait_parked(const struct stage *stage)
{
	uint64_t end = tap_now_ms() + (uint64_t)tap_patience_ms();

	while (!stage->parked) {
		CHECK(tap_now_ms() < end);
		sched_yield();
	}
}

static void kill_server(pid_t server)
{
	CHECK_SYS(kill(server, SIGKILL));
	CHECK_SYS(waitpid(server, NULL, 0));
}

static bool started; /* START_USER_RECOVERY was successful already */

/* START_USER_RECOVERY says -EBUSY as long as something holds the old server's device open. */
static void start_recovery(struct ublk_dev *dev)
{
	uint64_t end = tap_now_ms() + (uint64_t)tap_patience_ms();
	int r;

	if (started)
		return;
	while ((r = ublk_control(dev, UBLK_U_CMD_START_USER_RECOVERY, 0)) == -EBUSY) {
		CHECK(tap_now_ms() < end);
		sched_yield();
	}
	CHECK_EQ(r, 0);
}

static pid_t recover(struct ublk_dev *dev, struct stage *stage)
{
	pid_t server;

	stage->park = false;
	start_recovery(dev);
	server = ublk_fork(dev, parking_server, stage);
	CHECK_EQ(ublk_control(dev, UBLK_U_CMD_END_USER_RECOVERY, (uint64_t)server), 0);
	return server;
}

static void killed_while_receiving(uint64_t flags, int error)
{
	struct stage *stage = new_stage();
	struct ublk_dev dev;
	pid_t server, reader;
	int fds[2];
	char byte;

	net_tcp_pair(fds, 0, 0);
	stage->socket = fds[0];
	ublk_add(&dev, flags, DEPTH, DEVICE_BYTES);
	server = ublk_start(&dev, parking_server, stage);
	close(fds[0]);
	stage->park = true;
	reader = block_read(&dev, DATA, POSITION, REQUEST, error);
	wait_parked(stage);
	/* A part of the data is there already, in the pages that are on loan. */
	peer_join(peer_write(fds[1], DATA + 1, 0, 5000));
	net_wait_acked(fds[1]);
	kill_server(server);
	/* The socket is closed once the member is gone. */
	CHECK(recv(fds[1], &byte, 1, 0) <= 0);
	if (flags & UBLK_F_USER_RECOVERY)
		server = recover(&dev, stage);
	peer_join(reader);
	if (flags & UBLK_F_USER_RECOVERY) {
		peer_join(block_read(&dev, DATA, POSITION, REQUEST, 0));
		peer_join(block_write(&dev, DATA, POSITION, REQUEST, 0));
	}
	ublk_remove(&dev);
	if (flags & UBLK_F_USER_RECOVERY)
		peer_join(server);
	close(fds[1]);
}

static void killed_server_without_recovery(void)
{
	ublk_require();
	killed_while_receiving(UBLK_FLAGS, EIO);
}

static void killed_server_with_recovery(void)
{
	ublk_require();
	killed_while_receiving(RECOVERY, EIO);
}

static void killed_server_with_reissue(void)
{
	ublk_require();
	killed_while_receiving(REISSUE, 0);
}

/* Seconds of CPU that the kernel used for itself since boot, all CPUs together. */
static double system_seconds(void)
{
	unsigned long user, nice, system;
	FILE *file = fopen("/proc/stat", "r");

	CHECK(file != NULL);
	CHECK_EQ(fscanf(file, "cpu %lu %lu %lu", &user, &nice, &system), 3);
	fclose(file);
	return (double)system / (double)sysconf(_SC_CLK_TCK);
}

/* A worker that spins would use a whole CPU of this interval; the interval is what is measured. */
static void check_nothing_spins(void)
{
	struct timespec interval = {.tv_sec = 3};
	double start = system_seconds(), used;

	nanosleep(&interval, NULL);
	used = system_seconds() - start;
	tap_note("%.2f s of system time in 3 s", used);
	CHECK(used < 1.5);
}

/*
 * Neither gone nor spinning, until the peer ends it. The driver waits for the request with its lock
 * held, so START_USER_RECOVERY says -EBUSY or nothing.
 */
static void wait_for_the_peer(struct ublk_dev *dev, int peer)
{
	struct ring_cqe cqe;
	bool answered;

	ublk_control_begin(dev, UBLK_U_CMD_START_USER_RECOVERY, 0);
	check_nothing_spins();
	answered = ring_peek(&dev->ctrl, &cqe);
	if (answered)
		CHECK_EQ(cqe.res, -EBUSY);
	net_reset(peer);
	if (!answered)
		started = ublk_control_end(dev) == 0;
}

enum remedy { LINGER, USER_TIMEOUT, NONE };

/* The peer does not read, so its window is closed and our pages stay in the send queue. */
static void killed_while_sending_zero_copy(enum remedy remedy)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};
	struct stage *stage = new_stage();
	unsigned int timeout_ms = 1000;
	struct ublk_dev dev;
	pid_t server, writer;
	uint64_t start;
	int fds[2];

	net_tcp_pair(fds, 4 << 20, 4096);
	if (remedy == LINGER)
		CHECK_SYS(setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	if (remedy == USER_TIMEOUT)
		CHECK_SYS(setsockopt(fds[0], IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms,
				     sizeof(timeout_ms)));
	stage->socket = fds[0];
	stage->zero_copy = true;
	ublk_add(&dev, REISSUE, DEPTH, DEVICE_BYTES);
	server = ublk_start(&dev, parking_server, stage);
	close(fds[0]);
	stage->park = true;
	writer = block_write(&dev, DATA + 2, POSITION, REQUEST, 0);
	wait_parked(stage);
	kill_server(server);
	start = tap_now_ms();
	if (remedy == NONE)
		wait_for_the_peer(&dev, fds[1]);
	server = recover(&dev, stage);
	tap_note("recovery could start after %llu ms", (unsigned long long)(tap_now_ms() - start));
	peer_join(writer);
	peer_join(block_read(&dev, DATA + 2, POSITION, REQUEST, 0));
	ublk_remove(&dev);
	peer_join(server);
	if (remedy != NONE)
		close(fds[1]);
}

static void zero_copy_with_linger(void)
{
	ublk_require();
	killed_while_sending_zero_copy(LINGER);
}

static void zero_copy_with_user_timeout(void)
{
	ublk_require();
	killed_while_sending_zero_copy(USER_TIMEOUT);
}

static void zero_copy_with_nothing(void)
{
	ublk_require();
	killed_while_sending_zero_copy(NONE);
}

/* The member ends by its data, or by the end of the stream. */
static void stopped_while_borrowed(bool data_comes)
{
	struct stage *stage = new_stage();
	struct ublk_dev dev;
	pid_t server, reader;
	int fds[2];

	net_unix_pair(fds);
	stage->socket = fds[0];
	ublk_add(&dev, UBLK_FLAGS, DEPTH, DEVICE_BYTES);
	server = ublk_start(&dev, parking_server, stage);
	stage->park = true;
	reader = block_read(&dev, DATA, POSITION, REQUEST, data_comes ? 0 : EIO);
	wait_parked(stage);
	ublk_control_begin(&dev, UBLK_U_CMD_STOP_DEV, 0);
	if (data_comes)
		peer_join(peer_write(fds[1], DATA, POSITION, REQUEST));
	else
		CHECK_SYS(shutdown(fds[1], SHUT_WR));
	peer_join(reader);
	CHECK_EQ(ublk_control_end(&dev), 0);
	peer_join(server);
	CHECK_EQ(ublk_control(&dev, UBLK_U_CMD_DEL_DEV, 0), 0);
	close(fds[0]);
	close(fds[1]);
}

static void stop_ends_when_the_members_do(void)
{
	ublk_require();
	stopped_while_borrowed(true);
	stopped_while_borrowed(false);
}

static void closing_server(struct ublk_dev *dev, void *arg)
{
	struct stage *stage = arg;
	struct ublk_server server;
	struct sigaction action = {.sa_handler = tell};
	sigset_t usr1, before;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	CHECK_SYS(sigaction(SIGUSR1, &action, NULL));
	open_parking_server(&server, dev, arg);
	ublk_server_fetch(&server);
	ublk_server_until(&server, (const bool *)&told);
	told = false;
	ring_close(&server.ring);
	/* The process goes on, with the device open, until it is told again. */
	CHECK_SYS(sigprocmask(SIG_BLOCK, &usr1, &before));
	while (!told)
		sigsuspend(&before);
	/* The request was aborted; there is nothing to lend any more. */
	CHECK_EQ(ublk_try_provide(&server, (struct ublksrv_io_cmd){.tag = stage->tag}, GROUP),
		 -ENODEV);
}

static void ring_closed_while_borrowed(uint64_t flags, bool delete)
{
	struct stage *stage = new_stage();
	struct ublk_dev dev;
	pid_t server, reader;
	int fds[2];

	net_unix_pair(fds);
	stage->socket = fds[0];
	ublk_add(&dev, flags, DEPTH, DEVICE_BYTES);
	server = ublk_start(&dev, closing_server, stage);
	stage->park = true;
	reader = block_read(&dev, DATA, POSITION, REQUEST, EIO);
	wait_parked(stage);
	CHECK_SYS(kill(server, SIGUSR1));
	peer_join(reader);
	CHECK_EQ(ublk_control(&dev, UBLK_U_CMD_STOP_DEV, 0), 0);
	if (delete)
		ublk_control_begin(&dev, UBLK_U_CMD_DEL_DEV, 0);
	CHECK_SYS(kill(server, SIGUSR1));
	peer_join(server);
	if (!delete)
		ublk_control_begin(&dev, UBLK_U_CMD_DEL_DEV, 0);
	CHECK_EQ(ublk_control_end(&dev), 0);
	close(fds[0]);
	close(fds[1]);
}

static void closed_ring_fails_what_was_borrowed(void)
{
	ublk_require();
	ring_closed_while_borrowed(UBLK_FLAGS, false);
	ring_closed_while_borrowed(UBLK_FLAGS, true);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"36: a server killed with a buffer on loan, without recovery: EIO",
		 killed_server_without_recovery, 0},
		{"36: a server killed with a buffer on loan, with recovery: EIO, then a new server",
		 killed_server_with_recovery, 0},
		{"36: a server killed with a buffer on loan is recovered and the request reissued",
		 killed_server_with_reissue, 0},
		{"37: killed with zero-copy data unacknowledged, SO_LINGER 0",
		 zero_copy_with_linger, 0},
		{"37: killed with zero-copy data unacknowledged, TCP_USER_TIMEOUT",
		 zero_copy_with_user_timeout, 120},
		{"37: killed with zero-copy data unacknowledged, neither", zero_copy_with_nothing,
		 120},
		{"38: STOP_DEV while borrowed ends when the members do",
		 stop_ends_when_the_members_do, 0},
		{"38: a closed ring fails what was borrowed", closed_ring_fails_what_was_borrowed,
		 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
