// SPDX-License-Identifier: GPL-2.0
/* SQE groups by themselves: completion order, failing leaders, refused SQEs, overflow, io-wq. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "probe.h"
#include "ring.h"
#include "tap.h"

#define LEADER 1000
#define NEXT   2000

static const unsigned int modes[] = {
	0,
	IORING_SETUP_COOP_TASKRUN,
	IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	IORING_SETUP_SQPOLL,
	IORING_SETUP_CQE32,
	IORING_SETUP_SQE128,
};
#define NR_MODES (sizeof(modes) / sizeof(modes[0]))

static struct ring_log events;

static void features_say_what_bit_7_does(void)
{
	struct ring ring;
	struct gk_probe probe;
	bool groups, kbuf;

	ring_open(&ring, 4, 0);
	groups = ring.features & IORING_FEAT_SQE_GROUP;
	kbuf = ring.features & IORING_FEAT_GROUP_KBUF;
	/* A kernel with the first patches only has groups that lend nothing. */
	CHECK(groups || !kbuf);
	/* A group of one is refused by a kernel with groups, the flag by one without. */
	ring_nop(&ring, 1, GROUP);
	CHECK_EQ(ring_submit(&ring), 1);
	ring_reap(&ring, &events, 1);
	CHECK_EQ(log_res(&events, 1), -EINVAL);
	ring_close(&ring);

	gk_probe_run(&probe);
	CHECK_EQ(probe.sqe_group == 0, groups);
	CHECK_EQ(probe.group_kbuf == 0, kbuf);
	CHECK(kbuf || probe.ublk_group_kbuf);
}

static void group_of_nops(unsigned int mode, int members, uint8_t leader_flags,
			  uint8_t member_flags)
{
	struct ring ring;

	events.count = 0;
	ring_open(&ring, 256, mode);
	ring_nop_res(&ring, LEADER, GROUP | leader_flags, 7);
	for (int i = 1; i <= members; i++)
		ring_nop_res(&ring, (uint64_t)i, member_flags | (i < members ? GROUP : 0), i);
	CHECK_EQ(ring_submit(&ring), members + 1);
	ring_reap(&ring, &events, members + 1);
	for (int i = 1; i <= members; i++)
		CHECK_EQ(log_res(&events, (uint64_t)i), i);
	CHECK_EQ(log_res(&events, LEADER), 7);
	CHECK_EQ(log_index(&events, LEADER), members);
	ring_check_quiet(&ring);
	ring_close(&ring);
}

static void leader_completes_last_on_every_kind_of_ring(void)
{
	static const int sizes[] = {1, 8, 255};

	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < NR_MODES; m++)
		for (unsigned int s = 0; s < 3; s++)
			group_of_nops(modes[m], sizes[s], 0, 0);
}

static void async_leader_and_members(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < NR_MODES; m++) {
		group_of_nops(modes[m], 8, IOSQE_ASYNC, 0);
		group_of_nops(modes[m], 8, 0, IOSQE_ASYNC);
		group_of_nops(modes[m], 8, IOSQE_ASYNC, IOSQE_ASYNC);
	}
}

static void failing_leader(unsigned int mode, uint8_t flags)
{
	struct ring ring;
	int pipe_fds[2];

	events.count = 0;
	CHECK_SYS(pipe2(pipe_fds, O_CLOEXEC));
	ring_open(&ring, 16, mode);
	ring_sqe(&ring, IORING_OP_URING_CMD, LEADER, GROUP | flags)->fd = pipe_fds[0];
	ring_nop(&ring, 1, GROUP);
	ring_nop(&ring, 2, GROUP | IOSQE_ASYNC);
	ring_nop(&ring, 3, 0);
	CHECK_EQ(ring_submit(&ring), 4);
	ring_reap(&ring, &events, 4);
	CHECK_EQ(log_res(&events, LEADER), -EOPNOTSUPP);
	CHECK_EQ(log_index(&events, LEADER), 3);
	for (uint64_t i = 1; i <= 3; i++)
		CHECK_EQ(log_res(&events, i), -ECANCELED);
	ring_check_quiet(&ring);
	ring_close(&ring);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void leader_that_fails_cancels_its_members(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < NR_MODES; m++) {
		failing_leader(modes[m], 0);
		failing_leader(modes[m], IOSQE_ASYNC);
	}
}

