// SPDX-License-Identifier: GPL-2.0
/*
 * The buffer is always given back: random groups with random members, random cancels, and a
 * process that ends them by waiting, by closing its ring or by being killed. GK_STRESS_ROUNDS
 * submissions in all (100000). The seed is printed; GK_STRESS_SEED repeats a run's choices.
 */
#include <errno.h>
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
#include "prov.h"
#include "ring.h"
#include "tap.h"

#define SIZE	    65536
#define CANCEL_MARK UINT64_C(1000000)
#define MAX_GROUPS  3
#define MAX_MEMBERS 6

static uint64_t random_state;

static unsigned int choose(unsigned int below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned int)((random_state >> 20) % below);
}

static bool one_in(unsigned int count)
{
	return choose(count) == 0;
}

struct worker {
	struct ring ring;
	int provider, unix_fds[2], tcp_fds[2], pipe_fds[2], file;
	unsigned int outstanding; /* final completions still to come */
	uint64_t next;
};

static void queue_leader(struct worker *w, uint8_t flags, uint8_t dir)
{
	struct gkt_cmd *cmd;

	if (one_in(20)) {
		ring_nop_res(&w->ring, w->next++, flags, one_in(2) ? -EIO : 0);
		return;
	}
	cmd = prov_lend(&w->ring, w->next++, flags | (one_in(8) ? IOSQE_ASYNC : 0), w->provider,
			dir);
	if (one_in(20))
		cmd->bad = (uint8_t)choose(GKT_BAD_OFFSET + 1);
	if (one_in(20))
		cmd->flags |= GKT_F_FAIL;
	if (one_in(20))
		cmd->flags |= GKT_F_HERE;
	if (one_in(20))
		cmd->flags |= GKT_F_TWICE;
}

static void queue_member(struct worker *w, uint8_t flags, uint8_t dir)
{
	uint64_t at = choose(SIZE);
	uint32_t len = choose(one_in(4) ? SIZE : 3000);
	int fd = one_in(2) ? w->unix_fds[choose(2)] : w->tcp_fds[choose(2)];
	unsigned int msg_flags = one_in(3) ? MSG_WAITALL : 0;

	if (one_in(10))
		dir = !dir;
	if (!one_in(8))
		flags |= KBUF;
	if (one_in(6))
		flags |= IOSQE_ASYNC;
	if (!(flags & KBUF)) {
		if (one_in(2))
			ring_nop(&w->ring, w->next++, flags);
		else
			ring_msg(&w->ring, IORING_OP_RECV, w->next++, flags, fd, 0, 0, 0);
		return;
	}
	if (dir == GKT_DIR_FILL) {
		if (one_in(2))
			ring_msg(&w->ring, IORING_OP_RECV, w->next++, flags, fd, at, len,
				 msg_flags);
		else
			ring_rw(&w->ring, IORING_OP_READ, w->next++, flags,
				one_in(2) ? w->file : w->pipe_fds[0], at, len, 0);
		return;
	}
	msg_flags |= MSG_NOSIGNAL;
	switch (choose(20)) {
	case 0 ... 9:
		ring_msg(&w->ring, IORING_OP_SEND, w->next++, flags, fd, at, len, msg_flags);
		break;
	case 10:
		ring_msg(&w->ring, IORING_OP_SEND_ZC, w->next++, flags, w->tcp_fds[choose(2)], at,
			 len, msg_flags);
		break;
	default:
		ring_rw(&w->ring, IORING_OP_WRITE, w->next++, flags,
			one_in(2) ? w->file : w->pipe_fds[1], at, len, 0);
		break;
	}
}

static void queue_group(struct worker *w, bool linked)
{
	unsigned int members = 1 + choose(MAX_MEMBERS);
	uint8_t dir = (uint8_t)choose(2);

	queue_leader(w, GROUP | (linked ? LINK : 0), dir);
	for (unsigned int i = 1; i <= members; i++)
		queue_member(w, i < members ? GROUP : 0, dir);
	w->outstanding += members + 1;
}

static void take(struct worker *w, const struct ring_cqe *cqe)
{
	/* A SEND_ZC with a notification to come has not ended yet. */
	if (!(cqe->flags & IORING_CQE_F_MORE)) {
		CHECK(w->outstanding > 0);
		w->outstanding--;
	}
}

