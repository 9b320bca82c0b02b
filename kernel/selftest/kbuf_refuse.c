// SPDX-License-Identifier: GPL-2.0
/* What a group buffer must not be used for, and what a provider must not get away with. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net.h"
#include "prov.h"
#include "ring.h"
#include "tap.h"

#define LEADER 1000
#define OLD    9
#define SIZE   8192

static struct ring_log events;

static int filled_provider(void)
{
	int provider = prov_open_pages(SIZE / 4096);

	prov_fill(provider, OLD, 0, SIZE);
	return provider;
}

static void check_socket_silent(int fds[2])
{
	char received;

	close(fds[0]);
	CHECK_EQ(net_read_all(fds[1], &received, 1), 0);
	close(fds[1]);
}

static void wrong_direction(struct ring *ring, int provider, uint8_t flags)
{
	int fds[2], file = (int)CHECK_SYS(memfd_create("kbuf_refuse", MFD_CLOEXEC));

	events.count = 0;
	net_tcp_pair(fds, 0, 0);
	net_write(fds[1], "must stay", 9);
	CHECK_EQ(pwrite(file, "must stay", 9, 0), 9);

	prov_lend(ring, LEADER, GROUP, provider, GKT_DIR_FILL);
	ring_msg(ring, IORING_OP_SEND, 1, KBUF | GROUP | flags, fds[0], 0, SIZE, 0);
	ring_msg(ring, IORING_OP_SEND_ZC, 2, KBUF | GROUP | flags, fds[0], 0, SIZE, 0);
	ring_rw(ring, IORING_OP_WRITE, 3, KBUF | flags, file, 0, SIZE, 0);
	prov_lend(ring, LEADER + 1, GROUP, provider, GKT_DIR_TAKE);
	ring_msg(ring, IORING_OP_RECV, 4, KBUF | GROUP | flags, fds[0], 0, SIZE, 0);
	ring_rw(ring, IORING_OP_READ, 5, KBUF | flags, file, 0, SIZE, 0);
	CHECK_EQ(ring_submit(ring), 7);
	ring_reap_ended(ring, &events, 7);
	for (uint64_t i = 1; i <= 5; i++)
		CHECK_EQ(log_res(&events, i), -EINVAL);
	CHECK_EQ(log_res(&events, LEADER), SIZE);
	CHECK_EQ(log_res(&events, LEADER + 1), SIZE);
	ring_check_quiet(ring);

	CHECK_EQ(lseek(file, 0, SEEK_END), 9);
	/* The bytes that RECV must not take are still there. */
	CHECK_EQ(recv(fds[0], (char[16]){0}, 16, MSG_DONTWAIT), 9);
	close(file);
	check_socket_silent(fds);
}

static void wrong_direction_moves_nothing(void)
{
	int provider = filled_provider();
	struct ring ring;

	ring_open(&ring, 16, 0);
	wrong_direction(&ring, provider, 0);
	wrong_direction(&ring, provider, IOSQE_ASYNC);
	prov_check_pattern(provider, OLD, 0, 0, SIZE);
	prov_check_returned(provider, 4);
	ring_close(&ring);
}

enum use {
	SELECT_SEND,
	SELECT_RECV,
	SELECT_READ,
	ZEROCOPY_SEND,
	FIXED_SEND,
	FIXED_SEND_ZC,
	FIXED_RECV,
	BUNDLE_RECV,
	MULTISHOT_RECV,
	TRUNC_RECV,
	PEEK_RECV,
	OOB_RECV,
	ERRQUEUE_RECV,
	READ_FIXED,
	WRITE_FIXED,
	READV,
	WRITEV,
	READ_MULTISHOT,
	SENDMSG,
	RECVMSG,
	SENDMSG_ZC,
	NOP,
	FSYNC,
	URING_CMD,
	NR_USES
};

