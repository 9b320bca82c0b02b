// SPDX-License-Identifier: MIT
#include "cmd_probe.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "control_ask.h"
#include "dial.h"
#include "gk_ublk.h"
#include "nbd_request.h"
#include "orphans.h"
#include "privilege.h"
#include "probe.h"

#define CONNECT_TIMEOUT_S 10.0

struct named_bit {
	uint64_t bit;
	const char *name;
};

#define BIT(flag)           \
	{                   \
		flag, #flag \
	}

static const struct named_bit ublk_features[] = {
	BIT(UBLK_F_SUPPORT_ZERO_COPY),
	BIT(UBLK_F_URING_CMD_COMP_IN_TASK),
	BIT(UBLK_F_NEED_GET_DATA),
	BIT(UBLK_F_USER_RECOVERY),
	BIT(UBLK_F_USER_RECOVERY_REISSUE),
	BIT(UBLK_F_UNPRIVILEGED_DEV),
	BIT(UBLK_F_CMD_IOCTL_ENCODE),
	BIT(UBLK_F_USER_COPY),
	BIT(UBLK_F_ZONED),
	BIT(UBLK_F_USER_RECOVERY_FAIL_IO),
	BIT(UBLK_F_UPDATE_SIZE),
	BIT(UBLK_F_AUTO_BUF_REG),
	BIT(UBLK_F_QUIESCE),
	BIT(UBLK_F_PER_IO_DAEMON),
	BIT(UBLK_F_BUF_REG_OFF_DAEMON),
	BIT(UBLK_F_BATCH_IO),
	BIT(UBLK_F_SAFE_STOP_DEV),
	BIT(UBLK_F_NO_AUTO_PART_SCAN),
	BIT(UBLK_F_GROUP_KBUF),
	{0, NULL},
};

static const struct named_bit export_flags[] = {
	BIT(NBD_FLAG_HAS_FLAGS),
	BIT(NBD_FLAG_READ_ONLY),
	BIT(NBD_FLAG_SEND_FLUSH),
	BIT(NBD_FLAG_SEND_FUA),
	BIT(NBD_FLAG_ROTATIONAL),
	BIT(NBD_FLAG_SEND_TRIM),
	BIT(NBD_FLAG_SEND_WRITE_ZEROES),
	BIT(NBD_FLAG_SEND_DF),
	BIT(NBD_FLAG_CAN_MULTI_CONN),
	BIT(NBD_FLAG_SEND_RESIZE),
	BIT(NBD_FLAG_SEND_CACHE),
	BIT(NBD_FLAG_SEND_FAST_ZERO),
	{0, NULL},
};

/* Names of the bits that are set; one without a name is shown by its number. */
static json_t *bit_names(uint64_t bits, const struct named_bit *names)
{
	json_t *array = json_array();

	for (unsigned int i = 0; i < 64; i++) {
		uint64_t bit = UINT64_C(1) << i;
		const struct named_bit *n = names;

		if (!(bits & bit))
			continue;
		while (n->name && n->bit != bit)
			n++;
		json_array_append_new(array,
				      n->name ? json_string(n->name) : json_sprintf("bit %u", i));
	}
	return array;
}

/* -- this host -- */

static json_t *available(void)
{
	return json_pack("{s:b}", "available", true);
}

static json_t *missing(const char *why)
{
	return json_pack("{s:b, s:s}", "available", false, "why", why);
}

static json_t *works_or(int result, const char *why)
{
	return result == 0 ? available() : missing(why);
}

/* Whether the running kernel's modules include ublk: 1, 0, or -1 when its list is not here. */
static int ublk_module_exists(const char *release)
{
	char path[256], *line = NULL;
	size_t room = 0;
	int found = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/lib/modules/%s/modules.dep", release);
	file = fopen(path, "re");
	if (!file)
		return -1;
	while (!found && getline(&line, &room, file) >= 0) {
		char *colon = strchr(line, ':');

		if (colon)
			*colon = '\0';
		found = strstr(line, "/ublk_drv.ko") != NULL;
	}
	free(line);
	fclose(file);
	return found;
}

