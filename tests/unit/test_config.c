/* SPDX-License-Identifier: MIT */
#include "config_file.h"

#include <sys/stat.h>

#include "config_keys.h"

#define SAMPLE GK_SOURCE_DIR "/deploy/proxy.conf"

static void check_default_device(const struct gk_device_config *device)
{
	assert_int_equal(device->id, -1);
	assert_int_equal(device->queues, 0);
	assert_int_equal(device->queue_depth, 128);
	assert_int_equal(device->connections, 0);
	assert_int_equal(device->data_path, GK_PATH_AUTO);
	assert_int_equal(device->zero_copy_threshold_bytes, 0);
	assert_false(device->send_zc);
	assert_false(device->read_only);
	assert_false(device->structured_replies);
	assert_true(device->connect_timeout_s == 10);
	assert_true(device->request_timeout_s == 30);
	assert_true(device->reconnect_timeout_s == 0);
	assert_int_equal(device->unflushed, GK_UNFLUSHED_FAIL_NEXT_FLUSH);
	assert_int_equal(device->fence, GK_FENCE_TIMEOUT);
	assert_true(device->fence_timeout_s == 10);
	assert_int_equal(device->on_exit, GK_ON_EXIT_REMOVE);
	assert_true(device->tls.verify);
	assert_string_equal(device->tls.ca, "");
	assert_string_equal(device->tls.cert, "");
	assert_string_equal(device->tls.key, "");
	assert_string_equal(device->tls.psk_file, "");
	assert_string_equal(device->tls.hostname, "");
	assert_string_equal(device->tls.ciphers, "");
	assert_int_equal(device->tls.min_version, GK_TLS_VERSION_1_2);
	assert_int_equal(device->tls.ktls, GK_KTLS_AUTO);
}

static void check_default_file(const struct gk_config *config)
{
	assert_int_equal(config->log_level, GK_LOG_INFO);
	assert_string_equal(config->state_dir, "/run/gkproxy");
	assert_string_equal(config->control_socket, "/run/gkproxy/control.sock");
	assert_string_equal(config->metrics, "");
}

static void two_keys_make_a_device_and_the_rest_has_its_default(void **state)
{
	struct gk_config *config =
		load_good("devices = (\n{ name = \"vol0\"; remote = \"nbd://h/e\"; } );");

	(void)state;
	assert_string_equal(config->path, path);
	check_default_file(config);
	assert_int_equal(config->n_devices, 1);
	assert_string_equal(config->devices[0].name, "vol0");
	assert_int_equal(config->devices[0].n_remotes, 1);
	assert_string_equal(config->devices[0].remotes[0].text, "nbd://h/e");
	assert_string_equal(config->devices[0].remotes[0].host, "h");
	assert_string_equal(config->devices[0].remotes[0].export_name, "e");
	assert_int_equal(config->devices[0].line, 2);
	check_default_device(&config->devices[0]);
	gk_config_free(config);
}

static void every_live_key_arrives(void **state)
{
	struct gk_config *config = load_good("log_level = \"debug\"; state_dir = \"/s\"; control = "
					     "{ socket = \"/c\"; metrics = \"\"; };\n"
					     "devices = ( { name = \"a\"; remote = (\"nbd://h/\"); "
					     "id = 7; queues = 2; queue_depth = 64;\n"
					     "connections = 4; data_path = \"registered\"; "
					     "zero_copy_threshold = \"64K\"; send_zc = true; "
					     "read_only = true; structured_replies = true;\n"
					     "request_timeout = 5; reconnect_timeout = 60; "
					     "unflushed = \"fua\"; fence = \"strict\"; "
					     "fence_timeout = 2.5;\n"
					     "connect_timeout = 0.25; } );");
	const struct gk_device_config *device = &config->devices[0];

	(void)state;
	assert_int_equal(config->log_level, GK_LOG_DEBUG);
	assert_string_equal(config->state_dir, "/s");
	assert_string_equal(config->control_socket, "/c");
	assert_int_equal(device->id, 7);
	assert_int_equal(device->queues, 2);
	assert_int_equal(device->queue_depth, 64);
	assert_int_equal(device->connections, 4);
	assert_int_equal(device->data_path, GK_PATH_REGISTERED);
	assert_int_equal(device->zero_copy_threshold_bytes, 65536);
	assert_true(device->send_zc);
	assert_true(device->read_only);
	assert_true(device->structured_replies);
	assert_true(device->connect_timeout_s == 0.25);
	assert_true(device->request_timeout_s == 5);
	assert_true(device->reconnect_timeout_s == 60);
	assert_int_equal(device->unflushed, GK_UNFLUSHED_FUA);
	assert_int_equal(device->fence, GK_FENCE_STRICT);
	assert_true(device->fence_timeout_s == 2.5);
	assert_int_equal(device->n_remotes, 1);
	gk_config_free(config);
}

