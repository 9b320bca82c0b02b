/* SPDX-License-Identifier: MIT */
#include "nbd_uri.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

#define DEFAULT_PORT	10809
#define DEFAULT_CID	2 /* VMADDR_CID_HOST */
#define MAX_EXPORT_NAME 4096
#define MAX_SOCKET_PATH (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

/* A part of the text, not terminated. s is NULL when the part is absent, which is not empty. */
struct span {
	const char *s;
	size_t n;
};

struct parts {
	struct span userinfo, host, port, path, query;
};

struct reason {
	char *text;
	size_t size;
};

static const struct scheme {
	const char *name;
	enum gk_transport transport;
	bool tls;
} schemes[] = {
	{"nbd", GK_TRANSPORT_TCP, false},	  {"nbds", GK_TRANSPORT_TCP, true},
	{"nbd+unix", GK_TRANSPORT_UNIX, false},	  {"nbds+unix", GK_TRANSPORT_UNIX, true},
	{"nbd+vsock", GK_TRANSPORT_VSOCK, false}, {"nbds+vsock", GK_TRANSPORT_VSOCK, true},
};

/* Query parameters. What is no string in struct gk_nbd_uri is one of a few words. */
static const struct parameter {
	const char *name;
	size_t offset;	      /* of a char *, or of an int that gets values[word] */
	const char *words[5]; /* NULL first: any text */
	int values[4];
} parameters[] = {
	{"socket", offsetof(struct gk_nbd_uri, socket_path), {NULL}, {0}},
	{"tls-type",
	 offsetof(struct gk_nbd_uri, tls_type),
	 {"anon", "x509", "psk", NULL},
	 {GK_TLS_ANON, GK_TLS_X509, GK_TLS_PSK}},
	{"tls-username", offsetof(struct gk_nbd_uri, tls_username), {NULL}, {0}},
	{"tls-hostname", offsetof(struct gk_nbd_uri, tls_hostname), {NULL}, {0}},
	{"tls-certificates", offsetof(struct gk_nbd_uri, tls_certificates), {NULL}, {0}},
	{"tls-psk-file", offsetof(struct gk_nbd_uri, tls_psk_file), {NULL}, {0}},
	{"tls-verify-peer",
	 offsetof(struct gk_nbd_uri, tls_verify),
	 {"0", "1", "false", "true", NULL},
	 {0, 1, 0, 1}},
};

#define N_PARAMETERS (sizeof(parameters) / sizeof(parameters[0]))

static const size_t strings[] = {
	offsetof(struct gk_nbd_uri, text),	   offsetof(struct gk_nbd_uri, host),
	offsetof(struct gk_nbd_uri, port),	   offsetof(struct gk_nbd_uri, socket_path),
	offsetof(struct gk_nbd_uri, export_name),  offsetof(struct gk_nbd_uri, tls_username),
	offsetof(struct gk_nbd_uri, tls_hostname), offsetof(struct gk_nbd_uri, tls_certificates),
	offsetof(struct gk_nbd_uri, tls_psk_file),
};

#define N_STRINGS (sizeof(strings) / sizeof(strings[0]))

static char **string_at(struct gk_nbd_uri *uri, size_t offset)
{
	return (char **)((char *)uri + offset);
}

void gk_nbd_uri_done(struct gk_nbd_uri *uri)
{
	if (!uri)
		return;
	for (size_t i = 0; i < N_STRINGS; i++)
		free(*string_at(uri, strings[i]));
	memset(uri, 0, sizeof(*uri));
}

static int refuse(struct reason *why, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static int refuse(struct reason *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why->text, why->size, format, args);
	va_end(args);
	return -EINVAL;
}

static int no_memory(struct reason *why)
{
	refuse(why, "out of memory");
	return -ENOMEM;
}

static bool is_word(struct span span, const char *word)
{
	return span.n == strlen(word) && !memcmp(span.s, word, span.n);
}

/* Takes what stands before c off the front of rest, c too; all of rest when there is no c. */
static struct span cut(struct span *rest, char c)
{
	struct span head = *rest;
	const char *at = rest->n ? memchr(rest->s, c, rest->n) : NULL;

	if (at) {
		head.n = (size_t)(at - rest->s);
		rest->s = at + 1;
		rest->n -= head.n + 1;
	} else {
		*rest = (struct span){NULL, 0};
	}
	return head;
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef", *at;

	if (c >= 'A' && c <= 'F')
		c += 'a' - 'A';
	at = c ? strchr(digits, c) : NULL;
	return at ? (int)(at - digits) : -1;
}