static const char *debian_architecture(const struct utsname *host)
{
	return strcmp(host->machine, "aarch64") == 0 ? "arm64" : "amd64";
}

static json_t *ublk_missing(int error, const struct utsname *host)
{
	const char *arch = debian_architecture(host);
	char why[512];
	int module;

	switch (error) {
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		break;
	case -EACCES:
	case -EPERM:
		return missing("no permission to use " UBLK_CONTROL_PATH ": run as root (in a "
			       "container: with this device and CAP_SYS_ADMIN)");
	case -EOPNOTSUPP:
	case -EINVAL:
		return missing("this kernel's ublk is too old to tell its features: boot a newer "
			       "kernel");
	default:
		snprintf(why, sizeof(why), "%s: %s", UBLK_CONTROL_PATH, strerror(-error));
		return missing(why);
	}
	module = ublk_module_exists(host->release);
	if (module > 0)
		return missing("the module is not loaded: run 'modprobe ublk_drv'");
	snprintf(why, sizeof(why),
		 "%s. Debian 12's default kernel 6.1 is built without ublk: there "
		 "'apt install linux-image-6.12-%s' (bookworm-security) and reboot; Debian 13's "
		 "linux-image-%s has it",
		 module == 0 ? "this kernel is built without ublk: boot one that has it"
			     : "try 'modprobe ublk_drv'; if there is no such module, boot a kernel "
			       "that has it",
		 arch, arch);
	return missing(why);
}

static json_t *io_uring_missing(int error)
{
	char why[256];

	if (error == -EPERM || error == -EACCES)
		return missing("io_uring is forbidden: see 'sysctl kernel.io_uring_disabled', or "
			       "the seccomp profile of the container");
	if (error == -ENOSYS)
		return missing(
			"this kernel is built without io_uring, or a seccomp profile hides it");
	snprintf(why, sizeof(why), "io_uring cannot be set up: %s", strerror(-error));
	return missing(why);
}

static json_t *group_path(const struct gk_probe *p)
{
	if (p->io_uring)
		return missing("needs io_uring");
	if (p->sqe_group || p->group_kbuf)
		return missing(
			"this kernel's io_uring has no SQE groups with kernel buffers: needs "
			"Linux 6.12 with the series in kernel/patches");
	if (p->ublk)
		return missing("needs ublk");
	return works_or(p->ublk_group_kbuf, "this kernel's ublk has no UBLK_F_GROUP_KBUF");
}

static json_t *registered_path(const struct gk_probe *p)
{
	if (p->io_uring)
		return missing("needs io_uring");
	if (p->fixed_buf_sendrecv)
		return missing("SEND and RECV take no registered buffers on this kernel: needs "
			       "Linux 7.2 or newer");
	if (p->ublk)
		return missing("needs ublk");
	return works_or(p->ublk_auto_buf_reg, "this kernel's ublk has no UBLK_F_AUTO_BUF_REG");
}

static json_t *copy_path(const struct gk_probe *p)
{
	if (p->io_uring)
		return missing("needs io_uring");
	return works_or(p->ublk, "needs ublk");
}

json_t *gk_cmd_probe_host(const struct gk_probe *p)
{
	json_t *host, *ublk;
	struct utsname uts;

	uname(&uts);
	ublk = p->ublk ? ublk_missing(p->ublk, &uts) : available();
	if (p->ublk == 0)
		json_object_set_new(ublk, "features", bit_names(p->ublk_features, ublk_features));
	host = json_pack("{s:s, s:o, s:o, s:{s:o, s:o, s:o}}", "kernel", uts.release, "io_uring",
			 p->io_uring ? io_uring_missing(p->io_uring) : available(), "ublk", ublk,
			 "data_paths", "group", group_path(p), "registered", registered_path(p),
			 "copy", copy_path(p));
	json_object_set_new(host, "capabilities", gk_privilege_json());
	json_object_set_new(host, "recovery",
			    p->ublk ? missing("needs ublk")
				    : works_or(p->ublk_user_recovery,
					       "this kernel's ublk cannot hand devices over"));
	json_object_set_new(host, "send_zc",
			    works_or(p->send_zc, "this kernel has no zero-copy send for TCP"));
	json_object_set_new(host, "ktls",
			    works_or(p->ktls, "this kernel has no TLS: try 'modprobe tls'"));
	return host;
}

