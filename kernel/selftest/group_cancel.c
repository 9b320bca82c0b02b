// SPDX-License-Identifier: GPL-2.0
/* Waiting for groups and cancelling parts of them. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net.h"
#include "ring.h"
#include "tap.h"

#define LEADER 1000
#define CANCEL 3000

static const unsigned int modes[] = {
	0,
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	IORING_SETUP_SQPOLL,
};
#define NR_MODES (sizeof(modes) / sizeof(modes[0]))

static struct ring_log events;
static char byte;

/* A child that writes one byte to fd as soon as this process sleeps. */
static pid_t write_when_asleep(int fd)
{
	pid_t parent = getpid(), child = fork();

	if (child == 0) {
		wait_asleep(parent);
		net_write(fd, "x", 1);
		_exit(0);
	}
	CHECK(child > 0);
	return child;
}

static void check_exited(pid_t child)
{
	int status;

	CHECK_SYS(waitpid(child, &status, 0));
	CHECK_EQ(status, 0);
}

/* The waiter counts completions, task work counts items: the last item here makes two of them. */
static void waiter_for_two_completions_is_woken(void)
{
	struct ring ring;

	ring_require(IORING_FEAT_SQE_GROUP);
	for (int members = 1; members <= 4; members++) {
		int fds[2];
		pid_t child;
		uint64_t start;

		events.count = 0;
		net_unix_pair(fds);
		ring_open(&ring, 16, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
		ring_nop(&ring, LEADER, GROUP);
		for (int i = 1; i <= members; i++)
			ring_msg(&ring, IORING_OP_RECV, (uint64_t)i, i < members ? GROUP : 0,
				 fds[0], (uintptr_t)&byte, 1, i > 1 ? MSG_DONTWAIT : 0);
		child = write_when_asleep(fds[1]);
		start = tap_now_ms();
		CHECK_EQ(ring_submit_wait(&ring, (unsigned int)members + 1), members + 1);
		CHECK(tap_now_ms() - start < (uint64_t)tap_patience_ms() / 2);
		for (int i = 0; i <= members; i++) {
			CHECK(ring_peek(&ring, &events.cqe[i]));
			events.count++;
		}
		CHECK_EQ(log_index(&events, LEADER), members);
		CHECK_EQ(log_res(&events, LEADER), 0);
		CHECK_EQ(log_res(&events, 1), 1);
		check_exited(child);
		ring_close(&ring);
		close(fds[0]);
		close(fds[1]);
	}
}

static void cancel_polling_member(unsigned int mode)
{
	struct ring ring;
	int fds[2];

	events.count = 0;
	net_unix_pair(fds);
	ring_open(&ring, 16, mode);
	ring_nop(&ring, LEADER, GROUP | LINK);
	ring_msg(&ring, IORING_OP_RECV, 1, GROUP, fds[0], (uintptr_t)&byte, 1, 0);
	ring_nop_res(&ring, 2, 0, 12);
	ring_nop(&ring, 3, 0);
	CHECK_EQ(ring_submit(&ring), 4);
	ring_reap(&ring, &events, 1);
	CHECK_EQ(log_res(&events, 2), 12);
	ring_cancel(&ring, CANCEL, 1);
	CHECK_EQ(ring_submit(&ring), 1);
	ring_reap(&ring, &events, 4);
	CHECK_EQ(log_res(&events, CANCEL), 0);
	CHECK_EQ(log_res(&events, 1), -ECANCELED);
	CHECK_EQ(log_res(&events, LEADER), 0);
	CHECK_EQ(log_res(&events, 3), -ECANCELED);
	CHECK(log_index(&events, 1) < log_index(&events, LEADER));
	ring_check_quiet(&ring);
	ring_close(&ring);
	close(fds[0]);
	close(fds[1]);
}

static void cancelled_member_that_polls(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < NR_MODES; m++)
		cancel_polling_member(modes[m]);
}

