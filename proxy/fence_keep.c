// SPDX-License-Identifier: MIT
/*
 * The fence process: gk_fence_keep(). It keeps sockets while the daemon lives, ends them in order when
 * it does not, and says in NAME.fence when all are known to have ended at the server.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fence_child.h"
#include "log.h"
#include "memory.h"
#include "privilege.h"

#define READS_MAX 64 /* of one connection, before another one's turn */

/* One connection. Each has a descriptor of its device's lock: the last one closed frees it. */
struct held {
	struct gk_fence_note note;
	int fd;
	int lock_fd;
	enum {
		READING, /* until its end of file */
		DEAF,    /* TLS in the kernel reads no further: its end shows below TLS */
		BLIND,   /* this host gave it up: its end cannot be seen */
		GONE,    /* the daemon itself was done with it; fd is -1 */
	} state;
};

/* Grown while the daemon lives: when it dies, of want of memory perhaps, nothing is needed. */
struct keeper {
	struct held *held;
	struct pollfd *fds;
	size_t n;
	size_t room;
	bool incomplete; /* there is a connection that could not be kept */
};

static bool is_same_device(const struct gk_fence_note *a, const struct gk_fence_note *b)
{
	return !strcmp(a->name, b->name);
}

static void drop(struct keeper *keeper, size_t i)
{
	if (keeper->held[i].fd >= 0)
		close(keeper->held[i].fd);
	close(keeper->held[i].lock_fd);
	keeper->held[i] = keeper->held[--keeper->n];
}

/* A connection that ended stays as one of which nothing is left to see. */
static void drop_matching(struct keeper *keeper, const struct gk_fence_note *note)
{
	for (size_t i = keeper->n; i > 0; i--) {
		struct held *held = &keeper->held[i - 1];

		if (!is_same_device(&held->note, note) ||
		    (note->kind != GK_FENCE_DROP_ALL && held->note.connection != note->connection))
			continue;
		if (note->kind != GK_FENCE_DROP) {
			drop(keeper, i - 1);
		} else if (held->fd >= 0) {
			close(held->fd);
			held->fd = -1;
			held->state = GONE;
		}
	}
}

static bool make_room(struct keeper *keeper)
{
	size_t room = keeper->room ? 2 * keeper->room : 64;
	struct held *held;
	struct pollfd *fds;

	if (keeper->n < keeper->room)
		return true;
	held = realloc(keeper->held, room * sizeof(*held));
	if (held)
		keeper->held = held;
	fds = realloc(keeper->fds, room * sizeof(*fds));
	if (fds)
		keeper->fds = fds;
	if (!held || !fds)
		return false;
	keeper->room = room;
	return true;
}

static void note_message(struct keeper *keeper, const struct gk_fence_note *note, int fd, int lock_fd)
{
	drop_matching(keeper, note);
	if (note->kind == GK_FENCE_HOLD && fd >= 0 && lock_fd >= 0 && make_room(keeper)) {
		keeper->held[keeper->n++] = (struct held){*note, fd, lock_fd, READING};
		return;
	}
	if (note->kind == GK_FENCE_HOLD) {
		keeper->incomplete = true;
		gk_log(GK_LOG_WARNING, "%s: no descriptors or no memory for a copy of connection %u: "
		       "should gkproxy be killed, nobody awaits its end", note->name, note->connection);
	}
	if (fd >= 0)
		close(fd);
	if (lock_fd >= 0)
		close(lock_fd);
}

/* One message. False: the daemon is gone. */
static bool take_message(struct keeper *keeper, int daemon_fd)
{
	struct gk_fence_note note;
	struct iovec iov = {&note, sizeof(note)};
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};
	int fds[2] = {-1, -1};
	ssize_t got = recvmsg(daemon_fd, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *cmsg = got > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	if (got < 0 && (errno == EINTR || errno == ENOMEM || errno == ENOBUFS))
		return true;
	if (got != sizeof(note))
		return false;
	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(fds, CMSG_DATA(cmsg), cmsg->cmsg_len - CMSG_LEN(0));
	note_message(keeper, &note, fds[0], fds[1]);
	return true;
}

