/* SPDX-License-Identifier: MIT */
/* Authorities and certificates for tests, made on the spot, as PEM files. Any thread. */
#ifndef GK_TLS_CA_H
#define GK_TLS_CA_H

#include <openssl/ssl.h>

/* What is special of a certificate; zeroed: good for two days from yesterday on. */
struct tls_ca_wish {
	const char *names; /* subjectAltName as in "DNS:host,IP:10.0.0.1"; NULL: none */
	long begin_s;	   /* valid from now + this on; 0: since yesterday */
	long end_s;	   /* ... up to now + this; 0: tomorrow */
};

struct tls_ca {
	EVP_PKEY *key;
	X509 *cert;
	char dir[64]; /* of its own, with its certificate as ca.pem */
};

/* Abort when something does not work: there is nothing to test then. */
void tls_ca_init(struct tls_ca *ca, const char *name);
void tls_ca_done(struct tls_ca *ca); /* removes the folder */

/* Writes dir/NAME.pem and dir/NAME.key, issued by ca; over older ones. */
void tls_ca_issue(const struct tls_ca *ca, const char *name, const struct tls_ca_wish *wish);

/* Writes the key in dir/FROM to dir/TO, encrypted with a passphrase. */
void tls_ca_lock_key(const struct tls_ca *ca, const char *from, const char *to);

/* "dir/NAME", in one of a few buffers that are used in turn. */
const char *tls_ca_path(const struct tls_ca *ca, const char *name);

/* Writes text to dir/NAME with these permissions. */
void tls_ca_write(const struct tls_ca *ca, const char *name, const char *text, unsigned int mode);

#endif
