/* SPDX-License-Identifier: GPL-2.0 */
/*
 * io_uring by its system calls: the tests decide themselves which SQEs go into which submission.
 * Every function ends the test when the kernel does not do what it must. One thread per ring.
 */
#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "gk_io_uring.h"

#define RING_MAX_CQES 1024

#define GROUP	      IOSQE_SQE_GROUP
#define KBUF	      IOSQE_GROUP_KBUF
#define LINK	      IOSQE_IO_LINK

struct ring {
	int fd;
	unsigned int features;
	unsigned int flags;
	unsigned int sq_entries;
	unsigned int cq_entries;
	unsigned int *sq_head, *sq_tail, *sq_flags, *sq_array;
	unsigned int *cq_head, *cq_tail, *cq_overflow;
	char *sqes, *cqes, *rings;
	size_t sqe_size, cqe_size, rings_size, sqes_size;
	unsigned int tail; /* SQEs taken so far; those past *sq_tail are not submitted yet */
};

struct ring_cqe {
	uint64_t user_data;
	int res;
	unsigned int flags;
};

/* Completions in the order in which they were posted. */
struct ring_log {
	struct ring_cqe cqe[RING_MAX_CQES];
	int count;
};

/* -errno when the kernel does not make such a ring. cq_entries 0: the kernel's default. */
int ring_try_open(struct ring *ring, unsigned int entries, unsigned int flags,
		  unsigned int cq_entries);
void ring_open(struct ring *ring, unsigned int entries, unsigned int flags);
/* A ring that shares the workers (and the SQPOLL thread) of the ring wq_fd. */
void ring_open_attached(struct ring *ring, unsigned int entries, unsigned int flags, int wq_fd);
void ring_close(struct ring *ring);
/* Opens and closes a ring; skips the test unless it has all these features. */
void ring_require(unsigned int features);

/* The next free SQE, zeroed, with these fields set. */
struct io_uring_sqe *ring_sqe(struct ring *ring, uint8_t opcode, uint64_t user_data, uint8_t flags);
struct io_uring_sqe *ring_nop(struct ring *ring, uint64_t user_data, uint8_t flags);
/* A NOP that completes with res. */
struct io_uring_sqe *ring_nop_res(struct ring *ring, uint64_t user_data, uint8_t flags, int res);
struct io_uring_sqe *ring_rw(struct ring *ring, uint8_t opcode, uint64_t user_data, uint8_t flags,
			     int fd, uint64_t addr, uint32_t len, uint64_t offset);
struct io_uring_sqe *ring_msg(struct ring *ring, uint8_t opcode, uint64_t user_data, uint8_t flags,
			      int fd, uint64_t addr, uint32_t len, unsigned int msg_flags);
struct io_uring_sqe *ring_cancel(struct ring *ring, uint64_t user_data, uint64_t target);

/* Submits what was taken since the last time; the number of SQEs the kernel consumed, or -errno. */
int ring_submit(struct ring *ring);
/* The kernel ends a submission at an SQE it refuses: submits until all of them are consumed. */
void ring_submit_all(struct ring *ring);
/* ring_submit in one system call with waiting for wait_nr completions; does not take them. */
int ring_submit_wait(struct ring *ring, unsigned int wait_nr);
/* Submits only the first count of the SQEs that were taken. */
int ring_submit_some(struct ring *ring, unsigned int count);

/* Takes one completion if there is one; false otherwise. Does not wait. */
bool ring_peek(struct ring *ring, struct ring_cqe *ret_cqe);
/* Waits for a completion; false if there is none within the given time. */
bool ring_wait(struct ring *ring, struct ring_cqe *ret_cqe, int timeout_ms);
/* Appends exactly count completions to the log. */
void ring_reap(struct ring *ring, struct ring_log *log, int count);
/* The same until count requests have ended: a SEND_ZC ends with its notification. */
void ring_reap_ended(struct ring *ring, struct ring_log *log, int count);
/* Runs what the kernel has ready for this ring; with DEFER_TASKRUN nothing else does. */
void ring_run(struct ring *ring);
/* Fails if there is a completion that nobody expects; a NOP goes through the ring to find out. */
void ring_check_quiet(struct ring *ring);

/* Index in the log of the only completion (notifications apart) of user_data. */
int log_index(const struct ring_log *log, uint64_t user_data);
int log_res(const struct ring_log *log, uint64_t user_data);
/* Index of the only notification of user_data. */
int log_notif(const struct ring_log *log, uint64_t user_data);

int sys_io_uring_register(int fd, unsigned int opcode, const void *arg, unsigned int nr_args);

#endif
