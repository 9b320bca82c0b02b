// SPDX-License-Identifier: MIT
#include "control.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define READ_BYTES    4096
#define DISCARD_BYTES (16U << 20) /* of a line that is too long, before its sender is cut off */
#define IDLE_MS       1000        /* a client without a request gives way to new ones after that */
#define EVENTS        64
#define SPARES        4           /* for a client, and for what it asks: who holds a device, say */
#define LISTENER      UINT32_MAX  /* in epoll's data; else the client's index */

struct client {
	int fd;          /* -1: the place is free */
	uint64_t ticket; /* of the request that is carried out */
	bool waiting;    /* for gk_control_answer() */
	bool discarding; /* the rest of a line that is too long */
	bool refused;    /* may ask for nothing, and is closed behind the answer that says so */
	char *line;      /* what came of the next requests */
	size_t have;
	size_t discarded;
	char *answer;    /* being written; NULL: none is */
	size_t answer_len;
	size_t sent;
	uint64_t since_ms; /* of the last thing that went on: a request begun, an answer begun, ... */
};

struct gk_control {
	int listen_fd;
	int epoll_fd;
	bool listening; /* listen_fd is watched */
	int spares[SPARES];      /* kept for when there are no descriptors; -1: given away */
	struct client *on_spare; /* the client that they were given away for; NULL: none */
	gk_control_handler *handler;
	void *arg;
	uint64_t next_ticket;
	struct client clients[GK_CONTROL_CLIENTS];
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Since the last answer: this thread got no memory for some of the JSON in it. */
static __thread bool json_is_incomplete;

/* Whole lists and objects are built without looking at every single call. */
static void *json_malloc(size_t size)
{
	void *memory = malloc(size);

	json_is_incomplete |= !memory;
	return memory;
}

/* What is said when an answer cannot be made; anything but NULL, which would mean "later". */
static json_t *or_no_memory(json_t *answer)
{
	return answer ? answer : json_null();
}

json_t *gk_control_ok(json_t *result)
{
	return or_no_memory(json_pack("{s:i, s:b, s:o}", "protocol", GK_CONTROL_PROTOCOL, "ok", 1,
				      "result", result));
}

json_t *gk_control_text(const char *text)
{
	json_t *exact = json_string(text);
	json_t *ascii;
	char *copy;

	if (exact)
		return exact;
	copy = strdup(text);
	for (char *c = copy; c && *c; c++)
		*c = *c & 0x80 ? '?' : *c;
	ascii = copy ? json_string(copy) : NULL;
	free(copy);
	return ascii;
}

json_t *gk_control_error(const char *code, const char *format, ...)
{
	char message[4096];
	va_list args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	return or_no_memory(json_pack("{s:i, s:b, s:{s:s, s:o}}", "protocol", GK_CONTROL_PROTOCOL,
				      "ok", 0, "error", "code", code, "message",
				      gk_control_text(message)));
}

/* Whether another daemon answers there; a socket left behind by one that was killed is removed. */
static bool is_served(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;
	bool served;

	if (fd < 0)
		return false;
	/* EAGAIN: it listens, but has as many waiting as it can. */
	served = !connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) || errno == EAGAIN;
	/* A file that is no socket refuses connections as well, and is not ours to remove. */
	if (!served && errno == ECONNREFUSED && !stat(addr->sun_path, &st) && S_ISSOCK(st.st_mode))
		unlink(addr->sun_path);
	close(fd);
	return served;
}

int gk_control_listen(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	mode_t old_mask;
	int fd = -1;
	int r = 0;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		r = -ENAMETOOLONG;
		goto out;
	}
	strcpy(addr.sun_path, path);
	if (is_served(&addr)) {
		gk_log(GK_LOG_ERROR, "another gkproxy answers on %s: stop it, or give this one "
		       "another control.socket and state_dir", path);
		return -EADDRINUSE;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		r = -errno;
		goto out;
	}
	old_mask = umask(0177);
	r = bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(old_mask);
	if (!r && listen(fd, GK_CONTROL_CLIENTS) < 0)
		r = -errno;
