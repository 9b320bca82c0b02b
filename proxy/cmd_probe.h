/* SPDX-License-Identifier: MIT */
/*
 * gkproxy probe [URI] [--json]: what this host can do and which devices nobody serves, and with a
 * URI what the server there offers. --remove ID: removes one of those devices.
 * Runs alone in the process; prints to stdout, reasons of a failure to stderr.
 */
#ifndef GK_CMD_PROBE_H
#define GK_CMD_PROBE_H

#include <jansson.h>

#include "probe.h"

/* What was found about this host, as JSON; a new reference, NULL when out of memory. Any thread. */
json_t *gk_cmd_probe_host(const struct gk_probe *probe);

/*
 * argv[0] is "probe". Returns the exit status: 0; 1 the host cannot attach devices (when no URI is
 * given), or the server could not be asked; 2 usage.
 */
int gk_cmd_probe(int argc, char **argv);

#endif
