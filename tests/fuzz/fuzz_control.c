// SPDX-License-Identifier: MIT
/*
 * Any bytes to the control socket, by two clients at once: each line is answered, by an object as
 * deploy/doc/control-socket.md has it. The requests are those of the daemon; its devices are none.
 *
 * The first byte: 1 not ready yet, 2 attaching fails, 4 the first line begins with as many spaces
 * as nearly fill it, 8 a client leaves before the last answer. The second: how many bytes at a time.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "config_device.h"
#include "daemon.h"
#include "fuzz.h"
#include "log.h"
#include "no_devices.h"

#define SPACES	(GK_CONTROL_REQUEST_BYTES - 8)
#define CLIENTS 2

struct client {
	int fd;
	unsigned int lines;   /* said */
	unsigned int answers; /* heard */
	char *heard;
	size_t n_heard;
};

static struct gk_daemon daemon_;
static struct client clients[CLIENTS];
static char conf_path[64];

/* -- the daemon -- */

static void no_mistake(void *arg, const char *message)
{
	(void)arg;
	(void)message;
	CHECK(!"the file has no mistakes");
}

static void set_up(void)
{
	static const char text[] =
		"devices = ( { name = \"a\"; remote = \"nbd://h/x\"; queue_depth = 8; } );";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = memfd_create("proxy.conf", MFD_CLOEXEC);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	snprintf(conf_path, sizeof(conf_path), "/proc/self/fd/%d", fd);
	no_devices_reset();
	no_devices.all_slow = true;
	daemon_.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The kernel picks a name. */
	CHECK(!bind(daemon_.listen_fd, (struct sockaddr *)&address, sizeof(sa_family_t)));
	CHECK(!listen(daemon_.listen_fd, CLIENTS));
	daemon_.state_dir = daemon_.control_socket = daemon_.metrics_address = conf_path;
	daemon_.probe.ublk = -ENOENT;
}

static void attached(void *arg, uint64_t ticket, struct gk_step *steps, size_t n_steps)
{
	(void)arg;
	(void)ticket;
	CHECK(n_steps == 1 && steps->entry && !steps->result);
}

static void let_go_on(void)
{
	no_devices_go_on(true);
	while (daemon_.devices.jobs) {
		struct pollfd done = {.fd = daemon_.devices.done_fd, .events = POLLIN};

		/* libFuzzer's clock may interrupt it. */
		(void)poll(&done, 1, -1);
		gk_devices_step(&daemon_.devices);
	}
	no_devices_go_on(false);
}

static void begin(const uint8_t *choice)
{
	struct gk_device_config *config;
	struct gk_step *step = calloc(1, sizeof(*step));

	gk_log_set_level(GK_LOG_ERROR);
	CHECK(!gk_config_load(conf_path, no_mistake, NULL, &daemon_.config));
	CHECK(!gk_devices_init(&daemon_.devices, &daemon_.probe, conf_path));
	CHECK(!gk_config_device_copy(&daemon_.config->devices[0], &config));
	step->entry = gk_devices_add(&daemon_.devices, config, true);
	step->attach = true;
	no_devices.refuse = false;
	CHECK(!gk_devices_start(&daemon_.devices, step, 1, true, attached, NULL, 0));
	let_go_on();
	daemon_.ready = !(choice[0] & 1);
	no_devices.refuse = choice[0] & 2;
	CHECK(!gk_control_new(daemon_.listen_fd, gk_requests_handle, &daemon_, &daemon_.control));
}

static void end(void)
{
	let_go_on();
	gk_control_tick(daemon_.control);
	gk_control_free(daemon_.control);
	/* Some are called so that their detaching waits. */
	no_devices_go_on(true);
	gk_devices_end(&daemon_.devices);
	no_devices_go_on(false);
	gk_devices_done(&daemon_.devices);
	gk_config_free(daemon_.config);
}

/* Lets the daemon's side do all that it can do now. */
static void turn(void)
{
	struct pollfd ready = {.fd = gk_control_fd(daemon_.control), .events = POLLIN};

	while (poll(&ready, 1, 0) > 0)
		gk_control_step(daemon_.control);
}

/* -- its clients -- */

