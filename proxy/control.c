// SPDX-License-Identifier: MIT
#include "control.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "notify.h"

#define CLIENTS_MAX   16
#define REQUEST_BYTES 4096

struct client {
	int fd;
	char request[REQUEST_BYTES];
	size_t have;
	char *answer; /* being written; NULL while the request is read */
	size_t answer_len;
	size_t sent;
};

static int unix_address(const char *path, struct sockaddr_un *ret_addr)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	*ret_addr = addr;
	return 0;
}

static int connect_to(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

static int listen_at(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t old_mask;
	int r;

	if (fd < 0)
		return -errno;
	old_mask = umask(0177);
	r = bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;
	umask(old_mask);
	if (!r && listen(fd, CLIENTS_MAX) < 0)
		r = -errno;
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

int gk_control_listen(const char *path)
{
	struct sockaddr_un addr;
	int r = unix_address(path, &addr);
	int fd;

	if (!r) {
		fd = connect_to(&addr);
		if (fd >= 0) {
			close(fd);
			gk_log(GK_LOG_ERROR, "another gkproxy answers on %s: stop it, or give this "
			       "one another control.socket and state_dir", path);
			return -EADDRINUSE;
		}
		/* Left behind by a daemon that was killed. */
		if (fd == -ECONNREFUSED)
			unlink(path);
		r = listen_at(&addr);
	}
	if (r < 0)
		gk_log(GK_LOG_ERROR, "cannot listen on %s: %s", path, gk_strerror(r));
	return r;
}

static void client_close(struct client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	free(client->answer);
	*client = (struct client){.fd = -1};
}

static json_t *error_json(const char *why)
{
	return json_pack("{s:b, s:s}", "ok", 0, "error", why);
}

static json_t *carry_out(const char *line, size_t len, gk_control_handler *handler, void *arg)
{
	char why[512] = "";
	json_error_t error;
	json_t *request = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	json_t *result;

	if (!json_is_object(request)) {
		snprintf(why, sizeof(why), "not a JSON object: %s", request ? "" : error.text);
		json_decref(request);
		return error_json(why);
	}
	result = handler(arg, request, why, sizeof(why));
	json_decref(request);
	return result ? json_pack("{s:b, s:o}", "ok", 1, "result", result) : error_json(why);
}

static void client_answer(struct client *client, json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	json_decref(json);
	client->sent = 0;
	client->answer_len = 0;
	/* The new line takes the place of the terminating NUL. */
	if (text) {
		client->answer_len = strlen(text) + 1;
		text[client->answer_len - 1] = '\n';
	}
	client->answer = text;
	if (!text)
		client_close(client);
}

static void client_read(struct client *client, gk_control_handler *handler, void *arg)
{
	ssize_t n = recv(client->fd, client->request + client->have,
			 sizeof(client->request) - client->have, MSG_DONTWAIT);
	char *end;

	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			client_close(client);
		return;
	}
	client->have += (size_t)n;
	end = memchr(client->request, '\n', client->have);
	if (end) {
		size_t len = (size_t)(end - client->request);

		client_answer(client, carry_out(client->request, len, handler, arg));
		client->have -= len + 1;
		memmove(client->request, end + 1, client->have);
	} else if (client->have == sizeof(client->request)) {
		client->have = 0;
		client_answer(client, error_json("the request is longer than 4096 bytes"));
	}
}

static void client_write(struct client *client)
{
	ssize_t n = send(client->fd, client->answer + client->sent,
			 client->answer_len - client->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			client_close(client);
		return;
	}
	client->sent += (size_t)n;
	if (client->sent == client->answer_len) {
		free(client->answer);
		client->answer = NULL;
	}
}

static void accept_client(int listen_fd, struct client *clients)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		if (clients[i].fd < 0) {
			clients[i].fd = fd;
			return;
		}
	}
	/* Sixteen others keep their lines open: whoever comes now may try again. */
	close(fd);
}

int gk_control_serve(int listen_fd, int signal_fd, gk_control_handler *handler, void *arg)
{
	struct client *clients = calloc(CLIENTS_MAX, sizeof(*clients));
	int r = clients ? 0 : -ENOMEM;

	for (unsigned int i = 0; !r && i < CLIENTS_MAX; i++)
		clients[i].fd = -1;
	while (!r) {
		struct pollfd fds[CLIENTS_MAX + 2];

		fds[0] = (struct pollfd){.fd = signal_fd, .events = POLLIN};
		fds[1] = (struct pollfd){.fd = listen_fd, .events = POLLIN};
		for (unsigned int i = 0; i < CLIENTS_MAX; i++)
			fds[i + 2] = (struct pollfd){.fd = clients[i].fd,
						     .events = clients[i].answer ? POLLOUT : POLLIN};
		if (poll(fds, CLIENTS_MAX + 2, gk_notify_alive()) < 0) {
			r = errno == EINTR ? 0 : -errno;
			continue;
		}
		if (fds[0].revents)
			break;
		for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
			if (!fds[i + 2].revents)
				continue;
			if (clients[i].answer)
				client_write(&clients[i]);
			else
				client_read(&clients[i], handler, arg);
		}
		if (fds[1].revents)
			accept_client(listen_fd, clients);
	}
	for (unsigned int i = 0; clients && i < CLIENTS_MAX; i++)
		client_close(&clients[i]);
	free(clients);
	return r;
}

/* Reads to the end of the line. The text without it, to be freed, or NULL with errno set. */
static char *exchange(int fd, const char *request)
{
	FILE *stream = fdopen(fd, "r+");
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	if (!stream) {
		close(fd);
		return NULL;
	}
	fprintf(stream, "%s\n", request);
	fflush(stream);
	errno = ECONNRESET;
	n = getline(&line, &size, stream);
	fclose(stream);
	if (n > 0)
		return line;
	free(line);
	return NULL;
}

json_t *gk_control_ask(const char *path, json_t *request, char *why, size_t why_size)
{
	struct sockaddr_un addr;
	char *text = json_dumps(request, JSON_COMPACT);
	int fd = unix_address(path, &addr);
	char *line = NULL;
	json_t *answer;
	json_t *result = NULL;

	if (!fd)
		fd = connect_to(&addr);
	if (fd < 0) {
		snprintf(why, why_size, "cannot reach a running gkproxy at %s: %s", path,
			 gk_strerror(fd));
		free(text);
		return NULL;
	}
	line = exchange(fd, text);
	free(text);
	if (!line) {
		snprintf(why, why_size, "gkproxy at %s gave no answer", path);
		return NULL;
	}
	answer = json_loads(line, 0, NULL);
	free(line);
	if (json_is_true(json_object_get(answer, "ok"))) {
		result = json_incref(json_object_get(answer, "result"));
	} else {
		const char *error = json_string_value(json_object_get(answer, "error"));

		snprintf(why, why_size, "%s", error ? error : "the answer makes no sense");
	}
	json_decref(answer);
	return result;
}
