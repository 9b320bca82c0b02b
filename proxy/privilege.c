// SPDX-License-Identifier: MIT
#include "privilege.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"

static const struct {
	unsigned int number;
	const char *name;
	const char *missing; /* what is so without it */
} needed[] = {
	{CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "ublk makes no devices without it"},
	{CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE",
	 "without it queue threads cannot be marked as I/O flushers: under memory pressure a device "
	 "may hang"},
	{CAP_IPC_LOCK, "CAP_IPC_LOCK",
	 "without it buffers can only be locked in memory as far as RLIMIT_MEMLOCK goes"},
	{CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE",
	 "without it sockets, keys and mount points of other users cannot be opened"},
	{CAP_SYS_PTRACE, "CAP_SYS_PTRACE",
	 "without it detach does not see which processes of other users have a device open"},
};

#define N_NEEDED (sizeof(needed) / sizeof(needed[0]))

struct sets {
	struct __user_cap_data_struct words[_LINUX_CAPABILITY_U32S_3];
};

/* glibc has no wrapper, and a library for two system calls is not worth a dependency. */
static int call(long number, struct sets *sets)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

	return syscall(number, &header, sets->words) < 0 ? -errno : 0;
}

static bool has(const struct sets *sets, unsigned int number)
{
	return sets->words[number / 32].effective & 1U << number % 32;
}

static bool is_needed(unsigned int number)
{
	for (size_t i = 0; i < N_NEEDED; i++)
		if (needed[i].number == number)
			return true;
	return false;
}

int gk_privilege_drop(void)
{
	struct sets sets;
	int r = call(SYS_capget, &sets);

	/* The bounding set first: that takes CAP_SETPCAP, which goes next. Past the last: -EINVAL. */
	for (unsigned int number = 0; !r && has(&sets, CAP_SETPCAP); number++) {
		if (is_needed(number))
			continue;
		if (prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0) {
			r = errno == EINVAL ? 0 : -errno;
			break;
		}
	}
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (unsigned int word = 0; word < _LINUX_CAPABILITY_U32S_3; word++) {
		uint32_t keep = 0;

		for (size_t i = 0; i < N_NEEDED; i++)
			if (needed[i].number / 32 == word)
				keep |= 1U << needed[i].number % 32;
		sets.words[word].permitted &= keep;
		sets.words[word].effective &= keep;
		sets.words[word].inheritable = 0;
	}
	if (!r)
		r = call(SYS_capset, &sets);
	if (!r && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	if (r)
		gk_log(GK_LOG_WARNING, "cannot give up the capabilities that are not needed: %s",
		       gk_strerror(r));
	return r;
}

int gk_privilege_drop_most(void)
{
	struct sets sets;
	int r = call(SYS_capget, &sets);

	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (unsigned int word = 0; word < _LINUX_CAPABILITY_U32S_3; word++) {
		uint32_t keep = word == CAP_IPC_LOCK / 32 ? 1U << CAP_IPC_LOCK % 32 : 0;

		sets.words[word].permitted &= keep;
		sets.words[word].effective &= keep;
		sets.words[word].inheritable = 0;
	}
	if (!r)
		r = call(SYS_capset, &sets);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 && !r)
		r = -errno;
	return r;
}

json_t *gk_privilege_json(void)
{
	json_t *json = json_object();
	struct sets sets;
	int r = call(SYS_capget, &sets);

	for (size_t i = 0; i < N_NEEDED; i++) {
		bool there = !r && has(&sets, needed[i].number);

		json_object_set_new(json, needed[i].name,
				    there ? json_pack("{s:b}", "available", 1)
					  : json_pack("{s:b, s:s}", "available", 0, "why",
						      needed[i].missing));
	}
	return json;
}
