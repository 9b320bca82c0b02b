// SPDX-License-Identifier: MIT
/*
 * Dialling, against a scripted server on loopback and Unix sockets. Names are resolved by a
 * getaddrinfo() of this file, so no name server is asked.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "dial.h"
#include "handshake_server.h"

#define SIZE  UINT64_C(0x40000000)
#define FLAGS (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH)
#define MULTI (FLAGS | NBD_FLAG_CAN_MULTI_CONN)

static char directory[] = "/tmp/gk-test-dial-XXXXXX";

/* -- names: "two.test" is said[0], said[1]; "slow.test" takes until the test lets it go -- */

static struct sockaddr_in said[2];
static sem_t slow;

static struct addrinfo *answer(const struct sockaddr *addr, socklen_t len, struct addrinfo *next)
{
	struct addrinfo *a = calloc(1, sizeof(*a));

	if (!a)
		abort();
	a->ai_family = addr->sa_family;
	a->ai_socktype = SOCK_STREAM;
	a->ai_addrlen = len;
	a->ai_addr = malloc(len);
	if (!a->ai_addr)
		abort();
	memcpy(a->ai_addr, addr, len);
	a->ai_next = next;
	return a;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
		struct addrinfo **ret)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(service))};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = in.sin_port};

	if (inet_pton(AF_INET, name, &in.sin_addr) == 1) {
		*ret = answer((struct sockaddr *)&in, sizeof(in), NULL);
		return 0;
	}
	if (inet_pton(AF_INET6, name, &in6.sin6_addr) == 1) {
		*ret = answer((struct sockaddr *)&in6, sizeof(in6), NULL);
		return 0;
	}
	if (hints->ai_flags & AI_NUMERICHOST)
		return EAI_NONAME;
	if (strcmp(name, "slow.test") == 0)
		while (sem_wait(&slow) < 0)
			;
	if (strcmp(name, "nowhere.test") == 0)
		return EAI_NONAME;
	*ret = answer((struct sockaddr *)&said[1], sizeof(said[1]), NULL);
	*ret = answer((struct sockaddr *)&said[0], sizeof(said[0]), *ret);
	return 0;
}

void freeaddrinfo(struct addrinfo *list)
{
	while (list) {
		struct addrinfo *next = list->ai_next;

		free(list->ai_addr);
		free(list);
		list = next;
	}
}

/* -- fixture -- */

static char why[GK_DIAL_WHY_BYTES];
static struct gk_nbd_uri uri;

static struct gk_dial_options options(double timeout_s)
{
	return (struct gk_dial_options){
		.mode = GK_NBD_HANDSHAKE_GO,
		.connect_timeout_s = timeout_s,
		.cancel_fd = -1,
	};
}

static struct gk_handshake_server_script proper(uint16_t flags)
{
	return (struct gk_handshake_server_script){
		.size_bytes = SIZE,
		.odd_size_bytes = SIZE,
		.flags = flags,
		.accepted_fd = -1,
	};
}

static struct gk_handshake_server *serve(const char *where,
					 const struct gk_handshake_server_script *script)
{
	struct gk_handshake_server *server = gk_handshake_server_new(where, script);

	if (!server)
		fail_msg("cannot listen at %s: %s", where, strerror(errno));
	return server;
}