static const struct {
	uint8_t opcode, flags;
	uint16_t ioprio;
	unsigned int op_flags;
	int res;
} uses[NR_USES] = {
	[SELECT_SEND] = {IORING_OP_SEND, IOSQE_BUFFER_SELECT, 0, 0, -EINVAL},
	[SELECT_RECV] = {IORING_OP_RECV, IOSQE_BUFFER_SELECT, 0, 0, -EINVAL},
	[SELECT_READ] = {IORING_OP_READ, IOSQE_BUFFER_SELECT, 0, 0, -EINVAL},
	[ZEROCOPY_SEND] = {IORING_OP_SEND, 0, 0, MSG_ZEROCOPY, -EINVAL},
	[FIXED_SEND] = {IORING_OP_SEND, 0, IORING_RECVSEND_FIXED_BUF, 0, -EINVAL},
	[FIXED_SEND_ZC] = {IORING_OP_SEND_ZC, 0, IORING_RECVSEND_FIXED_BUF, 0, -EINVAL},
	[FIXED_RECV] = {IORING_OP_RECV, 0, IORING_RECVSEND_FIXED_BUF, 0, -EINVAL},
	[BUNDLE_RECV] = {IORING_OP_RECV, 0, IORING_RECVSEND_BUNDLE, 0, -EINVAL},
	[MULTISHOT_RECV] = {IORING_OP_RECV, 0, IORING_RECV_MULTISHOT, 0, -EINVAL},
	[TRUNC_RECV] = {IORING_OP_RECV, 0, 0, MSG_TRUNC, -EINVAL},
	[PEEK_RECV] = {IORING_OP_RECV, 0, 0, MSG_PEEK, -EINVAL},
	[OOB_RECV] = {IORING_OP_RECV, 0, 0, MSG_OOB, -EINVAL},
	[ERRQUEUE_RECV] = {IORING_OP_RECV, 0, 0, MSG_ERRQUEUE, -EINVAL},
	[READ_FIXED] = {IORING_OP_READ_FIXED, 0, 0, 0, -EOPNOTSUPP},
	[WRITE_FIXED] = {IORING_OP_WRITE_FIXED, 0, 0, 0, -EOPNOTSUPP},
	[READV] = {IORING_OP_READV, 0, 0, 0, -EOPNOTSUPP},
	[WRITEV] = {IORING_OP_WRITEV, 0, 0, 0, -EOPNOTSUPP},
	[READ_MULTISHOT] = {IORING_OP_READ_MULTISHOT, 0, 0, 0, -EOPNOTSUPP},
	[SENDMSG] = {IORING_OP_SENDMSG, 0, 0, 0, -EOPNOTSUPP},
	[RECVMSG] = {IORING_OP_RECVMSG, 0, 0, 0, -EOPNOTSUPP},
	[SENDMSG_ZC] = {IORING_OP_SENDMSG_ZC, 0, 0, 0, -EOPNOTSUPP},
	[NOP] = {IORING_OP_NOP, 0, 0, 0, -EOPNOTSUPP},
	[FSYNC] = {IORING_OP_FSYNC, 0, 0, 0, -EOPNOTSUPP},
	[URING_CMD] = {IORING_OP_URING_CMD, 0, 0, 0, -EOPNOTSUPP},
};

static void unusable_operations_are_refused(void)
{
	static char memory[SIZE];
	struct iovec iovec = {memory, SIZE};
	int provider = filled_provider(), fds[2];
	struct ring ring;

	net_unix_pair(fds);
	net_write(fds[1], "must stay", 9);
	ring_open(&ring, 16, 0);
	CHECK_EQ(sys_io_uring_register(ring.fd, IORING_REGISTER_BUFFERS, &iovec, 1), 0);
	for (int u = 0; u < NR_USES; u++) {
		struct io_uring_sqe *sqe;

		events.count = 0;
		prov_lend(&ring, LEADER, GROUP, provider,
			  u == SELECT_SEND || u == FIXED_SEND ? GKT_DIR_TAKE : GKT_DIR_FILL);
		sqe = ring_msg(&ring, uses[u].opcode, 1, KBUF | GROUP | uses[u].flags, fds[0], 0, 1,
			       uses[u].op_flags);
		sqe->ioprio = uses[u].ioprio;
		ring_nop(&ring, 2, 0);
		ring_submit_all(&ring);
		ring_reap_ended(&ring, &events, 3);
		if (log_res(&events, 1) != uses[u].res)
			FAIL("use %d: %d instead of %d", u, log_res(&events, 1), uses[u].res);
		CHECK_EQ(log_res(&events, LEADER), -ECANCELED);
		CHECK_EQ(log_res(&events, 2), -ECANCELED);
	}
	prov_check_pattern(provider, OLD, 0, 0, SIZE);
	prov_check_returned(provider, 0);
	ring_check_quiet(&ring);
	ring_close(&ring);
	CHECK_EQ(recv(fds[0], (char[16]){0}, 16, MSG_DONTWAIT), 9);
	check_socket_silent(fds);
}