/* Opening a FIFO that nobody else opens blocks its io-wq worker. */
static void cancel_member_in_io_wq(unsigned int mode)
{
	char folder[] = "/tmp/group_cancel.XXXXXX", path[64];
	struct ring ring;
	struct ring_cqe cqe;
	struct io_uring_sqe *sqe;
	int res;

	events.count = 0;
	CHECK(mkdtemp(folder) != NULL);
	snprintf(path, sizeof(path), "%s/fifo", folder);
	CHECK_SYS(mkfifo(path, 0600));
	ring_open(&ring, 16, mode);
	ring_nop(&ring, LEADER, GROUP);
	sqe = ring_rw(&ring, IORING_OP_OPENAT, 1, GROUP | IOSQE_ASYNC, AT_FDCWD, (uintptr_t)path, 0,
		      0);
	sqe->open_flags = O_RDONLY;
	ring_nop(&ring, 2, 0);
	CHECK_EQ(ring_submit(&ring), 3);
	ring_reap(&ring, &events, 1);
	CHECK_EQ(log_res(&events, 2), 0);
	/* Until the worker has it, a cancel finds it queued or not at all; then it interrupts it.
	 */
	do {
		ring_cancel(&ring, CANCEL, 1);
		CHECK_EQ(ring_submit(&ring), 1);
		CHECK(ring_wait(&ring, &cqe, tap_patience_ms()));
		if (cqe.user_data != CANCEL)
			events.cqe[events.count++] = cqe;
	} while (cqe.user_data == CANCEL && cqe.res == -ENOENT);
	while (events.count < 3) {
		CHECK(ring_wait(&ring, &cqe, tap_patience_ms()));
		if (cqe.user_data != CANCEL)
			events.cqe[events.count++] = cqe;
	}
	res = log_res(&events, 1);
	CHECK(res == -ECANCELED || res == -EINTR);
	CHECK_EQ(log_res(&events, LEADER), 0);
	CHECK_EQ(log_index(&events, LEADER), 2);
	ring_close(&ring);
	unlink(path);
	rmdir(folder);
}

static void cancelled_member_in_io_wq(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < NR_MODES; m++)
		cancel_member_in_io_wq(modes[m]);
}

static void cancel_waiting_leader(unsigned int mode)
{
	struct ring ring;
	int fds[2];

	events.count = 0;
	net_unix_pair(fds);
	ring_open(&ring, 16, mode);
	ring_nop(&ring, LEADER, GROUP);
	ring_msg(&ring, IORING_OP_RECV, 1, 0, fds[0], (uintptr_t)&byte, 1, 0);
	CHECK_EQ(ring_submit(&ring), 2);
	ring_cancel(&ring, CANCEL, LEADER);
	CHECK_EQ(ring_submit(&ring), 1);
	ring_reap(&ring, &events, 1);
	CHECK_EQ(log_res(&events, CANCEL), -ENOENT);
	ring_check_quiet(&ring);
	net_write(fds[1], "x", 1);
	ring_reap(&ring, &events, 2);
	CHECK_EQ(log_res(&events, 1), 1);
	CHECK_EQ(log_res(&events, LEADER), 0);
	ring_close(&ring);
	close(fds[0]);
	close(fds[1]);
}

static void leader_that_waits_for_members_is_not_found(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < NR_MODES; m++)
		cancel_waiting_leader(modes[m]);
}

static void cancel_everything(unsigned int mode)
{
	struct ring ring;
	struct io_uring_sqe *sqe;
	int fds[2];

	events.count = 0;
	net_unix_pair(fds);
	ring_open(&ring, 32, mode);
	for (uint64_t g = 0; g < 3; g++) {
		ring_nop(&ring, 100 * g, GROUP | (g < 2 ? LINK : 0));
		for (uint64_t i = 1; i <= 3; i++)
			ring_msg(&ring, IORING_OP_RECV, 100 * g + i, i < 3 ? GROUP : 0, fds[0],
				 (uintptr_t)&byte, 1, 0);
	}
	CHECK_EQ(ring_submit(&ring), 12);
	ring_run(&ring);
	sqe = ring_cancel(&ring, CANCEL, 0);
	sqe->cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
	CHECK_EQ(ring_submit(&ring), 1);
	ring_reap(&ring, &events, 13);
	/* The first group's members were found, the rest of the chain fails with them. */
	CHECK_EQ(log_res(&events, CANCEL), 3);
	CHECK_EQ(log_res(&events, 0), 0);
	for (uint64_t g = 0; g < 3; g++)
		for (uint64_t i = g ? 0 : 1; i <= 3; i++)
			CHECK_EQ(log_res(&events, 100 * g + i), -ECANCELED);
	ring_check_quiet(&ring);
	ring_close(&ring);
	close(fds[0]);
	close(fds[1]);
}