__attribute__((format(printf, 1, 2))) static void use_uri(const char *format, ...)
{
	char text[512], reason[200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	gk_nbd_uri_done(&uri);
	memset(&uri, 0, sizeof(uri));
	if (gk_nbd_uri_parse(text, reason, sizeof(reason), &uri) < 0)
		fail_msg("%s: %s", text, reason);
}

static void assert_says(const char *part)
{
	if (!strstr(why, part))
		fail_msg("\"%s\" does not say \"%s\"", why, part);
}

static int fails(double timeout_s)
{
	struct gk_dial_options opt = options(timeout_s);
	struct gk_dialled untouched, dialled;
	int r;

	memset(&untouched, 0x5a, sizeof(untouched));
	memset(&dialled, 0x5a, sizeof(dialled));
	why[0] = '\0';
	r = gk_dial(&uri, &opt, why, sizeof(why), &dialled);
	assert_true(r < 0);
	assert_memory_equal(&untouched, &dialled, sizeof(dialled));
	assert_says("cannot connect to ");
	assert_says(uri.text);
	return r;
}

static unsigned int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static unsigned int fds_before;

static int set_up(void **state)
{
	(void)state;
	fds_before = open_fds();
	return 0;
}

/* Whatever the outcome, no test leaves a socket behind; a look-up's thread may need a moment. */
static int tear_down(void **state)
{
	time_t end = time(NULL) + 10;

	(void)state;
	gk_nbd_uri_done(&uri);
	memset(&uri, 0, sizeof(uri));
	while (open_fds() != fds_before && time(NULL) < end)
		sched_yield();
	return open_fds() == fds_before ? 0 : -1;
}

static int get_int(int fd, int level, int option)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, level, option, &value, &len), 0);
	return value;
}

