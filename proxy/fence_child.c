// SPDX-License-Identifier: MIT
/* The daemon's side of the fence process; fence_keep.c is the process. */
#include "fence_child.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define SEND_SECONDS 1    /* for the process to take a message */
#define END_MS	     1000 /* for it to end when it has nothing left to do */
#define SLACK_MS     2000 /* beyond fence_timeout: it may be starved when its daemon has just died */
#define LOOK_MS	     20   /* there is no event for a lock that can also be given up */

static const char no_fence[] = "should gkproxy be killed, writes that the server still holds may be "
			       "applied after newer ones";

static struct {
	pthread_mutex_t lock; /* of a message, and of what follows */
	int fd;
	pid_t pid; /* 0: there is none */
	bool lost; /* it did not take a message, and that was said */
} child = {.lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};

int gk_fence_child_start(void)
{
	struct timeval patience = {.tv_sec = SEND_SECONDS};
	pid_t pid = -1;
	int fds[2];
	int r = 0;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		r = -errno;
	} else {
		(void)setsockopt(fds[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
		pid = fork();
		if (!pid)
			gk_fence_keep(fds[1]);
		r = pid < 0 ? -errno : 0;
		close(fds[1]);
		if (r)
			close(fds[0]);
	}
	if (r) {
		gk_log(GK_LOG_WARNING, "cannot start the process that ends connections should gkproxy "
		       "be killed: %s: %s", gk_strerror(r), no_fence);
		return r;
	}
	child.fd = fds[0];
	child.pid = pid;
	child.lost = false;
	return 0;
}

int gk_fence_child_fd(void)
{
	return child.fd;
}

/* Closes and reaps. */
static void forget(void)
{
	pthread_mutex_lock(&child.lock);
	close(child.fd);
	child.fd = -1;
	child.pid = 0;
	pthread_mutex_unlock(&child.lock);
}

void gk_fence_child_step(void)
{
	struct pollfd fd = {.fd = child.fd};

	if (child.fd < 0 || poll(&fd, 1, 0) <= 0)
		return;
	gk_log(GK_LOG_WARNING, "the process gk-fence is gone: %s; a restart of gkproxy brings it "
	       "back", no_fence);
	(void)waitpid(child.pid, NULL, 0);
	forget();
}

void gk_fence_child_end(void)
{
	struct pollfd fd = {.fd = child.fd};

	if (child.fd < 0)
		return;
	shutdown(child.fd, SHUT_WR);
	if (poll(&fd, 1, END_MS) > 0)
		(void)waitpid(child.pid, NULL, 0);
	forget();
}

static pid_t pid_of_child(void)
{
	pid_t pid;

	pthread_mutex_lock(&child.lock);
	pid = child.pid;
	pthread_mutex_unlock(&child.lock);
	return pid;
}

/* False: it does not have it, or something before it. */
static bool tell(const struct gk_fence_note *note, int fd, int lock_fd)
{
	struct iovec iov = {(void *)note, sizeof(*note)};
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = {{0}};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[2] = {fd, lock_fd};
	int r = 0;

	if (fd >= 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(fds)),
							.cmsg_level = SOL_SOCKET,
							.cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, sizeof(fds));
	}
	pthread_mutex_lock(&child.lock);
	/* It is waited for once. */
	if (child.fd >= 0 &&
	    sendmsg(child.fd, &msg, MSG_NOSIGNAL | (child.lost ? MSG_DONTWAIT : 0)) < 0)
		r = -errno;
	/* That it is gone, gk_fence_child_step() says. */
	if (r && r != -EPIPE && r != -ECONNRESET && !child.lost) {
		child.lost = true;
		gk_log(GK_LOG_WARNING, "%s: the process gk-fence does not take connection %u: %s: %s",
		       note->name, note->connection, gk_strerror(r), no_fence);
	}
	r |= child.lost;
	pthread_mutex_unlock(&child.lock);
	return !r;
}

static int limit_ms(const struct gk_device_config *config)
{
	return config->fence == GK_FENCE_STRICT ? -1 : (int)(config->fence_timeout_s * 1000);
}

void gk_fence_child_hold(const struct gk_device_config *config, int lock_fd, unsigned int connection,
			 int fd)
{
	struct gk_fence_note note = {.kind = GK_FENCE_HOLD, .connection = connection,
				     .limit_ms = limit_ms(config)};
	char text[16];

	if (lock_fd < 0)
		return;
	snprintf(note.name, sizeof(note.name), "%s", config->name);
	/* Now there is something whose end must be seen. */
	snprintf(text, sizeof(text), "%d\n", (int)pid_of_child());
	if (!tell(&note, fd, lock_fd))
		snprintf(text, sizeof(text), "incomplete\n");
	if (ftruncate(lock_fd, 0) < 0 || pwrite(lock_fd, text, strlen(text), 0) < 0)
		gk_log(GK_LOG_WARNING, "%s: cannot write to its fence file: %s", config->name,
		       gk_strerror(errno));
}