static void unknown_keys_are_named_with_the_known_ones(void **state)
{
	static const char of_file[] =
		"unknown key, expected one of log_level, state_dir, control.socket, "
		"control.metrics, defaults, devices";
	static const char of_device[] =
		"unknown key, expected one of name, remote, id, queues, queue_depth, connections, "
		"data_path, "
		"zero_copy_threshold, send_zc, read_only, structured_replies, connect_timeout, "
		"request_timeout, reconnect_timeout, unflushed, fence, fence_timeout, on_exit, "
		"tls.verify, "
		"tls.ca, tls.cert, tls.key, tls.psk_file, tls.hostname, tls.ciphers, "
		"tls.min_version, tls.ktls";
	static const struct {
		const char *text, *place, *known;
	} unknown[] = {
		{"queue_depth = 1;\n%s", ":1: queue_depth: ", of_file},
		{"verify = true;\n%s", ":1: verify: ", of_file},
		{"control = {\nsock = \"/s\"; };\n%s", ":2: control.sock: ", of_file},
		{"defaults = {\nqueue_dept = 1; };\n%s", ":2: defaults.queue_dept: ", of_device},
		{"defaults = {\ntls = { x = { }; }; };\n%s", ":2: defaults.tls.x: ", of_device},
		{"%s\ndevice = ( );", ":2: device: ", of_file},
	};
	char text[512], want[512];

	(void)state;
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		const char *at = strstr(unknown[i].text, "%s");

		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - unknown[i].text),
			 unknown[i].text, "devices = ( { name = \"a\"; remote = \"nbd://h/\"; } );",
			 at + 2);
		snprintf(want, sizeof(want), "%s%s", unknown[i].place, unknown[i].known);
		text_is_bad(text, want);
	}
	device_line("log_level = \"info\";", text, sizeof(text));
	snprintf(want, sizeof(want), ":2: devices[0].log_level: %s", of_device);
	text_is_bad(text, want);
}

static void a_device_needs_a_name_and_a_remote(void **state)
{
	static const char *const both[] = {":2: devices[0].name: required, but missing",
					   ":2: devices[0].remote: required, but missing"};

	(void)state;
	text_is_bad("devices = ( {\nname = \"a\"; } );",
		    ":1: devices[0].remote: required, but missing");
	text_is_bad("devices = ( {\nremote = \"nbd://h/\"; } );",
		    ":1: devices[0].name: required, but missing");
	write_bytes("devices = (\n{ } );", strlen("devices = (\n{ } );"));
	load_bad(both, 2, -EINVAL);
}

static void a_file_needs_a_device(void **state)
{
	static const char empty[] =
		":2: devices: expected a list ( { ... } ) of at least one device";

	(void)state;
	text_is_bad("", ":1: devices: required, but missing");
	text_is_bad("\ndevices = ( );", empty);
	text_is_bad("\ndevices = { };", empty);
	text_is_bad("\ndevices = [ \"a\" ];", empty);
	text_is_bad("devices = (\n5 );", ":2: devices[0]: expected a group { ... }");
}

static void names_and_ids_are_not_shared(void **state)
{
	static const char text[] = "devices = ( { name = \"a\"; remote = \"nbd://h/\"; id = 1; },\n"
				   "{ name = \"b\"; remote = \"nbd://h/\"; id = 0; },\n"
				   "{ name = \"a\"; remote = \"nbd://h/\";\nid = 0; } );\n";
	static const char *const both[] = {
		":3: devices[2].name: expected another name: devices[0] in line 1 has the same",
		":4: devices[2].id: expected another id: devices[1] in line 2 has the same"};

	(void)state;
	write_bytes(text, strlen(text));
	load_bad(both, 2, -EINVAL);
	text_is_bad(
		"defaults = { id = 5; };\ndevices = ( { name = \"a\"; remote = \"nbd://h/\"; },\n"
		"{ name = \"b\"; remote = \"nbd://h/\"; } );",
		":3: devices[1].id: expected another id: devices[0] in line 2 has the same");
	gk_config_free(load_good("devices = ( { name = \"a\"; remote = \"nbd://h/\"; id = -1; },\n"
				 "{ name = \"A\"; remote = \"nbd://h/\"; id = -1; } );"));
}