static void print_feature(const char *name, const json_t *feature)
{
	const char *why = json_string_value(json_object_get(feature, "why"));

	printf("%-12s %s%s\n", name, why ? "no: " : "yes", why ? why : "");
}

static void print_names(const json_t *array)
{
	for (size_t i = 0; i < json_array_size(array); i++)
		printf(" %s", json_string_value(json_array_get(array, i)));
	printf("\n");
}

static void print_host(const json_t *host)
{
	const json_t *ublk = json_object_get(host, "ublk");
	const json_t *paths = json_object_get(host, "data_paths");
	const char *name;
	json_t *capability;

	printf("%-12s %s\n", "kernel", json_string_value(json_object_get(host, "kernel")));
	print_feature("io_uring", json_object_get(host, "io_uring"));
	print_feature("ublk", ublk);
	if (json_object_get(ublk, "features")) {
		printf("%-12s", "  features");
		print_names(json_object_get(ublk, "features"));
	}
	printf("data paths that this kernel offers\n");
	print_feature("  group", json_object_get(paths, "group"));
	print_feature("  registered", json_object_get(paths, "registered"));
	print_feature("  copy", json_object_get(paths, "copy"));
	print_feature("recovery", json_object_get(host, "recovery"));
	print_feature("send_zc", json_object_get(host, "send_zc"));
	print_feature("ktls", json_object_get(host, "ktls"));
	if (json_object_get(host, "orphans"))
		gk_orphans_print(json_object_get(host, "orphans"));
	printf("capabilities that gkproxy keeps while it runs\n");
	json_object_foreach(json_object_get(host, "capabilities"), name, capability)
		printf("  %-16s %s%s\n", name,
		       json_object_get(capability, "why") ? "no: " : "yes",
		       json_object_get(capability, "why")
			       ? json_string_value(json_object_get(capability, "why"))
			       : "");
}

/* Takes host. */
static void show_host(json_t *host, bool json)
{
	if (json) {
		json_dumpf(host, stdout, JSON_INDENT(2));
		printf("\n");
	} else {
		print_host(host);
	}
	json_decref(host);
}

static int probe_host(bool json, const char *state_dir)
{
	struct gk_probe probe;
	json_t *host;

	gk_probe_run(&probe);
	host = gk_cmd_probe_host(&probe);
	if (host && probe.ublk == 0)
		json_object_set_new(host, "orphans", gk_orphans_json(state_dir));
	if (!host) {
		fprintf(stderr, "gkproxy: out of memory\n");
		return 1;
	}
	show_host(host, json);
	return probe.io_uring == 0 && probe.ublk == 0 ? 0 : 1;
}

static int probe_daemon(const char *socket_path, bool json)
{
	json_t *request = json_pack("{s:s}", "command", "probe");
	char why[512];
	json_t *host = gk_control_ask(socket_path, request, why, sizeof(why));

	json_decref(request);
	if (!host) {
		fprintf(stderr, "gkproxy: %s\n", why);
		return 1;
	}
	show_host(host, json);
	return 0;
}

/* -- a server -- */

/* A server's text: as it is when it is UTF-8, else made harmless. */
static json_t *text(const char *s)
{
	json_t *exact = json_string(s);
	char shown[256];

	return exact ? exact
		     : json_string(gk_nbd_export_printable(shown, sizeof(shown), s, strlen(s)));
}

static json_t *export_facts(const struct gk_nbd_export *e)
{
	const struct nbd_export_facts *f = &e->facts;
	json_t *export =
		json_pack("{s:o, s:o}", "name", text(e->name), "description", text(e->description));

	if (e->error) {
		json_object_set_new(export, "error", text(e->why));
		return export;
	}
	json_object_set_new(export, "size_bytes", json_integer((json_int_t)f->size_bytes));
	json_object_set_new(export, "flags", bit_names(f->flags, export_flags));
	json_object_set_new(export, "structured_replies", json_boolean(f->structured));
	json_object_set_new(export, "block_size",
			    json_pack("{s:b, s:I, s:I, s:I}", "advertised", f->has_block_size,
				      "minimum", (json_int_t)f->block_min, "preferred",
				      (json_int_t)f->block_preferred, "maximum",
				      (json_int_t)f->block_max));
	return export;
}

