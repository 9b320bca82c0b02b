/* SPDX-License-Identifier: MIT */
#include "config_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_keys.h"

/* The strings of a URI: what a copy has to copy. */
static const size_t uri_strings[] = {
	offsetof(struct gk_nbd_uri, text),
	offsetof(struct gk_nbd_uri, host),
	offsetof(struct gk_nbd_uri, port),
	offsetof(struct gk_nbd_uri, socket_path),
	offsetof(struct gk_nbd_uri, export_name),
	offsetof(struct gk_nbd_uri, tls_username),
	offsetof(struct gk_nbd_uri, tls_hostname),
	offsetof(struct gk_nbd_uri, tls_certificates),
	offsetof(struct gk_nbd_uri, tls_psk_file),
};

#define N_URI_STRINGS (sizeof(uri_strings) / sizeof(uri_strings[0]))

static char **string_at(const struct gk_nbd_uri *uri, size_t i)
{
	return (char **)((char *)(uintptr_t)uri + uri_strings[i]);
}

static int copy_uri(const struct gk_nbd_uri *uri, struct gk_nbd_uri *ret_copy)
{
	struct gk_nbd_uri copy = *uri;
	int r = 0;

	for (size_t i = 0; i < N_URI_STRINGS; i++) {
		char *text = *string_at(uri, i);

		*string_at(&copy, i) = text ? strdup(text) : NULL;
		if (text && !*string_at(&copy, i))
			r = -ENOMEM;
	}
	if (r)
		gk_nbd_uri_done(&copy);
	else
		*ret_copy = copy;
	return r;
}

void gk_config_device_clear_remotes(struct gk_device_config *device)
{
	for (size_t i = 0; i < device->n_remotes; i++)
		gk_nbd_uri_done(&device->remotes[i]);
	free(device->remotes);
	device->remotes = NULL;
	device->n_remotes = 0;
}

void gk_config_device_free(struct gk_device_config *device)
{
	if (!device)
		return;
	gk_config_device_clear_remotes(device);
	gk_config_keys_done(gk_config_device_keys, device);
	free(device);
}

static bool is_text(const struct gk_config_key *key)
{
	return key->kind == GK_KEY_TEXT || key->kind == GK_KEY_NAME;
}

static const void *field_of(const struct gk_config_key *key, const struct gk_device_config *device)
{
	return (const char *)device + key->offset;
}

int gk_config_device_copy(const struct gk_device_config *device, struct gk_device_config **ret_copy)
{
	struct gk_device_config *copy = malloc(sizeof(*copy));
	int r = 0;

	if (!copy)
		return -ENOMEM;
	*copy = *device;
	copy->n_remotes = 0;
	copy->remotes = calloc(device->n_remotes ? device->n_remotes : 1, sizeof(*copy->remotes));
	if (!copy->remotes)
		r = -ENOMEM;
	/* Every text is replaced, so that what is freed after a failure is the copy's own. */
	for (const struct gk_config_key *key = gk_config_device_keys; key->name; key++) {
		char **text = (char **)((char *)copy + key->offset);

		if (!is_text(key) || !*text)
			continue;
		*text = strdup(*text);
		if (!*text)
			r = -ENOMEM;
	}
	for (size_t i = 0; i < device->n_remotes && !r; i++) {
		r = copy_uri(&device->remotes[i], &copy->remotes[i]);
		copy->n_remotes += !r;
	}
	if (r)
		gk_config_device_free(copy);
	else
		*ret_copy = copy;
	return r;
}