/* How many bytes the character at text takes in UTF-8; 0: it is none, or not in its shortest form. */
static size_t utf8_bytes(const unsigned char *text)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = *text < 0x80 ? 1 : *text >> 5 == 6 ? 2 : *text >> 4 == 14 ? 3 : *text >> 3 == 30 ? 4 : 0;
	uint32_t c = n > 1 ? *text & (0x7fU >> n) : *text;

	for (size_t i = 1; i < n; i++) {
		/* The NUL at the end is none of these. */
		if (text[i] >> 6 != 2)
			return 0;
		c = c << 6 | (text[i] & 0x3f);
	}
	return n && c >= least[n] && c <= 0x10ffff && c >> 11 != 0x1b ? n : 0;
}

static bool is_utf8(const char *text)
{
	const unsigned char *at = (const unsigned char *)text;
	size_t n;

	for (; *at; at += n) {
		n = utf8_bytes(at);
		if (!n)
			return false;
	}
	return true;
}

/*
 * Replaces *ret_text, which is on the heap, with span decoded. what: the part's name in why. What
 * is not UTF-8 is refused: NBD's names are, and so is the JSON in which others are told of them.
 */
static int decode(struct span span, const char *what, struct reason *why, char **ret_text)
{
	char *text = malloc(span.n + 1), *to = text;

	if (!text)
		return no_memory(why);
	for (size_t i = 0; i < span.n; i++) {
		int high, low;

		if (span.s[i] != '%') {
			*to++ = span.s[i];
			continue;
		}
		high = i + 2 < span.n ? hex_digit(span.s[i + 1]) : -1;
		low = i + 2 < span.n ? hex_digit(span.s[i + 2]) : -1;
		if (high < 0 || low < 0 || (high == 0 && low == 0)) {
			free(text);
			return refuse(why, "%s: after %% stand two hexadecimal digits, not 00",
				      what);
		}
		*to++ = (char)(high << 4 | low);
		i += 2;
	}
	*to = '\0';
	if (!is_utf8(text)) {
		free(text);
		return refuse(why, "%s: expected UTF-8", what);
	}
	free(*ret_text);
	*ret_text = text;
	return 0;
}

/* All digits and within the limits, or false. */
static bool decimal(struct span span, uint64_t min, uint64_t max, uint64_t *ret_number)
{
	uint64_t number = 0;

	if (span.n == 0)
		return false;
	for (size_t i = 0; i < span.n; i++) {
		if (span.s[i] < '0' || span.s[i] > '9')
			return false;
		number = number * 10 + (uint64_t)(span.s[i] - '0');
		if (number > max)
			return false;
	}
	if (number < min)
		return false;
	*ret_number = number;
	return true;
}

static int check_characters(const char *text, struct reason *why)
{
	for (const char *c = text; *c; c++) {
		if (*c == ' ')
			return refuse(why, "a space is written %%20");
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return refuse(why, "a control character is written as %% and two digits");
		if (*c == '#')
			return refuse(why, "a # is written %%23");
	}
	return is_utf8(text) ? 0 : refuse(why, "expected UTF-8");
}

static int split_authority(struct span authority, struct reason *why, struct parts *parts)
{
	/* The last @, so that one in a password cannot make the rest of it look like a host. */
	const char *at = authority.n ? memrchr(authority.s, '@', authority.n) : NULL;
	struct span rest = authority;

	if (at) {
		parts->userinfo = (struct span){authority.s, (size_t)(at - authority.s)};
		rest = (struct span){at + 1, authority.n - parts->userinfo.n - 1};
	}
	if (rest.n && rest.s[0] == '[') {
		parts->host = cut(&rest, ']');
		if (!rest.s || (rest.n && rest.s[0] != ':'))
			return refuse(why,
				      "an IPv6 address stands in [ ], a port after it as :port");
		cut(&rest, ':');
	} else {
		parts->host = cut(&rest, ':');
	}
	parts->port = rest;
	return 0;
}

static int split(const char *text, struct reason *why, const struct scheme **ret_scheme,
		 struct parts *parts)
{
	struct span rest = {text, strlen(text)}, name, authority = {NULL, 0};