/* Its end was seen. The last one of its device tells the next daemon that all were. */
static void end(struct keeper *keeper, size_t i)
{
	const struct held *held = &keeper->held[i];
	bool last = !keeper->incomplete;
	char mark = 0;

	for (size_t j = 0; j < keeper->n; j++)
		last &= j == i || !is_same_device(&keeper->held[j].note, &held->note);
	/* Not over "incomplete". */
	(void)!pread(held->lock_fd, &mark, 1, 0);
	if (last && mark != 'i' &&
	    (ftruncate(held->lock_fd, 0) < 0 || pwrite(held->lock_fd, "ended\n", 6, 0) < 0))
		gk_log(GK_LOG_WARNING, "%s: cannot note that its connections have ended: %s",
		       held->note.name, gk_strerror(errno));
	drop(keeper, i);
}

/* The server's doing. ENOTCONN: the daemon's own, which had reset it. */
static bool is_end(int error)
{
	return error == ECONNRESET || error == EPIPE || error == ECONNABORTED || error == ENOTCONN;
}

/* TLS in the kernel: what is no data for who asks for none, a forged record, new keys. */
static bool is_deafness(int error)
{
	return error == EIO || error == EBADMSG || error == EKEYEXPIRED || error == EINVAL ||
	       error == EMSGSIZE || error == EPROTO;
}

/*
 * Reads and throws away. Whether the end was seen. Other errors are those of a kernel that gave the
 * connection up, whatever the server still holds: session.c's is_broken_here().
 */
static bool read_off(struct held *held)
{
	static uint8_t bytes[65536];
	char control[CMSG_SPACE(1)]; /* of kTLS, for records that are no data: alerts above all */
	struct iovec iov = {bytes, sizeof(bytes)};

	for (int i = 0; i < READS_MAX; i++) {
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				     .msg_controllen = sizeof(control)};
		ssize_t got = recvmsg(held->fd, &msg, MSG_DONTWAIT);

		if (got > 0 || (got < 0 && errno == EINTR))
			continue;
		if (!got && !msg.msg_controllen)
			return true;
		/* An empty record of TLS is no end. */
		if (!got)
			continue;
		if (errno == EAGAIN || errno == ENOMEM || errno == ENOBUFS)
			return false;
		if (is_end(errno))
			return true;
		held->state = is_deafness(errno) ? DEAF : BLIND;
		return false;
	}
	return false;
}

