/* SPDX-License-Identifier: MIT */
/*
 * The server's side of TLS for tests that hold plain sockets: a thread that decrypts what comes
 * from one socket into another, and encrypts what comes back. The end of either passes through, in
 * each direction by itself.
 */
#ifndef GK_TLS_PEER_H
#define GK_TLS_PEER_H

#include "tls.h"

struct tls_peer;

/*
 * Owns fd, the server's end of a connection. version: "1.2", "1.3", or NULL for any. Aborts on
 * failure, as all of these do.
 */
struct tls_peer *tls_peer_new(int fd, const char *version);

/* The plain end, the caller's. */
int tls_peer_fd(const struct tls_peer *peer);

/*
 * The caller has closed the plain end, or will: the thread ends when both sides have, and frees
 * everything. Takes NULL.
 */
void tls_peer_forget(struct tls_peer *peer);

/* The next time that something passes, TLS 1.3 takes new keys in both directions first. */
void tls_peer_new_keys(struct tls_peer *peer);

/* The next time that something passes, the server sends a session ticket first. */
void tls_peer_ticket(struct tls_peer *peer);

/*
 * The server reads no more of what the client sends, but for what is on its way through already, and
 * what it says passes as before; false: it goes on.
 */
void tls_peer_hold(struct tls_peer *peer, bool on);

/* When the plain end is closed, the connection is, without close_notify. */
void tls_peer_cut(struct tls_peer *peer);

/* The socket below TLS, for bytes that are none. */
int tls_peer_raw(const struct tls_peer *peer);

/* Our side of the handshake, over the other end; blocks. */
struct gk_tls *tls_peer_connect(int fd);

#endif
