// SPDX-License-Identifier: MIT
/* Any text as an NBD URI. */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "fuzz.h"
#include "nbd_uri.h"

static void check_uri(const struct gk_nbd_uri *uri)
{
	const char *const texts[] = {
		uri->text,	  uri->host,	     uri->port,		uri->socket_path,
		uri->export_name, uri->tls_username, uri->tls_hostname, uri->tls_certificates,
		uri->tls_psk_file};
	size_t total = 0;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		json_t *json = texts[i] ? json_string(texts[i]) : NULL;

		/* The status tells of it, so it is UTF-8. */
		CHECK(json);
		json_decref(json);
		total += strlen(texts[i]);
	}
	CHECK(total < 65536);
	CHECK(uri->tls_verify >= -1 && uri->tls_verify <= 1);
	switch (uri->transport) {
	case GK_TRANSPORT_TCP:
		CHECK(uri->host[0] && !uri->socket_path[0]);
		CHECK(atoi(uri->port) > 0 && atoi(uri->port) <= 65535);
		break;
	case GK_TRANSPORT_UNIX:
		CHECK(!uri->host[0] && uri->socket_path[0]);
		break;
	case GK_TRANSPORT_VSOCK:
		CHECK(!uri->host[0] && !uri->socket_path[0]);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct gk_nbd_uri uri;
	char why[256] = "";
	int r;

	CHECK(text);
	memcpy(text, data, size);
	text[size] = '\0';
	r = gk_nbd_uri_parse(text, why, sizeof(why), &uri);
	if (r) {
		CHECK(r == -EINVAL && why[0] && strlen(why) < sizeof(why));
	} else {
		struct gk_nbd_uri again;

		check_uri(&uri);
		/* Its text, without the user, is a URI too, and the same. */
		CHECK(gk_nbd_uri_parse(uri.text, why, sizeof(why), &again) == 0);
		CHECK(!strcmp(uri.export_name, again.export_name));
		CHECK(!strcmp(uri.host, again.host) && !strcmp(uri.port, again.port));
		CHECK(!strcmp(uri.socket_path, again.socket_path) && uri.tls == again.tls);
		CHECK(uri.vsock_cid == again.vsock_cid && uri.vsock_port == again.vsock_port);
		gk_nbd_uri_done(&again);
		gk_nbd_uri_done(&uri);
	}
	free(text);
	return 0;
}
