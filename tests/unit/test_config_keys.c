/* SPDX-License-Identifier: MIT */
#include "config_file.h"

#define X10(s) s s s s s s s s s s

/* A line to put into a device, and the mistake that is to be told of it; NULL: it is right. */
struct line {
	const char *text;
	const char *mistake;
};

static void check_lines(const struct line *lines, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char text[512], want[512];

		device_line(lines[i].text, text, sizeof(text));
		if (lines[i].mistake) {
			snprintf(want, sizeof(want), ":2: devices[0].%s", lines[i].mistake);
			text_is_bad(text, want);
		} else {
			gk_config_free(load_good(text));
		}
	}
}

static void values_at_the_limits_are_taken(void **state)
{
	static const struct line lines[] = {
		{"id = -1;", NULL},
		{"id = 1048575;", NULL},
		{"queues = 64;", NULL},
		{"queue_depth = 1;", NULL},
		{"queue_depth = 4096;", NULL},
		{"queue_depth = 128L;", NULL},
		{"connections = 64;", NULL},
		{"connect_timeout = 0;", NULL},
		{"connect_timeout = 86400;", NULL},
		{"connect_timeout = 1e-3;", NULL},
		{"connect_timeout = 0.3333333333333333;", NULL},
	};

	(void)state;
	check_lines(lines, sizeof(lines) / sizeof(lines[0]));
	gk_config_free(load_good("devices = ( { remote = \"nbd://h/\"; name = \"A.z-0_" X10(
		"12345") "12345678\"; } );"));
	gk_config_free(load_good("devices = ( { remote = \"nbd://h/\"; name = \"vol0-part\"; },\n"
				 "{ remote = \"nbd://h/\"; name = \"part1\"; },\n"
				 "{ remote = \"nbd://h/\"; name = \"vol0-part1a\"; } );"));
}

static void every_bad_value_is_named_with_line_and_key(void **state)
{
	static const char id[] = "id: expected a whole number from -1 to 1048575";
	static const char queues[] = "queues: expected a whole number from 0 to 64";
	static const char depth[] = "queue_depth: expected a whole number from 1 to 4096";
	static const char connections[] = "connections: expected a whole number from 0 to 64";
	static const char path_of_data[] =
		"data_path: expected \"auto\", \"group\", \"registered\" or \"copy\"";
	static const char threshold[] =
		"zero_copy_threshold: expected a size from 0 to 33554432 bytes, such as "
		"4096, \"32K\" or \"4M\"";
	static const char timeout[] = "connect_timeout: expected seconds from 0 to 86400";
	static const struct line lines[] = {
		{"id = -2;", id},
		{"id = 1048576;", id},
		{"id = \"1\";", id},
		{"id = 1.0;", id},
		{"id = 999999999;", id},
		{"queues = -1;", queues},
		{"queues = 65;", queues},
		{"queues = true;", queues},
		{"queue_depth = 0;", depth},
		{"queue_depth = 4097;", depth},
		{"queue_depth = ( 128 );", depth},
		{"connections = -1;", connections},
		{"connections = 65;", connections},
		{"connections = { };", connections},
		{"data_path = \"Copy\";", path_of_data},
		{"data_path = 3;", path_of_data},
		{"zero_copy_threshold = -1;", threshold},
		{"zero_copy_threshold = 33554433;", threshold},
		{"zero_copy_threshold = \"33M\";", threshold},
		{"zero_copy_threshold = \"K\";", threshold},
		{"zero_copy_threshold = \"32k\";", threshold},
		{"zero_copy_threshold = \"32KB\";", threshold},
		{"zero_copy_threshold = \"-1K\";", threshold},
		{"zero_copy_threshold = \"\";", threshold},
		{"zero_copy_threshold = \"18446744073709551617\";", threshold},
		{"zero_copy_threshold = 32768.0;", threshold},
		{"send_zc = 0;", "send_zc: expected true or false"},
		{"read_only = 1;", "read_only: expected true or false"},
		{"read_only = \"true\";", "read_only: expected true or false"},
		{"structured_replies = 1;", "structured_replies: expected true or false"},
		{"connect_timeout = -0.1;", timeout},
		{"connect_timeout = 86400.5;", timeout},
		{"connect_timeout = 1e400;", timeout},
		{"connect_timeout = \"10\";", timeout},
		{"request_timeout = -1;", "request_timeout: expected seconds from 0 to 86400"},
		{"request_timeout = 86401;", "request_timeout: expected seconds from 0 to 86400"},
		{"reconnect_timeout = -1;",
		 "reconnect_timeout: expected seconds from 0 to 31536000"},
		{"reconnect_timeout = 31536001;",
		 "reconnect_timeout: expected seconds from 0 to 31536000"},
		{"unflushed = \"yes\";",
		 "unflushed: expected \"fail-next-flush\", \"ignore\" or \"fua\""},
		{"fence = true;", "fence: expected \"timeout\" or \"strict\""},
		{"fence_timeout = -1;", "fence_timeout: expected seconds from 0 to 86400"},
		{"fence_timeout = 86401;", "fence_timeout: expected seconds from 0 to 86400"},
		{"on_exit = \"stay\";", "on_exit: expected \"remove\" or \"keep\""},
		{"tls = true;", "tls: expected a group { ... }"},
		{"tls = ( );", "tls: expected a group { ... }"},
		{"tls = { verify = 1; };", "tls.verify: expected true or false"},
		{"tls = { ca = 1; };", "tls.ca: expected a text in quotes, 0 to 4095 bytes long"},
		{"tls = { cert = 1; };",
		 "tls.cert: expected a text in quotes, 0 to 4095 bytes long"},
		{"tls = { key = 1; };", "tls.key: expected a text in quotes, 0 to 4095 bytes long"},
		{"tls = { psk_file = 1; };",
		 "tls.psk_file: expected a text in quotes, 0 to 4095 bytes long"},
		{"tls = { hostname = 1; };",
		 "tls.hostname: expected a text in quotes, 0 to 4095 bytes long"},
	};

	(void)state;
	check_lines(lines, sizeof(lines) / sizeof(lines[0]));
}

