/* SPDX-License-Identifier: MIT */
#include "config.h"

#include <errno.h>
#include <libconfig.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_device.h"
#include "config_keys.h"
#include "config_scan.h"

#define MAX_FILE	      (1 << 20)
#define PARSER_BYTES	      (256 << 10)
#define PARSER_BYTES_PER_BYTE 32 /* "a=1;" is a node of some 100 */

struct reader {
	const char *path;
	gk_config_report_fn *report;
	void *arg;
	unsigned int mistakes;
	bool quiet; /* on the second and further readings of defaults */
	bool no_memory;
};

/* Where a group of settings goes. */
struct target {
	const struct gk_config_key *keys;
	void *base;
	const char *prefix; /* "devices[0]." */
};

static void mistake(struct reader *reader, unsigned int line, const char *key, const char *format,
		    ...) __attribute__((format(printf, 4, 5)));

/* line 0 and key NULL: not known. */
static void mistake(struct reader *reader, unsigned int line, const char *key, const char *format,
		    ...)
{
	char text[1024], place[16] = "", *message = NULL;
	va_list args;

	if (reader->quiet)
		return;
	reader->mistakes++;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (line)
		snprintf(place, sizeof(place), ":%u", line);
	if (asprintf(&message, "%s%s: %s%s%s", reader->path, place, key ? key : "", key ? ": " : "",
		     text) < 0) {
		reader->no_memory = true;
		reader->report(reader->arg, "out of memory");
		return;
	}
	reader->report(reader->arg, message);
	free(message);
}

static void scan_mistake(void *arg, unsigned int line, const char *key, const char *expected)
{
	mistake(arg, line, key, "%s", expected);
}

static void free_remotes(struct gk_nbd_uri *remotes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		gk_nbd_uri_done(&remotes[i]);
	free(remotes);
}

void gk_config_free(struct gk_config *config)
{
	if (!config)
		return;
	for (size_t i = 0; i < config->n_devices; i++) {
		struct gk_device_config *device = &config->devices[i];

		free_remotes(device->remotes, device->n_remotes);
		gk_config_keys_done(gk_config_device_keys, device);
	}
	free(config->devices);
	free_remotes(config->defaults.remotes, config->defaults.n_remotes);
	gk_config_keys_done(gk_config_device_keys, &config->defaults);
	gk_config_keys_done(gk_config_file_keys, config);
	free(config->path);
	free(config);
}

static unsigned int line_of(const config_setting_t *setting)
{
	return config_setting_source_line(setting);
}

/* The text of one remote; path[] names it in messages. */
static bool read_remote(struct reader *reader, const config_setting_t *setting, const char *path,
			struct gk_nbd_uri *ret_uri)
{
	const char *text = config_setting_get_string(setting);
	char why[256];
	int err;

	if (!text) {
		mistake(reader, line_of(setting), path, "expected an NBD URI in quotes");
		return false;
	}
	err = gk_nbd_uri_parse(text, why, sizeof(why), ret_uri);
	if (err == -ENOMEM)
		reader->no_memory = true;
	else if (err)
		mistake(reader, line_of(setting), path, "expected an NBD URI: %s", why);
	else if (ret_uri->tls_type == GK_TLS_ANON)
		mistake(reader, line_of(setting), path,
			"expected tls-type=x509 or psk: anonymous TLS protects from nobody who can "
			"change what passes");
	else
		return true;
	if (!err)
		gk_nbd_uri_done(ret_uri);
	return false;
}

static void check_tls(struct reader *reader, const struct gk_device_config *device,
		      const char *prefix)
{
	const char *remotes = gk_config_device_bad_remotes(device);
	const char *tls = gk_config_device_bad_tls(device);
	char path[64];

	snprintf(path, sizeof(path), "%sremote", prefix);
	if (remotes)
		mistake(reader, device->line, path, "%s", remotes);
	snprintf(path, sizeof(path), "%stls", prefix);
	if (tls)
		mistake(reader, device->line, path, "%s", tls);
}

static void read_remotes(struct reader *reader, const struct gk_config_key *key,
			 const config_setting_t *setting, const char *path,
			 struct gk_device_config *device)
{
	bool many = config_setting_is_list(setting) || config_setting_is_array(setting);
	int n = many ? config_setting_length(setting) : 1;
	struct gk_nbd_uri *remotes;
	size_t n_good = 0;