void gk_fence_child_drop(const char *name, unsigned int connection)
{
	struct gk_fence_note note = {.kind = GK_FENCE_DROP, .connection = connection};

	snprintf(note.name, sizeof(note.name), "%s", name);
	(void)tell(&note, -1, -1);
}

void gk_fence_child_drop_all(const char *name)
{
	struct gk_fence_note note = {.kind = GK_FENCE_DROP_ALL};

	snprintf(note.name, sizeof(note.name), "%s", name);
	(void)tell(&note, -1, -1);
}

static void path_of(const char *state_dir, const char *name, char *ret_path)
{
	snprintf(ret_path, PATH_MAX, "%s/%s.fence", state_dir, name);
}

/* What is in the file, "" also when it cannot be read. */
static void read_text(int fd, char *text, size_t size)
{
	ssize_t got = pread(fd, text, size - 1, 0);

	text[got > 0 ? got : 0] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void say_waiting(const struct gk_device_config *config, int fd)
{
	char pid[32], most[48] = "";

	read_text(fd, pid, sizeof(pid));
	if (limit_ms(config) < 0)
		snprintf(most, sizeof(most), "until they do, as fence = \"strict\" asks for");
	else
		snprintf(most, sizeof(most), "at most %g s (fence_timeout)", config->fence_timeout_s);
	gk_log(GK_LOG_INFO, "%s: waiting for the connections of the former gkproxy to end at the server, "
	       "%s; process %s (gk-fence) has them", config->name, most, pid);
}

/* 0: it is ours, -EAGAIN: another process has it still, or the file was removed meanwhile. */
static int try(int fd)
{
	struct stat st;

	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
	return !fstat(fd, &st) && st.st_nlink ? 0 : -ESTALE;
}

static int await(const struct gk_device_config *config, const char *path, int cancel_fd, int *fd)
{
	struct pollfd cancel = {.fd = cancel_fd, .events = POLLIN};
	int64_t until_ms = now_ms() + limit_ms(config) + SLACK_MS;
	bool said = false;
	int r;

	for (;;) {
		*fd = open(path, O_RDWR | O_CLOEXEC | (pid_of_child() ? O_CREAT : 0), 0600);
		if (*fd < 0)
			return -errno;
		while ((r = try(*fd)) == -EAGAIN) {
			if (!said)
				say_waiting(config, *fd);
			said = true;
			if (poll(&cancel, 1, LOOK_MS) > 0)
				return -ECANCELED;
			if (limit_ms(config) >= 0 && now_ms() > until_ms) {
				gk_log(GK_LOG_WARNING, "%s: connections of the former gkproxy did not "
				       "end within fence_timeout: its writes are sent again although "
				       "the server may still hold them", config->name);
				unlink(path);
				break;
			}
		}
		if (r != -ESTALE && r != -EAGAIN)
			return r;
		close(*fd);
		*fd = -1;
	}
}

int gk_fence_child_take(const char *state_dir, const struct gk_device_config *config, bool taken_over,
			int cancel_fd, int *ret_lock_fd)
{
	char path[PATH_MAX], text[32];
	int fd, r;

	path_of(state_dir, config->name, path);
	r = await(config, path, cancel_fd, &fd);
	if (r && fd >= 0) {
		close(fd);
		fd = -1;
	}
	if (r == -ECANCELED) {
		gk_log(GK_LOG_ERROR, "%s: given up while connections of the former gkproxy had not ended",
		       config->name);
		return r;
	}
	/* Nor will there be some for what comes next. */
	if (r == -EMFILE || r == -ENFILE) {
		gk_log(GK_LOG_ERROR, "%s: cannot attach: %s", config->name, gk_strerror(r));
		return r;
	}
	/* ENOENT: there is no fence process, and was none. */
	if (r && r != -ENOENT)
		gk_log(GK_LOG_WARNING, "%s: cannot lock %s: %s: %s", config->name, path, gk_strerror(r),
		       no_fence);
	if (!r)
		read_text(fd, text, sizeof(text));
	if (!r && taken_over && text[0] && strcmp(text, "ended") != 0)
		gk_log(GK_LOG_WARNING, "%s: not all connections of the former gkproxy are known to have "
		       "ended: its writes are sent again although the server may still hold them",
		       config->name);
	*ret_lock_fd = fd;
	return 0;
}

void gk_fence_child_let_go(const char *state_dir, const char *name, int lock_fd, bool forget_it)
{
	char path[PATH_MAX];

	if (lock_fd < 0)
		return;
	path_of(state_dir, name, path);
	if (forget_it)
		unlink(path);
	close(lock_fd);
}
