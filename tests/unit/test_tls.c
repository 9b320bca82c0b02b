// SPDX-License-Identifier: MIT
/* Our side of TLS against OpenSSL's server side: who is let in, and what is said when not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tls_server.h"

static struct tls_ca ca, other_ca;

static void assert_says(const struct gk_tls *tls, const char *part)
{
	if (!strstr(tls->why, part))
		fail_msg("\"%s\" does not say \"%s\"", tls->why, part);
}

/* -- a start without memory -- */

static bool no_method; /* BIO_meth_new() fails */

BIO_METHOD *__real_BIO_meth_new(int type, const char *name);
BIO_METHOD *__wrap_BIO_meth_new(int type, const char *name);

BIO_METHOD *__wrap_BIO_meth_new(int type, const char *name)
{
	return no_method ? NULL : __real_BIO_meth_new(type, name);
}

/* The first of all connections has to make what the others find. */
static void the_first_connection_may_fail_without_harm(void **state)
{
	struct gk_tls_options options = tls_server_options(&ca, "disk.example");
	struct gk_tls_context *context = tls_server_context(&options);
	struct gk_tls *tls;

	(void)state;
	no_method = true;
	assert_null(gk_tls_new(context));
	no_method = false;
	tls = gk_tls_new(context);
	assert_non_null(tls);
	gk_tls_free(tls);
	gk_tls_context_free(context);
}

/* -- who is let in -- */

/* 0, or the error and a part of the sentence. */
static void expect(const struct gk_tls_options *options, const struct tls_server_wish *wish,
		   int error, const char *says)
{
	struct gk_tls_context *context = tls_server_context(options);
	struct gk_tls *tls = gk_tls_new(context);
	struct tls_server s;
	int r;

	tls_server_begin(&s, &ca, wish);
	assert_non_null(tls);
	r = tls_server_shake_hands(&s, tls, SIZE_MAX);
	if (r != error)
		fail_msg("%d (%s) and not %d", r, tls->why, error);
	if (error)
		assert_says(tls, says);
	gk_tls_free(tls);
	gk_tls_context_free(context);
	tls_server_end(&s);
}

static void the_right_server_is_let_in(void **state)
{
	static const char *const names[] = {"disk.example", "10.1.2.3", "a.wild.example",
					    "fd00::1"};
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	struct tls_server_wish wish = {.cert = "server"};

	(void)state;
	for (int v = 0; v < 2; v++) {
		for (int i = 0; i < 4; i++) {
			struct gk_tls_options options = tls_server_options(&ca, names[i]);

			wish.max_version = versions[v];
			expect(&options, &wish, 0, NULL);
		}
	}
}

static void the_wrong_server_is_not(void **state)
{
	static const struct {
		const char *cert, *hostname;
		bool other;
		const char *says;
	} cases[] = {
		{"server", "other.example", false, "(of server) is not for \"other.example\""},
		{"server", "10.1.2.4", false, "is not for \"10.1.2.4\""},
		{"server", "b.a.wild.example", false, "is not for"},
		{"nameless", "nameless2", false, "is not for"},
		{"expired", "disk.example", false, "the certificate of expired has expired on 20"},
		{"early", "disk.example", false, "the certificate of early is valid only from 20"},
		{"server", "disk.example", true, "not trusted here (the other authority)"},
	};
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (int v = 0; v < 2; v++) {
			struct gk_tls_options options = tls_server_options(&ca, cases[i].hostname);
			struct tls_server_wish wish = {
				.cert = cases[i].cert,
				.issuer = cases[i].other ? &other_ca : NULL,
				.max_version = versions[v],
			};

			expect(&options, &wish, -EACCES, cases[i].says);
			/* Unless somebody wrote down that it does not matter. */
			options.verify = false;
			expect(&options, &wish, 0, NULL);
		}
	}
}

