// SPDX-License-Identifier: MIT
#include "cmd_control.h"

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "config_device.h"
#include "control_ask.h"

#define COMMON_OPTIONS                                                                             \
	"  --socket PATH   the daemon's control.socket, if not " GK_DEFAULT_SOCKET "\n"            \
	"  --json          the result as JSON\n"                                                   \
	"  --help\n"

struct common {
	const char *socket_path;
	bool json;
};

/*
 * Sends the request, whose reference it takes, and prints the result, as JSON or by print(), which
 * says in any case what went wrong. The exit status.
 */
static int ask(json_t *request, const struct common *common,
	       int (*print)(const json_t *result, bool json))
{
	char why[4096];
	json_t *result = gk_control_ask(common->socket_path, request, why, sizeof(why));
	int status;

	json_decref(request);
	if (!result) {
		fprintf(stderr, "gkproxy: %s\n", why);
		return 1;
	}
	if (common->json) {
		json_dumpf(result, stdout, JSON_INDENT(2));
		printf("\n");
	}
	status = print(result, common->json);
	json_decref(result);
	return status;
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

/*
 * --socket, --json, --help and one more option, flag (NULL: none). -1 to go on with argv[optind],
 * else the exit status.
 */
static int common_options(int argc, char **argv, const char *usage, const char *flag, bool *ret_flag,
			  struct common *ret_common)
{
	const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"socket", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{flag, no_argument, NULL, 'f'},
		{NULL, 0, NULL, 0},
	};
	int c;

	*ret_common = (struct common){.socket_path = GK_DEFAULT_SOCKET};
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'j':
			ret_common->json = true;
			break;
		case 's':
			ret_common->socket_path = optarg;
			break;
		case 'f':
			*ret_flag = true;
			break;
		default:
			fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	return -1;
}

static int usage_error(const char *usage)
{
	fputs(usage, stderr);
	return 2;
}

/* -- attach -- */

static const char attach_usage[] =
	"usage: gkproxy attach URI... [--name NAME] [--KEY VALUE]...\n"
	"Attaches an NBD export to the running daemon and prints the path of the disk. More URIs: tried\n"
	"in order. What is not said here is as in \"defaults\" of the configuration file. The device is\n"
	"not written to that file: it goes when the daemon ends (with on_exit keep, it waits to be\n"
	"attached again by the same name).\n"
	"  --name NAME     default: the name of the export, or vol0, vol1, ...\n" COMMON_OPTIONS
	"  --KEY VALUE     any key of a device, as in the configuration file:\n";

static void print_attach_usage(FILE *out)
{
	char expected[256];
	const char *key;

	fputs(attach_usage, out);
	for (size_t i = 0; (key = gk_config_device_key(i, expected, sizeof(expected))); i++)
		if (strcmp(key, "name") && strcmp(key, "remote"))
			fprintf(out, "    %-20s %s\n", key, expected + strlen("expected "));
}

static int print_attached(const json_t *result, bool json)
{
	if (!json)
		printf("%s\n", text(result, "path"));
	return 0;
}

/* Not by getopt: the keys are the daemon's to know. */
int gk_cmd_attach(int argc, char **argv)
{
	struct common common = {.socket_path = GK_DEFAULT_SOCKET};
	json_t *remotes = json_array();
	json_t *keys = json_object();
	json_t *request = json_pack("{s:s, s:o, s:o}", "command", "attach", "remote", remotes, "keys",
				    keys);

	for (int i = 1; i < argc; i++) {
		const char *key = argv[i] + 2;
		const char *value;
		char name[64];
		size_t n;

		if (strncmp(argv[i], "--", 2)) {
			json_array_append_new(remotes, json_string(argv[i]));
			continue;
		}
		if (!strcmp(key, "json")) {
			common.json = true;
			continue;
		}
		if (!strcmp(key, "help")) {
			print_attach_usage(stdout);
			json_decref(request);
			return 0;
		}
		n = strcspn(key, "=");
		value = key[n] ? key + n + 1 : i + 1 < argc ? argv[++i] : NULL;
		if (!value || n >= sizeof(name)) {
			fprintf(stderr, "gkproxy: --%s: a value is missing\n", key);
			json_decref(request);
			return 2;
		}
		snprintf(name, sizeof(name), "%.*s", (int)n, key);
		if (!strcmp(name, "socket"))
			common.socket_path = value;
		else
			json_object_set_new(!strcmp(name, "name") ? request : keys, name,
					    json_string(value));
	}
	if (!json_array_size(remotes)) {
		print_attach_usage(stderr);
		json_decref(request);
		return 2;
	}
	return ask(request, &common, print_attached);
}