static void leader_without_a_buffer(void)
{
	int provider = filled_provider(), fds[2];
	struct ring ring;

	net_unix_pair(fds);
	ring_open(&ring, 16, 0);
	ring_nop(&ring, LEADER, GROUP | LINK);
	ring_msg(&ring, IORING_OP_SEND, 1, KBUF | GROUP, fds[0], 0, 8, 0);
	ring_msg(&ring, IORING_OP_RECV, 2, KBUF | GROUP | IOSQE_ASYNC, fds[0], 0, 8, 0);
	ring_nop_res(&ring, 3, 0, 7);
	ring_nop(&ring, 4, 0);
	CHECK_EQ(ring_submit(&ring), 5);
	ring_reap(&ring, &events, 5);
	CHECK_EQ(log_res(&events, 1), -EINVAL);
	CHECK_EQ(log_res(&events, 2), -EINVAL);
	CHECK_EQ(log_res(&events, 3), 7);
	CHECK_EQ(log_res(&events, LEADER), 0);
	CHECK_EQ(log_res(&events, 4), -ECANCELED);

	/* A leader that is an operation with a buffer of its own is not taken for a provider. */
	events.count = 0;
	prov_echo(&ring, LEADER, GROUP, provider, 5);
	ring_msg(&ring, IORING_OP_SEND, 1, KBUF, fds[0], 0, 8, 0);
	CHECK_EQ(ring_submit(&ring), 2);
	ring_reap(&ring, &events, 2);
	CHECK_EQ(log_res(&events, LEADER), 5);
	CHECK_EQ(log_res(&events, 1), -EINVAL);
	ring_close(&ring);
	check_socket_silent(fds);
	prov_check_returned(provider, 0);
}

/* READ_FIXED and a provided buffer live where a kernel buffer would be remembered. */
static void leader_with_other_buffers_is_no_provider(void)
{
	static char memory[4096];
	struct iovec iovec = {memory, sizeof(memory)};
	int provider = filled_provider(), fds[2], file;
	struct io_uring_sqe *sqe;
	struct ring ring;

	net_unix_pair(fds);
	file = (int)CHECK_SYS(memfd_create("kbuf_refuse", MFD_CLOEXEC));
	CHECK_EQ(pwrite(file, memory, 4096, 0), 4096);
	ring_open(&ring, 16, 0);
	CHECK_EQ(sys_io_uring_register(ring.fd, IORING_REGISTER_BUFFERS, &iovec, 1), 0);
	ring_rw(&ring, IORING_OP_READ_FIXED, LEADER, GROUP, file, (uintptr_t)memory, 4096, 0);
	ring_msg(&ring, IORING_OP_SEND, 1, KBUF, fds[0], 0, 8, 0);
	sqe = ring_rw(&ring, IORING_OP_PROVIDE_BUFFERS, 2, 0, 1, (uintptr_t)memory, 4096, 0);
	sqe->buf_group = 1;
	sqe = ring_rw(&ring, IORING_OP_READ, LEADER + 1, GROUP | IOSQE_BUFFER_SELECT, file, 0, 4096,
		      0);
	sqe->buf_group = 1;
	ring_msg(&ring, IORING_OP_SEND, 3, KBUF, fds[0], 0, 8, 0);
	CHECK_EQ(ring_submit(&ring), 5);
	ring_reap(&ring, &events, 5);
	CHECK_EQ(log_res(&events, LEADER), 4096);
	CHECK_EQ(log_res(&events, LEADER + 1), 4096);
	CHECK_EQ(log_res(&events, 1), -EINVAL);
	CHECK_EQ(log_res(&events, 2), 0);
	CHECK_EQ(log_res(&events, 3), -EINVAL);
	ring_close(&ring);
	check_socket_silent(fds);
	close(provider);
}

static void unused_and_mixed(void)
{
	int provider = filled_provider(), fds[2];
	static char plain[8] = "plain";
	struct ring ring;

	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
	ring_nop(&ring, 1, 0);
	CHECK_EQ(ring_submit(&ring), 2);
	ring_reap(&ring, &events, 2);
	CHECK_EQ(log_res(&events, LEADER), SIZE);
	prov_check_returned(provider, 1);

	events.count = 0;
	net_unix_pair(fds);
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE);
	ring_nop_res(&ring, 1, GROUP, 4);
	ring_msg(&ring, IORING_OP_SEND, 2, KBUF | GROUP, fds[0], 16, 100, 0);
	ring_msg(&ring, IORING_OP_SEND, 3, 0, fds[1], (uintptr_t)plain, sizeof(plain), 0);
	CHECK_EQ(ring_submit(&ring), 4);
	ring_reap(&ring, &events, 4);
	CHECK_EQ(log_res(&events, 1), 4);
	CHECK_EQ(log_res(&events, 2), 100);
	CHECK_EQ(log_res(&events, 3), sizeof(plain));
	peer_join(peer_read(fds[1], OLD, 16, 100));
	net_read(fds[0], plain, sizeof(plain));
	prov_check_returned(provider, 2);
	ring_close(&ring);
}

