// SPDX-License-Identifier: GPL-2.0
#include "ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tap.h"

#define QUIET_MARK		      UINT64_C(0x7175696574)

#define load_acquire(pointer)	      __atomic_load_n(pointer, __ATOMIC_ACQUIRE)
#define store_release(pointer, value) __atomic_store_n(pointer, value, __ATOMIC_RELEASE)

int sys_io_uring_register(int fd, unsigned int opcode, const void *arg, unsigned int nr_args)
{
	int r = (int)syscall(__NR_io_uring_register, fd, opcode, arg, nr_args);

	return r < 0 ? -errno : r;
}

static int sys_enter(struct ring *ring, unsigned int submit, unsigned int wait_nr,
		     unsigned int flags, int timeout_ms)
{
	struct __kernel_timespec ts = {
		.tv_sec = timeout_ms / 1000,
		.tv_nsec = (long long)(timeout_ms % 1000) * 1000000,
	};
	struct io_uring_getevents_arg arg = {.ts = (uintptr_t)&ts};
	int r;

	/* A thread that fell asleep looks at nothing by itself; waking one that has not does no harm. */
	if (ring->flags & IORING_SETUP_SQPOLL)
		flags |= IORING_ENTER_SQ_WAKEUP;
	r = (int)syscall(__NR_io_uring_enter, ring->fd, submit, wait_nr,
			 flags | IORING_ENTER_EXT_ARG, &arg, sizeof(arg));
	return r < 0 ? -errno : r;
}

