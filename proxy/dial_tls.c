// SPDX-License-Identifier: MIT
#include "dial_tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Paths below tls-certificates=FOLDER, under the names that libnbd and QEMU give to the files. */
struct folder {
	char *ca, *cert, *key;
};

static int fill_folder(struct folder *folder, const char *path)
{
	if (asprintf(&folder->ca, "%s/ca-cert.pem", path) < 0)
		folder->ca = NULL;
	if (asprintf(&folder->cert, "%s/client-cert.pem", path) < 0)
		folder->cert = NULL;
	if (asprintf(&folder->key, "%s/client-key.pem", path) < 0)
		folder->key = NULL;
	return folder->ca && folder->cert && folder->key ? 0 : -ENOMEM;
}

static void empty_folder(struct folder *folder)
{
	free(folder->ca);
	free(folder->cert);
	free(folder->key);
}

static const char *text_or(const char *first, const char *second)
{
	return first && *first ? first : second ? second : "";
}

static bool wants_psk(const struct gk_nbd_uri *uri, const struct gk_tls_config *config)
{
	if (uri->tls_type != GK_TLS_UNSET)
		return uri->tls_type == GK_TLS_PSK;
	return *uri->tls_psk_file || (!*uri->tls_certificates && *text_or(config->psk_file, ""));
}

int gk_dial_tls_context(const struct gk_nbd_uri *uri, const struct gk_tls_config *config, char *why,
			size_t size, struct gk_tls_context **ret_context)
{
	static const struct gk_tls_config defaults = {.verify = true};
	struct gk_tls_options options;
	struct folder folder = {NULL, NULL, NULL};
	int r = 0;

	if (!config)
		config = &defaults;
	options = (struct gk_tls_options){
		.verify = uri->tls_verify < 0 ? config->verify : uri->tls_verify,
		.only_1_3 = config->min_version == GK_TLS_VERSION_1_3,
		.ca = text_or(config->ca, ""),
		.cert = text_or(config->cert, ""),
		.key = text_or(config->key, ""),
		.psk_file = "",
		.psk_user = uri->tls_username,
		.hostname = text_or(uri->tls_hostname, text_or(config->hostname, uri->host)),
		.ciphers = text_or(config->ciphers, ""),
	};
	if (wants_psk(uri, config)) {
		options.psk_file = text_or(uri->tls_psk_file, config->psk_file);
		if (!*options.psk_file) {
			snprintf(why, size, "tls-type=psk needs a file with the key: set "
					    "tls-psk-file in the URI or tls.psk_file");
			return -EINVAL;
		}
	} else if (*uri->tls_certificates) {
		r = fill_folder(&folder, uri->tls_certificates);
		options.ca = text_or(folder.ca, "");
		/*
		 * Only a server that asks who we are makes them necessary. access() would not do for
		 * who may enter the folder by a capability only.
		 */
		if (!r && faccessat(AT_FDCWD, folder.cert, F_OK, AT_EACCESS) == 0) {
			options.cert = folder.cert;
			options.key = folder.key;
		}
	}
	/* Keys are in memory from here on, and must not get into a core file. */
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (r)
		snprintf(why, size, "out of memory");
	else
		r = gk_tls_context_new(&options, why, size, ret_context);
	empty_folder(&folder);
	return r;
}
