// SPDX-License-Identifier: GPL-2.0
/* Groups among links and drains. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"
#include "prov.h"
#include "ring.h"
#include "tap.h"

#define NEXT 2000

static const unsigned int modes[] = {
	0,
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	IORING_SETUP_SQPOLL,
};
#define NR_MODES (sizeof(modes) / sizeof(modes[0]))

static struct ring_log events;
static char byte;

/* A RECV that stays until somebody writes to the other socket of the pair. */
static void parked(struct ring *ring, uint64_t user_data, uint8_t flags, int fd)
{
	ring_msg(ring, IORING_OP_RECV, user_data, flags, fd, (uintptr_t)&byte, 1, 0);
}

static void check_before(uint64_t first, uint64_t second)
{
	if (log_index(&events, first) > log_index(&events, second))
		FAIL("%llu completed before %llu", (unsigned long long)second,
		     (unsigned long long)first);
}

static void one_of_four_fails(unsigned int mode, uint8_t link, int next_res)
{
	struct ring ring;

	events.count = 0;
	ring_open(&ring, 16, mode);
	ring_nop(&ring, 0, GROUP | link);
	ring_nop_res(&ring, 1, GROUP, 11);
	ring_nop_res(&ring, 2, GROUP, -EIO);
	ring_nop_res(&ring, 3, GROUP | IOSQE_ASYNC, 13);
	ring_nop_res(&ring, 4, 0, 14);
	ring_nop_res(&ring, NEXT, 0, 15);
	CHECK_EQ(ring_submit(&ring), 6);
	ring_reap(&ring, &events, 6);
	CHECK_EQ(log_res(&events, 0), 0);
	CHECK_EQ(log_res(&events, 1), 11);
	CHECK_EQ(log_res(&events, 2), -EIO);
	CHECK_EQ(log_res(&events, 3), 13);
	CHECK_EQ(log_res(&events, 4), 14);
	CHECK_EQ(log_res(&events, NEXT), next_res);
	for (uint64_t i = 1; i <= 4; i++)
		check_before(i, 0);
	if (link)
		check_before(0, NEXT);
	ring_check_quiet(&ring);
	ring_close(&ring);
}

static void failing_member_leaves_the_others_and_breaks_the_link(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < NR_MODES; m++) {
		one_of_four_fails(modes[m], LINK, -ECANCELED);
		one_of_four_fails(modes[m], IOSQE_IO_HARDLINK, 15);
		one_of_four_fails(modes[m], 0, 15);
	}
}

/* 1 (linked, parked) -> group of 2, 3, 4 -> 5 if the leader is linked. */
static void group_in_a_chain(unsigned int mode, uint8_t leader_flags)
{
	struct ring ring;
	int fds[2];

	events.count = 0;
	net_unix_pair(fds);
	ring_open(&ring, 16, mode);
	parked(&ring, 1, LINK, fds[0]);
	ring_nop(&ring, 2, GROUP | leader_flags);
	ring_nop(&ring, 3, GROUP);
	ring_nop(&ring, 4, 0);
	ring_nop(&ring, 5, 0);
	CHECK_EQ(ring_submit(&ring), 5);
	if (!leader_flags)
		ring_reap(&ring, &events, 1); /* 5 is not part of the chain */
	ring_check_quiet(&ring);
	net_write(fds[1], "x", 1);
	ring_reap(&ring, &events, leader_flags ? 5 : 4);
	CHECK_EQ(log_res(&events, 1), 1);
	for (uint64_t i = 2; i <= 5; i++)
		CHECK_EQ(log_res(&events, i), 0);
	check_before(1, 3);
	check_before(1, 4);
	check_before(3, 2);
	check_before(4, 2);
	if (leader_flags)
		check_before(2, 5);
	else
		check_before(5, 1);
	ring_close(&ring);
	close(fds[0]);
	close(fds[1]);
}

static void group_joins_the_open_link(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < NR_MODES; m++) {
		group_in_a_chain(modes[m], LINK);
		group_in_a_chain(modes[m], IOSQE_IO_HARDLINK);
		group_in_a_chain(modes[m], 0);
	}
}

