// SPDX-License-Identifier: MIT
#include "dial.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "dial_tls.h"
#include "log.h"
#include "negotiate.h"
#include "resolve.h"

/* An idle connection to a host that vanished is found dead after 10 + 3 * 5 seconds. */
#define KEEPALIVE_IDLE_S     10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_PROBES     3

#define BACKLOG_RETRY_MS     10 /* a full Unix backlog gives no event to wait for */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Rounded up, for 0 means no limit. */
static int64_t whole_ms(double s)
{
	return (int64_t)(s * 1000 + 0.999);
}

static int64_t deadline_after(double timeout_s)
{
	return timeout_s > 0 ? now_ms() + whole_ms(timeout_s) : GK_DIAL_NEVER;
}

int gk_dial_call_fail(const struct gk_dial_call *d, int error, const char *format, ...)
{
	va_list args;
	int n;

	n = snprintf(d->why, d->why_size, "cannot connect to %.300s: ", d->uri->text);
	va_start(args, format);
	if (n >= 0 && (size_t)n < d->why_size)
		vsnprintf(d->why + n, d->why_size - (size_t)n, format, args);
	va_end(args);
	return error;
}

int gk_dial_call_wait(const struct gk_dial_call *d, int fd, short events, int64_t until_ms)
{
	struct pollfd fds[3] = {
		{.fd = d->opt->cancel_fd, .events = POLLIN},
		{.fd = d->stop_fd, .events = POLLIN},
		{.fd = fd, .events = events},
	};

	for (;;) {
		int64_t left = until_ms == GK_DIAL_NEVER ? -1 : until_ms - now_ms();
		int n;

		/* Before poll(): a server that never stops talking must not outlive the deadline.
		 */
		if (until_ms != GK_DIAL_NEVER && left <= 0)
			return -ETIMEDOUT;
		n = poll(fds, 3, left > INT32_MAX ? INT32_MAX : (int)left);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && (fds[0].revents || fds[1].revents))
			return -ECANCELED;
		if (n > 0)
			return 0;
	}
}

/* -- connecting -- */

static int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int tune_tcp(const struct gk_dial_call *d, int fd)
{
	int64_t user_ms = whole_ms(d->opt->user_timeout_s);
	int r = 0;

	/* The queue loop gathers by itself; Nagle would only hold back its last packet. */
	if (r == 0)
		r = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (r == 0)
		r = set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	if (r == 0)
		r = set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
	if (r == 0)
		r = set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
	if (r == 0)
		r = set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
	if (r == 0 && user_ms > 0)
		r = set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
			    user_ms < INT32_MAX ? (int)user_ms : INT32_MAX);
	return r;
}

/*
 * A connect to a free port of this host can meet itself, when the kernel picks that very port as
 * the source. It would look like a server that never says a word, and keep the real one from its
 * port.
 */
static bool met_itself(int fd, const struct gk_resolve_address *address)
{
	struct sockaddr_storage own = {0};
	socklen_t len = sizeof(own);

	if (getsockname(fd, (struct sockaddr *)&own, &len) < 0 || len != address->len)
		return false;
	return own.ss_family != AF_UNIX && memcmp(&own, &address->addr, len) == 0;
}

/* Finishes a connect() that goes on in the background. */
static int connect_result(const struct gk_dial_call *d, int fd, int64_t until_ms)
{
	int error = 0;
	socklen_t len = sizeof(error);
	int r = gk_dial_call_wait(d, fd, POLLOUT, until_ms);

	if (r < 0)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	return -error;
}

static int start_connect(const struct gk_dial_call *d, int fd, const struct gk_resolve_address *address,
			 int64_t until_ms)
{
	for (;;) {
		int64_t retry_ms = now_ms() + BACKLOG_RETRY_MS;
		int r;

		if (connect(fd, (const struct sockaddr *)&address->addr, address->len) == 0)
			return 0;
		if (errno == EINPROGRESS || errno == EINTR)
			return connect_result(d, fd, until_ms);
		if (errno != EAGAIN || address->addr.ss_family != AF_UNIX)
			return -errno;
		if (now_ms() >= until_ms)
			return -ETIMEDOUT;
		r = gk_dial_call_wait(d, -1, 0, retry_ms);
		if (r != -ETIMEDOUT)
			return r;
	}
}

