/* SPDX-License-Identifier: GPL-2.0 */
/* Sockets, and bytes that tell where they belong: position p of stream s has pattern_byte(s, p). */
#ifndef NET_H
#define NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

void net_unix_pair(int ret_fds[2]);
/* Connected over loopback, with TCP_NODELAY; a buffer size of 0 leaves the kernel's default. */
void net_tcp_pair(int ret_fds[2], int sndbuf, int rcvbuf);
void net_write(int fd, const void *data, size_t len);
/* Reads exactly len bytes. */
void net_read(int fd, void *data, size_t len);
/* Reads to the end of the stream, at most size bytes; the number of bytes. */
size_t net_read_all(int fd, void *data, size_t size);
/* Closes so that the peer gets a reset. */
void net_reset(int fd);
/* Waits until the peer's TCP has acknowledged everything that was written to fd. */
void net_wait_acked(int fd);
/* Waits until nothing is left in fd's receive queue. */
void net_wait_received(int fd);

uint8_t pattern_byte(unsigned int stream, size_t position);
void pattern_fill(void *data, unsigned int stream, size_t position, size_t len);
/* Index of the first byte that differs, or -1. */
ssize_t pattern_differs(const void *data, unsigned int stream, size_t position, size_t len);
ssize_t zero_differs(const void *data, size_t len);
void *check_alloc(size_t len);

/*
 * A child process on the other end: writes len bytes of the stream's pattern, or reads them and
 * checks each. peer_join waits for it and fails if it did.
 */
pid_t peer_write(int fd, unsigned int stream, size_t position, size_t len);
pid_t peer_read(int fd, unsigned int stream, size_t position, size_t len);
void peer_join(pid_t peer);

/* Waits until the task sleeps (state S or D in /proc). */
void wait_asleep(pid_t tid);

#endif
