/* SPDX-License-Identifier: MIT */
/* Configurations of devices that are attached at run time: made from texts, copied, compared. */
#include "config_file.h"

#include "config_device.h"

static struct gk_device_config *from_defaults(const char *defaults)
{
	struct gk_device_config *device;
	struct gk_config *config;
	char text[512];

	snprintf(text, sizeof(text), "%s devices = ( { name = \"a\"; remote = \"nbd://h/x\"; } );",
		 defaults);
	config = load_good(text);
	assert_int_equal(gk_config_device_copy(&config->defaults, &device), 0);
	gk_config_free(config);
	return device;
}

static void set(struct gk_device_config *device, const char *key, const char *value)
{
	char why[512];

	if (gk_config_device_set(device, key, value, why, sizeof(why)))
		fail_msg("%s = %s: %s", key, value, why);
}

static void keys_are_set_from_texts(void **state)
{
	struct gk_device_config *device = from_defaults("");

	(void)state;
	assert_null(device->name);
	assert_int_equal(device->queue_depth, 128);
	set(device, "name", "vol7");
	set(device, "remote", "nbd://h/one");
	set(device, "remote", "nbd://h/two");
	set(device, "queue-depth", "64");
	set(device, "zero_copy_threshold", "1M");
	set(device, "send_zc", "true");
	set(device, "request_timeout", "2.5");
	set(device, "unflushed", "fua");
	assert_string_equal(device->name, "vol7");
	assert_int_equal(device->n_remotes, 2);
	assert_string_equal(device->remotes[1].export_name, "two");
	assert_int_equal(device->queue_depth, 64);
	assert_int_equal(device->zero_copy_threshold_bytes, 1 << 20);
	assert_true(device->send_zc);
	assert_true(device->request_timeout_s == 2.5);
	assert_int_equal(device->unflushed, GK_UNFLUSHED_FUA);
	gk_config_device_free(device);
}

static void defaults_of_the_file_are_kept(void **state)
{
	struct gk_device_config *device =
		from_defaults("defaults = { queue_depth = 7; on_exit = \"keep\"; };");

	(void)state;
	assert_int_equal(device->queue_depth, 7);
	assert_int_equal(device->on_exit, GK_ON_EXIT_KEEP);
	assert_int_equal(device->n_remotes, 0);
	gk_config_device_free(device);
}

static void a_bad_text_is_named_and_changes_nothing(void **state)
{
	static const struct {
		const char *key, *value, *why;
	} bad[] = {
		{"queue_depth", "0", "queue_depth: expected a whole number from 1 to 4096"},
		{"queue_depth", "", "queue_depth: expected a whole number from 1 to 4096"},
		{"queue_depth", "12x", "queue_depth: expected a whole number from 1 to 4096"},
		{"queue_depth", "99999999999999999999",
		 "queue_depth: expected a whole number from 1 to 4096"},
		{"send_zc", "1", "send_zc: expected true or false"},
		{"send_zc", "", "send_zc: expected true or false"},
		{"connect_timeout", "nan", "connect_timeout: expected seconds from 0 to 86400"},
		{"connect_timeout", "inf", "connect_timeout: expected seconds from 0 to 86400"},
		{"on-exit", "stay", "on_exit: expected \"remove\" or \"keep\""},
		{"name", "a/b", "name: expected a name in quotes: 1 to 64 letters, digits, '.', '_' "
				"or '-', no '.' in front, no '-part1' or the like at the end"},
		{"remote", "http://h/", NULL},
		{"nonsense", "1", NULL},
		{"", "1", NULL},
		{"tls", "1", NULL},
	};
	struct gk_device_config *device = from_defaults("");
	struct gk_device_config *before;
	char why[512];

	(void)state;
	assert_int_equal(gk_config_device_copy(device, &before), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(gk_config_device_set(device, bad[i].key, bad[i].value, why,
						      sizeof(why)), -EINVAL);
		if (bad[i].why)
			assert_string_equal(why, bad[i].why);
	}
	assert_true(gk_config_device_same(before, device, why, sizeof(why)));
	gk_config_device_free(before);
	gk_config_device_free(device);
}

