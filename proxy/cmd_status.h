/* SPDX-License-Identifier: MIT */
/*
 * gkproxy status [NAME] [--watch] [--json] [--socket PATH]: asks the running daemon. Runs alone in the
 * process; prints to stdout, reasons of a failure to stderr.
 */
#ifndef GK_CMD_STATUS_H
#define GK_CMD_STATUS_H

/* argv[0] is "status". Returns the exit status: 0; 1 no daemon, no such device; 2 usage. */
int gk_cmd_status(int argc, char **argv);

#endif