static void predecessor_fails(unsigned int mode, bool parked_first, uint8_t leader_flags)
{
	struct ring ring;
	int fds[2];

	events.count = 0;
	net_unix_pair(fds);
	ring_open(&ring, 16, mode);
	if (parked_first)
		ring_msg(&ring, IORING_OP_RECV, 1, LINK, fds[0], (uintptr_t)&byte, 1, MSG_WAITALL);
	else
		ring_nop_res(&ring, 1, LINK, -EIO);
	ring_nop(&ring, 2, GROUP | leader_flags);
	ring_nop(&ring, 3, GROUP | IOSQE_ASYNC);
	ring_nop(&ring, 4, 0);
	ring_nop(&ring, 5, 0);
	CHECK_EQ(ring_submit(&ring), 5);
	if (parked_first) {
		ring_cancel(&ring, NEXT, 1);
		CHECK_EQ(ring_submit(&ring), 1);
	}
	ring_reap(&ring, &events, parked_first ? 6 : 5);
	CHECK_EQ(log_res(&events, 1), parked_first ? -ECANCELED : -EIO);
	for (uint64_t i = 2; i <= 4; i++)
		CHECK_EQ(log_res(&events, i), -ECANCELED);
	CHECK_EQ(log_res(&events, 5), leader_flags ? -ECANCELED : 0);
	check_before(3, 2);
	check_before(4, 2);
	ring_check_quiet(&ring);
	ring_close(&ring);
	close(fds[0]);
	close(fds[1]);
}

static void failing_predecessor_cancels_all_members(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < NR_MODES; m++)
		for (int parked_first = 0; parked_first < 2; parked_first++) {
			predecessor_fails(modes[m], parked_first, LINK);
			predecessor_fails(modes[m], parked_first, 0);
		}
}

/* Group g is 100 * g: leader + 0, members + 1 .. members + size[g]; member 1 of each is parked. */
static void linked_groups(unsigned int mode, uint8_t member_flags)
{
	static const int sizes[] = {3, 1, 7};
	struct ring ring;
	int fds[3][2], total = 0;

	events.count = 0;
	ring_open(&ring, 32, mode);
	for (uint64_t g = 0; g < 3; g++) {
		net_unix_pair(fds[g]);
		ring_nop(&ring, 100 * g, GROUP | (g < 2 ? LINK : 0));
		for (int i = 1; i <= sizes[g]; i++) {
			uint8_t flags = i < sizes[g] ? GROUP : 0;

			if (i == 1)
				parked(&ring, 100 * g + 1, flags, fds[g][0]);
			else
				ring_nop(&ring, 100 * g + (uint64_t)i, flags | member_flags);
		}
		total += sizes[g] + 1;
	}
	CHECK_EQ(ring_submit(&ring), total);
	for (uint64_t g = 0; g < 3; g++) {
		/* All but the parked member and the leader. */
		ring_reap(&ring, &events, sizes[g] - 1);
		ring_check_quiet(&ring);
		net_write(fds[g][1], "x", 1);
		ring_reap(&ring, &events, 2);
		CHECK_EQ(events.cqe[events.count - 2].user_data, 100 * g + 1);
		CHECK_EQ(events.cqe[events.count - 1].user_data, 100 * g);
		CHECK_EQ(log_res(&events, 100 * g), 0);
		for (int i = 2; i <= sizes[g]; i++)
			CHECK_EQ(log_res(&events, 100 * g + (uint64_t)i), 0);
		close(fds[g][0]);
		close(fds[g][1]);
	}
	ring_check_quiet(&ring);
	ring_close(&ring);
}

static void linked_groups_run_one_after_the_other(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < NR_MODES; m++) {
		linked_groups(modes[m], 0);
		linked_groups(modes[m], IOSQE_ASYNC);
	}
}

static void submit_quietly(struct ring *ring, int count)
{
	struct ring_cqe cqe;

	/* Entering for events runs what is ready; nothing may complete. */
	CHECK_EQ(ring_submit_wait(ring, 0), count);
	CHECK(!ring_peek(ring, &cqe));
}

static void drained_leader_waits(struct ring *ring)
{
	int fds[2];

	events.count = 0;
	net_unix_pair(fds);
	parked(ring, 1, 0, fds[0]);
	ring_nop(ring, 2, GROUP | IOSQE_IO_DRAIN);
	ring_nop(ring, 3, GROUP);
	ring_nop(ring, 4, 0);
	submit_quietly(ring, 4);
	net_write(fds[1], "x", 1);
	ring_reap(ring, &events, 4);
	CHECK_EQ(events.cqe[0].user_data, 1);
	CHECK_EQ(events.cqe[3].user_data, 2);
	close(fds[0]);
	close(fds[1]);
}

static void drain_waits_for_the_group(struct ring *ring)
{
	int fds[2];

	events.count = 0;
	net_unix_pair(fds);
	ring_nop(ring, 1, GROUP);
	parked(ring, 2, GROUP, fds[0]);
	ring_nop(ring, 3, 0);
	ring_nop(ring, 4, IOSQE_IO_DRAIN);
	ring_nop(ring, 5, 0);
	CHECK_EQ(ring_submit(ring), 5);
	ring_reap(ring, &events, 1);
	CHECK_EQ(events.cqe[0].user_data, 3);
	submit_quietly(ring, 0);
	net_write(fds[1], "x", 1);
	ring_reap(ring, &events, 4);
	CHECK_EQ(events.cqe[1].user_data, 2);
	CHECK_EQ(events.cqe[2].user_data, 1);
	CHECK_EQ(log_res(&events, 4), 0);
	CHECK_EQ(log_res(&events, 5), 0);
	close(fds[0]);
	close(fds[1]);
}