static void dial(struct client *client)
{
	struct sockaddr_un address;
	socklen_t len = sizeof(address);

	*client = (struct client){
		.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
	};
	CHECK(!getsockname(daemon_.listen_fd, (struct sockaddr *)&address, &len));
	CHECK(!connect(client->fd, (struct sockaddr *)&address, len));
	turn();
}

static void hang_up(struct client *client)
{
	close(client->fd);
	free(client->heard);
	client->fd = -1;
	client->heard = NULL;
}

static void check_error(const json_t *error)
{
	static const char *const codes[] = {
		"bad-request", "unknown-command", "too-long", "not-ready", "busy", "not-found",
		"exists", "in-use", "mistakes", "cancelled", "failed"};
	const char *code;
	const char *message;
	bool known = false;

	CHECK(!json_unpack((json_t *)(uintptr_t)error, "{s:s, s:s!}", "code", &code, "message",
			   &message));
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		known |= !strcmp(code, codes[i]);
	CHECK(known && message[0]);
}

static void check_answer(const char *line, size_t len)
{
	json_t *answer = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
	const json_t *result = json_object_get(answer, "result");
	const json_t *error = json_object_get(answer, "error");
	int ok;

	CHECK(json_object_size(answer) == 3);
	CHECK(json_integer_value(json_object_get(answer, "protocol")) == GK_CONTROL_PROTOCOL);
	CHECK(!json_unpack(answer, "{s:b}", "ok", &ok));
	CHECK(ok ? result && !error : error && !result);
	if (error)
		check_error(error);
	json_decref(answer);
}

/* Takes what has come of the answers. */
static void hear(struct client *client)
{
	char bytes[65536];
	ssize_t n;

	while ((n = recv(client->fd, bytes, sizeof(bytes), 0)) > 0) {
		char *end;

		client->heard = realloc(client->heard, client->n_heard + (size_t)n);
		CHECK(client->heard);
		memcpy(client->heard + client->n_heard, bytes, (size_t)n);
		client->n_heard += (size_t)n;
		while ((end = memchr(client->heard, '\n', client->n_heard))) {
			size_t len = (size_t)(end - client->heard) + 1;

			check_answer(client->heard, len - 1);
			client->answers++;
			client->n_heard -= len;
			memmove(client->heard, client->heard + len, client->n_heard);
		}
		turn();
	}
	/* Nobody is cut off here. */
	CHECK(n < 0 && errno == EAGAIN);
}

static void say(struct client *client, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n; i++)
		client->lines += p[i] == '\n';
	while (n) {
		ssize_t sent = send(client->fd, p, n, MSG_NOSIGNAL);

		if (sent < 0) {
			/* It waits for its answer, or to be heard. */
			CHECK(errno == EAGAIN);
			if (daemon_.devices.jobs)
				let_go_on();
			turn();
			hear(client);
			continue;
		}
		p += sent;
		n -= (size_t)sent;
	}
	turn();
}

/* Until all that the clients from this one on have asked for is answered. */
static void settle(unsigned int first)
{
	for (;;) {
		turn();
		for (unsigned int i = first; i < CLIENTS; i++)
			hear(&clients[i]);
		if (!daemon_.devices.jobs)
			return;
		let_go_on();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char spaces[SPACES];
	bool leave;
	size_t piece;

	if (size < 2)
		return 0;
	if (no_devices.go_on_fd < 0)
		set_up();
	memset(spaces, ' ', sizeof(spaces));
	leave = data[0] & 8;
	piece = data[1] ? data[1] : size;
	begin(data);
	for (unsigned int i = 0; i < CLIENTS; i++) {
		dial(&clients[i]);
		if (data[0] & 4)
			say(&clients[i], spaces, sizeof(spaces));
	}
	for (size_t at = 2; at < size; at += piece)
		for (unsigned int i = 0; i < CLIENTS; i++)
			say(&clients[i], data + at, size - at < piece ? size - at : piece);
	if (leave) {
		hang_up(&clients[0]);
		turn();
	}
	settle(leave);
	for (unsigned int i = leave; i < CLIENTS; i++) {
		CHECK(clients[i].answers == clients[i].lines && !clients[i].n_heard);
		hang_up(&clients[i]);
	}
	turn();
	end();
	return 0;
}