/* -- detach -- */

static int print_detached(const json_t *result, bool json)
{
	if (!json && text(result, "warning")[0])
		fprintf(stderr, "gkproxy: %s\n", text(result, "warning"));
	return 0;
}

int gk_cmd_detach(int argc, char **argv)
{
	static const char usage[] =
		"usage: gkproxy detach NAME [--force]\n"
		"Removes a device from the running daemon; also one that is still being attached.\n"
		"  --force         also when it is mounted or open: what is in flight fails, and does\n"
		"                  not wait for a server that does not answer\n" COMMON_OPTIONS;
	struct common common;
	bool force = false;
	int r = common_options(argc, argv, usage, "force", &force, &common);

	if (r >= 0)
		return r;
	if (argc - optind != 1)
		return usage_error(usage);
	return ask(json_pack("{s:s, s:s, s:b}", "command", "detach", "name", argv[optind], "force",
			     force),
		   &common, print_detached);
}

/* -- reload -- */

static void print_names(const json_t *result, const char *key)
{
	const json_t *names = json_object_get(result, key);
	const json_t *name;
	size_t i;

	json_array_foreach(names, i, name)
		printf("%s %s\n", key, json_string_value(name));
}

static int print_reloaded(const json_t *result, bool json)
{
	int status = 0;
	const json_t *item;
	size_t i;

	if (!json) {
		print_names(result, "attached");
		print_names(result, "detached");
	}
	json_array_foreach(json_object_get(result, "changed"), i, item) {
		fprintf(stderr, "gkproxy: %s is left as it is: %s; detach it and reload to change it\n",
			text(item, "name"), text(item, "difference"));
		status = 1;
	}
	json_array_foreach(json_object_get(result, "failed"), i, item) {
		fprintf(stderr, "gkproxy: %s\n", text(item, "error"));
		status = 1;
	}
	return status;
}

int gk_cmd_reload(int argc, char **argv)
{
	static const char usage[] =
		"usage: gkproxy reload\n"
		"Makes the running daemon read its file again: devices that are new in it are attached,\n"
		"those that are gone from it detached (unless they are in use), all others left alone. A\n"
		"file with mistakes changes nothing. Fails when a device could not be made what the file\n"
		"says.\n" COMMON_OPTIONS;
	struct common common;
	bool unused = false;
	int r = common_options(argc, argv, usage, NULL, &unused, &common);

	if (r >= 0)
		return r;
	if (argc != optind)
		return usage_error(usage);
	return ask(json_pack("{s:s}", "command", "reload"), &common, print_reloaded);
}

/* -- log-level -- */

static int print_level(const json_t *result, bool json)
{
	if (!json)
		printf("%s\n", text(result, "level"));
	return 0;
}

int gk_cmd_log_level(int argc, char **argv)
{
	static const char usage[] =
		"usage: gkproxy log-level [error | warning | info | debug]\n"
		"Shows, or sets until it ends, how much the running daemon logs.\n" COMMON_OPTIONS;
	struct common common;
	bool unused = false;
	int r = common_options(argc, argv, usage, NULL, &unused, &common);
	json_t *request;

	if (r >= 0)
		return r;
	if (argc - optind > 1)
		return usage_error(usage);
	request = json_pack("{s:s}", "command", "log-level");
	if (optind < argc)
		json_object_set_new(request, "level", json_string(argv[optind]));
	return ask(request, &common, print_level);
}