static void a_server_may_want_to_know_us(void **state)
{
	struct gk_tls_options options = tls_server_options(&ca, "disk.example");
	struct tls_server_wish wish = {
		.cert = "server", .wants_client = true, .max_version = TLS1_2_VERSION};
	char cert[128], key[128];

	(void)state;
	expect(&options, &wish, -ENOTSUP, "or it wants a client certificate");
	snprintf(cert, sizeof(cert), "%s", tls_ca_path(&ca, "client.pem"));
	snprintf(key, sizeof(key), "%s", tls_ca_path(&ca, "client.key"));
	options.cert = cert;
	options.key = key;
	expect(&options, &wish, 0, NULL);
	wish.max_version = TLS1_3_VERSION;
	expect(&options, &wish, 0, NULL);
	snprintf(cert, sizeof(cert), "%s", tls_ca_path(&other_ca, "client.pem"));
	snprintf(key, sizeof(key), "%s", tls_ca_path(&other_ca, "client.key"));
	wish.max_version = TLS1_2_VERSION;
	expect(&options, &wish, -EACCES, "alert \"unknown CA\"");
}

static void versions_and_ciphers_can_be_narrowed(void **state)
{
	struct gk_tls_options options = tls_server_options(&ca, "disk.example");
	struct tls_server_wish wish = {.cert = "server", .max_version = TLS1_2_VERSION};

	(void)state;
	options.only_1_3 = true;
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
	options.only_1_3 = false;
	options.ciphers = "TLS_AES_128_GCM_SHA256";
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
	options.ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384";
	wish.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
	options.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
	expect(&options, &wish, 0, NULL);
	options.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
	wish.ciphers = NULL;
	wish.max_version = 0;
	wish.min_version = TLS1_3_VERSION;
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
	/* Ciphers without authentication of each record are not offered. */
	options.ciphers = "";
	wish = (struct tls_server_wish){.cert = "server",
					.max_version = TLS1_2_VERSION,
					.ciphers = "ECDHE-ECDSA-AES128-SHA256"};
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
}

/* Ciphers without a certificate come with some groups of names, and nobody is asked for one then. */
static void no_cipher_goes_without_proof(void **state)
{
	struct gk_tls_options options = tls_server_options(&ca, "disk.example");
	struct tls_server_wish wish = {.max_version = TLS1_2_VERSION,
				       .ciphers = "AECDH-AES128-SHA:@SECLEVEL=0"};

	(void)state;
	options.ciphers = "HIGH:@SECLEVEL=0";
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
	wish = (struct tls_server_wish){.cert = "server", .max_version = TLS1_2_VERSION};
	expect(&options, &wish, 0, NULL);
	wish.ciphers = "ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0";
	options.ciphers = "ALL:eNULL:@SECLEVEL=0";
	expect(&options, &wish, -ENOTSUP, "shares no TLS version or cipher");
}

static void a_key_that_both_know_is_enough(void **state)
{
	static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
	struct gk_tls_options options = tls_server_options(&ca, "");
	char psk[128], wrong[128], others[128];

	(void)state;
	snprintf(psk, sizeof(psk), "%s", tls_ca_path(&ca, "psk"));
	snprintf(wrong, sizeof(wrong), "%s", tls_ca_path(&ca, "psk-wrong"));
	snprintf(others, sizeof(others), "%s", tls_ca_path(&ca, "psk-others"));
	for (int v = 0; v < 2; v++) {
		struct tls_server_wish wish = {
			.psk = true, .max_version = versions[v], .ciphers = "PSK:@SECLEVEL=1"};

		options.psk_user = "";
		options.psk_file = psk;
		expect(&options, &wish, 0, NULL);
		/* The key is the proof: nothing is left to switch off. */
		options.verify = false;
		expect(&options, &wish, 0, NULL);
		options.verify = true;
		options.psk_file = wrong;
		expect(&options, &wish, -EACCES, "refuses the pre-shared key");
		options.psk_file = others;
		options.psk_user = "bob";
		expect(&options, &wish, -EACCES, "refuses the pre-shared key");
		/* A server with a certificate that nobody asked for. */
		options.psk_file = psk;
		options.psk_user = "";
		options.verify = false;
		wish = (struct tls_server_wish){.cert = "server", .max_version = versions[v]};
		expect(&options, &wish, -EACCES,
		       v ? "a certificate instead of the pre-shared key"
			 : "refuses the pre-shared key");
		options.verify = true;
	}
}

