/* SPDX-License-Identifier: GPL-2.0 */
/* A server of the transmission phase of NBD, in shared memory, that can be killed and restarted. */
#ifndef NBD_PAIR_H
#define NBD_PAIR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Shared by all processes of the test. */
struct nbd_memory {
	uint16_t port; /* network byte order; 0 until the first server listens */
	volatile uint32_t served;
	size_t size;
	uint8_t data[];
};

struct nbd_memory *nbd_memory_new(size_t size);
/* A process group that listens on memory->port; kill(-pid) ends all of it. */
pid_t nbd_server_start(struct nbd_memory *memory);
void nbd_server_kill(pid_t server);
/* Connects; waits for a server to listen. */
int nbd_connect(const struct nbd_memory *memory);

#endif
