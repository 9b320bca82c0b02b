/* SPDX-License-Identifier: MIT */
/*
 * gkproxy probe [URI] [--json]: what this host can do and which devices nobody serves, and with a
 * URI what the server there offers. --remove ID: removes one of those devices.
 * Runs alone in the process; prints to stdout, reasons of a failure to stderr.
 */
#ifndef GK_CMD_PROBE_H
#define GK_CMD_PROBE_H

/*
 * argv[0] is "probe". Returns the exit status: 0; 1 the host cannot attach devices (when no URI is
 * given), or the server could not be asked; 2 usage.
 */
int gk_cmd_probe(int argc, char **argv);

#endif