static void cancel_of_everything_ends_a_chain_of_groups(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < 2; m++)
		cancel_everything(modes[m]);
}

static void kill_child(bool close_only)
{
	int fds[2], go[2];
	pid_t child;

	net_unix_pair(fds);
	net_unix_pair(go);
	child = fork();
	if (child == 0) {
		struct ring ring;
		char answer;

		close(fds[1]);
		ring_open(&ring, 16, 0);
		ring_nop(&ring, LEADER, GROUP);
		ring_msg(&ring, IORING_OP_RECV, 1, GROUP, fds[0], (uintptr_t)&byte, 1, 0);
		ring_msg(&ring, IORING_OP_RECV, 2, IOSQE_ASYNC, fds[0], (uintptr_t)&byte, 1, 0);
		CHECK_EQ(ring_submit(&ring), 3);
		if (close_only) {
			ring_close(&ring);
			close(fds[0]);
		}
		net_write(go[1], "x", 1);
		net_read(go[1], &answer, 1);
		_exit(0);
	}
	close(fds[0]);
	net_read(go[0], &byte, 1);
	if (!close_only)
		CHECK_SYS(kill(child, SIGKILL));
	/* The members hold the socket: its end is the proof that they are gone. */
	CHECK_EQ(net_read_all(fds[1], &byte, 1), 0);
	close(go[0]);
	CHECK_SYS(kill(child, SIGKILL));
	CHECK_SYS(waitpid(child, NULL, 0));
	close(fds[1]);
	close(go[1]);
}

static void killed_process_leaves_no_group_behind(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	kill_child(false);
	kill_child(true);
}

/* Each ring holds a request on the other: only a tracked request is found when the task ends. */
static void rings_that_poll_each_other(void)
{
	int fds[2];
	pid_t child;

	ring_require(IORING_FEAT_SQE_GROUP);
	net_unix_pair(fds);
	child = (pid_t)CHECK_SYS(fork());
	if (child == 0) {
		struct ring rings[2];
		struct io_uring_sqe *sqe;

		close(fds[1]);
		ring_open(&rings[0], 16, 0);
		ring_open(&rings[1], 16, 0);
		for (int i = 0; i < 2; i++) {
			ring_nop(&rings[i], LEADER, GROUP);
			sqe = ring_sqe(&rings[i], IORING_OP_POLL_ADD, 1, GROUP);
			sqe->fd = rings[!i].fd;
			sqe->poll32_events = POLLIN;
			ring_msg(&rings[i], IORING_OP_RECV, 2, 0, fds[0], (uintptr_t)&byte, 1, 0);
			CHECK_EQ(ring_submit(&rings[i]), 3);
		}
		_exit(0);
	}
	close(fds[0]);
	peer_join(child);
	CHECK_EQ(net_read_all(fds[1], &byte, 1), 0);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"11: a waiter for member and leader is woken by the member's data",
		 waiter_for_two_completions_is_woken, 0},
		{"14: cancelling a member that polls", cancelled_member_that_polls, 0},
		{"14: cancelling a member in io-wq", cancelled_member_in_io_wq, 0},
		{"14: a leader that waits for its members is not found",
		 leader_that_waits_for_members_is_not_found, 0},
		{"14: cancelling everything ends a chain of groups",
		 cancel_of_everything_ends_a_chain_of_groups, 0},
		{"14: a killed process, a closed ring leave no group behind",
		 killed_process_leaves_no_group_behind, 0},
		{"14: members of two rings that poll each other end with their process",
		 rings_that_poll_each_other, 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
