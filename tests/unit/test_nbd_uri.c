/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nbd_uri.h"

#define X20(s) s s s s s s s s s s s s s s s s s s s s

/* The result as describe() writes it: what is absent is not named. */
static const struct good {
	const char *uri;
	const char *result;
} goods[] = {
	{"nbd://example.com", "tcp host=example.com port=10809"},
	{"nbd://example.com/", "tcp host=example.com port=10809"},
	{"nbd://example.com:/", "tcp host=example.com port=10809"},
	{"nbd://example.com:00042/disk", "tcp host=example.com port=42 export=disk"},
	{"nbd://h:1", "tcp host=h port=1"},
	{"nbd://h:65535", "tcp host=h port=65535"},
	{"NBD://h", "tcp host=h port=10809"},
	{"nbd://h//disk", "tcp host=h port=10809 export=/disk"},
	{"nbd://h/a/b/c", "tcp host=h port=10809 export=a/b/c"},
	{"nbd://h/a%2Fb%2f%C3%A9%20%23", "tcp host=h port=10809 export=a/b/\xc3\xa9 #"},
	{"nbd://h/%7F%DF%BF%E0%A0%80%ED%9F%BF%EE%80%80%F4%8F%BF%BF",
	 "tcp host=h port=10809 export=\x7f\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf"},
	{"nbd://h/+", "tcp host=h port=10809 export=+"},
	{"nbd://h/a:b@c", "tcp host=h port=10809 export=a:b@c"},
	{"nbd://h?", "tcp host=h port=10809"},
	{"nbd://h/x?&", "tcp host=h port=10809 export=x"},
	{"nbd://%65xample.com", "tcp host=example.com port=10809"},
	{"nbd://192.0.2.1:99", "tcp host=192.0.2.1 port=99"},
	{"nbd://[::1]", "tcp host=::1 port=10809"},
	{"nbd://[2001:db8::7]:1/d", "tcp host=2001:db8::7 port=1 export=d"},
	{"nbd://[fe80::1%25eth0]:5", "tcp host=fe80::1%eth0 port=5"},
	{"nbd://alice@h", "text=nbd://h tcp host=h port=10809 user=alice"},
	{"nbds://al%40ice@h/d?tls-type=psk&tls-psk-file=/k%26&tls-hostname=n&tls-verify-peer=0",
	 "text=nbds://h/d?tls-type=psk&tls-psk-file=/k%26&tls-hostname=n&tls-verify-peer=0 tls tcp "
	 "host=h "
	 "port=10809 export=d type=3 user=al@ice hostname=n psk=/k& verify=0"},
	{"nbds://h?tls-username=bob&tls-certificates=/c&tls-verify-peer=true&tls-type=x509",
	 "tls tcp host=h port=10809 type=2 user=bob certificates=/c verify=1"},
	{"nbds://h?tls-type=anon&tls-verify-peer=1", "tls tcp host=h port=10809 type=1 verify=1"},
	{"nbds://h?tls-verify-peer=false", "tls tcp host=h port=10809 verify=0"},
	{"nbd+unix:///?socket=nbd.sock", "unix socket=nbd.sock"},
	{"nbd+unix:///d?socket=/tmp/a%3Fb=c", "unix socket=/tmp/a?b=c export=d"},
	{"nbd+unix://?socket=s", "unix socket=s"},
	{"nbd+unix:/d?socket=s", "unix socket=s export=d"},
	{"nbds+unix://alice@/?socket=s&tls-certificates=certs",
	 "text=nbds+unix:///?socket=s&tls-certificates=certs tls unix socket=s user=alice "
	 "certificates=certs"},
	{"nbd+unix:///?socket=" X20("12345") "1234567", "unix socket=" X20("12345") "1234567"},
	{"nbd+vsock:///", "vsock cid=2 port=10809"},
	{"nbd+vsock://3:4294967294/d", "vsock cid=3 port=4294967294 export=d"},
	{"nbd+vsock://:7", "vsock cid=2 port=7"},
	{"nbds+vsock://4294967294", "tls vsock cid=4294967294 port=10809"},
};