/* A TCP port of 127.0.0.1 that is taken, so nobody else gets it, but not listened on. */
static int reserve(struct sockaddr_in *ret_addr)
{
	socklen_t len = sizeof(*ret_addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	*ret_addr = (struct sockaddr_in){.sin_family = AF_INET,
					 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_int_equal(bind(fd, (struct sockaddr *)ret_addr, sizeof(*ret_addr)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)ret_addr, &len), 0);
	return fd;
}

/* -- tests -- */

static void tcp_gives_a_tuned_blocking_socket_and_the_facts(void **state)
{
	struct gk_handshake_server_script script = proper(FLAGS);
	struct gk_handshake_server *server = serve("127.0.0.1", &script);
	struct gk_dial_options opt = options(10);
	struct gk_dialled d;
	char peer[64];

	(void)state;
	opt.structured = true;
	opt.user_timeout_s = 1.5;
	use_uri("nbd://127.0.0.1:%s/vol0", gk_handshake_server_port(server));
	assert_int_equal(gk_dial(&uri, &opt, why, sizeof(why), &d), 0);
	assert_int_equal(d.facts.size_bytes, SIZE);
	assert_int_equal(d.facts.flags, FLAGS);
	assert_true(d.facts.structured);
	snprintf(peer, sizeof(peer), "127.0.0.1:%s", gk_handshake_server_port(server));
	assert_string_equal(d.peer, peer);
	assert_int_equal(d.addr.ss_family, AF_INET);
	assert_int_equal(fcntl(d.fd, F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(fcntl(d.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(get_int(d.fd, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(get_int(d.fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_in_range(get_int(d.fd, IPPROTO_TCP, TCP_KEEPIDLE), 1, 60);
	assert_int_equal(get_int(d.fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 1500);
	gk_dial_done(&d);
	assert_int_equal(d.fd, -1);
	gk_handshake_server_free(server);
}

static void ipv6_works_where_the_host_has_it(void **state)
{
	struct gk_handshake_server_script script = proper(FLAGS);
	struct gk_handshake_server *server = gk_handshake_server_new("::1", &script);
	struct gk_dial_options opt = options(10);
	struct gk_dialled d;
	char peer[64];

	(void)state;
	if (!server && (errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT)) {
		print_message("no IPv6 loopback on this host\n");
		skip();
	}
	assert_non_null(server);
	use_uri("nbd://[::1]:%s", gk_handshake_server_port(server));
	assert_int_equal(gk_dial(&uri, &opt, why, sizeof(why), &d), 0);
	snprintf(peer, sizeof(peer), "[::1]:%s", gk_handshake_server_port(server));
	assert_string_equal(d.peer, peer);
	gk_dial_done(&d);
	gk_handshake_server_free(server);
}

static void a_unix_socket_works(void **state)
{
	struct gk_handshake_server_script script = proper(FLAGS);
	struct gk_dial_options opt = options(10);
	struct gk_handshake_server *server;
	struct gk_dialled d;
	char path[64], peer[80];

	(void)state;
	snprintf(path, sizeof(path), "%s/unix", directory);
	server = serve(path, &script);
	use_uri("nbd+unix:///vol0?socket=%s", path);
	assert_int_equal(gk_dial(&uri, &opt, why, sizeof(why), &d), 0);
	snprintf(peer, sizeof(peer), "unix:%s", path);
	assert_string_equal(d.peer, peer);
	assert_int_equal(d.facts.size_bytes, SIZE);
	assert_int_equal(fcntl(d.fd, F_GETFL) & O_NONBLOCK, 0);
	gk_dial_done(&d);
	gk_handshake_server_free(server);
}

static void a_server_that_trickles_is_understood(void **state)
{
	struct gk_handshake_server_script script = proper(FLAGS);
	struct gk_dial_options opt = options(10);
	struct gk_handshake_server *server;
	struct gk_dialled d;

	(void)state;
	script.manner = GK_HANDSHAKE_SERVER_TRICKLE;
	server = serve("127.0.0.1", &script);
	use_uri("nbd://127.0.0.1:%s/vol0", gk_handshake_server_port(server));
	assert_int_equal(gk_dial(&uri, &opt, why, sizeof(why), &d), 0);
	assert_int_equal(d.facts.size_bytes, SIZE);
	gk_dial_done(&d);
	gk_handshake_server_free(server);
}

static void a_probe_gets_the_list_and_no_socket(void **state)
{
	struct gk_handshake_server_script script = proper(FLAGS);
	struct gk_handshake_server *server = serve("127.0.0.1", &script);
	struct gk_dial_options opt = options(10);
	struct gk_dialled d;

	(void)state;
	opt.mode = GK_NBD_HANDSHAKE_LIST;
	use_uri("nbd://127.0.0.1:%s", gk_handshake_server_port(server));
	assert_int_equal(gk_dial(&uri, &opt, why, sizeof(why), &d), 0);
	assert_int_equal(d.fd, -1);
	assert_int_equal(d.list.n, 1);
	assert_string_equal(d.list.exports[0].name, "vol0");
	assert_int_equal(d.list.exports[0].facts.size_bytes, SIZE);
	gk_dial_done(&d);
	gk_handshake_server_free(server);
}

static void what_is_not_there_is_said_with_advice(void **state)
{
	struct sockaddr_in addr;
	int fd = reserve(&addr);

	(void)state;
	use_uri("nbd://127.0.0.1:%u/vol0", ntohs(addr.sin_port));
	assert_int_equal(fails(10), -ECONNREFUSED);
	assert_says("Connection refused: is the server running and listening there?");
	close(fd);
	use_uri("nbd+unix:///vol0?socket=%s/none", directory);
	assert_int_equal(fails(10), -ENOENT);
	assert_says("is this the path of its socket?");
	free(uri.socket_path);
	assert_true(asprintf(&uri.socket_path, "/%0150d", 0) > 0);
	assert_int_equal(fails(10), -ENAMETOOLONG);
	use_uri("nbd://nowhere.test");
	assert_int_equal(fails(10), -EHOSTUNREACH);
	assert_says("\"nowhere.test\" does not resolve");
	use_uri("nbds://127.0.0.1/?tls-type=psk");
	assert_int_equal(fails(10), -EINVAL);
	assert_says("set tls-psk-file in the URI or tls.psk_file");
	use_uri("nbds://127.0.0.1/?tls-psk-file=%s/none", directory);
	assert_int_equal(fails(10), -ENOENT);
	assert_says("cannot read tls.psk_file");
}

/* A core file, or a debugger of the same user, would have the keys. */
static void whoever_reads_keys_leaves_no_core_file(void **state)
{
	(void)state;
	assert_int_equal(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
	use_uri("nbd+unix:///vol0?socket=%s/none", directory);
	assert_int_equal(fails(10), -ENOENT);
	assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
	use_uri("nbds+unix:///vol0?socket=%s/none&tls-psk-file=%s/none", directory, directory);
	assert_int_equal(fails(10), -ENOENT);
	assert_says("cannot read tls.psk_file");
	assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
	/* For the sanitizers. */
	assert_int_equal(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
}

static void each_bad_manner_of_a_server_has_its_sentence(void **state)
{
	static const struct {
		enum gk_handshake_server_manner manner;
		double timeout_s;
		int error;
		const char *says;
	} table[] = {
		{GK_HANDSHAKE_SERVER_SILENT, 0.2, -ETIMEDOUT, "did not send its greeting within"},
		{GK_HANDSHAKE_SERVER_STALLS, 0.5, -ETIMEDOUT, "its answer to NBD_OPT_GO"},
		{GK_HANDSHAKE_SERVER_CLOSES, 0, -ECONNRESET, "without a greeting"},
		{GK_HANDSHAKE_SERVER_BANNER, 0, -EPROTO, "SSH-2.0-"},
		{GK_HANDSHAKE_SERVER_TALKS, 0, -EPROTO, "before the first request"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct gk_handshake_server_script script = proper(FLAGS);
		struct gk_handshake_server *server;

		script.manner = table[i].manner;
		server = serve("127.0.0.1", &script);
		use_uri("nbd://127.0.0.1:%s/vol0", gk_handshake_server_port(server));
		assert_int_equal(fails(table[i].timeout_s), table[i].error);
		assert_says(table[i].says);
		gk_handshake_server_free(server);
	}
}

static void a_server_may_stall_at_any_byte(void **state)
{
	struct gk_handshake_server_script script = proper(FLAGS);
	struct gk_dial_options opt = options(10);
	struct gk_handshake_server *server;
	struct gk_dialled d;
	unsigned int bytes = 18 + 32 + 20; /* greeting, NBD_REP_INFO, NBD_REP_ACK */

	(void)state;
	for (script.silent_after = 1; script.silent_after < bytes; script.silent_after++) {
		server = serve("127.0.0.1", &script);
		use_uri("nbd://127.0.0.1:%s/vol0", gk_handshake_server_port(server));
		assert_int_equal(fails(0.01), -ETIMEDOUT);
		assert_says(" within ");
		gk_handshake_server_free(server);
	}
	server = serve("127.0.0.1", &script);
	use_uri("nbd://127.0.0.1:%s/vol0", gk_handshake_server_port(server));
	assert_int_equal(gk_dial(&uri, &opt, why, sizeof(why), &d), 0);
	gk_dial_done(&d);
	gk_handshake_server_free(server);
}

static void a_dial_without_a_limit_can_be_cancelled(void **state)
{
	struct gk_handshake_server_script script = proper(FLAGS);
	struct gk_dial_options opt = options(0);
	struct gk_handshake_server *server;
	struct gk_dialled d;

	(void)state;
	opt.cancel_fd = eventfd(0, EFD_CLOEXEC);
	assert_true(opt.cancel_fd >= 0);
	script.manner = GK_HANDSHAKE_SERVER_SILENT;
	script.accepted_fd = opt.cancel_fd;
	server = serve("127.0.0.1", &script);
	use_uri("nbd://127.0.0.1:%s/vol0", gk_handshake_server_port(server));
	assert_int_equal(gk_dial(&uri, &opt, why, sizeof(why), &d), -ECANCELED);
	gk_handshake_server_free(server);
	close(opt.cancel_fd);
}

/* Its first address is a port whose queue is full: packets to it are dropped, as by a firewall. */
static void a_dead_first_address_leaves_time_for_the_second(void **state)
{
	struct gk_handshake_server_script script = proper(FLAGS);
	struct gk_handshake_server *server = serve("127.0.0.1", &script);
	struct gk_dial_options opt = options(0.4);
	struct gk_dialled d;
	int full = reserve(&said[0]), filler[3];

	(void)state;
	assert_int_equal(listen(full, 0), 0);
	for (size_t i = 0; i < 3; i++) {
		filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		assert_true(filler[i] >= 0);
		(void)connect(filler[i], (struct sockaddr *)&said[0], sizeof(said[0]));
	}
	said[1] = said[0];
	said[1].sin_port = htons((uint16_t)atoi(gk_handshake_server_port(server)));
	use_uri("nbd://two.test/vol0");
	assert_int_equal(gk_dial(&uri, &opt, why, sizeof(why), &d), 0);
	assert_int_equal(((struct sockaddr_in *)&d.addr)->sin_port, said[1].sin_port);
	gk_dial_done(&d);
	said[1] = said[0];
	assert_int_equal(fails(0.1), -ETIMEDOUT);
	assert_says("the last of 2 addresses");
	assert_says("does not answer within 0.1 s");
	for (size_t i = 0; i < 3; i++)
		close(filler[i]);
	close(full);
	gk_handshake_server_free(server);
}

static void a_refusing_first_address_is_passed_over(void **state)
{
	struct gk_handshake_server_script script = proper(FLAGS);
	struct gk_handshake_server *server = serve("127.0.0.1", &script);
	struct gk_dial_options opt = options(0);
	struct gk_dialled d;
	int refuses = reserve(&said[0]);

	(void)state;
	said[1] = said[0];
	said[1].sin_port = htons((uint16_t)atoi(gk_handshake_server_port(server)));
	use_uri("nbd://two.test/vol0");
	assert_int_equal(gk_dial(&uri, &opt, why, sizeof(why), &d), 0);
	gk_dial_done(&d);
	close(refuses);
	gk_handshake_server_free(server);
}

static void a_slow_name_server_does_not_hold_up_the_caller(void **state)
{
	struct gk_dial_options opt = options(0);
	struct gk_dialled d;

	(void)state;
	use_uri("nbd://slow.test");
	assert_int_equal(fails(0.2), -ETIMEDOUT);
	assert_says("name server");
	opt.cancel_fd = eventfd(1, EFD_CLOEXEC);
	assert_true(opt.cancel_fd >= 0);
	assert_int_equal(gk_dial(&uri, &opt, why, sizeof(why), &d), -ECANCELED);
	close(opt.cancel_fd);
	/* The threads end after their dials; tear_down() waits for their descriptors. */
	sem_post(&slow);
	sem_post(&slow);
}

static void a_full_unix_backlog_counts_as_no_answer(void **state)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int full = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), filler;

	(void)state;
	snprintf(un.sun_path, sizeof(un.sun_path), "%s/full", directory);
	assert_int_equal(bind(full, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(full, 0), 0);
	filler = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(filler, (struct sockaddr *)&un, sizeof(un)), 0);
	use_uri("nbd+unix:///?socket=%s", un.sun_path);
	assert_int_equal(fails(0.2), -ETIMEDOUT);
	close(filler);
	close(full);
	unlink(un.sun_path);
}

/* The server answers none of connections 2-4 before it has them all. */
static void the_connections_after_the_first_are_dialled_at_the_same_time(void **state)
{
	struct gk_handshake_server_script script = proper(MULTI);
	struct gk_dial_options opt = options(0);
	struct gk_handshake_server *server;
	struct gk_dialled d[4];

	(void)state;
	script.together = 3;
	server = serve("127.0.0.1", &script);
	use_uri("nbd://127.0.0.1:%s/vol0", gk_handshake_server_port(server));
	assert_int_equal(gk_dial_parallel(&uri, &opt, 4, why, sizeof(why), d), 4);
	assert_int_equal(gk_handshake_server_accepted(server), 4);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(d[i].facts.size_bytes, SIZE);
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(d[i].fd, d[j].fd);
	}
	for (size_t i = 0; i < 4; i++)
		gk_dial_done(&d[i]);
	gk_handshake_server_free(server);
}

static void without_can_multi_conn_there_is_one_connection(void **state)
{
	struct gk_handshake_server_script script = proper(FLAGS);
	struct gk_handshake_server *server = serve("127.0.0.1", &script);
	struct gk_dial_options opt = options(10);
	struct gk_dialled d[4];

	(void)state;
	use_uri("nbd://127.0.0.1:%s/vol0", gk_handshake_server_port(server));
	assert_int_equal(gk_dial_parallel(&uri, &opt, 4, why, sizeof(why), d), 1);
	assert_int_equal(gk_handshake_server_accepted(server), 1);
	gk_dial_done(&d[0]);
	gk_handshake_server_free(server);
}

static void connections_to_different_exports_are_refused(void **state)
{
	struct gk_handshake_server_script script = proper(MULTI);
	struct gk_dial_options opt = options(10);
	struct gk_handshake_server *server;
	struct gk_dialled d[4];

	(void)state;
	script.odd_one = 2;
	script.odd_size_bytes = SIZE + 512;
	server = serve("127.0.0.1", &script);
	use_uri("nbd://127.0.0.1:%s/vol0", gk_handshake_server_port(server));
	assert_int_equal(gk_dial_parallel(&uri, &opt, 4, why, sizeof(why), d), -EPROTO);
	assert_says("different exports (size)");
	gk_handshake_server_free(server);
}

/* Without a limit of time, silent connections 2 and 4 would keep the failed third waiting for ever.
 */
static void one_failure_stops_the_others_and_is_the_one_told(void **state)
{
	struct gk_handshake_server_script script = proper(MULTI);
	struct gk_dial_options opt = options(0);
	struct gk_handshake_server *server;
	struct gk_dialled d[4];

	(void)state;
	script.later_manner = GK_HANDSHAKE_SERVER_SILENT;
	script.odd_one = 2;
	script.odd_manner = GK_HANDSHAKE_SERVER_BANNER;
	server = serve("127.0.0.1", &script);
	use_uri("nbd://127.0.0.1:%s/vol0", gk_handshake_server_port(server));
	assert_int_equal(gk_dial_parallel(&uri, &opt, 4, why, sizeof(why), d), -EPROTO);
	assert_says("SSH-2.0-");
	gk_handshake_server_free(server);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(tcp_gives_a_tuned_blocking_socket_and_the_facts),
		TEST(ipv6_works_where_the_host_has_it),
		TEST(a_unix_socket_works),
		TEST(a_server_that_trickles_is_understood),
		TEST(a_probe_gets_the_list_and_no_socket),
		TEST(what_is_not_there_is_said_with_advice),
		TEST(whoever_reads_keys_leaves_no_core_file),
		TEST(each_bad_manner_of_a_server_has_its_sentence),
		TEST(a_server_may_stall_at_any_byte),
		TEST(a_dial_without_a_limit_can_be_cancelled),
		TEST(a_dead_first_address_leaves_time_for_the_second),
		TEST(a_refusing_first_address_is_passed_over),
		TEST(a_slow_name_server_does_not_hold_up_the_caller),
		TEST(a_full_unix_backlog_counts_as_no_answer),
		TEST(the_connections_after_the_first_are_dialled_at_the_same_time),
		TEST(without_can_multi_conn_there_is_one_connection),
		TEST(connections_to_different_exports_are_refused),
		TEST(one_failure_stops_the_others_and_is_the_one_told),
	};
	int failed;

	sem_init(&slow, 0, 0);
	if (!mkdtemp(directory)) {
		perror(directory);
		return 1;
	}
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(directory);
	return failed;
}
