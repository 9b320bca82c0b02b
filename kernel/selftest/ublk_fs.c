// SPDX-License-Identifier: GPL-2.0
/* A loop server that moves all data through groups, under fio's verification and file systems. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net.h"
#include "tap.h"
#include "ublk.h"

#define DEVICE_BYTES (512u << 20)

static void __attribute__((format(printf, 1, 2))) shell(const char *format, ...)
{
	char command[1024];
	va_list args;
	int status;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	fflush(stdout);
	status = system(command);
	if (status != 0)
		FAIL("status %d: %s", WIFEXITED(status) ? WEXITSTATUS(status) : -1, command);
}

static pid_t loop_server(struct ublk_dev *dev, unsigned int ring_flags)
{
	int setting[2] = {(int)CHECK_SYS(memfd_create("ublk_fs", MFD_CLOEXEC)), (int)ring_flags};

	ublk_require();
	CHECK_SYS(ftruncate(setting[0], DEVICE_BYTES));
	ublk_add(dev, UBLK_FLAGS, 32, DEVICE_BYTES);
	return ublk_start(dev, ublk_loop_run, setting);
}

/* One block size per region: fio cannot verify blocks that overlap. */
static void fio(const struct ublk_dev *dev, bool direct)
{
	shell("fio --output-format=terse --output=/dev/null --filename=/dev/ublkb%d --direct=%d "
	      "--rw=randrw --ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 "
	      "--verify_state_save=0 --randseed=7 "
	      "--name=a --bs=512 --offset=0 --size=512k "
	      "--name=b --bs=4k --offset=4M --size=4M "
	      "--name=c --bs=68k --offset=16M --size=17M "
	      "--name=d --bs=1M --offset=64M --size=32M",
	      dev->id, direct);
}

static void fio_verifies(void)
{
	static const unsigned int modes[] = {
		0,
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};

	for (unsigned int m = 0; m < 2; m++) {
		struct ublk_dev dev;
		pid_t server = loop_server(&dev, modes[m]);

		fio(&dev, true);
		fio(&dev, false);
		ublk_remove(&dev);
		peer_join(server);
	}
}

static void file_system(const char *mkfs, const char *type, const char *check)
{
	const char *folder = "/tmp/ublk_fs";
	struct ublk_dev dev;
	pid_t server = loop_server(&dev, 0);
	char path[32];

	snprintf(path, sizeof(path), "/dev/ublkb%d", dev.id);
	shell("%s %s >/dev/null", mkfs, path);
	mkdir(folder, 0755);
	CHECK_SYS(mount(path, folder, type, 0, NULL));
	shell("mkdir %s/a && for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=%s/a/$i bs=123456 "
	      "count=20 2>/dev/null || exit 1; done; cp -r %s/a %s/b && sync",
	      folder, folder, folder, folder);
	CHECK_SYS(umount(folder));
	/* Nothing of it is in the cache any more. */
	CHECK_SYS(mount(path, folder, type, 0, NULL));
	shell("diff -r %s/a %s/b && rm -r %s/a", folder, folder, folder);
	CHECK_SYS(umount(folder));
	shell("%s %s >/dev/null 2>&1", check, path);
	ublk_remove(&dev);
	peer_join(server);
}

static void ext4_is_clean(void)
{
	file_system("mkfs.ext4 -q -F", "ext4", "e2fsck -f -n");
}

static void xfs_is_clean(void)
{
	file_system("mkfs.xfs -q -f", "xfs", "xfs_repair -n");
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"32: fio verifies random reads and writes, direct and cached", fio_verifies, 600},
		{"32: ext4 on it is clean", ext4_is_clean, 300},
		{"32: XFS on it is clean", xfs_is_clean, 300},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