out:
	if (!r)
		return fd;
	if (fd >= 0)
		close(fd);
	gk_log(GK_LOG_ERROR, "cannot listen on %s: %s%s", path, gk_strerror(r),
	       r == -EADDRINUSE ? ": something is there that is no socket; choose another "
				  "control.socket" : "");
	return r;
}

static void client_close(struct client *client)
{
	if (client->fd < 0)
		return;
	close(client->fd);
	free(client->line);
	free(client->answer);
	*client = (struct client){.fd = -1};
}

/* Watches for what the client is to do next: nothing while its request is carried out. */
static void client_watch(struct gk_control *control, struct client *client)
{
	struct epoll_event event = {.data.u32 = (uint32_t)(client - control->clients)};

	if (client->fd < 0)
		return;
	if (client->answer)
		event.events = EPOLLOUT;
	else if (!client->waiting)
		event.events = EPOLLIN;
	if (epoll_ctl(control->epoll_fd, EPOLL_CTL_MOD, client->fd, &event) < 0)
		client_close(client);
}

static void client_answer(struct client *client, json_t *answer)
{
	static const char no_memory[] =
		"{\"protocol\":1,\"ok\":false,\"error\":"
		"{\"code\":\"failed\",\"message\":\"gkproxy is out of memory\"}}";
	char *text = json_is_null(answer) ? NULL : json_dumps(answer, JSON_COMPACT);

	/* One with a part missing would be worse than none. */
	if (!text || json_is_incomplete) {
		free(text);
		text = strdup(no_memory);
	}
	json_is_incomplete = false;
	json_decref(answer);
	client->waiting = false;
	if (!text) {
		client_close(client);
		return;
	}
	/* The new line takes the place of the terminating NUL. */
	client->answer_len = strlen(text) + 1;
	text[client->answer_len - 1] = '\n';
	client->answer = text;
	client->sent = 0;
	client->since_ms = now_ms();
}

static void carry_out(struct gk_control *control, struct client *client, size_t len)
{
	json_error_t error;
	json_t *request = json_loadb(client->line, len, JSON_REJECT_DUPLICATES, &error);
	json_t *answer;

	client->ticket = ++control->next_ticket;
	client->waiting = true;
	if (!request)
		answer = gk_control_error("bad-request", "not JSON: %s", error.text);
	else if (!json_is_object(request))
		answer = gk_control_error("bad-request", "not a JSON object");
	else
		answer = control->handler(control->arg, client->ticket, request);
	if (answer)
		client_answer(client, answer);
	json_decref(request);
}

/* Carries out what has come whole, one request at a time. */
static void client_requests(struct gk_control *control, struct client *client)
{
	while (client->fd >= 0 && !client->waiting && !client->answer && client->have) {
		char *end = memchr(client->line, '\n', client->have);
		size_t len = end ? (size_t)(end - client->line) : client->have;

		if (!end && client->have < GK_CONTROL_REQUEST_BYTES) {
			return;
		} else if (!end || client->discarding) {
			/* Read to its end, or the sender might never see why it failed. */
			client->discarded += len;
			client->discarding = true;
			if (client->discarded > DISCARD_BYTES) {
				client_close(client);
				return;
			}
			if (end) {
				client->discarding = false;
				client->discarded = 0;
				client_answer(client, gk_control_error("too-long", "a request may "
					      "have %d bytes", GK_CONTROL_REQUEST_BYTES));
			}
		} else {
			carry_out(control, client, len);
		}
		if (client->fd < 0)
			return;
		len += !!end;
		client->have -= len;
		memmove(client->line, client->line + len, client->have);
		if (client->have)
			client->since_ms = now_ms();
	}
}

