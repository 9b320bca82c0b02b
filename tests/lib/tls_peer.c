// SPDX-License-Identifier: MIT
#include "tls_peer.h"

#include <errno.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: TLS peer: not so: %s\n", __FILE__, __LINE__,       \
				#condition);                                                       \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct tls_peer {
	SSL *ssl;
	int fd;	   /* TLS */
	int plain; /* ours of the plain pair */
	int given; /* the other one */
	pthread_t thread;
	bool new_keys; /* by the test's thread */
	bool ticket;
	bool cut;
	bool held;
	int wake;      /* eventfd: one of these has changed, and matters now */
	bool from_client, to_client; /* these directions are open */
};

/* A key and a certificate that nobody verifies. */
static SSL_CTX *make_context(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();

	CHECK(ctx && key && cert && X509_set_pubkey(cert, key));
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	CHECK(X509_sign(cert, key, EVP_sha256()));
	CHECK(SSL_CTX_use_certificate(ctx, cert) && SSL_CTX_use_PrivateKey(ctx, key));
	/* Tests that count turns of the loop want no record that is not theirs. */
	CHECK(SSL_CTX_set_num_tickets(ctx, 0));
	X509_free(cert);
	EVP_PKEY_free(key);
	return ctx;
}

static SSL_CTX *server_context;
static struct gk_tls_context *client_context;

static void make_contexts(void)
{
	struct gk_tls_options options = {
		.ca = "", .cert = "", .key = "", .psk_file = "", .psk_user = "", .hostname = "",
		.ciphers = "",
	};
	char why[GK_TLS_WHY_BYTES];

	server_context = make_context();
	CHECK(gk_tls_context_new(&options, why, sizeof(why), &client_context) == 0);
	/* A client that is gone shows in what a write returns. */
	signal(SIGPIPE, SIG_IGN);
}

/* From the client: false when no more comes. */
static bool relay_in(struct tls_peer *peer)
{
	uint8_t bytes[16384];
	int n;

	do {
		const uint8_t *p = bytes;

		ERR_clear_error();
		n = SSL_read(peer->ssl, bytes, sizeof(bytes));
		for (int left = n; left > 0;) {
			ssize_t sent = send(peer->plain, p, (size_t)left, MSG_NOSIGNAL);

			if (sent < 0)
				return false;
			p += sent;
			left -= (int)sent;
		}
	} while (n > 0 && SSL_pending(peer->ssl));
	return n > 0 || SSL_get_error(peer->ssl, n) == SSL_ERROR_WANT_READ;
}

/*
 * From the server: false when it has ended. That alone ends the connection, also when the client
 * can be told no more: who has half-closed it waits for the end of a server that may still work off
 * what it has received, and OpenSSL writes nothing more once it has seen a client leave like that.
 */
static bool relay_out(struct tls_peer *peer)
{
	uint8_t bytes[16384];
	ssize_t n = recv(peer->plain, bytes, sizeof(bytes), 0);

	if (n <= 0)
		return false;
	if (__atomic_exchange_n(&peer->new_keys, false, __ATOMIC_ACQ_REL))
		CHECK(SSL_key_update(peer->ssl, SSL_KEY_UPDATE_REQUESTED));
	if (__atomic_exchange_n(&peer->ticket, false, __ATOMIC_ACQ_REL))
		CHECK(SSL_new_session_ticket(peer->ssl));
	ERR_clear_error();
	(void)SSL_write(peer->ssl, bytes, (int)n);
	return true;
}

static void *relay(void *arg)
{
	struct tls_peer *peer = arg;

	peer->from_client = peer->to_client = SSL_accept(peer->ssl) == 1;
	while (peer->from_client || peer->to_client) {
		bool held = __atomic_load_n(&peer->held, __ATOMIC_ACQUIRE);
		struct pollfd fds[3] = {
			{.fd = peer->from_client && !held ? peer->fd : -1, .events = POLLIN},
			{.fd = peer->to_client ? peer->plain : -1, .events = POLLIN},
			{.fd = peer->wake, .events = POLLIN},
		};

		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[2].revents)
			CHECK(eventfd_read(peer->wake, &(eventfd_t){0}) == 0);
		if (fds[0].revents && !relay_in(peer)) {
			peer->from_client = false;
			shutdown(peer->plain, SHUT_WR);
		}
		if (fds[1].revents && !relay_out(peer)) {
			peer->to_client = false;
			if (!__atomic_load_n(&peer->cut, __ATOMIC_ACQUIRE))
				SSL_shutdown(peer->ssl);
			/* A server that is gone takes no more either. */
			peer->from_client = false;
		}
	}
	SSL_free(peer->ssl);
	close(peer->fd);
	close(peer->plain);
	close(peer->wake);
	return NULL;
}

struct tls_peer *tls_peer_new(int fd, const char *version)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct tls_peer *peer = calloc(1, sizeof(*peer));
	int fds[2];

	pthread_once(&once, make_contexts);
	CHECK(peer && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	peer->fd = fd;
	peer->plain = fds[0];
	peer->given = fds[1];
	peer->wake = eventfd(0, EFD_CLOEXEC);
	CHECK(peer->wake >= 0);
	peer->ssl = SSL_new(server_context);
	CHECK(peer->ssl && SSL_set_fd(peer->ssl, fd));
	if (version && !strcmp(version, "1.2"))
		SSL_set_max_proto_version(peer->ssl, TLS1_2_VERSION);
	if (version && !strcmp(version, "1.3"))
		SSL_set_min_proto_version(peer->ssl, TLS1_3_VERSION);
	CHECK(pthread_create(&peer->thread, NULL, relay, peer) == 0);
	return peer;
}

int tls_peer_fd(const struct tls_peer *peer)
{
	return peer->given;
}

void tls_peer_forget(struct tls_peer *peer)
{
	if (!peer)
		return;
	CHECK(pthread_join(peer->thread, NULL) == 0);
	free(peer);
}

int tls_peer_raw(const struct tls_peer *peer)
{
	return peer->fd;
}

void tls_peer_new_keys(struct tls_peer *peer)
{
	__atomic_store_n(&peer->new_keys, true, __ATOMIC_RELEASE);
}

void tls_peer_ticket(struct tls_peer *peer)
{
	__atomic_store_n(&peer->ticket, true, __ATOMIC_RELEASE);
}

void tls_peer_hold(struct tls_peer *peer, bool on)
{
	__atomic_store_n(&peer->held, on, __ATOMIC_RELEASE);
	CHECK(eventfd_write(peer->wake, 1) == 0);
}

void tls_peer_cut(struct tls_peer *peer)
{
	__atomic_store_n(&peer->cut, true, __ATOMIC_RELEASE);
}

struct gk_tls *tls_peer_connect(int fd)
{
	struct gk_tls *tls = gk_tls_new(client_context);
	uint8_t bytes[4096];
	size_t used, n = 0;
	int r;

	CHECK(tls);
	do {
		r = gk_tls_handshake(tls, bytes, n, &used);
		CHECK(r == 0 || r == -EAGAIN);
		for (size_t sent = 0; sent < tls->out_len;) {
			ssize_t k = send(fd, tls->out + sent, tls->out_len - sent, MSG_NOSIGNAL);

			CHECK(k > 0);
			sent += (size_t)k;
		}
		tls->out_len = 0;
		if (r == -EAGAIN) {
			size_t missing = gk_tls_missing(tls);
			ssize_t k = recv(fd, bytes, missing < sizeof(bytes) ? missing : sizeof(bytes),
					 0);

			CHECK(k > 0);
			n = (size_t)k;
		}
	} while (r == -EAGAIN);
	return tls;
}
