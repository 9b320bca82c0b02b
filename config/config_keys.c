/* SPDX-License-Identifier: MIT */
#include "config_keys.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "address.h"
#include "config.h"

#define FILE_KEY(field)	  offsetof(struct gk_config, field)
#define DEVICE_KEY(field) offsetof(struct gk_device_config, field)
#define MAX_SOCKET_PATH	  (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)
#define MAX_PATH	  4095
#define DAY_S		  86400
#define YEAR_S		  31536000

const struct gk_config_key gk_config_file_keys[] = {
	{"log_level", GK_KEY_CHOICE, FILE_KEY(log_level), .fallback = GK_LOG_INFO,
	 .choices = {[GK_LOG_ERROR] = "error",
		     [GK_LOG_WARNING] = "warning",
		     [GK_LOG_INFO] = "info",
		     [GK_LOG_DEBUG] = "debug"}},
	{"state_dir", GK_KEY_TEXT, FILE_KEY(state_dir), 1, MAX_PATH,
	 .text_fallback = "/run/gkproxy"},
	{"control.socket", GK_KEY_TEXT, FILE_KEY(control_socket), 1, MAX_SOCKET_PATH,
	 .text_fallback = "/run/gkproxy/control.sock"},
	{"control.metrics", GK_KEY_ADDRESS, FILE_KEY(metrics), 0, MAX_PATH, .text_fallback = ""},
	{"defaults", .kind = GK_KEY_SECTION},
	{"devices", .kind = GK_KEY_SECTION},
	{.name = NULL},
};