static void client_read(struct gk_control *control, struct client *client)
{
	size_t room = client->have + READ_BYTES;
	char *line;
	ssize_t n;

	if (room > GK_CONTROL_REQUEST_BYTES)
		room = GK_CONTROL_REQUEST_BYTES;
	line = realloc(client->line, room);
	if (!line) {
		client_close(client);
		return;
	}
	client->line = line;
	n = recv(client->fd, line + client->have, room - client->have, MSG_DONTWAIT);
	if (n <= 0) {
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			client_close(client);
		return;
	}
	if (!client->have && !client->discarding)
		client->since_ms = now_ms();
	client->have += (size_t)n;
	client_requests(control, client);
}

static void client_write(struct gk_control *control, struct client *client)
{
	ssize_t n = send(client->fd, client->answer + client->sent,
			 client->answer_len - client->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			client_close(client);
		return;
	}
	client->sent += (size_t)n;
	client->since_ms = now_ms();
	if (client->sent < client->answer_len)
		return;
	if (client->refused) {
		client_close(client);
		return;
	}
	free(client->answer);
	client->answer = NULL;
	client_requests(control, client);
}

static void watch_listener(struct gk_control *control, bool on)
{
	struct epoll_event event = {.events = on ? EPOLLIN : 0, .data.u32 = LISTENER};

	if (control->listening != on &&
	    !epoll_ctl(control->epoll_fd, EPOLL_CTL_MOD, control->listen_fd, &event))
		control->listening = on;
}

static void give_spares(struct gk_control *control)
{
	for (unsigned int i = 0; i < SPARES; i++) {
		if (control->spares[i] >= 0)
			close(control->spares[i]);
		control->spares[i] = -1;
	}
}

/*
 * Takes them back when their client has gone, or when there are enough for both. Not by dup(): whole
 * files are kept, for it may be the host that has no more of them.
 */
static void take_spares(struct gk_control *control)
{
	bool enough = true;

	for (unsigned int i = 0; i < SPARES; i++) {
		if (control->spares[i] < 0)
			control->spares[i] = eventfd(0, EFD_CLOEXEC);
		enough &= control->spares[i] >= 0;
	}
	if (enough || (control->on_spare && control->on_spare->fd < 0))
		control->on_spare = NULL;
	if (control->on_spare)
		give_spares(control);
}

/* Ends the client that has been idle for longest, if that is long. Whether there was one. */
static bool make_room(struct gk_control *control)
{
	struct client *oldest = NULL;

	for (unsigned int i = 0; i < GK_CONTROL_CLIENTS; i++) {
		struct client *client = &control->clients[i];

		if (client->fd < 0 || client->waiting || client->answer || client->have ||
		    client->discarding)
			continue;
		if (!oldest || client->since_ms < oldest->since_ms)
			oldest = client;
	}
	if (!oldest || now_ms() - oldest->since_ms < IDLE_MS)
		return false;
	client_close(oldest);
	return true;
}

static struct client *find_place(struct gk_control *control)
{
	for (unsigned int i = 0; i < GK_CONTROL_CLIENTS; i++)
		if (control->clients[i].fd < 0)
			return &control->clients[i];
	return NULL;
}

static int accept_one(const struct gk_control *control)
{
	int fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

/*
 * With no descriptors left whoever comes to see why, or to detach something, gets in all the same,
 * one at a time.
 */
static int accept_on_spare(struct gk_control *control, struct client *place)
{
	int fd;

	give_spares(control);
	fd = accept_one(control);
	if (fd >= 0)
		control->on_spare = place;
	return fd;
}

/* The socket's mode says the same; this holds also where somebody has changed it. */
static bool is_allowed(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) &&
	       (peer.uid == 0 || peer.uid == geteuid());
}