/* Each key in turn gets another value: a copy is the same, and the difference is named. */
static void every_key_is_copied_and_compared(void **state)
{
	static const char *const others[][2] = {
		{"name", "b"},
		{"remote", "nbd://other/"},
		{"id", "3"},
		{"queues", "2"},
		{"queue_depth", "64"},
		{"connections", "3"},
		{"data_path", "copy"},
		{"zero_copy_threshold", "4096"},
		{"send_zc", "true"},
		{"read_only", "true"},
		{"structured_replies", "true"},
		{"connect_timeout", "1"},
		{"request_timeout", "1.5"},
		{"reconnect_timeout", "1"},
		{"unflushed", "ignore"},
		{"fence", "strict"},
		{"fence_timeout", "1"},
		{"on_exit", "keep"},
	};
	struct gk_device_config *device = from_defaults("");
	char why[512], expected[256];
	const char *key;

	(void)state;
	for (size_t i = 0; (key = gk_config_device_key(i, expected, sizeof(expected))); i++) {
		struct gk_device_config *copy, *again;

		assert_int_equal(strncmp(expected, "expected ", 9), 0);
		/* Not available in every build of this tree. */
		if (!strncmp(key, "tls.", 4))
			continue;
		assert_true(i < sizeof(others) / sizeof(others[0]));
		assert_string_equal(key, others[i][0]);
		assert_int_equal(gk_config_device_copy(device, &copy), 0);
		set(copy, others[i][0], others[i][1]);
		if (gk_config_device_same(device, copy, why, sizeof(why)))
			fail_msg("%s is not compared", key);
		assert_int_equal(strncmp(why, key, strlen(key)), 0);
		assert_int_equal(gk_config_device_copy(copy, &again), 0);
		assert_true(gk_config_device_same(copy, again, why, sizeof(why)));
		gk_config_device_free(again);
		gk_config_device_free(copy);
	}
	gk_config_device_free(device);
}

static void the_difference_is_told_with_both_values(void **state)
{
	struct gk_device_config *a = from_defaults("");
	struct gk_device_config *b = from_defaults("defaults = { queue_depth = 64; };");
	char why[512];

	(void)state;
	assert_false(gk_config_device_same(a, b, why, sizeof(why)));
	assert_string_equal(why, "queue_depth is 128 and would be 64");
	gk_config_device_free(a);
	gk_config_device_free(b);
}

/* What is shown is shortened and rounded, what is compared is not. */
static void a_small_difference_is_one(void **state)
{
	struct gk_device_config a = {.reconnect_timeout_s = 31535999};
	struct gk_device_config b = {.reconnect_timeout_s = 31536000};
	char long_text[] = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
			   "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256:"
			   "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-CHACHA20-POLY1305:"
			   "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384";
	char other_text[sizeof(long_text)];
	char why[600];

	(void)state;
	assert_false(gk_config_device_same(&a, &b, why, sizeof(why)));
	assert_string_equal(why, "reconnect_timeout differs");
	a.reconnect_timeout_s = b.reconnect_timeout_s;
	assert_true(gk_config_device_same(&a, &b, why, sizeof(why)));
	memcpy(other_text, long_text, sizeof(long_text));
	other_text[sizeof(long_text) - 2]++;
	a.tls.ciphers = long_text;
	b.tls.ciphers = other_text;
	assert_false(gk_config_device_same(&a, &b, why, sizeof(why)));
	assert_string_equal(why, "tls.ciphers differs");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_set_from_texts),
		cmocka_unit_test(defaults_of_the_file_are_kept),
		cmocka_unit_test(a_bad_text_is_named_and_changes_nothing),
		cmocka_unit_test(every_key_is_copied_and_compared),
		cmocka_unit_test(a_small_difference_is_one),
		cmocka_unit_test(the_difference_is_told_with_both_values),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
