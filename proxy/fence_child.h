/* SPDX-License-Identifier: MIT */
/*
 * The fence over the daemon's own death. What a dead daemon's connections left at the server may be
 * applied after the next daemon has written the same blocks anew, unless somebody half-closes them
 * and awaits their ends, as session.h's FENCING does while the daemon lives. That is a small process,
 * forked at the start: it gets a copy of the socket of every connection, and does nothing with them
 * until the daemon is gone. Linux: unix(7) (SCM_RIGHTS), flock(2).
 *
 * Each device has state_dir/NAME.fence, locked for as long as a process has one of its connections:
 * the lock goes with the descriptors, so that it is never free in between. The file tells how it ended:
 *   empty        no connection was made yet
 *   a number     of the fence process that has them: if the lock is free, not all ends were seen
 *   "incomplete" it does not have all of them
 *   "ended"      every connection's end was seen
 *
 * One per process. Any thread, where no line says otherwise.
 */
#ifndef GK_FENCE_CHILD_H
#define GK_FENCE_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "config.h"

/*
 * Forks it. Control thread, before any other thread, before memory is locked and before a secret is
 * read. What it logs goes where our log goes. 0, or -errno after a warning: the daemon goes on, and
 * should it die there is no fence; the functions below do nothing then.
 */
int gk_fence_child_start(void);

/* For poll(): POLLHUP when it is gone. -1: there is none. Control thread. */
int gk_fence_child_fd(void);

/* Notes that it is gone, which is a warning. Control thread. */
void gk_fence_child_step(void);

/*
 * The daemon ends, as its death would tell too: the process awaits the ends of what it has, and ends
 * itself. Waits for that, 1 s at most. Control thread, last.
 */
void gk_fence_child_end(void);

/*
 * Gives it a copy of a connection, before anything but the handshake is sent on that. In the place
 * of an older one of the same number, which it closes. lock_fd: of gk_fence_child_take(); -1: does
 * nothing. The caller keeps both descriptors. A failure is a warning: no fence for this connection.
 */
void gk_fence_child_hold(const struct gk_device_config *config, int lock_fd, unsigned int connection,
			 int fd);

/* The connection has ended, the device has: it closes its copies. Harmless when it has none. */
void gk_fence_child_drop(const char *name, unsigned int connection);
void gk_fence_child_drop_all(const char *name);

/*
 * Waits until no process has connections of that device any more: fence_timeout and a little more,
 * and then goes on after a warning; with a strict fence for as long as it takes. 0, and *ret_lock_fd
 * is the caller's (-1: there is no fence, after a warning where one was to be expected);
 * -ECANCELED: cancel_fd (-1: none) became readable; or -EMFILE, -ENFILE; each after an error.
 * taken_over: the device is one that a former daemon left: warns when not all of its connections'
 * ends were seen.
 */
int gk_fence_child_take(const char *state_dir, const struct gk_device_config *config, bool taken_over,
			int cancel_fd, int *ret_lock_fd);

/* Closes it; forget: the device is gone, and so is its file. Takes -1. */
void gk_fence_child_let_go(const char *state_dir, const char *name, int lock_fd, bool forget);

/* The process's life, given its end of the socketpair: does not return. For gk_fence_child_start(). */
void gk_fence_keep(int daemon_fd) __attribute__((noreturn));

/* A message from the daemon; descriptors: HOLD has the socket and the lock. */
struct gk_fence_note {
	enum { GK_FENCE_HOLD, GK_FENCE_DROP, GK_FENCE_DROP_ALL } kind;
	unsigned int connection;
	int limit_ms; /* from the daemon's death on; -1: none */
	char name[68]; /* with room to spare, so that no padding is sent */
};

#endif