static void accept_client(struct gk_control *control)
{
	struct client *client = find_place(control);
	struct epoll_event event = {.events = EPOLLIN};
	int fd;

	if (!client && make_room(control))
		client = find_place(control);
	/* Tried again by the next tick. */
	if (!client) {
		watch_listener(control, false);
		return;
	}
	take_spares(control);
	fd = control->on_spare && !make_room(control) ? -EMFILE : accept_one(control);
	if ((fd == -EMFILE || fd == -ENFILE) && !control->on_spare)
		fd = accept_on_spare(control, client);
	if (fd < 0) {
		if (fd != -EAGAIN && fd != -ECONNABORTED && fd != -EINTR)
			watch_listener(control, false);
		return;
	}
	event.data.u32 = (uint32_t)(client - control->clients);
	if (epoll_ctl(control->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		close(fd);
		return;
	}
	*client = (struct client){.fd = fd, .since_ms = now_ms()};
	if (!is_allowed(fd)) {
		client->refused = true;
		client_answer(client, gk_control_error("forbidden", "only for root and the user "
						       "that gkproxy runs as"));
	}
	client_watch(control, client);
}

static void client_step(struct gk_control *control, struct client *client, uint32_t events)
{
	/* Closed by an event before this one, and its place perhaps taken by another client. */
	if (client->fd < 0)
		return;
	if (client->answer)
		client_write(control, client);
	else if (!client->waiting)
		client_read(control, client);
	else if (events & (EPOLLHUP | EPOLLERR))
		client_close(client);
	client_watch(control, client);
}

void gk_control_step(struct gk_control *control)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(control->epoll_fd, events, EVENTS, 0);
	bool knock = false;

	/* New clients last: the places of those who leave are theirs. */
	for (int i = 0; i < n; i++) {
		if (events[i].data.u32 == LISTENER)
			knock = true;
		else
			client_step(control, &control->clients[events[i].data.u32],
				    events[i].events);
	}
	if (knock)
		accept_client(control);
}

void gk_control_tick(struct gk_control *control)
{
	uint64_t now = now_ms();

	for (unsigned int i = 0; i < GK_CONTROL_CLIENTS; i++) {
		struct client *client = &control->clients[i];
		bool busy = client->answer || client->have || client->discarding;

		if (client->fd >= 0 && busy && !client->waiting &&
		    now - client->since_ms > GK_CONTROL_PATIENCE_MS)
			client_close(client);
	}
	take_spares(control);
	watch_listener(control, true);
}

void gk_control_answer(struct gk_control *control, uint64_t ticket, json_t *answer)
{
	for (unsigned int i = 0; i < GK_CONTROL_CLIENTS; i++) {
		struct client *client = &control->clients[i];

		if (client->fd < 0 || !client->waiting || client->ticket != ticket)
			continue;
		client_answer(client, answer);
		client_watch(control, client);
		return;
	}
	json_decref(answer);
}

int gk_control_new(int listen_fd, gk_control_handler *handler, void *arg,
		   struct gk_control **ret_control)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = LISTENER};
	struct gk_control *control = calloc(1, sizeof(*control));
	int r;

	if (!control)
		return -ENOMEM;
	json_set_alloc_funcs(json_malloc, free);
	control->listen_fd = listen_fd;
	control->handler = handler;
	control->arg = arg;
	for (unsigned int i = 0; i < GK_CONTROL_CLIENTS; i++)
		control->clients[i].fd = -1;
	for (unsigned int i = 0; i < SPARES; i++)
		control->spares[i] = -1;
	control->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (control->epoll_fd < 0 ||
	    epoll_ctl(control->epoll_fd, EPOLL_CTL_ADD, listen_fd, &event) < 0) {
		r = -errno;
		gk_control_free(control);
		return r;
	}
	control->listening = true;
	take_spares(control);
	*ret_control = control;
	return 0;
}

int gk_control_fd(const struct gk_control *control)
{
	return control->epoll_fd;
}

void gk_control_free(struct gk_control *control)
{
	if (!control)
		return;
	for (unsigned int i = 0; i < GK_CONTROL_CLIENTS; i++)
		client_close(&control->clients[i]);
	give_spares(control);
	if (control->epoll_fd >= 0)
		close(control->epoll_fd);
	free(control);
}