/* -- files -- */

static void no_context(const struct gk_tls_options *options, int error, const char *says)
{
	struct gk_tls_context *context = NULL;
	char why[GK_TLS_WHY_BYTES] = "";

	assert_int_equal(gk_tls_context_new(options, why, sizeof(why), &context), error);
	assert_null(context);
	if (!strstr(why, says))
		fail_msg("\"%s\" does not say \"%s\"", why, says);
}

static void mistakes_in_files_are_named(void **state)
{
	struct gk_tls_options options = tls_server_options(&ca, "");

	(void)state;
	no_context(&options, -EINVAL, "set tls.hostname");
	options = tls_server_options(&ca, "h");
	options.ca = "/nonexistent";
	no_context(&options, -ENOENT, "cannot read tls.ca /nonexistent: No such file");
	options.ca = tls_ca_path(&ca, "psk");
	no_context(&options, -EINVAL, "holds no certificate");
	options = tls_server_options(&ca, "h");
	options.cert = tls_ca_path(&ca, "client.pem");
	no_context(&options, -EINVAL, "tls.key is missing");
	options.key = tls_ca_path(&ca, "server.key");
	no_context(&options, -EINVAL, "does not belong to tls.cert");
	options.key = tls_ca_path(&ca, "psk");
	no_context(&options, -EINVAL, "holds no key");
	options.key = tls_ca_path(&ca, "locked.key");
	no_context(&options, -EINVAL, "locked by a passphrase");
	options = tls_server_options(&ca, "h");
	options.ciphers = "NOT-A-CIPHER";
	no_context(&options, -EINVAL, "tls.ciphers has a name");
	options.ciphers = "AECDH-AES128-SHA:@SECLEVEL=0";
	no_context(&options, -EINVAL, "none that encrypts and proves who the server is");
	options.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256";
	options.only_1_3 = true;
	no_context(&options, -EINVAL, "none of TLS 1.3");
	options = tls_server_options(&ca, "h");
	options.psk_file = tls_ca_path(&ca, "psk-others");
	no_context(&options, -EINVAL, "several users");
	options.psk_user = "eve";
	no_context(&options, -ENOKEY, "no key of user \"eve\"");
	options.psk_user = "";
	options.psk_file = tls_ca_path(&ca, "psk-bad");
	no_context(&options, -EINVAL, "line 2: the key is not");
	options.psk_file = tls_ca_path(&ca, "psk-bad2");
	no_context(&options, -EINVAL, "line 1: expected user:hexadecimal key");
}

