/* SPDX-License-Identifier: MIT */
/* systemd's readiness protocol, sd_notify(3): a datagram to the socket in $NOTIFY_SOCKET. */
#ifndef GK_NOTIFY_H
#define GK_NOTIFY_H

/* Sends state ("READY=1"); does nothing when no service manager asked for it. Control thread. */
void gk_notify(const char *state);

#endif