const struct gk_config_key gk_config_device_keys[] = {
	{"name", GK_KEY_NAME, DEVICE_KEY(name), 1, 64, .text_fallback = NULL},
	{"remote", GK_KEY_REMOTE, DEVICE_KEY(remotes), 1, 16, .fallback = 0},
	{"id", GK_KEY_NUMBER, DEVICE_KEY(id), -1, 1048575, .fallback = -1},
	{"queues", GK_KEY_NUMBER, DEVICE_KEY(queues), 0, 64, .fallback = 0},
	{"queue_depth", GK_KEY_NUMBER, DEVICE_KEY(queue_depth), 1, 4096, .fallback = 128},
	{"connections", GK_KEY_NUMBER, DEVICE_KEY(connections), 0, 64, .fallback = 0},
	{"data_path", GK_KEY_CHOICE, DEVICE_KEY(data_path), .fallback = GK_PATH_AUTO,
	 .choices = {[GK_PATH_AUTO] = "auto",
		     [GK_PATH_GROUP] = "group",
		     [GK_PATH_REGISTERED] = "registered",
		     [GK_PATH_COPY] = "copy"}},
	{"zero_copy_threshold", GK_KEY_SIZE, DEVICE_KEY(zero_copy_threshold_bytes), 0, 32 << 20,
	 .fallback = 0},
	{"send_zc", GK_KEY_BOOL, DEVICE_KEY(send_zc), .fallback = false},
	{"read_only", GK_KEY_BOOL, DEVICE_KEY(read_only), .fallback = false},
	{"structured_replies", GK_KEY_BOOL, DEVICE_KEY(structured_replies), .fallback = false},
	{"connect_timeout", GK_KEY_TIME, DEVICE_KEY(connect_timeout_s), 0, DAY_S, .fallback = 10},
	{"request_timeout", GK_KEY_TIME, DEVICE_KEY(request_timeout_s), 0, DAY_S, .fallback = 30},
	{"reconnect_timeout", GK_KEY_TIME, DEVICE_KEY(reconnect_timeout_s), 0, YEAR_S,
	 .fallback = 0},
	{"unflushed", GK_KEY_CHOICE, DEVICE_KEY(unflushed),
	 .fallback = GK_UNFLUSHED_FAIL_NEXT_FLUSH,
	 .choices = {[GK_UNFLUSHED_FAIL_NEXT_FLUSH] = "fail-next-flush",
		     [GK_UNFLUSHED_IGNORE] = "ignore",
		     [GK_UNFLUSHED_FUA] = "fua"}},
	{"fence", GK_KEY_CHOICE, DEVICE_KEY(fence), .fallback = GK_FENCE_TIMEOUT,
	 .choices = {[GK_FENCE_TIMEOUT] = "timeout", [GK_FENCE_STRICT] = "strict"}},
	{"fence_timeout", GK_KEY_TIME, DEVICE_KEY(fence_timeout_s), 0, DAY_S, .fallback = 10},
	{"on_exit", GK_KEY_CHOICE, DEVICE_KEY(on_exit), .fallback = GK_ON_EXIT_REMOVE,
	 .choices = {[GK_ON_EXIT_REMOVE] = "remove", [GK_ON_EXIT_KEEP] = "keep"}},
	{"tls.verify", GK_KEY_BOOL, DEVICE_KEY(tls.verify), .fallback = true},
	{"tls.ca", GK_KEY_TEXT, DEVICE_KEY(tls.ca), 0, MAX_PATH, .text_fallback = ""},
	{"tls.cert", GK_KEY_TEXT, DEVICE_KEY(tls.cert), 0, MAX_PATH, .text_fallback = ""},
	{"tls.key", GK_KEY_TEXT, DEVICE_KEY(tls.key), 0, MAX_PATH, .text_fallback = ""},
	{"tls.psk_file", GK_KEY_TEXT, DEVICE_KEY(tls.psk_file), 0, MAX_PATH, .text_fallback = ""},
	{"tls.hostname", GK_KEY_TEXT, DEVICE_KEY(tls.hostname), 0, MAX_PATH, .text_fallback = ""},
	{"tls.ciphers", GK_KEY_TEXT, DEVICE_KEY(tls.ciphers), 0, 1000, .text_fallback = ""},
	{"tls.min_version", GK_KEY_CHOICE, DEVICE_KEY(tls.min_version),
	 .fallback = GK_TLS_VERSION_1_2,
	 .choices = {[GK_TLS_VERSION_1_2] = "1.2", [GK_TLS_VERSION_1_3] = "1.3"}},
	{"tls.ktls", GK_KEY_CHOICE, DEVICE_KEY(tls.ktls), .fallback = GK_KTLS_AUTO,
	 .choices = {[GK_KTLS_AUTO] = "auto", [GK_KTLS_SEND] = "send", [GK_KTLS_OFF] = "off"}},
	{.name = NULL},
};

struct value {
	double number;	  /* also the length of a text and the index of a choice */
	const char *text; /* texts only; the setting owns it */
};

const struct gk_config_key *gk_config_keys_find(const struct gk_config_key *keys, const char *name)
{
	for (; keys->name; keys++) {
		if (!strcmp(keys->name, name))
			return keys;
	}
	return NULL;
}

bool gk_config_keys_is_group(const struct gk_config_key *keys, const char *name)
{
	size_t n = strlen(name);

	for (; keys->name; keys++) {
		if (!strncmp(keys->name, name, n) && keys->name[n] == '.')
			return true;
	}
	return false;
}

static bool is_text(const struct gk_config_key *key)
{
	return key->kind == GK_KEY_TEXT || key->kind == GK_KEY_NAME || key->kind == GK_KEY_ADDRESS;
}

static int store(const struct gk_config_key *key, const struct value *value, void *base)
{
	void *field = (char *)base + key->offset;
	char *copy;

	switch (key->kind) {
	case GK_KEY_BOOL:
		*(bool *)field = value->number != 0;
		return 0;
	case GK_KEY_NUMBER:
	case GK_KEY_SIZE:
	case GK_KEY_CHOICE:
		/* All are four bytes, and no limit is beyond what signed and unsigned share. */
		*(int *)field = (int)value->number;
		return 0;
	case GK_KEY_TIME:
		*(double *)field = value->number;
		return 0;
	case GK_KEY_TEXT:
	case GK_KEY_NAME:
	case GK_KEY_ADDRESS:
		copy = value->text ? strdup(value->text) : NULL;
		if (value->text && !copy)
			return -ENOMEM;
		free(*(char **)field);
		*(char **)field = copy;
		return 0;
	case GK_KEY_REMOTE:
	case GK_KEY_SECTION:
		break;
	}
	return 0;
}