	*ret_scheme = NULL;
	name = cut(&rest, ':');
	for (size_t i = 0; rest.s && i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		if (strlen(schemes[i].name) == name.n &&
		    !strncasecmp(schemes[i].name, name.s, name.n))
			*ret_scheme = &schemes[i];
	}
	if (!*ret_scheme)
		return refuse(why, "it begins with nbd://, nbds://, nbd+unix://, nbds+unix://, "
				   "nbd+vsock:// or nbds+vsock://");
	parts->path = cut(&rest, '?');
	parts->query = rest;
	if (parts->path.n >= 2 && !memcmp(parts->path.s, "//", 2)) {
		const char *slash;

		authority = (struct span){parts->path.s + 2, parts->path.n - 2};
		slash = authority.n ? memchr(authority.s, '/', authority.n) : NULL;
		if (slash)
			authority.n = (size_t)(slash - authority.s);
		parts->path.s += 2 + authority.n;
		parts->path.n -= 2 + authority.n;
	}
	if (parts->path.n && parts->path.s[0] != '/')
		return refuse(why, "two slashes follow the scheme: %s://", (*ret_scheme)->name);
	return split_authority(authority, why, parts);
}

static int set_user(struct span userinfo, struct reason *why, struct gk_nbd_uri *uri)
{
	struct span rest = userinfo, user = cut(&rest, ':');

	if (rest.s)
		return refuse(why, "NBD knows no password: leave out what stands from : to @");
	return decode(user, "the user name", why, &uri->tls_username);
}

/* An address as in [ ]: literal, perhaps with a zone after %25 (RFC 6874). */
static bool is_ipv6(const char *host)
{
	struct in6_addr address;
	char copy[INET6_ADDRSTRLEN];
	size_t n = strcspn(host, "%");

	if (n >= sizeof(copy) || (host[n] && !host[n + 1]))
		return false;
	memcpy(copy, host, n);
	copy[n] = '\0';
	return inet_pton(AF_INET6, copy, &address) == 1;
}

static int set_tcp(const struct parts *parts, struct reason *why, struct gk_nbd_uri *uri)
{
	struct span host = parts->host;
	bool bracket = host.n && host.s[0] == '[';
	uint64_t port = DEFAULT_PORT;
	char decimals[8];
	int err;

	/* Without this "nbd://::1/" would be told that its port is wrong. */
	if (!bracket && parts->port.n && memchr(parts->port.s, ':', parts->port.n))
		return refuse(why, "an IPv6 address stands in [ ]");
	if (parts->port.n && !decimal(parts->port, 1, 65535, &port))
		return refuse(why, "the port is a number from 1 to 65535");
	if (bracket)
		host = (struct span){host.s + 1, host.n - 1};
	if (!host.n)
		return refuse(why, "a host is missing after //");
	err = decode(host, "the host", why, &uri->host);
	if (err)
		return err;
	if (bracket && !is_ipv6(uri->host))
		return refuse(why, "between [ and ] stands an IPv6 address");
	for (const char *c = uri->host; *c; c++) {
		if ((unsigned char)*c <= ' ' || *c == 0x7f || *c == '/')
			return refuse(why, "the host has a character that no host name has");
	}
	snprintf(decimals, sizeof(decimals), "%u", (unsigned int)port);
	free(uri->port);
	uri->port = strdup(decimals);
	return uri->port ? 0 : no_memory(why);
}

static int set_vsock(const struct parts *parts, struct reason *why, struct gk_nbd_uri *uri)
{
	uint64_t cid = DEFAULT_CID, port = DEFAULT_PORT;

	/* The highest value of each means "any" to the kernel: nothing to connect to. */
	if (parts->host.n && !decimal(parts->host, 0, UINT32_MAX - 1, &cid))
		return refuse(why,
			      "for vsock the host is a context id, a number from 0 to 4294967294");
	if (parts->port.n && !decimal(parts->port, 1, UINT32_MAX - 1, &port))
		return refuse(why, "for vsock the port is a number from 1 to 4294967294");
	uri->vsock_cid = (uint32_t)cid;
	uri->vsock_port = (uint32_t)port;
	return 0;
}

static int set_word(const struct parameter *parameter, struct span value, struct reason *why,
		    struct gk_nbd_uri *uri)
{
	char *text = NULL;
	int err = decode(value, parameter->name, why, &text);

	if (err)
		return err;
	for (size_t i = 0; parameter->words[i]; i++) {
		if (strcmp(parameter->words[i], text))
			continue;
		memcpy((char *)uri + parameter->offset, &parameter->values[i], sizeof(int));
		free(text);
		return 0;
	}
	free(text);
	return refuse(why, "%s is %s", parameter->name,
		      parameter->offset == offsetof(struct gk_nbd_uri, tls_type)
			      ? "anon, x509 or psk"
			      : "0 or 1");
}