static void defaults_apply_to_every_device_that_says_nothing_else(void **state)
{
	struct gk_config *config = load_good("devices = ( { name = \"a\"; }, { name = \"b\"; "
					     "queue_depth = 9; remote = \"nbd://i/\"; } );\n"
					     "defaults = { remote = \"nbd://h/\"; queue_depth = 5; "
					     "connect_timeout = 2; tls = { ca = \"\"; };\n"
					     "read_only = true; };");

	(void)state;
	assert_int_equal(config->n_devices, 2);
	assert_string_equal(config->devices[0].remotes[0].host, "h");
	assert_string_equal(config->devices[1].remotes[0].host, "i");
	assert_int_equal(config->devices[1].n_remotes, 1);
	assert_int_equal(config->devices[0].queue_depth, 5);
	assert_int_equal(config->devices[1].queue_depth, 9);
	for (size_t i = 0; i < 2; i++) {
		assert_true(config->devices[i].connect_timeout_s == 2);
		assert_true(config->devices[i].read_only);
		assert_int_equal(config->devices[i].connections, 0);
	}
	gk_config_free(config);
}

static void a_mistake_in_defaults_is_told_once(void **state)
{
	(void)state;
	text_is_bad("defaults = { queues = 65; };\ndevices = ( { name = \"a\"; remote = "
		    "\"nbd://h/\"; },\n"
		    "{ name = \"b\"; remote = \"nbd://h/\"; } );",
		    ":1: defaults.queues: expected a whole number from 0 to 64");
}

static void several_mistakes_in_one_file_are_all_reported(void **state)
{
	static const char text[] = "log_level = 1;\n"
				   "defaults = { read_only = 1; };\n"
				   "devices = (\n"
				   "  { name = \"a\"; remote = \"nbd://h/\"; queues = 99;\n"
				   "    id = -5; },\n"
				   "  { remote = \"nbd:\"; fence = \"loose\";\n"
				   "    tls = { verify = 1; key = \"/k\"; }; },\n"
				   "  \"x\" );\n"
				   "\n"
				   "control = { socket = 1; };\n";
	static const char *const want[] = {
		":1: log_level: expected \"error\", \"warning\", \"info\" or \"debug\"",
		":10: control.socket: expected a text in quotes, 1 to 107 bytes long",
		":2: defaults.read_only: expected true or false",
		":4: devices[0].queues: expected a whole number from 0 to 64",
		":5: devices[0].id: expected a whole number from -1 to 1048575",
		":6: devices[1].remote: expected an NBD URI: a host is missing after //",
		":6: devices[1].fence: expected \"timeout\" or \"strict\"",
		":7: devices[1].tls.verify: expected true or false",
		":6: devices[1].name: required, but missing",
		":6: devices[1].tls: expected cert and key together",
		":8: devices[2]: expected a group { ... }",
	};

	(void)state;
	write_bytes(text, strlen(text));
	load_bad(want, sizeof(want) / sizeof(want[0]), -EINVAL);
}

static void a_syntax_error_is_named_with_its_line(void **state)
{
#define HINT                                                                                   \
	", here or just before: expected key = value; with texts in \" \", groups in { } and " \
	"lists in ( )"
	(void)state;
	text_is_bad("log_level = \"info\";\nstate_dir = /run;\n", ":2: syntax error" HINT);
	text_is_bad("devices = (\n{ name = \"a\"; )\n", ":2: syntax error" HINT);
	text_is_bad("\n\nlog_level = \"info\";\nlog_level = \"debug\";\n",
		    ":4: duplicate setting name" HINT);
#undef HINT
}

static void what_the_scan_finds_is_reported_beside_the_rest(void **state)
{
	static const char text[] = "devices = ( { name = \"a\"; remote = \"nbd://h/\";\n"
				   "queue_depth = 0x80; } );\nlog_level = 1;\n";
	static const char *const want[] = {
		":2: queue_depth: expected a decimal number",
		":3: log_level: expected \"error\", \"warning\", \"info\" or \"debug\""};
	static const char *const no_include[] = {
		":1: expected everything in this file: no @include"};
	static const char include[] = "@include \"/\"\nlog_level = 1;\n";

	(void)state;
	write_bytes(text, strlen(text));
	load_bad(want, 2, -EINVAL);
	write_bytes(include, strlen(include));
	load_bad(no_include, 1, -EINVAL);
}