/* Ways to spoil one SQE of a group, all answered with -EINVAL. */
enum spoil { LINKED, HARDLINKED, SKIPPED, BAD_OPCODE, BAD_IOPRIO, NR_SPOILS };

static void spoil(struct io_uring_sqe *sqe, enum spoil how)
{
	switch (how) {
	case LINKED:
		sqe->flags |= IOSQE_IO_LINK;
		break;
	case HARDLINKED:
		sqe->flags |= IOSQE_IO_HARDLINK;
		break;
	case SKIPPED:
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		break;
	case BAD_OPCODE:
		sqe->opcode = 255;
		break;
	case BAD_IOPRIO:
		sqe->opcode = IORING_OP_SEND;
		sqe->ioprio = 0x8000;
		break;
	default:
		FAIL("no such way");
	}
}

static void spoilt_group(unsigned int mode, enum spoil how, int position)
{
	struct ring ring;

	events.count = 0;
	ring_open(&ring, 16, mode);
	for (int i = 0; i < 4; i++) {
		struct io_uring_sqe *sqe = ring_nop(&ring, (uint64_t)i, i < 3 ? GROUP : 0);

		if (i == position)
			spoil(sqe, how);
	}
	ring_nop_res(&ring, NEXT, 0, 5);
	ring_submit_all(&ring);
	ring_reap(&ring, &events, 5);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(log_res(&events, (uint64_t)i), i == position ? -EINVAL : -ECANCELED);
	CHECK_EQ(log_res(&events, NEXT), 5);
	ring_check_quiet(&ring);
	ring_close(&ring);
}

static void refused_sqe_fails_its_group_and_nothing_else(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	for (enum spoil how = 0; how < NR_SPOILS; how++) {
		for (int position = 0; position < 4; position++) {
			/* A leader may be linked. */
			if (position == 0 && (how == LINKED || how == HARDLINKED))
				continue;
			/* The last member's link flag would open a chain behind the group. */
			spoilt_group(0, how, position);
			spoilt_group(IORING_SETUP_SUBMIT_ALL, how, position);
		}
	}
}

static void refused_sqe_fails_the_chain_around_its_group(void)
{
	struct ring ring;

	ring_require(IORING_FEAT_SQE_GROUP);
	ring_open(&ring, 16, 0);
	ring_nop(&ring, 1, LINK);
	ring_nop(&ring, LEADER, GROUP | LINK);
	ring_sqe(&ring, 255, 2, GROUP);
	ring_nop(&ring, 3, 0);
	ring_nop(&ring, 4, 0);
	ring_nop(&ring, NEXT, 0);
	ring_submit_all(&ring);
	ring_reap(&ring, &events, 6);
	CHECK_EQ(log_res(&events, 2), -EINVAL);
	for (uint64_t i = 1; i <= 4; i++)
		CHECK_EQ(log_res(&events, i), i == 2 ? -EINVAL : -ECANCELED);
	CHECK_EQ(log_res(&events, LEADER), -ECANCELED);
	CHECK_EQ(log_res(&events, NEXT), 0);
	ring_check_quiet(&ring);
	ring_close(&ring);
}

