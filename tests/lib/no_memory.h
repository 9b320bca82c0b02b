/* SPDX-License-Identifier: MIT */
/*
 * One allocation of the program fails, the one that a test names: memory, threads, descriptors. A
 * program takes it in by -Wl,--wrap= of the functions that tests/CMakeLists.txt lists. What
 * libraries allocate for themselves does not fail, but for jansson's where it was told to use ours.
 */
#ifndef NO_MEMORY_H
#define NO_MEMORY_H

#include <stdbool.h>

/* The calling thread always gets what it wants, until told otherwise. */
void no_memory_spare_me(bool on);

/* The nth allocation from now on (from 1) of the threads that are not spared fails; 0: none. */
void no_memory_fail(unsigned int nth);

/* Whether it has come to that since. */
bool no_memory_failed(void);

#endif