/* In a process of its own: another user, who may read every file by CAP_DAC_OVERRIDE. */
static int context_of_a_capable_user(const struct gk_tls_options *options)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
		{.effective = 1U << CAP_DAC_OVERRIDE, .permitted = 1U << CAP_DAC_OVERRIDE}};
	struct gk_tls_context *context = NULL;
	char why[GK_TLS_WHY_BYTES] = "";
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || setresuid(65534, 65534, 65534) ||
		    syscall(SYS_capset, &header, data))
			_exit(99);
		_exit(gk_tls_context_new(options, why, sizeof(why), &context) ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void keys_of_others_can_be_read_by_a_capability(void **state)
{
	struct gk_tls_options options = tls_server_options(&ca, "h");

	(void)state;
	if (geteuid())
		skip();
	options.cert = tls_ca_path(&ca, "client.pem");
	options.key = tls_ca_path(&ca, "client.key");
	assert_int_equal(chmod(options.key, 0600), 0);
	assert_int_equal(context_of_a_capable_user(&options), 0);
	options = tls_server_options(&ca, "");
	options.psk_file = tls_ca_path(&ca, "psk");
	assert_int_equal(context_of_a_capable_user(&options), 0);
}

static void warns(const struct gk_tls_options *options, const char *says)
{
	struct gk_tls_context *context = tls_server_context(options);

	if (says ? !strstr(gk_tls_context_warning(context), says)
		 : gk_tls_context_warning(context)[0] != '\0')
		fail_msg("\"%s\" does not say \"%s\"", gk_tls_context_warning(context),
			 says ? says : "nothing");
	gk_tls_context_free(context);
}

static void what_is_unsafe_is_warned_of(void **state)
{
	struct gk_tls_options options = tls_server_options(&ca, "h");

	(void)state;
	warns(&options, NULL);
	options.cert = tls_ca_path(&ca, "client.pem");
	options.key = tls_ca_path(&ca, "client.key");
	warns(&options, NULL);
	options.key = tls_ca_path(&ca, "open.key");
	options.cert = tls_ca_path(&ca, "open.pem");
	warns(&options, "open.key may be read by every user: chmod 600");
	options.verify = false;
	warns(&options, "who the server is, is not verified");
	options = tls_server_options(&ca, "");
	options.psk_file = tls_ca_path(&ca, "psk");
	warns(&options, NULL);
	options.psk_file = tls_ca_path(&ca, "psk-open");
	warns(&options, "psk-open may be read by every user");
}

static int begin_all(void **state)
{
	const struct tls_ca_wish good = {.names = "DNS:disk.example,DNS:*.wild.example,"
						  "IP:10.1.2.3,IP:fd00::1"};
	const struct tls_ca_wish expired = {.names = "DNS:disk.example", .end_s = -3600};
	const struct tls_ca_wish early = {
		.names = "DNS:disk.example", .begin_s = 3600, .end_s = 7200};
	const struct tls_ca_wish nameless = {0};

	(void)state;
	tls_ca_init(&ca, "the authority");
	tls_ca_init(&other_ca, "the other authority");
	tls_ca_issue(&ca, "server", &good);
	tls_ca_issue(&other_ca, "server", &good);
	tls_ca_issue(&ca, "expired", &expired);
	tls_ca_issue(&ca, "early", &early);
	tls_ca_issue(&ca, "nameless", &nameless);
	tls_ca_issue(&ca, "client", &nameless);
	tls_ca_issue(&other_ca, "client", &nameless);
	tls_ca_issue(&ca, "open", &nameless);
	assert_int_equal(chmod(tls_ca_path(&ca, "open.key"), 0644), 0);
	tls_ca_lock_key(&ca, "client.key", "locked.key");
	tls_ca_write(&ca, "psk",
		     "# of the test\n"
		     "alice:00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF\n",
		     0600);
	tls_ca_write(&ca, "psk-open", "alice:0011\n", 0644);
	tls_ca_write(&ca, "psk-wrong",
		     "alice:10112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
		     0600);
	tls_ca_write(&ca, "psk-others", "bob:0011223344556677\r\ncarol:00", 0600);
	tls_ca_write(&ca, "psk-bad", "\nalice:001\n", 0600);
	tls_ca_write(&ca, "psk-bad2", "0011223344\n", 0600);
	return 0;
}

static int end_all(void **state)
{
	(void)state;
	tls_ca_done(&ca);
	tls_ca_done(&other_ca);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_connection_may_fail_without_harm),
		cmocka_unit_test(the_right_server_is_let_in),
		cmocka_unit_test(the_wrong_server_is_not),
		cmocka_unit_test(a_server_may_want_to_know_us),
		cmocka_unit_test(versions_and_ciphers_can_be_narrowed),
		cmocka_unit_test(no_cipher_goes_without_proof),
		cmocka_unit_test(a_key_that_both_know_is_enough),
		cmocka_unit_test(mistakes_in_files_are_named),
		cmocka_unit_test(keys_of_others_can_be_read_by_a_capability),
		cmocka_unit_test(what_is_unsafe_is_warned_of),
	};

	return cmocka_run_group_tests(tests, begin_all, end_all);
}