static void link_timeout_in_or_after_a_group_is_refused(void)
{
	struct __kernel_timespec hour = {.tv_sec = 3600};
	struct ring ring;

	ring_require(IORING_FEAT_SQE_GROUP);
	for (int position = 0; position < 3; position++) {
		events.count = 0;
		ring_open(&ring, 16, 0);
		for (int i = 0; i < 3; i++) {
			uint8_t flags = i < 2 ? GROUP : 0;

			if (i == position)
				ring_rw(&ring, IORING_OP_LINK_TIMEOUT, (uint64_t)i, flags, -1,
					(uintptr_t)&hour, 1, 0);
			else
				ring_nop(&ring, (uint64_t)i, flags);
		}
		ring_submit_all(&ring);
		ring_reap(&ring, &events, 3);
		for (int i = 0; i < 3; i++)
			CHECK_EQ(log_res(&events, (uint64_t)i),
				 i == position ? -EINVAL : -ECANCELED);
		ring_check_quiet(&ring);
		ring_close(&ring);
	}

	events.count = 0;
	ring_open(&ring, 16, 0);
	ring_nop(&ring, LEADER, GROUP | LINK);
	ring_nop(&ring, 1, 0);
	ring_rw(&ring, IORING_OP_LINK_TIMEOUT, 2, 0, -1, (uintptr_t)&hour, 1, 0);
	ring_submit_all(&ring);
	ring_reap(&ring, &events, 3);
	CHECK_EQ(log_res(&events, 2), -EINVAL);
	CHECK_EQ(log_res(&events, 1), -ECANCELED);
	CHECK_EQ(log_res(&events, LEADER), -ECANCELED);
	ring_check_quiet(&ring);
	ring_close(&ring);
}

static void iopoll_ring_refuses_groups(void)
{
	struct ring ring;

	ring_require(IORING_FEAT_SQE_GROUP);
	ring_open(&ring, 4, IORING_SETUP_IOPOLL);
	ring_nop(&ring, 1, GROUP);
	ring_nop(&ring, 2, 0);
	ring_submit_all(&ring);
	ring_reap(&ring, &events, 2);
	CHECK_EQ(log_res(&events, 1), -EINVAL);
	CHECK_EQ(log_res(&events, 2), -ECANCELED);
	ring_close(&ring);
}

static void overflow_loses_nothing_and_keeps_the_order(void)
{
	enum { ENTRIES = 16, PLAIN = 14, MEMBERS = 8 };
	static const unsigned int overflow_modes[] = {
		0,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};
	struct ring ring;

	ring_require(IORING_FEAT_SQE_GROUP);
	for (unsigned int m = 0; m < 2; m++) {
		events.count = 0;
		CHECK_EQ(ring_try_open(&ring, ENTRIES, overflow_modes[m], ENTRIES), 0);
		/* Left in the completion queue, so that two entries of it are free. */
		for (int i = 0; i < PLAIN; i++)
			ring_nop(&ring, 100 + (uint64_t)i, 0);
		CHECK_EQ(ring_submit_wait(&ring, PLAIN), PLAIN);
		ring_nop(&ring, LEADER, GROUP);
		for (int i = 1; i <= MEMBERS; i++)
			ring_nop_res(&ring, (uint64_t)i, i < MEMBERS ? GROUP : 0, i);
		CHECK_EQ(ring_submit(&ring), MEMBERS + 1);
		ring_reap(&ring, &events, PLAIN + MEMBERS + 1);
		for (int i = 0; i < PLAIN; i++)
			CHECK_EQ(log_index(&events, 100 + (uint64_t)i), i);
		for (int i = 1; i <= MEMBERS; i++)
			CHECK_EQ(log_res(&events, (uint64_t)i), i);
		CHECK_EQ(log_index(&events, LEADER), PLAIN + MEMBERS);
		ring_check_quiet(&ring);
		ring_close(&ring);
	}
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"01: feature bits say what SQE flag bit 7 does", features_say_what_bit_7_does, 0},
		{"02: the leader completes last, on every kind of ring",
		 leader_completes_last_on_every_kind_of_ring, 0},
		{"03: a leader that fails cancels its members",
		 leader_that_fails_cancels_its_members, 0},
		{"07: a refused SQE fails its group and nothing else",
		 refused_sqe_fails_its_group_and_nothing_else, 0},
		{"07: a refused SQE fails the chain around its group",
		 refused_sqe_fails_the_chain_around_its_group, 0},
		{"08: LINK_TIMEOUT in or right after a group is refused",
		 link_timeout_in_or_after_a_group_is_refused, 0},
		{"12: an overflowing completion queue loses nothing and keeps the order",
		 overflow_loses_nothing_and_keeps_the_order, 0},
		{"13: leader and members in io-wq", async_leader_and_members, 0},
		{"H20: an IOPOLL ring refuses groups", iopoll_ring_refuses_groups, 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
