/* SPDX-License-Identifier: MIT */
/*
 * A rig whose kernel does what kernels may do and ours does not do on demand: SQEs that the queue
 * has built are changed before they are submitted, and the CQEs of those arrive as told.
 *
 * A send or receive that is cut ends short, or with -EINTR where nothing of it moved, and what is
 * linked behind it is cancelled, as with MSG_WAITALL when something interrupts it. A transfer that
 * fails moves nothing. The notification of a SEND_ZC is withheld until the test gives it.
 *
 * For session 0 of a rig on one of mem_front's paths. Use fake_kernel_turn() and what calls it in
 * place of their likes in wire_rig.h. As there, a cmocka test fails when something is wrong.
 */
#ifndef GK_FAKE_KERNEL_H
#define GK_FAKE_KERNEL_H

#include "wire_rig.h"

#define FAKE_KERNEL_CQES 64
#define FAKE_KERNEL_IOVS 64
#define NEVER            SIZE_MAX

struct fake_cqe {
	uint64_t key;   /* of the SQE that was changed; 0: the slot is free */
	int result;     /* instead of the kernel's, if: */
	bool answered;
	bool withheld;  /* SEND_ZC: its notification, and its group's leader, are still to come */
	bool stray;     /* a cancelled SEND_ZC: its notification, unannounced, is still to come */
};

struct fake_kernel {
	struct rig rig;

	/* What it shall do; all of it may be changed at any time. */
	size_t cut_send;        /* bytes that may leave before a send is cut */
	size_t cut_send_again;  /* ... and after each cut from then on */
	size_t cut_payload;     /* the same for bytes received into a request's pages */
	size_t cut_payload_again;
	int interruption;       /* of one that is cut before its first byte: -EINTR, if 0 */
	unsigned int fail_transfer; /* of the transfers to come, counted from 1: this one fails */
	int fail_error;         /* -errno */
	bool fail_leader;       /* on the path with two CQEs: in the command that lends the buffer */
	bool refuse;            /* at submission, so that the whole chain is cancelled */
	bool withhold;          /* the notifications of SEND_ZC */

	/* What it did. */
	bool failing;           /* the transfer to fail has begun */
	bool refused;           /* ... has failed in the chain that is being submitted */
	unsigned int cuts;      /* ended short, with a byte or more */
	unsigned int interrupted;
	unsigned int longest_chain; /* SQEs */

	struct fake_cqe cqes[FAKE_KERNEL_CQES];
	struct msghdr msg;      /* the message that is cut */
	struct iovec iov[FAKE_KERNEL_IOVS];
};

/* A rig in which nothing goes wrong yet. End it with rig_end(&kernel->rig). */
void fake_kernel_begin(struct fake_kernel *kernel, const struct rig_options *options);

/* Gives session 0, which dies for it if need be, a TCP connection in place of the rig's. */
void fake_kernel_connect_tcp(struct fake_kernel *kernel, bool zero_copy);

/* One turn of the loop: waits for at least one completion. */
void fake_kernel_turn(struct fake_kernel *kernel);

/* Turns the loop as long as there is something to do without waiting. */
void fake_kernel_settle(struct fake_kernel *kernel);

/* Turns the loop until every request has ended. */
void fake_kernel_run(struct fake_kernel *kernel);

/*
 * The server's end takes exactly this from session 0, while the loop turns. Fails the test when
 * nothing more comes.
 */
void fake_kernel_take_bytes(struct fake_kernel *kernel, void *buf, size_t len);
struct fake_request fake_kernel_take(struct fake_kernel *kernel);

/* Gives the notification of this tag's SEND_ZC, which must have been withheld. */
void fake_kernel_notify(struct fake_kernel *kernel, uint16_t tag);

/* Gives the notifications of all SEND_ZCs that were cancelled unsent; returns how many. */
unsigned int fake_kernel_notify_cancelled(struct fake_kernel *kernel);

/* The notifications that are withheld now. */
unsigned int fake_kernel_withheld(const struct fake_kernel *kernel);

#endif