static const char scheme_wrong[] = "it begins with nbd://, nbds://, nbd+unix://, nbds+unix://, "
				   "nbd+vsock:// or nbds+vsock://";
static const char port_wrong[] = "the port is a number from 1 to 65535";
static const char literal_wrong[] = "between [ and ] stands an IPv6 address";
static const char cid_wrong[] = "for vsock the host is a context id, a number from 0 to 4294967294";
static const char vsock_port_wrong[] = "for vsock the port is a number from 1 to 4294967294";
static const char host_on_unix[] =
	"a Unix socket has no host or port: three slashes follow the scheme";
static const char known[] = " (known: socket, tls-type, tls-username, tls-hostname, "
			    "tls-certificates, tls-psk-file, tls-verify-peer)";
static const char password[] = "NBD knows no password: leave out what stands from : to @";

static const struct bad {
	const char *uri;
	const char *why;
	const char *why_rest;
} bads[] = {
	{"", scheme_wrong, ""},
	{"example.com", scheme_wrong, ""},
	{"http://example.com", scheme_wrong, ""},
	{"nbd+tcp://h", scheme_wrong, ""},
	{"nbd+unix", scheme_wrong, ""},
	{"nbd:h:10809", "two slashes follow the scheme: nbd://", ""},
	{"nbd:", "a host is missing after //", ""},
	{"nbd:///disk", "a host is missing after //", ""},
	{"nbd://:10809/", "a host is missing after //", ""},
	{"nbd://h:0", port_wrong, ""},
	{"nbd://h:65536", port_wrong, ""},
	{"nbd://h:99999999999999999999999", port_wrong, ""},
	{"nbd://h:nbd", port_wrong, ""},
	{"nbd://h:-1", port_wrong, ""},
	{"nbd://h:+1", port_wrong, ""},
	{"nbd://::1/", "an IPv6 address stands in [ ]", ""},
	{"nbd://fe80::1", "an IPv6 address stands in [ ]", ""},
	{"nbd://[::1", "an IPv6 address stands in [ ], a port after it as :port", ""},
	{"nbd://[::1]10809", "an IPv6 address stands in [ ], a port after it as :port", ""},
	{"nbd://[]/", "a host is missing after //", ""},
	{"nbd://[h]/", literal_wrong, ""},
	{"nbd://[v1.x]/", literal_wrong, ""},
	{"nbd://[::1%25]/", literal_wrong, ""},
	{"nbd://[1:2:3:4:5:6:7:8:9]/", literal_wrong, ""},
	{"nbd://[" X20("1") X20("1") X20("1") "]/", literal_wrong, ""},
	{"nbd://a%20b/", "the host has a character that no host name has", ""},
	{"nbd://a%2fb/", "the host has a character that no host name has", ""},
	{"nbd://h/%", "the export name: after % stand two hexadecimal digits, not 00", ""},
	{"nbd://h/%4", "the export name: after % stand two hexadecimal digits, not 00", ""},
	{"nbd://h/%g0", "the export name: after % stand two hexadecimal digits, not 00", ""},
	{"nbd://h/%0g", "the export name: after % stand two hexadecimal digits, not 00", ""},
	{"nbd://h/a%00b", "the export name: after % stand two hexadecimal digits, not 00", ""},
	{"nbd://h/\xe4", "expected UTF-8", ""},
	{"nbd://h/\xca%80", "expected UTF-8", ""},
	{"nbd://h/%E4", "the export name: expected UTF-8", ""},
	{"nbd://h/%C3", "the export name: expected UTF-8", ""},
	{"nbd://h/%C0%AF", "the export name: expected UTF-8", ""},
	{"nbd://h/%E0%9F%BF", "the export name: expected UTF-8", ""},
	{"nbd://h/%ED%A0%80", "the export name: expected UTF-8", ""},
	{"nbd://h/%F0%8F%BF%BF", "the export name: expected UTF-8", ""},
	{"nbd://h/%F4%90%80%80", "the export name: expected UTF-8", ""},
	{"nbd+unix:///?socket=/tmp/%FF", "socket: expected UTF-8", ""},
	{"nbd://%zz/", "the host: after % stand two hexadecimal digits, not 00", ""},
	{"nbd://h/a b", "a space is written %20", ""},
	{"nbd://h/a\tb", "a control character is written as % and two digits", ""},
	{"nbd://h/a\x7f", "a control character is written as % and two digits", ""},
	{"nbd://h/a#b", "a # is written %23", ""},
	{"nbd://h/?socket=/s", "socket goes only with nbd+unix or nbds+unix", ""},
	{"nbd+vsock:///?socket=/s", "socket goes only with nbd+unix or nbds+unix", ""},
	{"nbd+unix:///d", "the parameter socket is missing: ?socket=PATH", ""},
	{"nbd+unix:///d?socket", "socket has no value", ""},
	{"nbd+unix:///d?socket=", "socket has no value", ""},
	{"nbd+unix:///d?socket=a&socket=b", "socket stands twice", ""},
	{"nbd+unix:///d?socket=%00abstract", "socket: after % stand two hexadecimal digits, not 00",
	 ""},
	{"nbd+unix://h/d?socket=s", host_on_unix, ""},
	{"nbd+unix://:1/d?socket=s", host_on_unix, ""},
	{"nbd+unix://tmp/s", host_on_unix, ""},
	{"nbd+unix:///?socket=" X20("12345") "12345678", "socket: a path of at most 107 bytes", ""},
	{"nbd+vsock://h/", cid_wrong, ""},
	{"nbd+vsock://-1/", cid_wrong, ""},
	{"nbd+vsock://4294967295/", cid_wrong, ""},
	{"nbd+vsock://[::1]/", cid_wrong, ""},
	{"nbd+vsock://2:0/", vsock_port_wrong, ""},
	{"nbd+vsock://2:4294967295/", vsock_port_wrong, ""},
	{"nbd+vsock://2:x/", vsock_port_wrong, ""},
	{"nbd://h/?tls-type=x509", "tls-type needs TLS: begin with nbds", ""},
	{"nbd://h/?tls-verify-peer=1", "tls-verify-peer needs TLS: begin with nbds", ""},
	{"nbds://h/?tls-type=ssl", "tls-type is anon, x509 or psk", ""},
	{"nbds://h/?tls-verify-peer=maybe", "tls-verify-peer is 0 or 1", ""},
	{"nbds://h/?tls-verify-peer=", "tls-verify-peer has no value", ""},
	{"nbds://h/?tls-hostname=%", "tls-hostname: after % stand two hexadecimal digits, not 00",
	 ""},
	{"nbds://a@h/?tls-username=b", "the user name stands before @ and in tls-username", ""},
	{"nbd+unix:///?scoket=s", "unknown parameter scoket", known},
	{"nbd+unix:///?SOCKET=s", "unknown parameter SOCKET", known},
	{"nbd://h/?x-try=1", "unknown parameter x-try", known},
	{"nbd://h/?tls-priority=NORMAL", "unknown parameter tls-priority", known},
	{"nbd://h/?=1", "unknown parameter ", known},
	{"nbd://alice:@h", password, ""},
	{"nbd://alice:sesame@h", password, ""},
	{"nbd://alice:s@sesame@h", password, ""},
	{"nbd://alice:sesame/x@h", port_wrong, ""},
	{"nbd://alice:1?sesame@h", "unknown parameter ", known},
	{"nbd://al%ice@h", "the user name: after % stand two hexadecimal digits, not 00", ""},
};