static int add_remote(struct gk_device_config *device, const char *text, char *why, size_t why_size)
{
	const struct gk_config_key *key = gk_config_keys_find(gk_config_device_keys, "remote");
	struct gk_nbd_uri *remotes;
	struct gk_nbd_uri uri;
	char reason[256];
	int r;

	if ((double)device->n_remotes >= key->max) {
		snprintf(why, why_size, "remote: expected at most %.0f URIs", key->max);
		return -EINVAL;
	}
	r = gk_nbd_uri_parse(text, reason, sizeof(reason), &uri);
	if (r) {
		snprintf(why, why_size, "remote: expected an NBD URI: %s", reason);
		return r;
	}
	if (uri.tls_type == GK_TLS_ANON) {
		snprintf(why, why_size, "remote: expected tls-type=x509 or psk: anonymous TLS protects "
			 "from nobody who can change what passes");
		r = -EINVAL;
	}
	remotes = r ? NULL : realloc(device->remotes, (device->n_remotes + 1) * sizeof(*remotes));
	if (!remotes) {
		gk_nbd_uri_done(&uri);
		return r ? r : -ENOMEM;
	}
	remotes[device->n_remotes++] = uri;
	device->remotes = remotes;
	return 0;
}

static void list_keys(char *why, size_t why_size, const char *name)
{
	size_t n = (size_t)snprintf(why, why_size, "%.64s: unknown key, expected one of", name);

	for (const struct gk_config_key *key = gk_config_device_keys; key->name && n < why_size; key++)
		n += (size_t)snprintf(why + n, why_size - n, "%s %s",
				      key == gk_config_device_keys ? "" : ",", key->name);
}

int gk_config_device_set(struct gk_device_config *device, const char *key_text, const char *value,
			 char *why, size_t why_size)
{
	const struct gk_config_key *key;
	char name[64], expected[256];
	int r;

	snprintf(name, sizeof(name), "%s", key_text);
	for (char *c = name; *c; c++)
		*c = *c == '-' ? '_' : *c;
	key = gk_config_keys_find(gk_config_device_keys, name);
	if (!key) {
		list_keys(why, why_size, key_text);
		return -EINVAL;
	}
	if (key->kind == GK_KEY_REMOTE)
		return add_remote(device, value, why, why_size);
	/* Not by way of libconfig, which ends the process when it gets no memory. */
	r = gk_config_keys_set_text(key, value, device, expected, sizeof(expected));
	if (r == -EINVAL)
		snprintf(why, why_size, "%s: %s", key->name, expected);
	return r;
}

static void show(const struct gk_config_key *key, const struct gk_device_config *device, char *text,
		 size_t size)
{
	const void *field = field_of(key, device);

	switch (key->kind) {
	case GK_KEY_BOOL:
		snprintf(text, size, "%s", *(const bool *)field ? "true" : "false");
		break;
	case GK_KEY_NUMBER:
		snprintf(text, size, "%d", *(const int *)field);
		break;
	case GK_KEY_SIZE:
		snprintf(text, size, "%u", *(const uint32_t *)field);
		break;
	case GK_KEY_TIME:
		snprintf(text, size, "%g", *(const double *)field);
		break;
	case GK_KEY_CHOICE:
		snprintf(text, size, "\"%s\"", key->choices[*(const int *)field]);
		break;
	case GK_KEY_TEXT:
	case GK_KEY_NAME:
	case GK_KEY_ADDRESS:
		snprintf(text, size, "\"%.200s\"", *(char *const *)field ? *(char *const *)field : "");
		break;
	case GK_KEY_REMOTE:
		snprintf(text, size, "\"%.200s\"%s", device->n_remotes ? device->remotes[0].text : "",
			 device->n_remotes > 1 ? " and others" : "");
		break;
	case GK_KEY_SECTION:
		snprintf(text, size, "?");
		break;
	}
}

static bool same_uri(const struct gk_nbd_uri *a, const struct gk_nbd_uri *b)
{
	for (size_t i = 0; i < N_URI_STRINGS; i++) {
		const char *x = *string_at(a, i);
		const char *y = *string_at(b, i);

		if (strcmp(x ? x : "", y ? y : ""))
			return false;
	}
	return true;
}

static bool same_remotes(const struct gk_device_config *a, const struct gk_device_config *b)
{
	if (a->n_remotes != b->n_remotes)
		return false;
	for (size_t i = 0; i < a->n_remotes; i++)
		if (!same_uri(&a->remotes[i], &b->remotes[i]))
			return false;
	return true;
}

