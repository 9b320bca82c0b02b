// SPDX-License-Identifier: MIT
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "address.h"
#include "log.h"
#include "metrics.h"

#define CLIENTS     32
#define TIMEOUT_S   10
#define MEMORY      (16U * 1024) /* for the header of one request */
#define REST_MS     200

struct gk_metrics {
	struct MHD_Daemon *daemon;
	int listen_fd;         /* the daemon's */
	int64_t rest_until_ms; /* whoever knocks cannot be let in: nobody looks until then */
	gk_metrics_source *source;
	void *arg;
};

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned int status, char *text,
			     enum MHD_ResponseMemoryMode mode, const char *type)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(strlen(text), text, mode);
	enum MHD_Result r;

	if (!response) {
		if (mode == MHD_RESPMEM_MUST_FREE)
			free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	r = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return r;
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_size, void **context)
{
	static char seen, no_such_page[] = "see /metrics\n", no_such_method[] = "GET only\n";
	const struct gk_metrics *metrics = arg;
	char *text;

	(void)version;
	(void)upload;
	/* First called when the header is there; a body, if any, is read and left unused. */
	if (!*context) {
		*context = &seen;
		return MHD_YES;
	}
	if (*upload_size) {
		*upload_size = 0;
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) && strcmp(method, MHD_HTTP_METHOD_HEAD))
		return reply(connection, MHD_HTTP_METHOD_NOT_ALLOWED, no_such_method,
			     MHD_RESPMEM_PERSISTENT, "text/plain");
	if (strcmp(url, "/metrics"))
		return reply(connection, MHD_HTTP_NOT_FOUND, no_such_page, MHD_RESPMEM_PERSISTENT,
			     "text/plain");
	text = metrics->source(metrics->arg);
	if (!text)
		return MHD_NO;
	return reply(connection, MHD_HTTP_OK, text, MHD_RESPMEM_MUST_FREE,
		     "text/plain; version=0.0.4; charset=utf-8");
}

static int listen_at(const char *address)
{
	struct addrinfo *info;
	int one = 1;
	int fd;
	int r = gk_address_parse(address, &info);

	if (r)
		return r;
	fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, CLIENTS) < 0) {
		r = -errno;
		if (fd >= 0)
			close(fd);
	}
	freeaddrinfo(info);
	return r ? r : fd;
}

int gk_metrics_start(const char *address, gk_metrics_source *source, void *arg,
		     struct gk_metrics **ret_metrics)
{
	struct gk_metrics *metrics = malloc(sizeof(*metrics));
	int fd = metrics ? listen_at(address) : -ENOMEM;

	if (fd < 0) {
		gk_log(GK_LOG_ERROR, "control.metrics: cannot listen on \"%s\": %s%s", address,
		       gk_strerror(fd), fd == -EINVAL ? ": expected \"address:port\", numbers both" : "");
		free(metrics);
		return fd;
	}
	*metrics = (struct gk_metrics){.source = source, .arg = arg, .listen_fd = fd};
	metrics->daemon = MHD_start_daemon(
		MHD_USE_EPOLL, 0, NULL, NULL, handle, metrics, MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned int)CLIENTS, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned int)TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY,
		MHD_OPTION_END);
	if (!metrics->daemon) {
		gk_log(GK_LOG_ERROR, "control.metrics: libmicrohttpd does not start");
		close(fd);
		free(metrics);
		return -EIO;
	}
	*ret_metrics = metrics;
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int gk_metrics_fd(const struct gk_metrics *metrics, int *ret_ms)
{
	const union MHD_DaemonInfo *info =
		MHD_get_daemon_info(metrics->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	int64_t rest_ms = metrics->rest_until_ms - now_ms();
	MHD_UNSIGNED_LONG_LONG ms;

	*ret_ms = -1;
	if (rest_ms > 0) {
		*ret_ms = (int)rest_ms;
		return -1;
	}
	if (MHD_get_timeout(metrics->daemon, &ms) == MHD_YES)
		*ret_ms = ms < 1000 ? (int)ms : 1000;
	return info->epoll_fd;
}

static unsigned int count_clients(const struct gk_metrics *metrics)
{
	return MHD_get_daemon_info(metrics->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)
		->num_connections;
}

void gk_metrics_step(struct gk_metrics *metrics)
{
	struct pollfd knock = {.fd = metrics->listen_fd, .events = POLLIN};
	unsigned int before = count_clients(metrics);

	if (now_ms() < metrics->rest_until_ms)
		return;
	(void)MHD_run(metrics->daemon);
	/* Not for want of a place: of descriptors, and until there are some it knocks all the time. */
	if (count_clients(metrics) == before && before < CLIENTS && poll(&knock, 1, 0) > 0)
		metrics->rest_until_ms = now_ms() + REST_MS;
}

void gk_metrics_stop(struct gk_metrics *metrics)
{
	if (!metrics)
		return;
	/* Closes the socket that it was given, too. */
	MHD_stop_daemon(metrics->daemon);
	free(metrics);
}
