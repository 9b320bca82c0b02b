/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One program, several tests, TAP on stdout. Each test runs in a child process of its own with a
 * time limit, so one that hangs or dies fails alone and its rings are closed by the kernel.
 * A failed check prints a line and ends the test. GK_TIME_SCALE multiplies every time limit: it
 * bounds how long a failure takes, nothing waits for a time to pass.
 */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>
#include <stdint.h>

struct tap_test {
	const char *name; /* "NN: sentence", NN the case in the list of the design */
	void (*run)(void);
	int limit_s; /* 0: the default */
};

/* Runs the tests (those whose name contains argv[1], if given); the exit status of main. */
int tap_main(int argc, char **argv, const struct tap_test *tests);
#define TAP_END \
	{       \
	}

_Noreturn void tap_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void tap_skip(const char *reason);
void tap_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Milliseconds that a wait for something that must happen may take. */
int tap_patience_ms(void);
uint64_t tap_now_ms(void);

#define FAIL(...) tap_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition)                        \
	do {                                    \
		if (!(condition))               \
			FAIL("%s", #condition); \
	} while (0)
#define CHECK_EQ(got, expected)                                                                   \
	do {                                                                                      \
		long long got_ = (long long)(got), expected_ = (long long)(expected);             \
		if (got_ != expected_)                                                            \
			FAIL("%s is %lld, expected %s = %lld", #got, got_, #expected, expected_); \
	} while (0)
/* For system calls: fails with errno unless the result is >= 0; the result is the value. */
#define CHECK_SYS(call) tap_check_sys((call), #call, __FILE__, __LINE__)
long tap_check_sys(long result, const char *what, const char *file, int line);

#endif
