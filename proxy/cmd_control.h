/* SPDX-License-Identifier: MIT */
/*
 * The sub-commands that make the running daemon do something: gkproxy attach, detach, reload,
 * log-level. Each runs alone in the process, argv[0] is its name; prints to stdout, reasons of a
 * failure to stderr. The exit status: 0; 1 refused or failed, or no daemon; 2 usage.
 */
#ifndef GK_CMD_CONTROL_H
#define GK_CMD_CONTROL_H

int gk_cmd_attach(int argc, char **argv);
int gk_cmd_detach(int argc, char **argv);
int gk_cmd_reload(int argc, char **argv);
int gk_cmd_log_level(int argc, char **argv);

#endif