static json_t *server_facts(const struct gk_nbd_uri *uri, const struct gk_dialled *d)
{
	json_t *exports = json_array();
	json_t *server = json_pack("{s:o, s:o}", "uri", text(uri->text), "server", text(d->peer));

	if (d->tls_version)
		json_object_set_new(server, "tls",
				    json_pack("{s:s, s:s}", "version", d->tls_version, "cipher",
					      d->tls_cipher));
	if (d->list.list_error)
		json_object_set_new(server, "list_error", text(d->list.list_why));
	json_object_set_new(server, "n_listed", json_integer((json_int_t)d->list.n_listed));
	for (size_t i = 0; i < d->list.n; i++)
		json_array_append_new(exports, export_facts(&d->list.exports[i]));
	json_object_set_new(server, "exports", exports);
	return server;
}

/* "67108864 bytes (64 MiB)" */
static const char *shown_size(uint64_t bytes, char *dst, size_t dst_size)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	int unit = -1;

	while (v >= 1024 && unit < 5) {
		v /= 1024;
		unit++;
	}
	if (unit < 0)
		snprintf(dst, dst_size, "%" PRIu64 " bytes", bytes);
	else
		snprintf(dst, dst_size, "%" PRIu64 " bytes (%.4g %s)", bytes, v, units[unit]);
	return dst;
}

static void print_export(const struct gk_nbd_export *e)
{
	const struct nbd_export_facts *f = &e->facts;
	char shown[256], size[64];
	json_t *flags;

	printf("\nexport \"%s\"\n",
	       gk_nbd_export_printable(shown, sizeof(shown), e->name, strlen(e->name)));
	if (e->description[0])
		printf("  %-12s %s\n", "description",
		       gk_nbd_export_printable(shown, sizeof(shown), e->description,
					       strlen(e->description)));
	if (e->error) {
		printf("  %-12s %s\n", "unusable", e->why);
		return;
	}
	flags = bit_names(f->flags, export_flags);
	printf("  %-12s %s\n", "size", shown_size(f->size_bytes, size, sizeof(size)));
	printf("  %-12s", "flags");
	print_names(flags);
	json_decref(flags);
	printf("  %-12s minimum %u, preferred %u, maximum ", "block size", f->block_min,
	       f->block_preferred);
	if (f->block_max == UINT32_MAX)
		printf("unlimited");
	else
		printf("%u", f->block_max);
	printf("%s\n", f->has_block_size ? "" : " (not advertised: the protocol's defaults)");
	printf("  %-12s %s\n", "replies", f->structured ? "structured or simple" : "simple");
}

static void print_server(const struct gk_dialled *d)
{
	const struct gk_nbd_export_list *list = &d->list;

	printf("%-12s %s\n", "server", d->peer);
	if (d->tls_version)
		printf("%-12s %s, %s\n", "tls", d->tls_version, d->tls_cipher);
	if (list->list_error)
		printf("%-12s not listed: %s\n", "exports", list->list_why);
	else if (list->n_listed > list->n)
		printf("%-12s %zu, of which the first %zu follow\n", "exports", list->n_listed,
		       list->n);
	else if (list->n_listed > 0 || list->n == 0)
		printf("%-12s %zu\n", "exports", list->n_listed);
	for (size_t i = 0; i < list->n; i++)
		print_export(&list->exports[i]);
}

/*
 * nbd-server (3.24) opens an export only when it is attached, and until then says that it has no
 * bytes. So an empty one is attached for a moment, to ask again.
 */
static void ask_again_if_empty(const struct gk_nbd_uri *uri, const struct gk_dial_options *opt,
			       struct gk_nbd_export_list *list)
{
	struct gk_dial_options go = *opt;