static void group_after_a_drained_link(struct ring *ring)
{
	int fds[2];

	events.count = 0;
	net_unix_pair(fds);
	parked(ring, 1, 0, fds[0]);
	ring_nop(ring, 2, IOSQE_IO_DRAIN | LINK);
	ring_nop(ring, 3, 0);
	ring_nop(ring, 4, GROUP);
	ring_nop(ring, 5, GROUP);
	ring_nop(ring, 6, 0);
	ring_nop(ring, 7, IOSQE_IO_DRAIN);
	submit_quietly(ring, 7);
	net_write(fds[1], "x", 1);
	ring_reap(ring, &events, 7);
	CHECK_EQ(events.cqe[0].user_data, 1);
	check_before(2, 3);
	check_before(5, 4);
	check_before(6, 4);
	CHECK_EQ(events.cqe[6].user_data, 7);
	close(fds[0]);
	close(fds[1]);
}

/* The control: the same numbers of SQEs without groups. */
static void plain_drain(struct ring *ring)
{
	int fds[2];

	events.count = 0;
	net_unix_pair(fds);
	parked(ring, 1, 0, fds[0]);
	for (uint64_t i = 2; i <= 6; i++)
		ring_nop(ring, i, 0);
	ring_nop(ring, 7, IOSQE_IO_DRAIN);
	CHECK_EQ(ring_submit(ring), 7);
	ring_reap(ring, &events, 5);
	submit_quietly(ring, 0);
	net_write(fds[1], "x", 1);
	ring_reap(ring, &events, 2);
	CHECK_EQ(events.cqe[6].user_data, 7);
	close(fds[0]);
	close(fds[1]);
}

static void failed_groups_count_for_drain(struct ring *ring)
{
	events.count = 0;
	ring_nop(ring, 1, GROUP);
	ring_nop(ring, 2, GROUP | LINK);
	ring_nop(ring, 3, 0);
	ring_nop_res(ring, 4, GROUP, -EIO);
	ring_nop(ring, 5, 0);
	ring_submit_all(ring);
	ring_reap(ring, &events, 5);
}

static void drain_counts_every_member(void)
{
	struct ring ring;

	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < 2; m++) {
		ring_open(&ring, 16, modes[m]);
		/* A sequence that is off by a member shows at the latest in the next round. */
		for (int round = 0; round < 3; round++) {
			drained_leader_waits(&ring);
			drain_waits_for_the_group(&ring);
			plain_drain(&ring);
			group_after_a_drained_link(&ring);
			failed_groups_count_for_drain(&ring);
			plain_drain(&ring);
		}
		ring_close(&ring);
	}
}

static void overwritten_sqes(unsigned int mode)
{
	struct ring ring;
	int fds[2], fd = prov_open();

	events.count = 0;
	net_unix_pair(fds);
	ring_open(&ring, 16, mode);
	parked(&ring, 1, LINK, fds[0]);
	prov_echo(&ring, 2, LINK, fd, 102);
	prov_echo(&ring, 3, GROUP | LINK, fd, 103);
	prov_echo(&ring, 4, GROUP, fd, 104);
	prov_echo(&ring, 5, IOSQE_ASYNC, fd, 105);
	prov_echo(&ring, 6, 0, fd, 106);
	CHECK_EQ(ring_submit(&ring), 6);
	memset(ring.sqes, 0xff, ring.sqes_size);
	net_write(fds[1], "x", 1);
	ring_reap(&ring, &events, 6);
	for (int i = 2; i <= 6; i++)
		CHECK_EQ(log_res(&events, (uint64_t)i), 100 + i);
	ring_close(&ring);
	close(fds[0]);
	close(fds[1]);
	close(fd);
}

static void commands_act_on_the_sqe_that_was_submitted(void)
{
	overwritten_sqes(0);
	overwritten_sqes(IORING_SETUP_SQE128);
	overwritten_sqes(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"04: a failing member leaves the others alone and breaks the link",
		 failing_member_leaves_the_others_and_breaks_the_link, 0},
		{"05: a group joins the open link", group_joins_the_open_link, 0},
		{"05: a failing predecessor cancels all members",
		 failing_predecessor_cancels_all_members, 0},
		{"06: linked groups run one after the other", linked_groups_run_one_after_the_other,
		 0},
		{"10: drain counts every member", drain_counts_every_member, 0},
		{"15: linked commands act on the SQE that was submitted",
		 commands_act_on_the_sqe_that_was_submitted, 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
