// SPDX-License-Identifier: MIT
#include "tls_ca.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

const char *tls_ca_path(const struct tls_ca *ca, const char *name)
{
	static __thread char paths[8][128];
	static __thread unsigned int turn;
	char *path = paths[turn++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s", ca->dir, name);
	return path;
}

static FILE *create(const struct tls_ca *ca, const char *name, unsigned int mode)
{
	const char *path = tls_ca_path(ca, name);
	FILE *file;

	unlink(path);
	file = fopen(path, "w");
	CHECK(file);
	CHECK(fchmod(fileno(file), mode) == 0);
	return file;
}

void tls_ca_write(const struct tls_ca *ca, const char *name, const char *text, unsigned int mode)
{
	FILE *file = create(ca, name, mode);

	CHECK(fputs(text, file) >= 0);
	CHECK(fclose(file) == 0);
}

static X509 *begin_cert(EVP_PKEY *key, const char *name, const struct tls_ca_wish *wish)
{
	static long serial;
	X509 *cert = X509_new();
	long day = 24L * 3600;

	CHECK(cert && X509_set_version(cert, 2) && X509_set_pubkey(cert, key));
	ASN1_INTEGER_set(X509_get_serialNumber(cert), __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED));
	X509_gmtime_adj(X509_getm_notBefore(cert), wish->begin_s ? wish->begin_s : -day);
	X509_gmtime_adj(X509_getm_notAfter(cert), wish->end_s ? wish->end_s : day);
	CHECK(X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
					 (const unsigned char *)name, -1, -1, 0));
	return cert;
}

static void extend(X509 *cert, int nid, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

	CHECK(extension && X509_add_ext(cert, extension, -1));
	X509_EXTENSION_free(extension);
}

static void write_cert(const struct tls_ca *ca, const char *name, X509 *cert)
{
	FILE *file = create(ca, name, 0644);

	CHECK(PEM_write_X509(file, cert));
	CHECK(fclose(file) == 0);
}

void tls_ca_init(struct tls_ca *ca, const char *name)
{
	const struct tls_ca_wish wish = {0};

	strcpy(ca->dir, "/tmp/gkproxy-tls.XXXXXX");
	CHECK(mkdtemp(ca->dir));
	ca->key = EVP_EC_gen("P-256");
	CHECK(ca->key);
	ca->cert = begin_cert(ca->key, name, &wish);
	CHECK(X509_set_issuer_name(ca->cert, X509_get_subject_name(ca->cert)));
	extend(ca->cert, NID_basic_constraints, "critical,CA:TRUE");
	CHECK(X509_sign(ca->cert, ca->key, EVP_sha256()));
	write_cert(ca, "ca.pem", ca->cert);
}

void tls_ca_done(struct tls_ca *ca)
{
	char command[128];

	EVP_PKEY_free(ca->key);
	X509_free(ca->cert);
	snprintf(command, sizeof(command), "rm -r %s", ca->dir);
	CHECK(system(command) == 0);
}

void tls_ca_issue(const struct tls_ca *ca, const char *name, const struct tls_ca_wish *wish)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert;
	char file_name[64];
	FILE *file;

	CHECK(key);
	cert = begin_cert(key, name, wish);
	CHECK(X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)));
	if (wish->names)
		extend(cert, NID_subject_alt_name, wish->names);
	CHECK(X509_sign(cert, ca->key, EVP_sha256()));
	snprintf(file_name, sizeof(file_name), "%s.pem", name);
	write_cert(ca, file_name, cert);
	snprintf(file_name, sizeof(file_name), "%s.key", name);
	file = create(ca, file_name, 0600);
	CHECK(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL));
	CHECK(fclose(file) == 0);
	X509_free(cert);
	EVP_PKEY_free(key);
}

void tls_ca_lock_key(const struct tls_ca *ca, const char *from, const char *to)
{
	FILE *file = fopen(tls_ca_path(ca, from), "r");
	EVP_PKEY *key = file ? PEM_read_PrivateKey(file, NULL, NULL, NULL) : NULL;

	CHECK(key && fclose(file) == 0);
	file = create(ca, to, 0600);
	CHECK(PEM_write_PrivateKey(file, key, EVP_aes_128_cbc(), (const unsigned char *)"secret", 6,
				   NULL, NULL));
	CHECK(fclose(file) == 0);
	EVP_PKEY_free(key);
}