_Static_assert(sizeof(enum gk_data_path) == sizeof(int), "choices are stored as int");

int gk_config_keys_init(const struct gk_config_key *keys, void *base)
{
	int err = 0;

	for (; keys->name && !err; keys++)
		err = store(keys, &(struct value){keys->fallback, keys->text_fallback}, base);
	return err;
}

void gk_config_keys_done(const struct gk_config_key *keys, void *base)
{
	for (; keys->name; keys++) {
		if (is_text(keys))
			store(keys, &(struct value){0}, base);
	}
}

static bool read_number(const config_setting_t *setting, double *ret_number)
{
	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_INT:
		*ret_number = config_setting_get_int(setting);
		return true;
	case CONFIG_TYPE_INT64:
		*ret_number = (double)config_setting_get_int64(setting);
		return true;
	default:
		return false;
	}
}

/* "4096", "32K", "4M" */
static bool read_size(const char *text, double *ret_bytes)
{
	size_t digits = strspn(text, "0123456789");
	double unit = 1;

	if (digits == 0 || digits > 10)
		return false;
	if (!strcmp(text + digits, "K"))
		unit = 1 << 10;
	else if (!strcmp(text + digits, "M"))
		unit = 1 << 20;
	else if (text[digits])
		return false;
	*ret_bytes = (double)strtoull(text, NULL, 10) * unit;
	return true;
}

static bool read_choice(const struct gk_config_key *key, const char *text, double *ret_index)
{
	for (int i = 0; key->choices[i]; i++) {
		if (!strcmp(key->choices[i], text)) {
			*ret_index = i;
			return true;
		}
	}
	return false;
}

/* NAME-part1 is what udev calls the first partition of NAME. */
static bool is_partition(const char *text)
{
	const char *part = strrchr(text, '-');

	return part && !strncmp(part, "-part", 5) && part[5] &&
	       !part[5 + strspn(part + 5, "0123456789")];
}

static bool is_name(const char *text)
{
	return text[0] != '.' && !is_partition(text) &&
	       text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				 "0123456789._-")] == '\0';
}

static bool is_address(const char *text)
{
	struct addrinfo *info;

	if (!text[0])
		return true;
	if (gk_address_parse(text, &info))
		return false;
	freeaddrinfo(info);
	return true;
}

/* A text as what the key takes: of any kind on a command line, of some in a file. */
static bool read_text(const struct gk_config_key *key, const char *text, struct value *ret_value)
{
	char *end = NULL;

	ret_value->text = text;
	errno = 0;
	switch (key->kind) {
	case GK_KEY_BOOL:
		ret_value->number = !strcmp(text, "true");
		return ret_value->number != 0 || !strcmp(text, "false");
	case GK_KEY_NUMBER:
		ret_value->number = (double)strtoll(text, &end, 10);
		return end != text && !*end && !errno;
	case GK_KEY_SIZE:
		return read_size(text, &ret_value->number);
	case GK_KEY_TIME:
		ret_value->number = strtod(text, &end);
		return end != text && !*end && isfinite(ret_value->number);
	case GK_KEY_CHOICE:
		return read_choice(key, text, &ret_value->number);
	case GK_KEY_TEXT:
		ret_value->number = (double)strlen(text);
		return true;
	case GK_KEY_NAME:
		ret_value->number = (double)strlen(text);
		return is_name(text);
	case GK_KEY_ADDRESS:
		ret_value->number = (double)strlen(text);
		return is_address(text);
	case GK_KEY_REMOTE:
	case GK_KEY_SECTION:
		break;
	}
	return false;
}