static void names_have_letters_digits_and_a_few_signs(void **state)
{
	static const char *const names[] = {
		"\"\"",
		"\".a\"",
		"\"a/b\"",
		"\"a b\"",
		"\"vol0-part1\"",
		"\"-part12\"",
		"\"\xc3\xa9\"",
		"7",
		"\"" X10("123456") "12345\"",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char text[256];

		snprintf(text, sizeof(text),
			 "devices = ( { remote = \"nbd://h/\";\n\nname = %s; } );", names[i]);
		text_is_bad(
			text,
			":3: devices[0].name: expected a name in quotes: 1 to 64 letters, digits, "
			"'.', '_' or '-', no '.' in front, no '-part1' or the like at the end");
	}
}

static void a_bad_remote_is_named_with_the_reason(void **state)
{
	static const char shape[] =
		":1: devices[0].remote: expected an NBD URI in quotes, or a list of 1 to "
		"16 of them";

	(void)state;
	text_is_bad("devices = ( { name = \"a\"; remote = 1; } );", shape);
	text_is_bad("devices = ( { name = \"a\"; remote = ( ); } );", shape);
	text_is_bad("devices = ( { name = \"a\"; remote = { }; } );", shape);
	text_is_bad("devices = ( { name = \"a\"; remote = [ " X10("\"nbd://h/\", ")
			    X10("\"nbd://h/\", ") "\"nbd://h/\" ]; } );",
		    shape);
	text_is_bad("devices = ( { name = \"a\"; remote = ( 1 ); } );",
		    ":1: devices[0].remote[0]: expected an NBD URI in quotes");
	text_is_bad(
		"devices = ( { name = \"a\";\nremote = \"nbd://h:0\"; } );",
		":2: devices[0].remote: expected an NBD URI: the port is a number from 1 to 65535");
	text_is_bad("devices = ( { name = \"a\"; remote = (\n\n\"nbd:///\" ); } );",
		    ":3: devices[0].remote[0]: expected an NBD URI: a host is missing after //");
	text_is_bad("devices = ( { name = \"a\"; remote = \"nbd://u:sesame@h\"; } );",
		    ":1: devices[0].remote: expected an NBD URI: NBD knows no password: leave out "
		    "what stands "
		    "from : to @");
}

