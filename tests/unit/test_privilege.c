/* SPDX-License-Identifier: MIT */
/* What is left of the capabilities. Each test in a process of its own, since nothing comes back. */
#include <linux/capability.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "privilege.h"

#define BIT(cap) (UINT64_C(1) << (cap))
#define KEPT                                                                                       \
	(BIT(CAP_SYS_ADMIN) | BIT(CAP_SYS_RESOURCE) | BIT(CAP_IPC_LOCK) | BIT(CAP_DAC_OVERRIDE) |  \
	 BIT(CAP_SYS_PTRACE))

/* A set of this process, as /proc has it: "CapEff". */
static uint64_t set_of(const char *name)
{
	FILE *file = fopen("/proc/thread-self/status", "r");
	unsigned long long value = UINT64_MAX;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, strlen(name)))
			sscanf(line + strlen(name), ": %llx", &value);
	if (file)
		fclose(file);
	return value;
}

/* 0, or the number of the line where something was wrong. */
static int drop_and_look(void)
{
	uint64_t permitted = set_of("CapPrm");
	uint64_t bounding = set_of("CapBnd");
	int may_bound = !!(set_of("CapEff") & BIT(CAP_SETPCAP));

	if (gk_privilege_drop())
		return __LINE__;
	if (set_of("CapPrm") != (permitted & KEPT) || set_of("CapEff") & ~(permitted & KEPT))
		return __LINE__;
	if (set_of("CapInh") || set_of("CapAmb"))
		return __LINE__;
	if (set_of("CapBnd") != (may_bound ? bounding & KEPT : bounding))
		return __LINE__;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return __LINE__;
	/* And again, with nothing left to give up. */
	return gk_privilege_drop() ? __LINE__ : 0;
}

static void only_what_is_needed_is_left(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	assert_true(pid >= 0);
	if (!pid) {
		int line = drop_and_look();

		if (line)
			fprintf(stderr, "line %d\n", line);
		_exit(!!line);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* As somebody who never had any: nothing to keep, nothing that fails. */
static void without_any_there_is_nothing_to_keep(void **state)
{
	pid_t pid;
	int status;

	(void)state;
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		json_t *json;
		int missing = 0;
		const char *name;
		json_t *capability;

		if (!geteuid() && setuid(65534))
			_exit(2);
		if (gk_privilege_drop() || set_of("CapPrm"))
			_exit(3);
		json = gk_privilege_json();
		json_object_foreach(json, name, capability)
			missing += json_is_string(json_object_get(capability, "why"));
		json_decref(json);
		_exit(missing == 5 ? 0 : 4);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_what_is_needed_is_left),
		cmocka_unit_test(without_any_there_is_nothing_to_keep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
