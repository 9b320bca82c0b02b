/* SPDX-License-Identifier: MIT */
/*
 * The capabilities that the daemon needs while it runs: which there are, and giving up the rest.
 * capabilities(7). Control thread.
 */
#ifndef GK_PRIVILEGE_H
#define GK_PRIVILEGE_H

#include <jansson.h>

/*
 * Keeps what is needed of the capabilities that there are, for good (no_new_privs, bounding set).
 * Before any other thread is started. 0; or -errno after a warning, and then some are left.
 */
int gk_privilege_drop(void);

/*
 * For a process that has nothing to do but to keep its memory locked: keeps CAP_IPC_LOCK alone. 0 or
 * -errno, and then some are left.
 */
int gk_privilege_drop_most(void);

/*
 * {"CAP_SYS_ADMIN": {"available": true}, ...}, "why" says what does not work without one. A new
 * reference; NULL when out of memory.
 */
json_t *gk_privilege_json(void);

#endif