static int set_parameter(const struct parameter *parameter, struct span value, struct reason *why,
			 struct gk_nbd_uri *uri)
{
	if (strncmp(parameter->name, "tls-", 4) == 0 && !uri->tls)
		return refuse(why, "%s needs TLS: begin with nbds", parameter->name);
	if (!value.n)
		return refuse(why, "%s has no value", parameter->name);
	if (parameter->words[0])
		return set_word(parameter, value, why, uri);
	if (parameter->offset == offsetof(struct gk_nbd_uri, tls_username) && *uri->tls_username)
		return refuse(why, "the user name stands before @ and in tls-username");
	return decode(value, parameter->name, why, string_at(uri, parameter->offset));
}

static int unknown_parameter(struct span query, struct span name, struct reason *why)
{
	/* With a / or ? in a password, what follows it looks like a query: then say no name. */
	bool say_name = !memchr(query.s, '@', query.n) && name.n <= 32;

	return refuse(
		why,
		"unknown parameter %.*s (known: socket, tls-type, tls-username, tls-hostname, "
		"tls-certificates, tls-psk-file, tls-verify-peer)",
		say_name ? (int)name.n : 0, name.s);
}

static int set_query(struct span query, struct reason *why, struct gk_nbd_uri *uri)
{
	unsigned int seen = 0;

	for (struct span rest = query; rest.s;) {
		struct span value = cut(&rest, '&'), name;
		size_t i = 0;
		int err;

		if (!value.n)
			continue;
		name = cut(&value, '=');
		while (i < N_PARAMETERS && !is_word(name, parameters[i].name))
			i++;
		if (i == N_PARAMETERS)
			return unknown_parameter(query, name, why);
		if (seen & 1u << i)
			return refuse(why, "%s stands twice", parameters[i].name);
		seen |= 1u << i;
		err = set_parameter(&parameters[i], value, why, uri);
		if (err)
			return err;
	}
	return 0;
}

static int check_unix(const struct parts *parts, struct reason *why, const struct gk_nbd_uri *uri)
{
	if (uri->transport != GK_TRANSPORT_UNIX)
		return *uri->socket_path
			       ? refuse(why, "socket goes only with nbd+unix or nbds+unix")
			       : 0;
	if (parts->host.n || parts->port.s)
		return refuse(why,
			      "a Unix socket has no host or port: three slashes follow the scheme");
	if (!*uri->socket_path)
		return refuse(why, "the parameter socket is missing: ?socket=PATH");
	if (strlen(uri->socket_path) > MAX_SOCKET_PATH)
		return refuse(why, "socket: a path of at most %zu bytes", MAX_SOCKET_PATH);
	return 0;
}

static int fill(const char *text, struct reason *why, struct gk_nbd_uri *uri)
{
	const struct scheme *scheme;
	struct parts parts = {0};
	int err;

	for (size_t i = 0; i < N_STRINGS; i++) {
		const char *start = strings[i] == offsetof(struct gk_nbd_uri, text) ? text : "";

		*string_at(uri, strings[i]) = strdup(start);
		if (!*string_at(uri, strings[i]))
			return no_memory(why);
	}
	uri->tls_verify = -1;

	err = check_characters(text, why);
	if (!err)
		err = split(text, why, &scheme, &parts);
	if (err)
		return err;
	uri->transport = scheme->transport;
	uri->tls = scheme->tls;
	if (parts.userinfo.s) {
		char *keep = uri->text + (parts.userinfo.s - text);
		char *from = keep + parts.userinfo.n + 1;

		err = set_user(parts.userinfo, why, uri);
		memmove(keep, from, strlen(from) + 1);
	}
	if (!err && uri->transport == GK_TRANSPORT_TCP)
		err = set_tcp(&parts, why, uri);
	if (!err && uri->transport == GK_TRANSPORT_VSOCK)
		err = set_vsock(&parts, why, uri);
	if (!err && parts.path.n > 1)
		err = decode((struct span){parts.path.s + 1, parts.path.n - 1}, "the export name",
			     why, &uri->export_name);
	if (!err && strlen(uri->export_name) > MAX_EXPORT_NAME)
		err = refuse(why, "the export name is longer than %d bytes", MAX_EXPORT_NAME);
	if (!err)
		err = set_query(parts.query, why, uri);
	return err ? err : check_unix(&parts, why, uri);
}

int gk_nbd_uri_parse(const char *text, char *why, size_t why_size, struct gk_nbd_uri *ret_uri)
{
	struct reason reason = {why, why_size};
	struct gk_nbd_uri uri = {0};
	int err = fill(text, &reason, &uri);

	if (err)
		gk_nbd_uri_done(&uri);
	else
		*ret_uri = uri;
	return err;
}
