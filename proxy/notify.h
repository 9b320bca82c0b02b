/* SPDX-License-Identifier: MIT */
/* systemd's service protocol, sd_notify(3): datagrams to the socket in $NOTIFY_SOCKET. Control thread. */
#ifndef GK_NOTIFY_H
#define GK_NOTIFY_H

/* Sends state ("READY=1"), within 1 s or not at all; does nothing when no service manager asked for it. */
void gk_notify(const char *state);

/*
 * Tells the service manager's watchdog ($WATCHDOG_USEC) that the caller's loop runs; sends only when a
 * quarter of that time has passed. The milliseconds after which to call it again at the latest, as
 * poll() takes them; -1 when there is no watchdog.
 */
int gk_notify_alive(void);

#endif
