/* SPDX-License-Identifier: MIT */
/*
 * A scripted NBD server that negotiates, on loopback TCP or a Unix socket: one thread accepts, one
 * thread serves each connection. For tests of the dialler, and of servers that have a disk besides.
 */
#ifndef GK_HANDSHAKE_SERVER_H
#define GK_HANDSHAKE_SERVER_H

#include <stdint.h>

enum gk_handshake_server_manner {
	GK_HANDSHAKE_SERVER_PROPER,  /* negotiates as it should */
	GK_HANDSHAKE_SERVER_TRICKLE, /* the same, one byte to a packet */
	GK_HANDSHAKE_SERVER_SILENT,  /* never says a word */
	GK_HANDSHAKE_SERVER_CLOSES,  /* hangs up at once */
	GK_HANDSHAKE_SERVER_BANNER,  /* greets like another protocol */
	GK_HANDSHAKE_SERVER_TALKS,   /* sends data right behind the handshake */
	GK_HANDSHAKE_SERVER_STALLS,  /* negotiates, but does not answer NBD_OPT_GO */
};

struct gk_handshake_server_script {
	enum gk_handshake_server_manner manner; /* of every connection ... */
	enum gk_handshake_server_manner
		later_manner; /* ... but of those after the first, and ... */
	int odd_one;	      /* ... of the one with this number (from 0; 0: none) */
	enum gk_handshake_server_manner odd_manner;
	uint64_t size_bytes;
	uint64_t odd_size_bytes; /* of the odd one */
	uint16_t flags;
	unsigned int together; /* connections after the first are answered only when so many of them
				  are there at the same time; 0: at once */
	unsigned int silent_after; /* bytes of a connection, at which it says no more; 0: goes on */
	int accepted_fd;       /* an eventfd to write to at each accept; -1: none */
	uint32_t max_payload;  /* told to the client; 0: not */
	/* What follows NBD_OPT_GO, on the connection's own thread; the fd stays ours. NULL: nothing. */
	void (*transmit)(void *arg, unsigned int number, int fd);
	void *arg;
};

struct gk_handshake_server;

/* Listens at "127.0.0.1", "::1" or the path of a Unix socket. NULL with errno when it cannot. */
struct gk_handshake_server *
gk_handshake_server_new(const char *where, const struct gk_handshake_server_script *script);

/* The TCP port, in decimal; valid until the server is freed. */
const char *gk_handshake_server_port(const struct gk_handshake_server *server);

/* Connections accepted so far. */
unsigned int gk_handshake_server_accepted(struct gk_handshake_server *server);

/* Hangs up on everybody and frees it. Takes NULL. */
void gk_handshake_server_free(struct gk_handshake_server *server);

#endif