static int lend_badly(struct ring *ring, int provider, uint8_t bad, uint16_t flags,
		      uint8_t sqe_flags)
{
	int zero = (int)CHECK_SYS(open("/dev/zero", O_RDONLY | O_CLOEXEC));
	struct gkt_cmd *cmd;

	events.count = 0;
	cmd = prov_lend(ring, LEADER, GROUP | sqe_flags, provider, GKT_DIR_FILL);
	cmd->bad = bad;
	cmd->flags = flags;
	ring_rw(ring, IORING_OP_READ, 1, KBUF | GROUP, zero, 0, 64, 0);
	ring_nop(ring, 2, 0);
	CHECK_EQ(ring_submit(ring), 3);
	ring_reap(ring, &events, 3);
	CHECK_EQ(log_index(&events, LEADER), 2);
	CHECK_EQ(log_res(&events, 1), log_res(&events, LEADER) < 0 ? -ECANCELED : 64);
	CHECK_EQ(log_res(&events, 2), log_res(&events, LEADER) < 0 ? -ECANCELED : 0);
	close(zero);
	return log_res(&events, LEADER);
}

static void bad_descriptors_are_refused(void)
{
	int provider = filled_provider();
	struct ring ring;

	ring_open(&ring, 16, 0);
	for (uint8_t bad = GKT_BAD_BVEC; bad <= GKT_BAD_OFFSET; bad++) {
		int res = lend_badly(&ring, provider, bad, 0, 0);

		if (res != -EINVAL)
			FAIL("bad descriptor %d: %d", bad, res);
		CHECK_EQ(prov_stats(provider).refused, bad);
	}
	prov_check_returned(provider, 0);
	prov_check_pattern(provider, OLD, 0, 0, SIZE);
	ring_close(&ring);
}

static void providing_twice_is_refused(void)
{
	int provider = filled_provider();
	struct ring ring;

	ring_open(&ring, 16, 0);
	CHECK_EQ(lend_badly(&ring, provider, 0, GKT_F_TWICE, 0), SIZE);
	CHECK_EQ(prov_stats(provider).refused, 1);
	CHECK_EQ(prov_stats(provider).last_refusal, -EBUSY);
	prov_check_returned(provider, 1);
	ring_close(&ring);
}

static void only_a_leader_provides(void)
{
	int provider = filled_provider();
	struct ring ring;

	ring_open(&ring, 16, 0);
	prov_lend(&ring, 1, 0, provider, GKT_DIR_FILL);
	prov_lend(&ring, 2, LINK, provider, GKT_DIR_FILL);
	ring_nop(&ring, 3, 0);
	ring_nop(&ring, LEADER, GROUP);
	prov_lend(&ring, 4, GROUP, provider, GKT_DIR_FILL);
	prov_lend(&ring, 5, 0, provider, GKT_DIR_FILL);
	CHECK_EQ(ring_submit(&ring), 6);
	ring_reap(&ring, &events, 6);
	CHECK_EQ(log_res(&events, 1), -EINVAL);
	CHECK_EQ(log_res(&events, 2), -EINVAL);
	CHECK_EQ(log_res(&events, 3), -ECANCELED);
	CHECK_EQ(log_res(&events, 4), -EINVAL);
	CHECK_EQ(log_res(&events, 5), -EINVAL);
	CHECK_EQ(log_res(&events, LEADER), 0);
	CHECK_EQ(prov_stats(provider).refused, 4);
	prov_check_returned(provider, 0);
	ring_close(&ring);
}

static void providing_from_io_wq(void)
{
	int provider = filled_provider();
	struct ring ring;

	ring_open(&ring, 16, 0);
	/* Where it stands: refused, the ring is not locked there. By way of task work: as usual. */
	CHECK_EQ(lend_badly(&ring, provider, 0, GKT_F_HERE, IOSQE_ASYNC), -EINVAL);
	CHECK_EQ(lend_badly(&ring, provider, 0, 0, IOSQE_ASYNC), SIZE);
	prov_check_returned(provider, 1);
	ring_close(&ring);
}

