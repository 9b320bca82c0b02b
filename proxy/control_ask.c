// SPDX-License-Identifier: MIT
#include "control_ask.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;
	int r;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

/* A daemon that hangs up may have said why: that is read all the same. */
static void say(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return;
		text += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
}

/* Reads to the end of the line. The text without it, to be freed, or NULL. */
static char *exchange(int fd, const char *request)
{
	FILE *stream = fdopen(fd, "r");
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	if (!stream) {
		close(fd);
		return NULL;
	}
	say(fd, request, strlen(request));
	say(fd, "\n", 1);
	n = getline(&line, &size, stream);
	fclose(stream);
	if (n > 0)
		return line;
	free(line);
	return NULL;
}

json_t *gk_control_ask(const char *path, const json_t *request, char *why, size_t why_size)
{
	char *text = json_dumps(request, JSON_COMPACT);
	int fd = connect_to(path);
	char *line = NULL;
	json_t *answer;
	json_t *result = NULL;

	if (fd < 0) {
		snprintf(why, why_size, "cannot reach a running gkproxy at %s: %s", path,
			 gk_strerror(fd));
		free(text);
		return NULL;
	}
	line = text ? exchange(fd, text) : NULL;
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
		const json_t *error = json_object_get(answer, "error");
		const char *message = json_string_value(json_object_get(error, "message"));

		snprintf(why, why_size, "%s", message ? message : "the answer makes no sense");
	}
	json_decref(answer);
	return result;
}