	go.mode = GK_NBD_HANDSHAKE_GO;
	for (size_t i = 0; i < list->n; i++) {
		struct gk_nbd_export *e = &list->exports[i];
		struct gk_nbd_uri one = *uri; /* borrows its strings */
		char why[GK_DIAL_WHY_BYTES];
		struct nbd_request goodbye;
		struct gk_dialled d;

		if (e->error || e->facts.size_bytes > 0)
			continue;
		one.export_name = e->name;
		if (gk_dial(&one, &go, why, sizeof(why), &d) < 0)
			return; /* what INFO said stands */
		e->facts = d.facts;
		gk_nbd_request_build(NBD_CMD_DISC, 0, 0, 0, 0, &goodbye);
		/* Through TLS in user space a good-bye is not worth the trouble. */
		if (!d.tls)
			(void)send(d.fd, &goodbye, sizeof(goodbye), MSG_NOSIGNAL);
		gk_dial_done(&d);
	}
}

/* A URI that names an export asks about it; without a name, about all. */
static int probe_server(const char *uri_text, bool json)
{
	struct gk_dial_options opt = {
		.structured = true,
		.connect_timeout_s = CONNECT_TIMEOUT_S,
		.cancel_fd = -1,
	};
	char why[GK_DIAL_WHY_BYTES];
	struct gk_nbd_uri uri;
	struct gk_dialled d;
	int r;

	r = gk_nbd_uri_parse(uri_text, why, sizeof(why), &uri);
	if (r < 0) {
		fprintf(stderr, "gkproxy: not an NBD URI that gkproxy understands: %s\n", why);
		return 2;
	}
	opt.mode = uri.export_name[0] ? GK_NBD_HANDSHAKE_INFO : GK_NBD_HANDSHAKE_LIST;
	r = gk_dial(&uri, &opt, why, sizeof(why), &d);
	if (r < 0) {
		fprintf(stderr, "gkproxy: %s\n", why);
		gk_nbd_uri_done(&uri);
		return 1;
	}
	if (d.tls_warning[0])
		fprintf(stderr, "gkproxy: warning: %s\n", d.tls_warning);
	ask_again_if_empty(&uri, &opt, &d.list);
	/* Neither a list nor the one export that was asked about instead: nothing was learnt. */
	r = d.list.list_error && d.list.exports[0].error ? 1 : 0;
	if (json) {
		json_t *server = server_facts(&uri, &d);

		json_dumpf(server, stdout, JSON_INDENT(2));
		printf("\n");
		json_decref(server);
	} else {
		print_server(&d);
	}
	gk_dial_done(&d);
	gk_nbd_uri_done(&uri);
	return r;
}

int gk_cmd_probe(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"daemon", no_argument, NULL, 'd'},
		{"socket", required_argument, NULL, 'S'},
		{"remove", required_argument, NULL, 'r'},
		{"state-dir", required_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	static const char usage[] =
		"usage: gkproxy probe [URI] [--json]\n"
		"       gkproxy probe [--json] [--state-dir DIR]\n"
		"       gkproxy probe --remove ID [--state-dir DIR]\n"
		"       gkproxy probe --daemon [--socket PATH] [--json]\n"
		"--daemon: as the running daemon found it when it started, with its privileges\n";
	const char *socket_path = GK_DEFAULT_SOCKET;
	const char *state_dir = GK_ORPHANS_STATE_DIR;
	bool daemon = false;
	bool json = false;
	long remove_id = -1;
	char *end;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'j') {
			json = true;
		} else if (c == 'd') {
			daemon = true;
		} else if (c == 'S') {
			socket_path = optarg;
		} else if (c == 's') {
			state_dir = optarg;
		} else if (c == 'r') {
			remove_id = strtol(optarg, &end, 10);
			if (!*optarg || *end || remove_id < 0 || remove_id > INT32_MAX) {
				fprintf(stderr, "gkproxy: --remove takes the N of /dev/ublkbN\n");
				return 2;
			}
		} else {
			fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (argc - optind > (remove_id < 0 && !daemon)) {
		fputs(usage, stderr);
		return 2;
	}
	if (daemon)
		return probe_daemon(socket_path, json);
	if (remove_id >= 0)
		return gk_orphans_remove(state_dir, (unsigned int)remove_id);
	return optind < argc ? probe_server(argv[optind], json) : probe_host(json, state_dir);
}