static void leader_that_fails_after_providing(void)
{
	int provider = filled_provider();
	struct ring ring;

	ring_open(&ring, 16, 0);
	CHECK_EQ(lend_badly(&ring, provider, 0, GKT_F_FAIL, 0), -EIO);
	prov_check_returned(provider, 1);
	prov_check_pattern(provider, OLD, 0, 0, SIZE);
	ring_close(&ring);
}

static void held_leader(void)
{
	int provider = filled_provider(), fds[2];
	struct ring ring;

	net_unix_pair(fds);
	ring_open(&ring, 16, 0);
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE)->flags = GKT_F_HOLD;
	ring_msg(&ring, IORING_OP_SEND, 1, KBUF, fds[0], 0, 100, 0);
	CHECK_EQ(ring_submit(&ring), 2);
	prov_wait(provider, GKT_WAIT_HELD_MIN, 1);
	ring_check_quiet(&ring);
	CHECK_EQ(prov_go(provider, 1), 1);
	ring_reap(&ring, &events, 2);
	CHECK_EQ(log_res(&events, LEADER), SIZE);
	CHECK_EQ(log_res(&events, 1), 100);
	peer_join(peer_read(fds[1], OLD, 0, 100));
	prov_check_returned(provider, 1);

	events.count = 0;
	prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_TAKE)->flags = GKT_F_HOLD;
	ring_msg(&ring, IORING_OP_SEND, 1, KBUF, fds[0], 0, 100, 0);
	CHECK_EQ(ring_submit(&ring), 2);
	prov_wait(provider, GKT_WAIT_HELD_MIN, 1);
	/* A held command is found when its ring goes, not by its user_data. */
	ring_close(&ring);
	prov_wait(provider, GKT_WAIT_HELD_MAX, 0);
	prov_check_returned(provider, 1);
	check_socket_silent(fds);
}

static void files_without_iterators_are_refused(void)
{
	int provider = filled_provider();
	struct ring ring;

	ring_open(&ring, 16, 0);
	for (uint8_t async = 0; async < 2; async++) {
		uint8_t flags = async ? IOSQE_ASYNC : 0;

		events.count = 0;
		/* The provider's own file has .read and .write only. */
		prov_lend(&ring, LEADER, GROUP, provider, GKT_DIR_FILL);
		ring_rw(&ring, IORING_OP_READ, 1, KBUF | flags, provider, 0, 64, 0);
		prov_lend(&ring, LEADER + 1, GROUP, provider, GKT_DIR_TAKE);
		ring_rw(&ring, IORING_OP_WRITE, 2, KBUF | flags, provider, 64, 64, 0);
		CHECK_EQ(ring_submit(&ring), 4);
		ring_reap(&ring, &events, 4);
		CHECK_EQ(log_res(&events, 1), -EOPNOTSUPP);
		CHECK_EQ(log_res(&events, 2), -EOPNOTSUPP);
		CHECK_EQ(log_res(&events, LEADER), SIZE);
		CHECK_EQ(log_res(&events, LEADER + 1), SIZE);
	}
	prov_check_returned(provider, 4);
	/* What the READ did not fill is zero, whatever the reason. */
	prov_check_zero(provider, 0, 64);
	prov_check_pattern(provider, OLD, 64, 64, SIZE - 64);
	ring_close(&ring);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"18: wrong direction moves nothing", wrong_direction_moves_nothing, 0},
		{"19: operations that cannot use the buffer are refused",
		 unusable_operations_are_refused, 0},
		{"20: a member asks, the leader has nothing", leader_without_a_buffer, 0},
		{"20: a leader with a buffer of another kind is no provider",
		 leader_with_other_buffers_is_no_provider, 0},
		{"20: a buffer that nobody uses; users among others", unused_and_mixed, 0},
		{"21: bad descriptors are refused", bad_descriptors_are_refused, 0},
		{"21: providing twice is refused", providing_twice_is_refused, 0},
		{"21: only a leader provides", only_a_leader_provides, 0},
		{"21: providing from io-wq", providing_from_io_wq, 0},
		{"21: a leader that fails after providing", leader_that_fails_after_providing, 0},
		{"21: a leader that provides late, or never", held_leader, 0},
		{"26: files without iterators are refused", files_without_iterators_are_refused, 0},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