	if (n < key->min || n > key->max || (!many && !config_setting_get_string(setting))) {
		mistake(reader, line_of(setting), path,
			"expected an NBD URI in quotes, or a list of %.0f to %.0f of them",
			key->min, key->max);
		return;
	}
	remotes = calloc((size_t)n, sizeof(*remotes));
	if (!remotes) {
		reader->no_memory = true;
		return;
	}
	for (int i = 0; i < n; i++) {
		char element[160];

		snprintf(element, sizeof(element), "%s[%d]", path, i);
		if (read_remote(reader,
				many ? config_setting_get_elem(setting, (unsigned int)i) : setting,
				many ? element : path, &remotes[n_good]))
			n_good++;
	}
	free_remotes(device->remotes, device->n_remotes);
	device->remotes = remotes;
	device->n_remotes = n_good;
}

static void unknown_key(struct reader *reader, const config_setting_t *setting, const char *path,
			const struct gk_config_key *keys)
{
	char known[512];
	size_t n = 0;

	for (; keys->name && n < sizeof(known); keys++)
		n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s", n ? ", " : "",
				      keys->name);
	mistake(reader, line_of(setting), path, "unknown key, expected one of %s", known);
}

static void read_key(struct reader *reader, const struct gk_config_key *key,
		     const config_setting_t *setting, const char *path, void *base)
{
	char expected[256];
	int err;

	if (key->kind == GK_KEY_SECTION)
		return;
	if (key->kind == GK_KEY_REMOTE) {
		read_remotes(reader, key, setting, path, base);
		return;
	}
	err = gk_config_keys_set(key, setting, base, expected, sizeof(expected));
	if (err == -ENOMEM)
		reader->no_memory = true;
	else if (err)
		mistake(reader, line_of(setting), path, "%s", expected);
}

/* inner is the group inside the target, as in "tls.", or "". */
static void read_group(struct reader *reader, const config_setting_t *group, const char *inner,
		       const struct target *target)
{
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = config_setting_get_elem(group, (unsigned int)i);
		char name[96], path[128];
		const struct gk_config_key *key;

		snprintf(name, sizeof(name), "%s%.64s", inner, config_setting_name(setting));
		snprintf(path, sizeof(path), "%s%s", target->prefix, name);
		key = gk_config_keys_find(target->keys, name);
		if (key) {
			read_key(reader, key, setting, path, target->base);
		} else if (!gk_config_keys_is_group(target->keys, name)) {
			unknown_key(reader, setting, path, target->keys);
		} else if (!config_setting_is_group(setting)) {
			mistake(reader, line_of(setting), path, "expected a group { ... }");
		} else {
			strcat(name, ".");
			read_group(reader, setting, name, target);
		}
	}
}

static void start(struct reader *reader, const struct gk_config_key *keys, void *base)
{
	if (gk_config_keys_init(keys, base))
		reader->no_memory = true;
}

/* defaults is NULL when the file has none. */
static void read_device(struct reader *reader, const config_setting_t *group,
			const config_setting_t *defaults, int index,
			struct gk_device_config *device)
{
	static const char *const required[] = {"name", "remote"};
	char prefix[32], path[64];
	struct target target = {gk_config_device_keys, device, prefix};

	snprintf(prefix, sizeof(prefix), "devices[%d].", index);
	start(reader, gk_config_device_keys, device);
	/* Without its defaults there is nothing to check. */
	if (reader->no_memory)
		return;
	device->line = line_of(group);
	if (!config_setting_is_group(group)) {
		snprintf(path, sizeof(path), "devices[%d]", index);
		mistake(reader, device->line, path, "expected a group { ... }");
		return;
	}
	if (defaults) {
		reader->quiet = true;
		read_group(reader, defaults, "", &target);
		reader->quiet = false;
	}
	read_group(reader, group, "", &target);
	for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++) {
		if (config_setting_get_member(group, required[i]) ||
		    (defaults && config_setting_get_member(defaults, required[i])))
			continue;
		snprintf(path, sizeof(path), "%s%s", prefix, required[i]);
		mistake(reader, device->line, path, "required, but missing");
	}
	check_tls(reader, device, prefix);
}

/* Reads them once for their mistakes; NULL when there is nothing that devices could take over. */
static const config_setting_t *read_defaults(struct reader *reader, const config_setting_t *root,
					     struct gk_device_config *device)
{
	const config_setting_t *defaults = config_setting_get_member(root, "defaults");
	struct target target = {gk_config_device_keys, device, "defaults."};

	start(reader, gk_config_device_keys, device);
	if (defaults && !config_setting_is_group(defaults)) {
		mistake(reader, line_of(defaults), "defaults", "expected a group { ... }");
		return NULL;
	}
	if (!defaults)
		return NULL;
	read_group(reader, defaults, "", &target);
	return defaults;
}

