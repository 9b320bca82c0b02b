/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * User ABI of /dev/gkgrp_test (CONFIG_GKGRP_TEST), the second provider of io_uring group kernel
 * buffers, made for tests. The series carries the same file as include/uapi/linux/gk_grp_test.h.
 *
 * Every open file owns one buffer and its own counters. A buffer is a chain of segments, each one
 * bio_vec. pread()/pwrite() reach its content by byte offset in the chain, at any time, lent or
 * not. They are plain .read/.write, so for IORING_OP_READ/WRITE with a group buffer this device
 * is also the file that cannot take an iterator. A forked child shares the file: a parent that
 * keeps the descriptor reads the counters after the child was killed.
 */
#ifndef GK_GRP_TEST_H
#define GK_GRP_TEST_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define GKT_PATH "/dev/gkgrp_test"

#define GKT_MAX_SEGS  65535
#define GKT_MAX_BYTES (64U << 20) /* sum of the segments' len */
#define GKT_MAX_ORDER 9

/* Where the memory of a segment comes from; all of it is zeroed when the layout is set. */
enum {
	GKT_SEG_PAGE = 0,  /* one page; off + len <= 4096 */
	GKT_SEG_FOLIO = 1, /* compound page of 2^order pages; off + len within it */
	GKT_SEG_SLAB = 2,  /* kmalloc(off + len), off + len <= 4096; may end anywhere in a page */
	GKT_SEG_TAIL = 3,  /* non-compound 2^order pages, order >= 1; off counts from page 1, whose
			    * reference count is 0 */
};

struct gkt_seg {
	__u16 kind; /* GKT_SEG_* */
	__u16 order;
	__u32 off; /* bytes into the memory */
	__u32 len; /* bytes; > 0 */
	__u32 reserved; /* 0 */
};

struct gkt_layout {
	__u32 nr_segs; /* 0 frees the buffer */
	__u32 reserved; /* 0 */
	__u64 segs; /* struct gkt_seg[nr_segs] */
};

/*
 * sqe->cmd of the commands below. What is lent is the window [offset, offset + len) of the chain;
 * len 0 means up to its end. offset has to lie in the first segment (a descriptor says so), and
 * the window in the chain, else -EINVAL, which is not counted as a refusal.
 */
struct gkt_cmd {
	__u8 dir; /* GKT_DIR_* */
	__u8 bad; /* GKT_BAD_* */
	__u16 flags; /* GKT_F_* */
	__u32 offset;
	__u32 len;
	__s32 res; /* ECHO: the result; PROVIDE: 0 */
};

#define GKT_DIR_FILL 0 /* members write the buffer: READ, RECV (as a block read) */
#define GKT_DIR_TAKE 1 /* members read the buffer: WRITE, SEND, SEND_ZC (as a block write) */

/* Hand io_uring a descriptor with one thing wrong. */
enum {
	GKT_BAD_NOTHING = 0,
	GKT_BAD_BVEC = 1,   /* bvec = NULL */
	GKT_BAD_NR = 2,     /* nr_bvecs = 0 */
	GKT_BAD_LEN = 3,    /* len = 0 */
	GKT_BAD_HUGE = 4,   /* len > MAX_RW_COUNT */
	GKT_BAD_ACK = 5,    /* grp_kbuf_ack = NULL */
	GKT_BAD_DIR = 6,    /* neither of the two directions */
	GKT_BAD_OFFSET = 7, /* offset behind the first bvec */
};

/* Park until GKT_IOC_GO, then go on in task work; can be cancelled (-ECANCELED). */
#define GKT_F_HOLD  (1U << 0)
/* Call the provide function where the command is issued, on an io-wq worker too. Without it a
 * command issued there is moved to task work, as ublk does. */
#define GKT_F_HERE  (1U << 1)
/* After a provide that worked, provide a second buffer; its result only goes to last_refusal. */
#define GKT_F_TWICE (1U << 2)
/* After a provide that worked, complete the command with -EIO. */
#define GKT_F_FAIL  (1U << 3)

/* IORING_OP_URING_CMD. Result: the bytes provided, or the provide function's error. */
#define GKT_CMD_PROVIDE _IOWR('k', 0x80, struct gkt_cmd)
/* Result: gkt_cmd.res as it was when the SQE was prepared. Takes GKT_F_HOLD. */
#define GKT_CMD_ECHO    _IOWR('k', 0x81, struct gkt_cmd)

struct gkt_stats {
	__u64 provided; /* provide calls that io_uring accepted */
	__u64 released; /* grp_kbuf_ack calls */
	__u64 refused;  /* provide calls that io_uring refused */
	__s32 last_refusal; /* -errno of the newest of them, 0 if none */
	__u32 held; /* commands parked by GKT_F_HOLD now */
	__u64 total_bytes; /* of the layout */
};

/* What GKT_IOC_WAIT waits for. */
enum {
	GKT_WAIT_LENT_MAX = 0, /* provided - released <= count */
	GKT_WAIT_LENT_MIN = 1, /* provided - released >= count */
	GKT_WAIT_HELD_MIN = 2, /* held >= count */
	GKT_WAIT_HELD_MAX = 3, /* held <= count */
};

struct gkt_wait {
	__u32 what;
	__u32 count;
	__u32 timeout_ms;
	__u32 reserved; /* 0 */
};

/* Sets the buffer. -EBUSY while lent or a command is held, -EINVAL, -ENOMEM: the old one stays. */
#define GKT_IOC_LAYOUT _IOW('k', 0x01, struct gkt_layout)
#define GKT_IOC_STATS  _IOR('k', 0x02, struct gkt_stats)
/* Sets the counters to 0. -EBUSY while lent or a command is held. */
#define GKT_IOC_RESET  _IO('k', 0x03)
/* Lets up to arg held commands go on, oldest first; returns how many. */
#define GKT_IOC_GO     _IO('k', 0x04)
/* 0, -ETIMEDOUT or -EINTR. */
#define GKT_IOC_WAIT   _IOW('k', 0x05, struct gkt_wait)

#endif