/* Not as they are shown, which is shortened. */
static bool same_value(const struct gk_config_key *key, const struct gk_device_config *a,
		       const struct gk_device_config *b)
{
	const void *x = field_of(key, a);
	const void *y = field_of(key, b);
	const char *text, *other;

	switch (key->kind) {
	case GK_KEY_BOOL:
		return *(const bool *)x == *(const bool *)y;
	case GK_KEY_NUMBER:
	case GK_KEY_SIZE:
	case GK_KEY_CHOICE:
		return *(const int *)x == *(const int *)y;
	case GK_KEY_TIME:
		return !(*(const double *)x < *(const double *)y) &&
		       !(*(const double *)x > *(const double *)y);
	case GK_KEY_TEXT:
	case GK_KEY_NAME:
	case GK_KEY_ADDRESS:
		text = *(char *const *)x;
		other = *(char *const *)y;
		return !strcmp(text ? text : "", other ? other : "");
	case GK_KEY_REMOTE:
		return same_remotes(a, b);
	case GK_KEY_SECTION:
		break;
	}
	return true;
}

bool gk_config_device_same(const struct gk_device_config *is, const struct gk_device_config *would_be,
			   char *why, size_t why_size)
{
	for (const struct gk_config_key *key = gk_config_device_keys; key->name; key++) {
		char a[256], b[256];

		if (same_value(key, is, would_be))
			continue;
		show(key, is, a, sizeof(a));
		show(key, would_be, b, sizeof(b));
		if (strcmp(a, b))
			snprintf(why, why_size, "%s is %s and would be %s", key->name, a, b);
		else
			snprintf(why, why_size, "%s differs", key->name);
		return false;
	}
	return true;
}

/*
 * What a device says of TLS must hold for all of its servers: failing over from one that is
 * encrypted to one that is not would be a silent fallback.
 */
const char *gk_config_device_bad_remotes(const struct gk_device_config *device)
{
	for (size_t i = 1; i < device->n_remotes; i++)
		if (device->remotes[i].tls != device->remotes[0].tls)
			return "expected all remotes with TLS (nbds) or all without, for they take "
			       "over from one another";
	return NULL;
}

const char *gk_config_device_bad_tls(const struct gk_device_config *device)
{
	const struct gk_tls_config *tls = &device->tls;

	if (tls->psk_file && *tls->psk_file && (*tls->ca || *tls->cert || *tls->key))
		return "expected either psk_file or ca, cert and key";
	if (tls->cert && !*tls->cert != !*tls->key)
		return "expected cert and key together";
	return NULL;
}

bool gk_config_device_is_name(const char *text)
{
	struct gk_device_config device = {0};
	char why[256];
	int r = gk_config_device_set(&device, "name", text, why, sizeof(why));

	free(device.name);
	return !r;
}

const char *gk_config_device_key(size_t index, char *expected, size_t size)
{
	const struct gk_config_key *key = gk_config_device_keys;
	struct gk_device_config device = {0};
	char why[512];

	while (key->name && index--)
		key++;
	if (!key->name)
		return NULL;
	/* A question mark is no value of any of the other kinds. */
	if (key->kind == GK_KEY_REMOTE)
		snprintf(expected, size, "expected an NBD URI");
	else if (key->kind == GK_KEY_TEXT)
		snprintf(expected, size, "expected a text");
	else if (gk_config_device_set(&device, key->name, "?", why, sizeof(why)))
		snprintf(expected, size, "%s", why + strlen(key->name) + 2);
	return key->name;
}

bool gk_config_log_level(const char *name, enum gk_log_level *ret_level)
{
	const struct gk_config_key *key = gk_config_keys_find(gk_config_file_keys, "log_level");

	for (int i = 0; key->choices[i]; i++) {
		if (strcmp(key->choices[i], name))
			continue;
		*ret_level = (enum gk_log_level)i;
		return true;
	}
	return false;
}

const char *gk_config_log_level_name(enum gk_log_level level)
{
	return gk_config_keys_find(gk_config_file_keys, "log_level")->choices[level];
}