/* One address. A connected, non-blocking socket, or -errno without a word. */
static int connect_one(const struct gk_dial_call *d, const struct gk_resolve_address *address,
		       int64_t until_ms)
{
	int family = address->addr.ss_family;
	int fd, r;

	fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = start_connect(d, fd, address, until_ms);
	if (r == 0 && met_itself(fd, address))
		r = -ECONNREFUSED;
	if (r == 0 && (family == AF_INET || family == AF_INET6))
		r = tune_tcp(d, fd);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

static const char *advice(const struct gk_dial_call *d, int error)
{
	switch (error) {
	case -ECONNREFUSED:
	case -ECONNRESET: /* what vsock says for it */
		return "is the server running and listening there?";
	case -ENOENT:
		return "is the server running, and is this the path of its socket?";
	case -EACCES:
	case -EPERM:
		return d->uri->transport == GK_TRANSPORT_UNIX
			       ? "may this user write to the socket, and enter its directories?"
			       : "does a firewall of this host forbid it?";
	case -EHOSTUNREACH:
	case -ENETUNREACH:
		return "is the host up, and does a route lead there?";
	case -ETIMEDOUT:
		return "is the host up, and does a firewall swallow the packets?";
	case -EAFNOSUPPORT:
	case -ENODEV:
		return d->uri->transport == GK_TRANSPORT_VSOCK
			       ? "does this kernel have vsock (modprobe vsock_loopback, "
				 "vmw_vsock_virtio_transport or vhost_vsock)?"
			       : "does this kernel have this address family?";
	case -EMFILE:
		return "raise LimitNOFILE (ulimit -n)";
	case -ENFILE:
		return "raise sysctl fs.file-max";
	case -ENOMEM:
	case -ENOBUFS:
		return "this host, or a limit of its cgroup, is short of memory";
	default:
		return "check the address in the URI";
	}
}

static int connect_failed(const struct gk_dial_call *d, const struct gk_resolve_list *list, size_t i,
			  int error)
{
	char text[160], more[48] = "";

	if (error == -ECANCELED)
		return gk_dial_call_fail(d, error, "given up, because it was told to");
	if (list->n > 1)
		snprintf(more, sizeof(more), " (the last of %zu addresses)", list->n);
	gk_resolve_text(&list->address[i], text, sizeof(text));
	if (error == -ETIMEDOUT && d->deadline_ms != GK_DIAL_NEVER)
		return gk_dial_call_fail(d, error, "%s%s does not answer within %g s (connect_timeout): %s",
			    text, more, d->opt->connect_timeout_s, advice(d, error));
	return gk_dial_call_fail(d, error, "%s%s: %s: %s", text, more, strerror(-error), advice(d, error));
}

/*
 * The addresses in their order. Each gets an equal share of the time that is left, so a dead first
 * one does not use up what the second needs; the last has all the rest.
 */
static int connect_any(const struct gk_dial_call *d, const struct gk_resolve_list *list, size_t *ret_which)
{
	int r = -EHOSTUNREACH;
	size_t i;

	for (i = 0; i < list->n; i++) {
		int64_t until_ms = d->deadline_ms;

		if (until_ms != GK_DIAL_NEVER) {
			int64_t now = now_ms();

			until_ms = now + (until_ms - now) / (int64_t)(list->n - i);
		}
		r = connect_one(d, &list->address[i], until_ms);
		if (r >= 0) {
			*ret_which = i;
			return r;
		}
		if (r == -ECANCELED)
			break;
	}
	return connect_failed(d, list, i < list->n ? i : list->n - 1, r);
}

static int resolve(const struct gk_dial_call *d, struct gk_resolve_list *list)
{
	struct gk_resolve *lookup;
	char reason[300];
	int r;

	r = gk_resolve_start(d->uri, reason, sizeof(reason), list, &lookup);
	if (r == 0 && lookup) {
		r = gk_dial_call_wait(d, gk_resolve_fd(lookup), POLLIN, d->deadline_ms);
		if (r == 0)
			r = gk_resolve_finish(lookup, reason, sizeof(reason), list);
		else if (r == -ETIMEDOUT)
			snprintf(reason, sizeof(reason),
				 "the name server did not answer within %g s (connect_timeout)",
				 d->opt->connect_timeout_s);
		else
			snprintf(reason, sizeof(reason), "%s",
				 r == -ECANCELED ? "given up, because it was told to"
						 : gk_strerror(r));
		gk_resolve_drop(lookup);
	}
	return r < 0 ? gk_dial_call_fail(d, r, "%s", reason) : 0;
}

static int dial_one_of(const struct gk_dial_call *d, const struct gk_resolve_list *list,
		       struct gk_dialled *ret)
{
	size_t which = 0;
	struct gk_dialled dialled = {.fd = connect_any(d, list, &which)};
	int r;

	if (dialled.fd < 0)
		return dialled.fd;
	r = gk_negotiate(d, &dialled);
	if (r < 0) {
		gk_dial_done(&dialled);
		return r;
	}
	dialled.addr = list->address[which].addr;
	dialled.addr_len = list->address[which].len;
	gk_resolve_text(&list->address[which], dialled.peer, sizeof(dialled.peer));
	*ret = dialled;
	return 0;
}

static int dial_first(struct gk_dial_call *d, struct gk_dialled *ret)
{
	struct gk_resolve_list list;
	char reason[GK_TLS_WHY_BYTES];
	int r = 0;

	if (d->uri->tls)
		r = gk_dial_tls_context(d->uri, d->opt->tls, reason, sizeof(reason), &d->tls);
	if (r < 0)
		return gk_dial_call_fail(d, r, "%s", reason);
	r = resolve(d, &list);
	return r < 0 ? r : dial_one_of(d, &list, ret);
}

int gk_dial(const struct gk_nbd_uri *uri, const struct gk_dial_options *opt, char *why,
	    size_t why_size, struct gk_dialled *ret)
{
	struct gk_dial_call d = {
		.uri = uri,
		.opt = opt,
		.deadline_ms = deadline_after(opt->connect_timeout_s),
		.stop_fd = -1,
		.why = why,
		.why_size = why_size,
	};

	int r = dial_first(&d, ret);

	gk_tls_context_free(d.tls);
	return r;
}

/* -- several at a time -- */

struct sister {
	struct gk_dial_call dial;
	struct gk_resolve_list list; /* the address of the first connection */
	pthread_t thread;
	bool started;
	int result;
	struct gk_dialled dialled;
	char why[GK_DIAL_WHY_BYTES];
};

static void *dial_sister(void *arg)
{
	struct sister *s = arg;

	s->result = dial_one_of(&s->dial, &s->list, &s->dialled);
	if (s->result < 0)
		eventfd_write(s->dial.stop_fd, 1);
	return NULL;
}

static const char *difference(const struct nbd_export_facts *a, const struct nbd_export_facts *b)
{
	if (a->size_bytes != b->size_bytes)
		return "size";
	if (a->flags != b->flags)
		return "transmission flags";
	if (a->structured != b->structured)
		return "structured replies";
	if (a->block_min != b->block_min || a->block_preferred != b->block_preferred ||
	    a->block_max != b->block_max)
		return "block sizes";
	return NULL;
}

static void start_sisters(const struct gk_dial_call *d, const struct gk_dialled *first, struct sister *s,
			  unsigned int n)
{
	int r;

	for (unsigned int i = 0; i < n; i++) {
		s[i].dial = *d;
		s[i].dial.why = s[i].why;
		s[i].dial.why_size = sizeof(s[i].why);
		s[i].list.address[0].addr = first->addr;
		s[i].list.address[0].len = first->addr_len;
		s[i].list.n = 1;
		s[i].dialled.fd = -1;
		/* The thread owns result from here on, unless it does not exist. */
		r = -pthread_create(&s[i].thread, NULL, dial_sister, &s[i]);
		s[i].started = r == 0;
		if (r < 0) {
			s[i].result =
				gk_dial_call_fail(&s[i].dial, r, "cannot start a thread: %s", gk_strerror(r));
			eventfd_write(d->stop_fd, 1);
		}
	}
}

/* The verdict over all: 0, or the failure that the others were stopped for. */
static int join_sisters(const struct gk_dial_call *d, const struct gk_dialled *first, struct sister *s,
			unsigned int n)
{
	int r = 0;

	for (unsigned int i = 0; i < n; i++)
		if (s[i].started)
			pthread_join(s[i].thread, NULL);
	for (unsigned int i = 0; i < n; i++) {
		if (s[i].result < 0 && (r == 0 || r == -ECANCELED)) {
			r = s[i].result;
			snprintf(d->why, d->why_size, "%s", s[i].why);
		}
	}
	for (unsigned int i = 0; i < n && r == 0; i++) {
		const char *differs = difference(&first->facts, &s[i].dialled.facts);

		if (differs)
			r = gk_dial_call_fail(
				d, -EPROTO,
				"connections 1 and %u show different exports (%s): does the export "
				"change, or do several servers share the address?",
				i + 2, differs);
	}
	return r;
}

/* n more connections like the first, into ret[0..n). */
static int dial_rest(struct gk_dial_call *d, const struct gk_dialled *first, unsigned int n,
		     struct gk_dialled *ret)
{
	struct sister *s = calloc(n, sizeof(*s));
	int r;

	d->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!s || d->stop_fd < 0) {
		r = gk_dial_call_fail(d, s ? -errno : -ENOMEM, "out of memory or file descriptors");
		goto out;
	}
	start_sisters(d, first, s, n);
	r = join_sisters(d, first, s, n);
	for (unsigned int i = 0; i < n; i++) {
		if (r == 0)
			ret[i] = s[i].dialled;
		else
			gk_dial_done(&s[i].dialled);
	}
out:
	if (d->stop_fd >= 0)
		close(d->stop_fd);
	free(s);
	return r;
}