static void check_text(const char *uri, const char *what, const char *got, const char *want)
{
	if (strcmp(got, want))
		fail_msg("%s: %s is '%s', not '%s'", uri, what, got, want);
}

static void add_text(FILE *out, const char *what, const char *text)
{
	assert_non_null(text);
	if (*text)
		fprintf(out, " %s=%s", what, text);
}

static char *describe(const char *written, const struct gk_nbd_uri *uri)
{
	static const char *const transports[] = {[GK_TRANSPORT_TCP] = "tcp",
						 [GK_TRANSPORT_UNIX] = "unix",
						 [GK_TRANSPORT_VSOCK] = "vsock"};
	char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);

	assert_non_null(out);
	if (strcmp(uri->text, written))
		fprintf(out, "text=%s ", uri->text);
	fprintf(out, "%s%s", uri->tls ? "tls " : "", transports[uri->transport]);
	add_text(out, "host", uri->host);
	add_text(out, "port", uri->port);
	add_text(out, "socket", uri->socket_path);
	if (uri->vsock_cid || uri->vsock_port)
		fprintf(out, " cid=%u port=%u", uri->vsock_cid, uri->vsock_port);
	add_text(out, "export", uri->export_name);
	if (uri->tls_type != GK_TLS_UNSET)
		fprintf(out, " type=%d", uri->tls_type);
	add_text(out, "user", uri->tls_username);
	add_text(out, "hostname", uri->tls_hostname);
	add_text(out, "certificates", uri->tls_certificates);
	add_text(out, "psk", uri->tls_psk_file);
	if (uri->tls_verify != -1)
		fprintf(out, " verify=%d", uri->tls_verify);
	fclose(out);
	return text;
}

