/* SPDX-License-Identifier: MIT */
/*
 * ublk devices that no process serves: what a daemon that died or was stopped left behind. For
 * `gkproxy probe`, which runs alone in its process; needs CAP_SYS_ADMIN to see anything.
 */
#ifndef GK_ORPHANS_H
#define GK_ORPHANS_H

#include <jansson.h>

#define GK_ORPHANS_STATE_DIR "/run/gkproxy"

/*
 * All of them, as an array of objects for the host's facts: id, path, state, size_bytes, whether
 * gkproxy made it, its name in a configuration where state_dir tells it (else null), and how to
 * recover and remove it. A device that a running gkproxy holds or is about to take over is not
 * among them. The caller's; NULL when out of memory. Prints a reason to stderr when ublk is refused.
 */
json_t *gk_orphans_json(const char *state_dir);

/* The same for a person, to stdout; says so when there are none. */
void gk_orphans_print(const json_t *orphans);

/*
 * Removes device `id`, if it is such a one: what waits in it fails, its note is forgotten. The exit
 * status: 0, or 1 after a message to stderr.
 */
int gk_orphans_remove(const char *state_dir, unsigned int id);

#endif
