/* SPDX-License-Identifier: MIT */
/*
 * The user-space ABI of ublk, as gkproxy uses it: what the system's linux/ublk_cmd.h lacks on
 * older hosts (Debian 12 ships the header of 6.1) and what our 6.12 series adds. Names are the
 * kernel's; do not include linux/ublk_cmd.h beside it. Thread-neutral: constants and layouts only.
 * Follows include/uapi/linux/ublk_cmd.h of Linux 6.12 and 7.3.
 */
#ifndef GK_UBLK_H
#define GK_UBLK_H

#include <assert.h>
#include <linux/ioctl.h>
#include <linux/types.h>

#define UBLK_CONTROL_PATH "/dev/ublk-control"

/* /dev/ublk-control, IORING_OP_URING_CMD on an SQE128 ring, struct ublksrv_ctrl_cmd in sqe->cmd */
struct ublksrv_ctrl_cmd {
	__u32 dev_id;
	__u16 queue_id; /* (__u16)-1 when the command is not about a queue */
	__u16 len;      /* of the buffer at addr */
	__u64 addr;
	__u64 data[1];
	__u16 dev_path_len;
	__u16 pad;
	__u32 reserved;
};

#define UBLK_U_CMD_GET_QUEUE_AFFINITY  _IOR('u', 0x01, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_GET_DEV_INFO        _IOR('u', 0x02, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_ADD_DEV             _IOWR('u', 0x04, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_DEL_DEV             _IOWR('u', 0x05, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_START_DEV           _IOWR('u', 0x06, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_STOP_DEV            _IOWR('u', 0x07, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_SET_PARAMS          _IOWR('u', 0x08, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_GET_PARAMS          _IOR('u', 0x09, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_START_USER_RECOVERY _IOWR('u', 0x10, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_END_USER_RECOVERY   _IOWR('u', 0x11, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_GET_DEV_INFO2       _IOR('u', 0x12, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_GET_FEATURES        _IOR('u', 0x13, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_DEL_DEV_ASYNC       _IOR('u', 0x14, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_UPDATE_SIZE         _IOWR('u', 0x15, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_QUIESCE_DEV         _IOWR('u', 0x16, struct ublksrv_ctrl_cmd)
#define UBLK_U_CMD_TRY_STOP_DEV        _IOWR('u', 0x17, struct ublksrv_ctrl_cmd)

/* /dev/ublkcN, IORING_OP_URING_CMD, struct ublksrv_io_cmd in sqe->cmd */
struct ublksrv_io_cmd {
	__u16 q_id;
	__u16 tag;
	__s32 result; /* COMMIT: bytes done, or -errno */
	__u64 addr;   /* FETCH and COMMIT in copy mode: this tag's buffer; otherwise 0 */
};

#define UBLK_U_IO_FETCH_REQ            _IOWR('u', 0x20, struct ublksrv_io_cmd)
#define UBLK_U_IO_COMMIT_AND_FETCH_REQ _IOWR('u', 0x21, struct ublksrv_io_cmd)
#define UBLK_U_IO_REGISTER_IO_BUF      _IOWR('u', 0x23, struct ublksrv_io_cmd)
#define UBLK_U_IO_UNREGISTER_IO_BUF    _IOWR('u', 0x24, struct ublksrv_io_cmd)
/* Our 6.12 series: lend the request's pages to the members of the SQE group that this command leads. */
#define UBLK_U_IO_PROVIDE_IO_BUF       _IOWR('u', 0x60, struct ublksrv_io_cmd)

/* UBLK_F_AUTO_BUF_REG: sqe->addr of FETCH and COMMIT is index | flags << 16. */
#define UBLK_AUTO_BUF_REG_FALLBACK (1U << 0) /* no slot free: UBLK_IO_F_NEED_REG_BUF, not an error */

#define UBLK_IO_RES_OK    0
#define UBLK_IO_RES_ABORT (-ENODEV)

/* Where a queue's array of io descriptors is mapped on /dev/ublkcN: q * UBLK_MAX_QUEUE_DEPTH * 24. */
#define UBLKSRV_CMD_BUF_OFFSET 0
/* Where the request's data is read and written on /dev/ublkcN with UBLK_F_USER_COPY. */
#define UBLKSRV_IO_BUF_OFFSET  0x80000000ULL
#define UBLK_IO_BUF_BITS       25
#define UBLK_TAG_OFF           UBLK_IO_BUF_BITS
#define UBLK_TAG_BITS          16
#define UBLK_QID_OFF           (UBLK_TAG_OFF + UBLK_TAG_BITS)
#define UBLK_MAX_QUEUE_DEPTH   4096
#define UBLK_MAX_NR_QUEUES     4096

