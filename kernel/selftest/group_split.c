// SPDX-License-Identifier: GPL-2.0
/*
 * Groups that do not arrive whole. The rest of such a group must not be taken for SQEs of its own:
 * a member's buffer offset would then be an address of this process, and what is mapped there
 * would go out on the socket. So the tests map a secret at the offsets that the members use.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"
#include "prov.h"
#include "ring.h"
#include "tap.h"

#define SECRET_ADDRESS 0x10000
#define SECRET_BYTES   4096
#define NEXT	       2000

static struct ring_log events;

static void map_secret(void)
{
	char *secret = mmap((void *)SECRET_ADDRESS, SECRET_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	CHECK(secret != MAP_FAILED);
	memset(secret, 'S', SECRET_BYTES);
}

/* Ends the ring's use of the socket and checks that nothing was ever sent. */
static void check_nothing_sent(struct ring *ring, int fds[2])
{
	char received[64];

	ring_close(ring);
	CHECK_SYS(shutdown(fds[0], SHUT_WR));
	close(fds[0]);
	CHECK_EQ(net_read_all(fds[1], received, sizeof(received)), 0);
	close(fds[1]);
}

static void wait_consumed(struct ring *ring, unsigned int tail)
{
	while (__atomic_load_n(ring->sq_head, __ATOMIC_ACQUIRE) != tail)
		sched_yield();
}

enum { SIZE = 4 };

static void queue_group(struct ring *ring, int fd, int provider, uint8_t member_flags)
{
	if (provider >= 0)
		prov_lend(ring, 0, GROUP, provider, GKT_DIR_TAKE);
	else
		ring_nop(ring, 0, GROUP);
	for (uint64_t i = 1; i < SIZE; i++)
		ring_msg(ring, IORING_OP_SEND, i, member_flags | (i + 1 < SIZE ? GROUP : 0), fd,
			 SECRET_ADDRESS, 64, MSG_NOSIGNAL);
}

static void split_group(unsigned int mode, int provider, uint8_t member_flags, unsigned int split)
{
	struct ring ring;
	int fds[2];

	events.count = 0;
	net_unix_pair(fds);
	ring_open(&ring, 16, mode);
	queue_group(&ring, fds[0], provider, member_flags);
	CHECK_EQ(ring_submit_some(&ring, split), split);
	wait_consumed(&ring, split);
	ring_submit_all(&ring);
	wait_consumed(&ring, SIZE);
	ring_nop_res(&ring, NEXT, 0, 5);
	CHECK_EQ(ring_submit(&ring), 1);
	ring_reap(&ring, &events, SIZE + 1);
	for (unsigned int i = 0; i < SIZE; i++)
		CHECK_EQ(log_res(&events, i), i == split - 1 ? -EINVAL : -ECANCELED);
	CHECK_EQ(log_res(&events, NEXT), 5);
	check_nothing_sent(&ring, fds);
	if (provider >= 0)
		prov_check_returned(provider, 0);
}

static void split_groups(int provider)
{
	static const unsigned int modes[] = {
		0,
		IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_SQPOLL,
	};

	map_secret();
	for (unsigned int m = 0; m < sizeof(modes) / sizeof(modes[0]); m++)
		for (unsigned int split = 1; split < SIZE; split++) {
			split_group(modes[m], provider, KBUF, split);
			split_group(modes[m], provider, 0, split);
		}
}

static void split_group_sends_no_process_memory(void)
{
	ring_require(IORING_FEAT_SQE_GROUP);
	split_groups(-1);
}

static void split_group_with_a_provider_sends_no_process_memory(void)
{
	int provider = prov_open_pages(SECRET_ADDRESS / 4096 + 1);

	split_groups(provider);
	close(provider);
}

/* An SQPOLL thread that serves two rings takes at most 8 SQEs from each at a time. */
static void sqpoll_thread_of_two_rings_splits_a_group(void)
{
	struct ring first, ring;
	int fds[2];

	ring_require(IORING_FEAT_SQE_GROUP);
	map_secret();
	net_unix_pair(fds);
	ring_open(&first, 16, IORING_SETUP_SQPOLL);
	ring_open_attached(&ring, 16, IORING_SETUP_SQPOLL, first.fd);
	ring_nop(&ring, 0, GROUP);
	for (uint64_t i = 1; i < 12; i++)
		ring_msg(&ring, IORING_OP_SEND, i, KBUF | (i + 1 < 12 ? GROUP : 0), fds[0],
			 SECRET_ADDRESS, 64, MSG_NOSIGNAL);
	CHECK_EQ(ring_submit(&ring), 12);
	ring_reap(&ring, &events, 12);
	for (uint64_t i = 0; i < 12; i++)
		CHECK(log_res(&events, i) < 0);
	ring_check_quiet(&ring);
	ring_close(&first);
	check_nothing_sent(&ring, fds);
}

static void unterminated_group_discards_up_to_its_end(void)
{
	struct ring ring;

	ring_require(IORING_FEAT_SQE_GROUP);
	ring_open(&ring, 16, 0);
	for (int round = 0; round < 2; round++) {
		events.count = 0;
		ring_nop(&ring, 1, GROUP);
		ring_nop(&ring, 2, GROUP);
		ring_nop(&ring, 3, GROUP);
		CHECK_EQ(ring_submit(&ring), 3);
		ring_reap(&ring, &events, 3);
		ring_nop(&ring, 4, GROUP);
		CHECK_EQ(ring_submit(&ring), 1);
		ring_reap(&ring, &events, 1);
		ring_nop(&ring, 5, 0);
		ring_nop(&ring, 6, 0);
		ring_submit_all(&ring);
		ring_reap(&ring, &events, 2);
		CHECK_EQ(log_res(&events, 3), -EINVAL);
		for (uint64_t i = 1; i <= 6; i++)
			CHECK_EQ(log_res(&events, i), i == 3 ? -EINVAL : i == 6 ? 0 : -ECANCELED);
	}
	ring_check_quiet(&ring);
	ring_close(&ring);
}

static void unterminated_group_fails_its_chain(void)
{
	struct ring ring;

	ring_require(IORING_FEAT_SQE_GROUP);
	ring_open(&ring, 16, 0);
	ring_nop(&ring, 1, LINK);
	ring_nop(&ring, 2, GROUP | LINK);
	ring_nop(&ring, 3, GROUP);
	CHECK_EQ(ring_submit(&ring), 3);
	ring_nop(&ring, 4, 0);
	ring_nop(&ring, 5, 0);
	ring_submit_all(&ring);
	ring_reap(&ring, &events, 5);
	for (uint64_t i = 1; i <= 5; i++)
		CHECK_EQ(log_res(&events, i), i == 3 ? -EINVAL : i == 5 ? 0 : -ECANCELED);
	ring_check_quiet(&ring);
	ring_close(&ring);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"09: a group split over two submissions never puts a byte of process memory on "
		 "the socket",
		 split_group_sends_no_process_memory, 0},
		{"09: nor when its leader could provide a buffer",
		 split_group_with_a_provider_sends_no_process_memory, 0},
		{"09: nor when an SQPOLL thread of two rings splits it",
		 sqpoll_thread_of_two_rings_splits_a_group, 0},
		{"09: an unterminated group discards up to its end",
		 unterminated_group_discards_up_to_its_end, 0},
		{"09: an unterminated group fails its chain", unterminated_group_fails_its_chain,
		 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