/* Below TLS: the server's FIN or RST, or that our kernel gave it up. Whether the end was seen. */
static bool look_below(struct held *held, short revents)
{
	socklen_t len = sizeof(int);
	int error = 0;

	/* Taken also when it is no end: it would make poll() return at once for ever. */
	if (getsockopt(held->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error && !is_end(error) && !is_deafness(error))
		held->state = BLIND;
	return held->state != BLIND && revents & (POLLRDHUP | POLLHUP);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Past its limit: what our kernel has not sent yet, the server never gets. */
static void give_up(struct keeper *keeper, size_t i)
{
	struct held *held = &keeper->held[i];
	struct linger reset = {.l_onoff = 1};

	gk_log(GK_LOG_WARNING, "%s: connection %u of the gkproxy that died did not end within "
	       "fence_timeout: the server may still hold writes of it", held->note.name,
	       held->note.connection);
	(void)setsockopt(held->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	drop(keeper, i);
}

/* Gives up what is past its limit. How long the next one has still, -1: for ever. */
static int enforce_limits(struct keeper *keeper, int64_t died_ms)
{
	int64_t elapsed = now_ms() - died_ms;
	int64_t wait = -1;

	for (size_t i = keeper->n; i > 0; i--) {
		int64_t left = keeper->held[i - 1].note.limit_ms - elapsed;

		if (keeper->held[i - 1].note.limit_ms < 0)
			continue;
		if (left <= 0)
			give_up(keeper, i - 1);
		else if (wait < 0 || left < wait)
			wait = left;
	}
	return (int)wait;
}

static void look_at(struct keeper *keeper, size_t i, short revents)
{
	struct held *held = &keeper->held[i];

	if (held->state == GONE ||
	    (held->state == READING ? read_off(held) : look_below(held, revents)))
		end(keeper, i);
}

/* The daemon is gone: half-closes all, and awaits the server's ends. */
static void fence(struct keeper *keeper)
{
	int64_t died_ms = now_ms();
	int wait_ms;

	for (size_t i = 0; i < keeper->n; i++)
		if (keeper->held[i].fd >= 0)
			(void)shutdown(keeper->held[i].fd, SHUT_WR);
	/* Those that had ended before need no time, whatever their limit. */
	for (size_t i = keeper->n; i > 0; i--)
		look_at(keeper, i - 1, 0);
	while (wait_ms = enforce_limits(keeper, died_ms), keeper->n) {
		for (size_t i = 0; i < keeper->n; i++) {
			const struct held *held = &keeper->held[i];

			keeper->fds[i] = (struct pollfd){
				.fd = held->state == BLIND ? -1 : held->fd,
				.events = held->state == DEAF ? POLLRDHUP : POLLIN | POLLRDHUP,
			};
		}
		if (poll(keeper->fds, keeper->n, wait_ms) <= 0)
			continue;
		/* From the last one on: an end moves only what has been looked at. */
		for (size_t i = keeper->n; i > 0; i--)
			if (keeper->fds[i - 1].revents)
				look_at(keeper, i - 1, keeper->fds[i - 1].revents);
	}
}

/*
 * Whoever ends the daemon must not end us with it: a terminal, or systemd, which sends its signal, and
 * SIGABRT when the watchdog found the daemon hanging, to all processes of the unit.
 */
static void ignore_signals(void)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGTERM, SIGPIPE, SIGUSR1, SIGUSR2};

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], SIG_IGN);
	(void)setsid();
}

/*
 * For ps, pidof and pkill, so that who ends gkproxy by its name does not end us too: prctl(PR_SET_NAME),
 * and the command line, which is where argv[0] is (proc(5)).
 */
static void take_name(void)
{
	static const char name[] = "gk-fence";
	char line[4096];
	int fd = open("/proc/self/cmdline", O_RDONLY);
	ssize_t len = fd < 0 ? -1 : read(fd, line, sizeof(line));

	(void)prctl(PR_SET_NAME, name);
	if (len >= (ssize_t)sizeof(name) && !strcmp(line, program_invocation_name)) {
		memset(program_invocation_name, 0, (size_t)len);
		memcpy(program_invocation_name, name, sizeof(name));
	}
	if (fd >= 0)
		close(fd);
}

/* All but the daemon, and where the log goes. */
static void close_others(int daemon_fd)
{
	int null_fd = open("/dev/null", O_RDWR);

	if (null_fd >= 0) {
		(void)dup2(null_fd, STDIN_FILENO);
		(void)dup2(null_fd, STDOUT_FILENO);
	}
	if (daemon_fd > STDERR_FILENO + 1)
		(void)close_range(STDERR_FILENO + 1, (unsigned int)daemon_fd - 1, 0);
	(void)close_range((unsigned int)daemon_fd + 1, ~0U, 0);
}

void gk_fence_keep(int daemon_fd)
{
	enum gk_log_level level = gk_log_get_level();
	struct keeper keeper = {0};

	take_name();
	ignore_signals();
	close_others(daemon_fd);
	/* Swap may be on the very disk that waits for us. What is not allowed, the daemon itself says. */
	gk_log_set_level(GK_LOG_ERROR);
	gk_memory_protect();
	(void)gk_privilege_drop_most();
	gk_log_set_level(level);
	(void)make_room(&keeper);
	while (take_message(&keeper, daemon_fd))
		;
	/* daemon_fd stays open: that it closes is how gk_fence_child_end() sees us end. */
	fence(&keeper);
	_exit(EXIT_SUCCESS);
}