static void a_file_that_cannot_be_read_is_named(void **state)
{
	static const char *const missing[] = {": No such file or directory"};
	static const char *const folder[] = {": Is a directory"};
	static const char *const large[] = {": File too large"};
	char *text = calloc(1, (1 << 20) + 1);

	(void)state;
	assert_non_null(text);
	memset(text, '\n', (1 << 20) + 1);
	write_bytes(text, (1 << 20) + 1);
	load_bad(large, 1, -EFBIG);
	free(text);
	assert_int_equal(unlink(path), 0);
	load_bad(missing, 1, -ENOENT);
	assert_int_equal(mkdir(path, 0700), 0);
	load_bad(folder, 1, -EISDIR);
	assert_int_equal(rmdir(path), 0);
}

static char *read_sample(void)
{
	const size_t size = 1 << 16;
	char *text = calloc(1, size);
	FILE *file = fopen(SAMPLE, "r");
	size_t n;

	assert_non_null(text);
	assert_non_null(file);
	n = fread(text, 1, size, file);
	assert_true(n > 0 && n < size);
	fclose(file);
	return text;
}

static void the_sample_is_one_device_on_this_host(void **state)
{
	char *sample = read_sample();
	struct gk_config *config = load_good(sample);

	(void)state;
	check_default_file(config);
	assert_int_equal(config->n_devices, 1);
	assert_string_equal(config->devices[0].name, "vol0");
	assert_string_equal(config->devices[0].remotes[0].text, "nbd://127.0.0.1:10809/");
	assert_string_equal(config->devices[0].remotes[0].export_name, "");
	check_default_device(&config->devices[0]);
	gk_config_free(config);
	free(sample);
}

/* Its comments with the # taken away, from the first section on: a file with every key. */
static char *uncomment(const char *sample)
{
	char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);
	const char *line = strstr(sample, "# ---- ");

	assert_non_null(out);
	assert_non_null(line);
	while (*line) {
		const char *end = strchrnul(line, '\n');

		if (!strncmp(line, "# ---- the keys of a device", 27))
			fprintf(out, "devices = ( {\n");
		else if (*line == '#' && strncmp(line, "# ---- ", 7))
			fprintf(out, "%.*s\n", (int)(end - line - 1), line + 1);
		line = *end ? end + 1 : end;
	}
	fprintf(out, "} );\n");
	fclose(out);
	return text;
}

static void the_comments_of_the_sample_name_every_key_with_its_default(void **state)
{
	char *sample = read_sample(), *text = uncomment(sample);
	struct gk_config *config = load_good(text);

	(void)state;
	check_default_file(config);
	assert_int_equal(config->n_devices, 1);
	check_default_device(&config->devices[0]);
	for (const struct gk_config_key *key = gk_config_file_keys; key->name; key++) {
		if (!strstr(text,
			    strrchr(key->name, '.') ? strrchr(key->name, '.') + 1 : key->name))
			fail_msg("%s is not in the sample", key->name);
	}
	for (const struct gk_config_key *key = gk_config_device_keys; key->name; key++) {
		char want[64];

		snprintf(want, sizeof(want), " %s = ",
			 strrchr(key->name, '.') ? strrchr(key->name, '.') + 1 : key->name);
		if (!strstr(text, want))
			fail_msg("%s is not in the sample", key->name);
	}
	gk_config_free(config);
	free(text);
	free(sample);
}

static void free_takes_null(void **state)
{
	(void)state;
	gk_config_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_keys_make_a_device_and_the_rest_has_its_default),
		cmocka_unit_test(every_live_key_arrives),
		cmocka_unit_test(unknown_keys_are_named_with_the_known_ones),
		cmocka_unit_test(a_device_needs_a_name_and_a_remote),
		cmocka_unit_test(a_file_needs_a_device),
		cmocka_unit_test(names_and_ids_are_not_shared),
		cmocka_unit_test(defaults_apply_to_every_device_that_says_nothing_else),
		cmocka_unit_test(a_mistake_in_defaults_is_told_once),
		cmocka_unit_test(several_mistakes_in_one_file_are_all_reported),
		cmocka_unit_test(a_syntax_error_is_named_with_its_line),
		cmocka_unit_test(what_the_scan_finds_is_reported_beside_the_rest),
		cmocka_unit_test(a_file_that_cannot_be_read_is_named),
		cmocka_unit_test(the_sample_is_one_device_on_this_host),
		cmocka_unit_test(the_comments_of_the_sample_name_every_key_with_its_default),
		cmocka_unit_test(free_takes_null),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