/* Empties what other members filled, so that SEND does not wait for ever. */
static void drain_sockets(struct worker *w)
{
	static char sink[SIZE];
	const int fds[] = {w->unix_fds[0], w->unix_fds[1], w->tcp_fds[0], w->tcp_fds[1]};

	for (unsigned int i = 0; i < 4; i++)
		while (recv(fds[i], sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
}

static void cancel(struct worker *w, unsigned int flags)
{
	struct io_uring_sqe *sqe = ring_cancel(&w->ring, CANCEL_MARK, w->next - 1 - choose(12));

	sqe->cancel_flags = flags;
	w->outstanding++;
}

/* Cancels until everything has ended; what is on its way through a worker is waited for. */
static void settle(struct worker *w)
{
	uint64_t end = tap_now_ms() + (uint64_t)tap_patience_ms();
	struct ring_cqe cqe;

	while (w->outstanding > 0) {
		unsigned int before;

		if (tap_now_ms() > end)
			FAIL("%u requests cannot be cancelled", w->outstanding);
		drain_sockets(w);
		if (one_in(4))
			send(w->unix_fds[choose(2)], "some data", 9, MSG_DONTWAIT);
		cancel(w, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
		before = w->outstanding;
		CHECK_EQ(ring_submit(&w->ring), 1);
		ring_run(&w->ring);
		CHECK(ring_wait(&w->ring, &cqe, tap_patience_ms()));
		do
			take(w, &cqe);
		while (ring_peek(&w->ring, &cqe));
		/* Only the cancel itself has ended. */
		if (w->outstanding == before - 1 && w->outstanding > 0 &&
		    ring_wait(&w->ring, &cqe, 10))
			take(w, &cqe);
	}
}

static void round_of_groups(struct worker *w)
{
	unsigned int groups = 1 + choose(MAX_GROUPS);
	struct ring_cqe cqe;

	for (unsigned int g = 0; g < groups; g++)
		queue_group(w, g + 1 < groups && one_in(2));
	if (one_in(3))
		cancel(w, 0);
	ring_submit_all(&w->ring);
	while (ring_peek(&w->ring, &cqe))
		take(w, &cqe);
}

/* Counts its rounds in *rounds, and writes to `ready` when it may be killed. */
static _Noreturn void work(int provider, unsigned int *rounds, unsigned int count,
			   unsigned int kill_at, int ready)
{
	static const unsigned int modes[] = {
		0,
		IORING_SETUP_COOP_TASKRUN,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_SQPOLL,
	};
	struct worker w = {.provider = provider, .next = 1};
	bool park = one_in(2);
	char data[256] = {0};

	/* Not the sequence that the parent goes on with. */
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407;
	ring_open(&w.ring, 64, modes[choose(4)] | (one_in(2) ? IORING_SETUP_SUBMIT_ALL : 0));
	net_unix_pair(w.unix_fds);
	/* Small buffers and zero copy wait for TCP's timers: often enough is seldom. */
	net_tcp_pair(w.tcp_fds, one_in(16) ? 4096 : 0, one_in(16) ? 4096 : 0);
	CHECK_SYS(pipe(w.pipe_fds));
	w.file = (int)CHECK_SYS(memfd_create("stress", 0));
	CHECK_EQ(pwrite(w.file, data, sizeof(data), 4000), sizeof(data));
	for (unsigned int i = 0; i < count; i++) {
		if (i == kill_at)
			CHECK_EQ(write(ready, "x", 1), 1);
		round_of_groups(&w);
		__atomic_add_fetch(rounds, 1, __ATOMIC_RELAXED);
		if (!(park && i + 1 == count))
			settle(&w);
	}
	/* What is parked now ends with the ring, or with this process. */
	if (park && one_in(2))
		ring_close(&w.ring);
	_exit(0);
}

static void every_buffer_comes_back(void)
{
	const char *text = getenv("GK_STRESS_ROUNDS"), *seed = getenv("GK_STRESS_SEED");
	unsigned int wanted = text ? (unsigned int)atoi(text) : 100000, total = 0, kills = 0;
	unsigned int *rounds =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int provider = prov_open_pages(SIZE / 4096);
	struct gkt_stats stats;

	CHECK(rounds != MAP_FAILED);
	random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 2654435761u + 1;
	tap_note("GK_STRESS_SEED=%llu", (unsigned long long)random_state);
	while (total < wanted) {
		unsigned int count = 1 + choose(one_in(4) ? 2000 : 40);
		unsigned int kill_at = one_in(2) ? choose(count) : UINT32_MAX;
		int status, ready[2];
		pid_t child;

		*rounds = 0;
		CHECK_SYS(pipe(ready));
		child = (pid_t)CHECK_SYS(fork());
		if (child == 0)
			work(provider, rounds, count, kill_at, ready[1]);
		close(ready[1]);
		/* The end of the pipe means that it failed before it came so far. */
		if (kill_at < count && read(ready[0], &status, 1) == 1) {
			CHECK_SYS(kill(child, SIGKILL));
			kills++;
		}
		close(ready[0]);
		CHECK_SYS(waitpid(child, &status, 0));
		if (!(kill_at < count && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
			CHECK_EQ(status, 0);
		prov_check_returned(provider, -1);
		prov_wait(provider, GKT_WAIT_HELD_MAX, 0);
		if ((total + *rounds) * 10ull / wanted > total * 10ull / wanted)
			tap_note("%u rounds, %u kills", total + *rounds, kills);
		total += *rounds;
	}
	stats = prov_stats(provider);
	tap_note("%u rounds, %u kills, %llu provided, %llu released, %llu refused", total, kills,
		 (unsigned long long)stats.provided, (unsigned long long)stats.released,
		 (unsigned long long)stats.refused);
	CHECK(stats.provided > total / 2);
	CHECK_EQ(stats.provided, stats.released);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"30: the buffer is always given back", every_buffer_comes_back, 3000},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