int gk_dial_parallel(const struct gk_nbd_uri *uri, const struct gk_dial_options *opt,
		     unsigned int n, char *why, size_t why_size, struct gk_dialled *ret)
{
	struct gk_dial_call d = {
		.uri = uri,
		.opt = opt,
		.deadline_ms = deadline_after(opt->connect_timeout_s),
		.stop_fd = -1,
		.why = why,
		.why_size = why_size,
	};
	struct gk_dialled first;
	int r;

	assert(opt->mode == GK_NBD_HANDSHAKE_GO && n > 0);
	r = dial_first(&d, &first);
	if (r < 0)
		goto out;
	if (!(first.facts.flags & NBD_FLAG_CAN_MULTI_CONN))
		n = 1;
	if (n > 1)
		r = dial_rest(&d, &first, n - 1, ret + 1);
	if (r < 0) {
		gk_dial_done(&first);
		goto out;
	}
	ret[0] = first;
	r = (int)n;
out:
	gk_tls_context_free(d.tls);
	return r;
}

void gk_dial_done(struct gk_dialled *dialled)
{
	if (!dialled)
		return;
	if (dialled->fd >= 0)
		close(dialled->fd);
	dialled->fd = -1;
	gk_tls_stream_free(dialled->tls);
	dialled->tls = NULL;
	gk_nbd_export_list_done(&dialled->list);
}