static void check_unique(struct reader *reader, const config_setting_t *devices, size_t index,
			 const struct gk_config *config, bool names)
{
	const struct gk_device_config *device = &config->devices[index];
	const char *key = names ? "name" : "id";
	const config_setting_t *setting;
	char path[64];

	setting = config_setting_get_member(config_setting_get_elem(devices, (unsigned int)index),
					    key);
	snprintf(path, sizeof(path), "devices[%zu].%s", index, key);
	for (size_t i = 0; i < index; i++) {
		const struct gk_device_config *other = &config->devices[i];
		bool same =
			names ? device->name && other->name && !strcmp(device->name, other->name)
			      : device->id >= 0 && device->id == other->id;

		if (!same)
			continue;
		mistake(reader, setting ? line_of(setting) : device->line, path,
			"expected another %s: devices[%zu] in line %u has the same", key, i,
			other->line);
		return;
	}
}

static void read_devices(struct reader *reader, const config_setting_t *root,
			 struct gk_config *config)
{
	const config_setting_t *defaults = read_defaults(reader, root, &config->defaults);
	const config_setting_t *devices = config_setting_get_member(root, "devices");
	int n = devices && config_setting_is_list(devices) ? config_setting_length(devices) : 0;

	if (n < 1) {
		mistake(reader, devices ? line_of(devices) : 1, "devices",
			devices ? "expected a list ( { ... } ) of at least one device"
				: "required, but missing");
		return;
	}
	config->devices = calloc((size_t)n, sizeof(*config->devices));
	if (!config->devices) {
		reader->no_memory = true;
		return;
	}
	config->n_devices = (size_t)n;
	for (int i = 0; i < n; i++)
		read_device(reader, config_setting_get_elem(devices, (unsigned int)i), defaults, i,
			    &config->devices[i]);
	for (size_t i = 1; i < config->n_devices; i++) {
		check_unique(reader, devices, i, config, true);
		check_unique(reader, devices, i, config, false);
	}
}

/*
 * libconfig ends the process when it gets no memory, which must not happen to one that serves
 * devices: as much as it may need is asked for before.
 */
static bool is_memory_left(size_t n_text)
{
	void *volatile memory = malloc(PARSER_BYTES + n_text * PARSER_BYTES_PER_BYTE);
	bool is_left = memory;

	free(memory);
	return is_left;
}

static void read_text(struct reader *reader, const char *text, struct gk_config *config)
{
	struct target target = {gk_config_file_keys, config, ""};
	config_t settings;

	config_init(&settings);
	if (config_read_string(&settings, text)) {
		start(reader, gk_config_file_keys, config);
		read_group(reader, config_root_setting(&settings), "", &target);
		read_devices(reader, config_root_setting(&settings), config);
	} else {
		mistake(reader, (unsigned int)config_error_line(&settings), NULL,
			"%s, here or just before: expected key = value; with texts in \" \", "
			"groups in "
			"{ } and lists in ( )",
			config_error_text(&settings));
	}
	config_destroy(&settings);
}

/* All of the file with a NUL behind it. libconfig reads no file: it cannot tell why one fails. */
static int read_file(const char *path, char **ret_text, size_t *ret_n)
{
	FILE *file = fopen(path, "re");
	char *text;
	int err = 0;

	if (!file)
		return -errno;
	text = malloc(MAX_FILE + 1);
	if (!text) {
		fclose(file);
		return -ENOMEM;
	}
	*ret_n = fread(text, 1, MAX_FILE + 1, file);
	if (ferror(file))
		err = -errno;
	else if (*ret_n > MAX_FILE)
		err = -EFBIG;
	fclose(file);
	if (err) {
		free(text);
		return err;
	}
	text[*ret_n] = '\0';
	*ret_text = text;
	return 0;
}

int gk_config_load(const char *path, gk_config_report_fn *report, void *arg,
		   struct gk_config **ret_config)
{
	struct reader reader = {.path = path, .report = report, .arg = arg};
	struct gk_config *config;
	char *text = NULL;
	size_t n = 0;
	int err = read_file(path, &text, &n);

	if (err) {
		mistake(&reader, 0, NULL, "%s", strerror(-err));
		return err;
	}
	config = calloc(1, sizeof(*config));
	if (config)
		config->path = strdup(path);
	if (!config || !config->path || !is_memory_left(n))
		reader.no_memory = true;
	else if (!gk_config_scan(text, n, scan_mistake, &reader))
		read_text(&reader, text, config);
	free(text);

	if (reader.no_memory)
		mistake(&reader, 0, NULL, "%s", strerror(ENOMEM));
	if (reader.mistakes) {
		gk_config_free(config);
		return reader.no_memory ? -ENOMEM : -EINVAL;
	}
	*ret_config = config;
	return 0;
}
