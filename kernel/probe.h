/* SPDX-License-Identifier: MIT */
/*
 * What this kernel can do for gkproxy, found by trying each feature; versions are never compared.
 * Any thread; each call makes and destroys its own rings, sockets and files.
 */
#ifndef GK_PROBE_H
#define GK_PROBE_H

#include <stdbool.h>
#include <stdint.h>

/* One result per feature: 0 = works; otherwise the -errno that the attempt gave. */
struct gk_probe {
	int io_uring;            /* a ring can be set up at all */
	int defer_taskrun;       /* IORING_SETUP_SINGLE_ISSUER | DEFER_TASKRUN */
	int ublk;                /* /dev/ublk-control opens and answers GET_FEATURES */
	uint64_t ublk_features;  /* UBLK_F_* as GET_FEATURES reports; valid when ublk == 0 */
	int sqe_group;           /* io_uring_params.features has IORING_FEAT_SQE_GROUP */
	int group_kbuf;          /* ... and IORING_FEAT_GROUP_KBUF */
	int ublk_group_kbuf;     /* ... and UBLK_F_GROUP_KBUF in ublk_features; 0 only if all three agree */
	int fixed_buf_sendrecv;  /* plain SEND/RECV take IORING_RECVSEND_FIXED_BUF */
	int ublk_auto_buf_reg;   /* UBLK_F_AUTO_BUF_REG */
	int ublk_user_copy;      /* UBLK_F_USER_COPY */
	int ublk_user_recovery;  /* UBLK_F_USER_RECOVERY and _REISSUE */
	int send_zc;             /* IORING_OP_SEND_ZC on a TCP socket */
	int ktls;                /* the "tls" upper-layer protocol can be set on a TCP socket */
};

/* Tries everything. Never fails as a whole: what cannot be tried carries its -errno. */
void gk_probe_run(struct gk_probe *ret_probe);

#endif
