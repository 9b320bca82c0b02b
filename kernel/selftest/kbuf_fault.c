// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation on the path fails once: the Nth for N = 1, 2, ... until a run needs fewer. Each
 * run ends with one completion per SQE that was consumed and with the buffer given back.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net.h"
#include "prov.h"
#include "ring.h"
#include "tap.h"

#define LEADER	1000
#define SIZE	(64 * 4096)
#define MAX_NTH 2000

static struct ring_log events;
static int fail_nth_fd;

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		tap_skip("no fault injection in this kernel");
	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void set_up(void)
{
	/* Allocations that may sleep count too, and a message for each would hide real ones. */
	write_text("/sys/kernel/debug/failslab/ignore-gfp-wait", "N");
	write_text("/sys/kernel/debug/failslab/verbose", "0");
	fail_nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (fail_nth_fd < 0)
		tap_skip("no /proc/thread-self/fail-nth");
}

static void arm(int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", nth);

	CHECK_EQ(pwrite(fail_nth_fd, text, (size_t)len, 0), len);
}

/* Disarms; whether the failure took place. */
static bool disarm(void)
{
	char text[16] = "";

	CHECK(pread(fail_nth_fd, text, sizeof(text) - 1, 0) > 0);
	arm(0);
	return text[0] == '0';
}

struct setting {
	struct ring ring;
	int provider, unix_fds[2], tcp_fds[2], file;
};

static int queue_everything(struct setting *s)
{
	struct ring *ring = &s->ring;

	ring_nop(ring, 1, LINK);
	prov_lend(ring, LEADER, GROUP | LINK, s->provider, GKT_DIR_TAKE);
	ring_msg(ring, IORING_OP_SEND, 2, KBUF | GROUP, s->unix_fds[0], 3, 5000, MSG_WAITALL);
	ring_msg(ring, IORING_OP_SEND_ZC, 3, KBUF | GROUP, s->tcp_fds[0], 0, 60000, MSG_WAITALL);
	ring_rw(ring, IORING_OP_WRITE, 4, KBUF | GROUP, s->file, 100, 8000, 0);
	ring_nop(ring, 5, IOSQE_ASYNC);
	prov_lend(ring, LEADER + 1, GROUP | IOSQE_ASYNC, s->provider, GKT_DIR_FILL);
	ring_rw(ring, IORING_OP_READ, 6, KBUF | GROUP, s->file, 100, 8000, 0);
	ring_msg(ring, IORING_OP_RECV, 7, KBUF | GROUP | IOSQE_ASYNC, s->unix_fds[0], 16384, 4096,
		 MSG_WAITALL);
	ring_msg(ring, IORING_OP_RECV, 8, KBUF, s->tcp_fds[0], 32768, 4096, MSG_WAITALL);
	return 10;
}

static bool failing_run(unsigned int mode, int nth)
{
	struct setting s;
	struct ring_cqe cqe;
	int expected, provides;
	unsigned int consumed;
	bool failed;

	events.count = 0;
	s.provider = prov_open_pages(SIZE / 4096);
	s.file = (int)CHECK_SYS(memfd_create("kbuf_fault", MFD_CLOEXEC));
	CHECK_SYS(ftruncate(s.file, SIZE));
	net_unix_pair(s.unix_fds);
	net_tcp_pair(s.tcp_fds, 0, 0);
	ring_open(&s.ring, 16, mode);
	expected = queue_everything(&s);
	arm(nth);
	ring_submit(&s.ring);
	/* In the calling thread task work runs here, under the same threat. */
	ring_submit_wait(&s.ring, 0);
	failed = disarm();
	/* A submission that could not take an SQE left it in the queue, and with it the rest. */
	ring_submit_all(&s.ring);
	consumed = *s.ring.sq_head;
	CHECK_EQ(consumed, expected);
	/* Both receivers are satisfied only if they are there; cancelling ends what waits. */
	peer_join(peer_write(s.unix_fds[1], 3, 0, 4096));
	peer_join(peer_write(s.tcp_fds[1], 3, 0, 4096));
	while (expected > 0) {
		if (!ring_wait(&s.ring, &cqe, tap_patience_ms()))
			FAIL("with allocation %d failing, %d completions are missing", nth,
			     expected);
		if (!(cqe.flags & IORING_CQE_F_NOTIF))
			expected--;
		events.cqe[events.count++] = cqe;
	}
	for (int i = 0; i < events.count; i++)
		if (events.cqe[i].flags & IORING_CQE_F_NOTIF)
			CHECK_EQ(events.cqe[i].user_data, 3);
	ring_check_quiet(&s.ring);
	provides = (int)prov_stats(s.provider).provided;
	prov_check_returned(s.provider, provides);
	if (!failed) {
		CHECK_EQ(provides, 2);
		CHECK_EQ(log_res(&events, 3), 60000);
		CHECK_EQ(log_res(&events, 7), 4096);
		CHECK_EQ(log_res(&events, 8), 4096);
	}
	ring_close(&s.ring);
	close(s.provider);
	close(s.file);
	close(s.unix_fds[0]);
	close(s.unix_fds[1]);
	close(s.tcp_fds[0]);
	close(s.tcp_fds[1]);
	return failed;
}

static void every_allocation_fails_once(void)
{
	static const unsigned int modes[] = {
		0,
		IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};

	ring_require(IORING_FEAT_GROUP_KBUF);
	set_up();
	for (unsigned int m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
		int nth = 1;

		while (failing_run(modes[m], nth)) {
			nth++;
			CHECK(nth < MAX_NTH);
		}
		tap_note("ring flags %x: %d allocations failed", modes[m], nth - 1);
		CHECK(nth > 10);
	}
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"31: every allocation of the path fails once", every_allocation_fails_once, 600},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