static void map_ring(struct ring *ring, const struct io_uring_params *params)
{
	size_t sq_size = params->sq_off.array + params->sq_entries * sizeof(unsigned int);
	size_t cq_size = params->cq_off.cqes + params->cq_entries * ring->cqe_size;

	ring->rings_size = sq_size > cq_size ? sq_size : cq_size;
	ring->rings = mmap(NULL, ring->rings_size, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
	CHECK(ring->rings != MAP_FAILED);
	ring->sqes_size = params->sq_entries * ring->sqe_size;
	ring->sqes = mmap(NULL, ring->sqes_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			  ring->fd, IORING_OFF_SQES);
	CHECK(ring->sqes != MAP_FAILED);
	ring->sq_head = (unsigned int *)(ring->rings + params->sq_off.head);
	ring->sq_tail = (unsigned int *)(ring->rings + params->sq_off.tail);
	ring->sq_flags = (unsigned int *)(ring->rings + params->sq_off.flags);
	ring->sq_array = (unsigned int *)(ring->rings + params->sq_off.array);
	ring->cq_head = (unsigned int *)(ring->rings + params->cq_off.head);
	ring->cq_tail = (unsigned int *)(ring->rings + params->cq_off.tail);
	ring->cq_overflow = (unsigned int *)(ring->rings + params->cq_off.overflow);
	ring->cqes = ring->rings + params->cq_off.cqes;
	for (unsigned int i = 0; i < params->sq_entries; i++)
		ring->sq_array[i] = i;
}

static int setup(struct ring *ring, unsigned int entries, struct io_uring_params *params)
{
	int fd = (int)syscall(__NR_io_uring_setup, entries, params);

	if (fd < 0)
		return -errno;
	*ring = (struct ring){
		.fd = fd,
		.features = params->features,
		.flags = params->flags,
		.sq_entries = params->sq_entries,
		.cq_entries = params->cq_entries,
		.sqe_size = params->flags & IORING_SETUP_SQE128 ? 128 : 64,
		.cqe_size = params->flags & IORING_SETUP_CQE32 ? 32 : 16,
	};
	map_ring(ring, params);
	return 0;
}

int ring_try_open(struct ring *ring, unsigned int entries, unsigned int flags,
		  unsigned int cq_entries)
{
	struct io_uring_params params = {
		.flags = flags | (cq_entries ? IORING_SETUP_CQSIZE : 0),
		.cq_entries = cq_entries,
		.sq_thread_idle = 20,
	};

	return setup(ring, entries, &params);
}

void ring_open(struct ring *ring, unsigned int entries, unsigned int flags)
{
	CHECK_EQ(ring_try_open(ring, entries, flags, 0), 0);
}

void ring_open_attached(struct ring *ring, unsigned int entries, unsigned int flags, int wq_fd)
{
	struct io_uring_params params = {
		.flags = flags | IORING_SETUP_ATTACH_WQ,
		.wq_fd = (uint32_t)wq_fd,
		.sq_thread_idle = 20,
	};

	CHECK_EQ(setup(ring, entries, &params), 0);
}

void ring_close(struct ring *ring)
{
	munmap(ring->rings, ring->rings_size);
	munmap(ring->sqes, ring->sqes_size);
	close(ring->fd);
	ring->fd = -1;
}

void ring_require(unsigned int features)
{
	struct ring ring;
	bool found;

	ring_open(&ring, 4, 0);
	found = (ring.features & features) == features;
	ring_close(&ring);
	if (!found)
		tap_skip("this kernel has no SQE groups");
}

struct io_uring_sqe *ring_sqe(struct ring *ring, uint8_t opcode, uint64_t user_data, uint8_t flags)
{
	struct io_uring_sqe *sqe;

	/* Only an SQPOLL ring consumes by itself; the others have consumed when enter returns. */
	if (ring->tail - load_acquire(ring->sq_head) >= ring->sq_entries)
		FAIL("the submission queue is full");
	sqe = (void *)(ring->sqes + (ring->tail & (ring->sq_entries - 1)) * ring->sqe_size);
	memset(sqe, 0, ring->sqe_size);
	sqe->opcode = opcode;
	sqe->user_data = user_data;
	sqe->flags = flags;
	sqe->fd = -1;
	ring->tail++;
	return sqe;
}

struct io_uring_sqe *ring_nop(struct ring *ring, uint64_t user_data, uint8_t flags)
{
	return ring_sqe(ring, IORING_OP_NOP, user_data, flags);
}

struct io_uring_sqe *ring_nop_res(struct ring *ring, uint64_t user_data, uint8_t flags, int res)
{
	struct io_uring_sqe *sqe = ring_nop(ring, user_data, flags);

	sqe->rw_flags = IORING_NOP_INJECT_RESULT;
	sqe->len = (uint32_t)res;
	return sqe;
}

struct io_uring_sqe *ring_rw(struct ring *ring, uint8_t opcode, uint64_t user_data, uint8_t flags,
			     int fd, uint64_t addr, uint32_t len, uint64_t offset)
{
	struct io_uring_sqe *sqe = ring_sqe(ring, opcode, user_data, flags);

	sqe->fd = fd;
	sqe->addr = addr;
	sqe->len = len;
	sqe->off = offset;
	return sqe;
}

struct io_uring_sqe *ring_msg(struct ring *ring, uint8_t opcode, uint64_t user_data, uint8_t flags,
			      int fd, uint64_t addr, uint32_t len, unsigned int msg_flags)
{
	struct io_uring_sqe *sqe = ring_rw(ring, opcode, user_data, flags, fd, addr, len, 0);

	sqe->msg_flags = msg_flags;
	return sqe;
}

struct io_uring_sqe *ring_cancel(struct ring *ring, uint64_t user_data, uint64_t target)
{
	struct io_uring_sqe *sqe = ring_sqe(ring, IORING_OP_ASYNC_CANCEL, user_data, 0);

	sqe->addr = target;
	return sqe;
}

int ring_submit_some(struct ring *ring, unsigned int count)
{
	unsigned int tail = *ring->sq_tail + count;

	store_release(ring->sq_tail, tail);
	if (!(ring->flags & IORING_SETUP_SQPOLL))
		return sys_enter(ring, count, 0, 0, 0);
	atomic_thread_fence(memory_order_seq_cst);
	if (load_acquire(ring->sq_flags) & IORING_SQ_NEED_WAKEUP)
		sys_enter(ring, count, 0, IORING_ENTER_SQ_WAKEUP, 0);
	return (int)count;
}

int ring_submit(struct ring *ring)
{
	return ring_submit_some(ring, ring->tail - *ring->sq_tail);
}

void ring_submit_all(struct ring *ring)
{
	unsigned int left;

	store_release(ring->sq_tail, ring->tail);
	while ((left = ring->tail - load_acquire(ring->sq_head)) > 0)
		CHECK(sys_enter(ring, left, 0, 0, 0) > 0);
}

int ring_submit_wait(struct ring *ring, unsigned int wait_nr)
{
	unsigned int count = ring->tail - *ring->sq_tail;

	store_release(ring->sq_tail, ring->tail);
	return sys_enter(ring, count, wait_nr, IORING_ENTER_GETEVENTS, tap_patience_ms());
}

bool ring_peek(struct ring *ring, struct ring_cqe *ret_cqe)
{
	unsigned int head = *ring->cq_head;
	const struct io_uring_cqe *cqe;

	if (head == load_acquire(ring->cq_tail))
		return false;
	cqe = (void *)(ring->cqes + (head & (ring->cq_entries - 1)) * ring->cqe_size);
	*ret_cqe = (struct ring_cqe){cqe->user_data, cqe->res, cqe->flags};
	store_release(ring->cq_head, head + 1);
	return true;
}

bool ring_wait(struct ring *ring, struct ring_cqe *ret_cqe, int timeout_ms)
{
	uint64_t end = tap_now_ms() + (uint64_t)timeout_ms;

	while (!ring_peek(ring, ret_cqe)) {
		uint64_t now = tap_now_ms();
		int r;

		if (now >= end)
			return false;
		r = sys_enter(ring, 0, 1, IORING_ENTER_GETEVENTS, (int)(end - now));
		if (r < 0 && r != -ETIME && r != -EINTR)
			FAIL("io_uring_enter: %s", strerror(-r));
	}
	return true;
}

void ring_reap(struct ring *ring, struct ring_log *log, int count)
{
	for (int i = 0; i < count; i++) {
		if (!ring_wait(ring, &log->cqe[log->count], tap_patience_ms()))
			FAIL("only %d of %d completions came", i, count);
		log->count++;
	}
}

void ring_reap_ended(struct ring *ring, struct ring_log *log, int count)
{
	while (count > 0) {
		ring_reap(ring, log, 1);
		if (!(log->cqe[log->count - 1].flags & IORING_CQE_F_MORE))
			count--;
	}
}

void ring_run(struct ring *ring)
{
	CHECK_EQ(sys_enter(ring, 0, 0, IORING_ENTER_GETEVENTS, 0), 0);
}

void ring_check_quiet(struct ring *ring)
{
	struct ring_cqe cqe;

	ring_nop(ring, QUIET_MARK, 0);
	CHECK_EQ(ring_submit(ring), 1);
	CHECK(ring_wait(ring, &cqe, tap_patience_ms()));
	if (cqe.user_data != QUIET_MARK)
		FAIL("unexpected completion: user_data %llu, res %d, flags %x",
		     (unsigned long long)cqe.user_data, cqe.res, cqe.flags);
}

static int find(const struct ring_log *log, uint64_t user_data, bool notif)
{
	int found = -1;

	for (int i = 0; i < log->count; i++) {
		if (log->cqe[i].user_data != user_data ||
		    !!(log->cqe[i].flags & IORING_CQE_F_NOTIF) != notif)
			continue;
		if (found >= 0)
			FAIL("%llu completed twice", (unsigned long long)user_data);
		found = i;
	}
	if (found < 0)
		FAIL("%llu has no %s", (unsigned long long)user_data,
		     notif ? "notification" : "completion");
	return found;
}

int log_index(const struct ring_log *log, uint64_t user_data)
{
	return find(log, user_data, false);
}

int log_notif(const struct ring_log *log, uint64_t user_data)
{
	return find(log, user_data, true);
}

int log_res(const struct ring_log *log, uint64_t user_data)
{
	return log->cqe[find(log, user_data, false)].res;
}
