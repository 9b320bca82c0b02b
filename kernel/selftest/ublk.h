/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ublk devices of the tests. The test's process has the control device; the server is a child, so
 * that it can be killed. A server has one queue, one ring, one thread.
 */
#ifndef UBLK_H
#define UBLK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "gk_ublk.h"
#include "ring.h"

#define UBLK_FLAGS (UBLK_F_USER_COPY | UBLK_F_GROUP_KBUF | UBLK_F_CMD_IOCTL_ENCODE)

struct ublk_dev {
	struct ring ctrl;
	int ctrl_fd, id;
	unsigned int depth;
	uint64_t bytes, flags;
};

/* Skips the test unless the kernel lends ublk requests to groups. */
void ublk_require(void);
/* Result of ADD_DEV. */
int ublk_try_add(struct ublk_dev *dev, uint64_t flags, unsigned int depth);
/* A device of `bytes`, blocks of 512 bytes, a volatile cache; not started. */
void ublk_add(struct ublk_dev *dev, uint64_t flags, unsigned int depth, uint64_t bytes);
int ublk_control(struct ublk_dev *dev, uint32_t op, uint64_t data);
/* A command that the server has to be alive for; it is answered while the caller goes on. */
void ublk_control_begin(struct ublk_dev *dev, uint32_t op, uint64_t data);
int ublk_control_end(struct ublk_dev *dev);
int ublk_state(struct ublk_dev *dev);
/* STOP_DEV, DEL_DEV; the server ends by itself. */
void ublk_remove(struct ublk_dev *dev);

enum ublk_kind { UBLK_KIND_COMMAND, UBLK_KIND_PROVIDE, UBLK_KIND_MEMBER, UBLK_KIND_OTHER };

static inline uint64_t ublk_key(enum ublk_kind kind, unsigned int tag)
{
	return (uint64_t)kind << 16 | tag;
}

struct ublk_tag {
	int result;
	unsigned int left; /* completions still to come before the COMMIT */
};

struct ublk_server {
	struct ring ring;
	struct ublk_dev *dev;
	int char_fd;
	const struct ublksrv_io_desc *iods;
	unsigned int aborted; /* tags that the driver will not use again */
	/* A request has come; a completion that is not FETCH's or COMMIT's has come. */
	void (*request)(struct ublk_server *server, unsigned int tag);
	void (*completed)(struct ublk_server *server, const struct ring_cqe *cqe);
	int file; /* of the loop target */
	struct ublk_tag *tags;
	void *priv;
};

/* Forks; the child calls run(dev, arg) and exits. */
pid_t ublk_fork(struct ublk_dev *dev, void (*run)(struct ublk_dev *dev, void *arg), void *arg);
/* ublk_fork and START_DEV. */
pid_t ublk_start(struct ublk_dev *dev, void (*run)(struct ublk_dev *dev, void *arg), void *arg);

/* In the child: */
void ublk_server_open(struct ublk_server *server, struct ublk_dev *dev, unsigned int ring_flags);
/* Fetches on every tag and serves until the driver has aborted them all. */
void ublk_server_run(struct ublk_server *server);
/* Takes and dispatches completions until *flag is set. */
void ublk_server_until(struct ublk_server *server, const bool *flag);
void ublk_server_fetch(struct ublk_server *server);
/* PROVIDE of the tag; the caller adds LINK to the SQE's flags if it needs to. */
struct io_uring_sqe *ublk_server_provide(struct ublk_server *server, unsigned int tag);
struct io_uring_sqe *ublk_server_commit(struct ublk_server *server, unsigned int tag, int result);

/* Result of PROVIDE by this thread, with these SQE flags, on a ring of its own. */
int ublk_try_provide(struct ublk_server *server, struct ublksrv_io_cmd cmd, uint8_t flags);

/* The loop target: reads and writes server->file through groups. */
void ublk_loop_request(struct ublk_server *server, unsigned int tag);
void ublk_loop_completed(struct ublk_server *server, const struct ring_cqe *cqe);
/* run() of ublk_start: the whole loop server. arg: int[2], the file and the ring flags. */
void ublk_loop_run(struct ublk_dev *dev, void *arg);

/*
 * A child that reads or writes len bytes of the pattern at position of the block device, direct,
 * and checks the errno (0: success) and, when reading, the data. peer_join waits for it.
 */
pid_t block_read(const struct ublk_dev *dev, unsigned int stream, size_t position, size_t len,
		 int error);
pid_t block_write(const struct ublk_dev *dev, unsigned int stream, size_t position, size_t len,
		  int error);

#endif