#define UBLK_F_SUPPORT_ZERO_COPY      (1ULL << 0)
#define UBLK_F_URING_CMD_COMP_IN_TASK (1ULL << 1)
#define UBLK_F_NEED_GET_DATA          (1ULL << 2)
#define UBLK_F_USER_RECOVERY          (1ULL << 3)
#define UBLK_F_USER_RECOVERY_REISSUE  (1ULL << 4)
#define UBLK_F_UNPRIVILEGED_DEV       (1ULL << 5)
#define UBLK_F_CMD_IOCTL_ENCODE       (1ULL << 6)
#define UBLK_F_USER_COPY              (1ULL << 7)
#define UBLK_F_ZONED                  (1ULL << 8)
#define UBLK_F_USER_RECOVERY_FAIL_IO  (1ULL << 9)
#define UBLK_F_UPDATE_SIZE            (1ULL << 10)
#define UBLK_F_AUTO_BUF_REG           (1ULL << 11)
#define UBLK_F_QUIESCE                (1ULL << 12)
#define UBLK_F_PER_IO_DAEMON          (1ULL << 13)
#define UBLK_F_BUF_REG_OFF_DAEMON     (1ULL << 14)
#define UBLK_F_BATCH_IO               (1ULL << 15)
#define UBLK_F_SAFE_STOP_DEV          (1ULL << 17)
#define UBLK_F_NO_AUTO_PART_SCAN      (1ULL << 18)
#define UBLK_F_GROUP_KBUF             (1ULL << 40) /* our 6.12 series; needs UBLK_F_USER_COPY */

#define UBLK_S_DEV_DEAD     0
#define UBLK_S_DEV_LIVE     1
#define UBLK_S_DEV_QUIESCED 2
#define UBLK_S_DEV_FAIL_IO  3

struct ublksrv_ctrl_dev_info {
	__u16 nr_hw_queues;
	__u16 queue_depth;
	__u16 state;
	__u16 pad0;
	__u32 max_io_buf_bytes;
	__u32 dev_id;
	__s32 ublksrv_pid;
	__u32 pad1;
	__u64 flags;
	__u64 ublksrv_flags; /* ours to use; the kernel stores it */
	__u32 owner_uid;
	__u32 owner_gid;
	__u64 reserved1;
	__u64 reserved2;
};

#define UBLK_IO_OP_READ         0
#define UBLK_IO_OP_WRITE        1
#define UBLK_IO_OP_FLUSH        2
#define UBLK_IO_OP_DISCARD      3
#define UBLK_IO_OP_WRITE_ZEROES 5

#define UBLK_IO_F_FUA          (1U << 13)
#define UBLK_IO_F_NOUNMAP      (1U << 15)
#define UBLK_IO_F_SWAP         (1U << 16)
#define UBLK_IO_F_NEED_REG_BUF (1U << 17)

struct ublksrv_io_desc {
	__u32 op_flags; /* op in bits 0-7, UBLK_IO_F_* above */
	__u32 nr_sectors;
	__u64 start_sector;
	__u64 addr;
};

#define UBLK_ATTR_READ_ONLY      (1U << 0)
#define UBLK_ATTR_ROTATIONAL     (1U << 1)
#define UBLK_ATTR_VOLATILE_CACHE (1U << 2)
#define UBLK_ATTR_FUA            (1U << 3)

struct ublk_param_basic {
	__u32 attrs;
	__u8 logical_bs_shift;
	__u8 physical_bs_shift;
	__u8 io_opt_shift;
	__u8 io_min_shift;
	__u32 max_sectors;
	__u32 chunk_sectors;
	__u64 dev_sectors;
	__u64 virt_boundary_mask;
};

struct ublk_param_discard {
	__u32 discard_alignment;
	__u32 discard_granularity;
	__u32 max_discard_sectors;
	__u32 max_write_zeroes_sectors;
	__u16 max_discard_segments;
	__u16 reserved0;
};

struct ublk_param_devt {
	__u32 char_major;
	__u32 char_minor;
	__u32 disk_major;
	__u32 disk_minor;
};

#define UBLK_PARAM_TYPE_BASIC   (1U << 0)
#define UBLK_PARAM_TYPE_DISCARD (1U << 1)
#define UBLK_PARAM_TYPE_DEVT    (1U << 2)

/* The kernel copies min(len, its own size); later kernels append fields that we do not set. */
struct ublk_params {
	__u32 len;
	__u32 types; /* UBLK_PARAM_TYPE_* that are valid */
	struct ublk_param_basic basic;
	struct ublk_param_discard discard;
	struct ublk_param_devt devt;
};

static_assert(sizeof(struct ublksrv_ctrl_cmd) == 32, "ublk ABI");
static_assert(sizeof(struct ublksrv_ctrl_dev_info) == 64, "ublk ABI");
static_assert(sizeof(struct ublksrv_io_desc) == 24, "ublk ABI");
static_assert(sizeof(struct ublksrv_io_cmd) == 16, "ublk ABI");
static_assert(sizeof(struct ublk_param_basic) == 32, "ublk ABI");

#endif
