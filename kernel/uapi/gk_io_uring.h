/* SPDX-License-Identifier: MIT */
/*
 * The io_uring user ABI that gkproxy uses and liburing 2.3 (Debian 12) does not define: what our
 * Linux 6.12 series adds, and constants of later kernels. Constants only; any thread.
 *
 * Never queue an SQE with IOSQE_SQE_GROUP on a ring whose io_uring_params.features lacks
 * IORING_FEAT_SQE_GROUP: an unpatched kernel refuses the leader and leaves the member in the SQ,
 * where the next io_uring_enter() takes its buffer offset for an address of the process.
 */
#ifndef GK_IO_URING_H
#define GK_IO_URING_H

#include <linux/time_types.h>
#include <liburing/io_uring.h>

/*
 * --- our series ---
 *
 * SQE group: the first SQE with the flag (the leader) up to and including the first following one
 * without it (the last member). At least two SQEs, all of them in one submission. The leader runs
 * first; when it has succeeded the members run, in any order. Every SQE posts one CQE, the
 * leader's after all the others of the group (SEND_ZC notifications included).
 *
 *   leader   may carry IO_LINK, IO_HARDLINK, IO_DRAIN, ASYNC, FIXED_FILE, BUFFER_SELECT
 *   member   may carry ASYNC, FIXED_FILE, and GROUP_KBUF or BUFFER_SELECT
 *
 * CQE_SKIP_SUCCESS anywhere in a group, LINK_TIMEOUT in or right after one, and an IOPOLL ring
 * give -EINVAL. An SQE refused at submission fails its whole group: its own CQE has the reason,
 * the others -ECANCELED. A leader that fails does the same to its members. A member that fails
 * leaves the other members alone and breaks the leader's IO_LINK.
 *
 * If the submission ends inside a group the group fails (last one -EINVAL, others -ECANCELED),
 * and the following SQEs, up to and including the first without the flag, get -ECANCELED.
 */
#ifndef IOSQE_SQE_GROUP
#define IOSQE_SQE_GROUP (1U << 7)
#endif

/*
 * On a member: use the kernel buffer that the leader provides. addr is the byte offset in that
 * buffer, len the bytes. Opcodes SEND, RECV, SEND_ZC, READ, WRITE; others: -EOPNOTSUPP.
 *
 *   -EINVAL      the leader provided none; the buffer's direction does not fit (RECV and READ
 *                fill a buffer, SEND, SEND_ZC and WRITE read one); BUFFER_SELECT;
 *                RECVSEND_FIXED_BUF or BUNDLE; MSG_TRUNC, MSG_PEEK, MSG_OOB or MSG_ERRQUEUE on
 *                RECV; MSG_ZEROCOPY on SEND
 *   -EFAULT      addr + len is beyond the buffer
 *   -EOPNOTSUPP  READ, WRITE: the file has no read_iter, write_iter. SEND_ZC, and all of them on
 *                a TCP socket with kTLS: a page of the window cannot be referenced by the network
 *                (slab, tail of a high order allocation); copy instead
 *
 * What a RECV or READ was started for and did not fill is zero when the leader's CQE is posted.
 */
#ifndef IOSQE_GROUP_KBUF
#define IOSQE_GROUP_KBUF IOSQE_IO_DRAIN
#endif

/* io_uring_params.features */
#ifndef IORING_FEAT_SQE_GROUP
#define IORING_FEAT_SQE_GROUP (1U << 30)
#endif
#ifndef IORING_FEAT_GROUP_KBUF
#define IORING_FEAT_GROUP_KBUF (1U << 31)
#endif

/* --- later kernels --- */

#ifndef IORING_FEAT_REG_REG_RING
#define IORING_FEAT_REG_REG_RING (1U << 13)
#endif
#ifndef IORING_FEAT_RECVSEND_BUNDLE
#define IORING_FEAT_RECVSEND_BUNDLE (1U << 14)
#endif
#ifndef IORING_FEAT_MIN_TIMEOUT
#define IORING_FEAT_MIN_TIMEOUT (1U << 15)
#endif
#ifndef IORING_SETUP_NO_MMAP
#define IORING_SETUP_NO_MMAP (1U << 14)
#endif
#ifndef IORING_SETUP_REGISTERED_FD_ONLY
#define IORING_SETUP_REGISTERED_FD_ONLY (1U << 15)
#endif
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

/* sqe->ioprio of SEND and RECV kinds */
#ifndef IORING_RECVSEND_FIXED_BUF
#define IORING_RECVSEND_FIXED_BUF (1U << 2)
#endif
#ifndef IORING_SEND_ZC_REPORT_USAGE
#define IORING_SEND_ZC_REPORT_USAGE (1U << 3)
#endif
#ifndef IORING_RECVSEND_BUNDLE
#define IORING_RECVSEND_BUNDLE (1U << 4)
#endif
/* res of the notification CQE with REPORT_USAGE: the data was copied after all */
#ifndef IORING_NOTIF_USAGE_ZC_COPIED
#define IORING_NOTIF_USAGE_ZC_COPIED (1U << 31)
#endif

/* sqe->rw_flags of NOP (Linux 6.10): complete with sqe->len as the result */
#ifndef IORING_NOP_INJECT_RESULT
#define IORING_NOP_INJECT_RESULT (1U << 0)
#endif

#ifndef IORING_ASYNC_CANCEL_USERDATA
#define IORING_ASYNC_CANCEL_USERDATA (1U << 4)
#endif
#ifndef IORING_ASYNC_CANCEL_OP
#define IORING_ASYNC_CANCEL_OP (1U << 5)
#endif

/* An opcode is an enumerator where the header has it, so a macro of the same value does no harm. */
#ifndef IORING_OP_READ_MULTISHOT
#define IORING_OP_READ_MULTISHOT 49
#endif

#endif