static void tls_settings_that_contradict_each_other_are_named(void **state)
{
	static const struct {
		const char *setting, *want;
	} cases[] = {
		{"tls = { min_version = \"1.1\"; };",
		 ":2: devices[0].tls.min_version: expected \"1.2\" or \"1.3\""},
		{"tls = { ktls = \"on\"; };",
		 ":2: devices[0].tls.ktls: expected \"auto\", \"send\" or \"off\""},
		{"tls = { psk_file = \"/p\"; ca = \"/c\"; };",
		 ":1: devices[0].tls: expected either psk_file or ca, cert and key"},
		{"tls = { psk_file = \"/p\"; cert = \"/c\"; key = \"/k\"; };",
		 ":1: devices[0].tls: expected either psk_file or ca, cert and key"},
		{"tls = { cert = \"/c\"; };",
		 ":1: devices[0].tls: expected cert and key together"},
		{"tls = { key = \"/k\"; };",
		 ":1: devices[0].tls: expected cert and key together"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[256];

		device_line(cases[i].setting, text, sizeof(text));
		text_is_bad(text, cases[i].want);
	}
	gk_config_free(load_good("devices = ( { name = \"a\"; remote = \"nbds://h/\";\n"
				 "tls = { verify = false; ca = \"/a\"; cert = \"/c\"; key = \"/k\";"
				 " ciphers = \"x\"; min_version = \"1.3\"; ktls = \"off\"; }; } );"));
	gk_config_free(load_good("devices = ( { name = \"a\"; remote = (\"nbds://h/\",\n"
				 "\"nbds+unix:///?socket=/s\"); tls = { psk_file = \"/p\"; }; } );"));
}

/* A fail-over must not take away what protects the data. */
static void remotes_have_tls_all_or_none(void **state)
{
	(void)state;
	text_is_bad("devices = ( { name = \"a\"; remote = (\"nbds://h/\", \"nbd://i/\"); } );",
		    ":1: devices[0].remote: expected all remotes with TLS (nbds) or all without, "
		    "for they take over from one another");
	text_is_bad("devices = ( { name = \"a\"; remote = \"nbds://h/?tls-type=anon\"; } );",
		    ":1: devices[0].remote: expected tls-type=x509 or psk: anonymous TLS protects "
		    "from nobody who can change what passes");
}

static void bad_values_of_the_daemon_are_named(void **state)
{
#define DEVICE "\ndevices = ( { name = \"a\"; remote = \"nbd://h/\"; } );"
	(void)state;
	text_is_bad("log_level = \"warn\";" DEVICE,
		    ":1: log_level: expected \"error\", \"warning\", \"info\" or \"debug\"");
	text_is_bad("state_dir = \"\";" DEVICE,
		    ":1: state_dir: expected a text in quotes, 1 to 4095 bytes long");
	text_is_bad("control = \"/c\";" DEVICE, ":1: control: expected a group { ... }");
	text_is_bad("control = { socket = \"\"; };" DEVICE,
		    ":1: control.socket: expected a text in quotes, 1 to 107 bytes long");
	text_is_bad("control = { socket = \"" X10("/123456789") "12345678\"; };" DEVICE,
		    ":1: control.socket: expected a text in quotes, 1 to 107 bytes long");
	gk_config_free(
		load_good("control = { socket = \"" X10("/123456789") "1234567\"; };" DEVICE));
	text_is_bad("control = { metrics = 1; };" DEVICE,
		    ":1: control.metrics: expected \"address:port\", numbers both, or \"\"");
	text_is_bad("control = { metrics = \"localhost:9105\"; };" DEVICE,
		    ":1: control.metrics: expected \"address:port\", numbers both, or \"\"");
	gk_config_free(load_good("control = { metrics = \":9105\"; };" DEVICE));
	text_is_bad("defaults = 1;" DEVICE, ":1: defaults: expected a group { ... }");
#undef DEVICE
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_at_the_limits_are_taken),
		cmocka_unit_test(every_bad_value_is_named_with_line_and_key),
		cmocka_unit_test(names_have_letters_digits_and_a_few_signs),
		cmocka_unit_test(a_bad_remote_is_named_with_the_reason),
		cmocka_unit_test(tls_settings_that_contradict_each_other_are_named),
		cmocka_unit_test(remotes_have_tls_all_or_none),
		cmocka_unit_test(bad_values_of_the_daemon_are_named),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