static void every_part_of_a_uri_arrives(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
		struct gk_nbd_uri got;
		char why[256] = "", *result;

		if (gk_nbd_uri_parse(goods[i].uri, why, sizeof(why), &got))
			fail_msg("%s: %s", goods[i].uri, why);
		result = describe(goods[i].uri, &got);
		check_text(goods[i].uri, "result", result, goods[i].result);
		free(result);
		gk_nbd_uri_done(&got);
	}
}

static void every_mistake_is_named_and_leaves_the_result_alone(void **state)
{
	struct gk_nbd_uri untouched;

	(void)state;
	memset(&untouched, 0x5a, sizeof(untouched));
	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		struct gk_nbd_uri got;
		char why[256] = "", want[256];

		memset(&got, 0x5a, sizeof(got));
		if (gk_nbd_uri_parse(bads[i].uri, why, sizeof(why), &got) != -EINVAL)
			fail_msg("%s: taken", bads[i].uri);
		snprintf(want, sizeof(want), "%s%s", bads[i].why, bads[i].why_rest);
		check_text(bads[i].uri, "why", why, want);
		assert_memory_equal(&got, &untouched, sizeof(got));
	}
}

static void no_reason_repeats_a_password(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		struct gk_nbd_uri got;
		char why[256] = "";

		gk_nbd_uri_parse(bads[i].uri, why, sizeof(why), &got);
		if (strstr(why, "sesame"))
			fail_msg("%s: %s", bads[i].uri, why);
	}
}

static void a_reason_is_cut_to_the_space_there_is(void **state)
{
	struct gk_nbd_uri got;
	char why[8];

	(void)state;
	memset(why, 'x', sizeof(why));
	assert_int_equal(gk_nbd_uri_parse("nbd://h:0", why, 5, &got), -EINVAL);
	assert_memory_equal(why, "the \0xxx", sizeof(why));
}

static void an_export_name_has_at_most_4096_bytes(void **state)
{
	struct gk_nbd_uri got;
	char uri[8 + 3 * 4097 + 1] = "nbd://h/", why[128];

	(void)state;
	for (int i = 0; i < 4096; i++)
		strcpy(uri + 8 + 3 * i, "%61");
	assert_int_equal(gk_nbd_uri_parse(uri, why, sizeof(why), &got), 0);
	assert_int_equal(strlen(got.export_name), 4096);
	gk_nbd_uri_done(&got);
	strcat(uri, "a");
	assert_int_equal(gk_nbd_uri_parse(uri, why, sizeof(why), &got), -EINVAL);
	assert_string_equal(why, "the export name is longer than 4096 bytes");
}

static void done_takes_null_and_a_zeroed_uri(void **state)
{
	struct gk_nbd_uri uri = {0};

	(void)state;
	gk_nbd_uri_done(NULL);
	gk_nbd_uri_done(&uri);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_part_of_a_uri_arrives),
		cmocka_unit_test(every_mistake_is_named_and_leaves_the_result_alone),
		cmocka_unit_test(no_reason_repeats_a_password),
		cmocka_unit_test(a_reason_is_cut_to_the_space_there_is),
		cmocka_unit_test(an_export_name_has_at_most_4096_bytes),
		cmocka_unit_test(done_takes_null_and_a_zeroed_uri),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
