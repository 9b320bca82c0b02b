// SPDX-License-Identifier: MIT
/*
 * Preloaded into nbd-client: runs a program in nbd.ko's place. Where nbd-client would hand its
 * connection to the kernel and wait (NBD_DO_IT), the shell command in $IN_NBD_KOS_PLACE runs with
 * the connection as its descriptor 9, and nbd-client waits for it. With TLS that is one end of the
 * socket pair that nbd-client's proxy process serves: the proxy can be measured natively, without a
 * kernel that has nbd.
 *
 *   IN_NBD_KOS_PLACE='wire_bench -f 9 ...' LD_PRELOAD=in_nbd_kos_place.so \
 *       nbd-client -nonetlink -nofork -N '' -x ... 127.0.0.1 PORT /dev/null
 */
#include <err.h>
#include <linux/nbd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONNECTION 9

static int run(int connection)
{
	const char *command = getenv("IN_NBD_KOS_PLACE");
	int status;
	pid_t pid;

	if (!command)
		errx(1, "IN_NBD_KOS_PLACE is not set");
	/* nbd-client does not want to hear of its children. */
	signal(SIGCHLD, SIG_DFL);
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		unsetenv("LD_PRELOAD");
		if (dup2(connection, CONNECTION) < 0)
			err(127, "dup2");
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		err(127, "/bin/sh");
	}
	if (waitpid(pid, &status, 0) < 0)
		err(1, "waitpid");
	if (status)
		errx(1, "%s: failed", command);
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	static int connection = -1;
	va_list args;
	unsigned long arg;

	(void)fd;
	va_start(args, request);
	arg = va_arg(args, unsigned long);
	va_end(args);
	switch (request) {
	case NBD_SET_SOCK:
		connection = (int)arg;
		return 0;
	case NBD_DO_IT:
		return run(connection);
	default:
		/* Sizes, flags and the like, for a device that does not exist. */
		return 0;
	}
}