/* The right type; for a choice the right word. */
static bool read_value(const struct gk_config_key *key, const config_setting_t *setting,
		       struct value *ret_value)
{
	const char *text = config_setting_get_string(setting);

	switch (key->kind) {
	case GK_KEY_BOOL:
		ret_value->number = config_setting_get_bool(setting);
		return config_setting_type(setting) == CONFIG_TYPE_BOOL;
	case GK_KEY_NUMBER:
		return read_number(setting, &ret_value->number);
	case GK_KEY_SIZE:
		return text ? read_text(key, text, ret_value)
			    : read_number(setting, &ret_value->number);
	case GK_KEY_TIME:
		ret_value->number = config_setting_get_float(setting);
		return config_setting_type(setting) == CONFIG_TYPE_FLOAT ||
		       read_number(setting, &ret_value->number);
	case GK_KEY_CHOICE:
	case GK_KEY_TEXT:
	case GK_KEY_NAME:
	case GK_KEY_ADDRESS:
		return text && read_text(key, text, ret_value);
	case GK_KEY_REMOTE:
	case GK_KEY_SECTION:
		break;
	}
	return false;
}

static bool in_range(const struct gk_config_key *key, double number)
{
	if (key->kind == GK_KEY_BOOL || key->kind == GK_KEY_CHOICE)
		return true;
	return number >= key->min && number <= key->max;
}

static void say_choices(const struct gk_config_key *key, char *expected, size_t size)
{
	size_t n = 0;

	for (int i = 0; key->choices[i] && n < size; i++) {
		const char *before = i == 0 ? "expected " : key->choices[i + 1] ? ", " : " or ";

		n += (size_t)snprintf(expected + n, size - n, "%s\"%s\"", before, key->choices[i]);
	}
}

static void say_expected(const struct gk_config_key *key, char *expected, size_t size)
{
	switch (key->kind) {
	case GK_KEY_BOOL:
		snprintf(expected, size, "expected true or false");
		break;
	case GK_KEY_NUMBER:
		snprintf(expected, size, "expected a whole number from %.0f to %.0f", key->min,
			 key->max);
		break;
	case GK_KEY_SIZE:
		snprintf(expected, size,
			 "expected a size from %.0f to %.0f bytes, such as 4096, \"32K\" or \"4M\"",
			 key->min, key->max);
		break;
	case GK_KEY_TIME:
		snprintf(expected, size, "expected seconds from %.0f to %.0f", key->min, key->max);
		break;
	case GK_KEY_CHOICE:
		say_choices(key, expected, size);
		break;
	case GK_KEY_TEXT:
		snprintf(expected, size, "expected a text in quotes, %.0f to %.0f bytes long",
			 key->min, key->max);
		break;
	case GK_KEY_NAME:
		snprintf(expected, size,
			 "expected a name in quotes: %.0f to %.0f letters, digits, '.', '_' or "
			 "'-', no '.' in front, no '-part1' or the like at the end",
			 key->min, key->max);
		break;
	case GK_KEY_ADDRESS:
		snprintf(expected, size, "expected \"address:port\", numbers both, or \"\"");
		break;
	case GK_KEY_REMOTE:
	case GK_KEY_SECTION:
		break;
	}
}

static int set(const struct gk_config_key *key, bool right, const struct value *value, void *base,
	       char *expected, size_t size)
{
	if (!right || !in_range(key, value->number)) {
		say_expected(key, expected, size);
		return -EINVAL;
	}
	return store(key, value, base);
}

int gk_config_keys_set(const struct gk_config_key *key, const config_setting_t *setting, void *base,
		       char *expected, size_t size)
{
	struct value value = {0};
	bool right = read_value(key, setting, &value);

	return set(key, right, &value, base, expected, size);
}

int gk_config_keys_set_text(const struct gk_config_key *key, const char *text, void *base,
			    char *expected, size_t size)
{
	struct value value = {0};
	bool right = read_text(key, text, &value);

	return set(key, right, &value, base, expected, size);
}
