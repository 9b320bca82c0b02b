/* SPDX-License-Identifier: MIT */
/*
 * What the harnesses share. Each is one function that libFuzzer calls with bytes it thought of, and
 * corpus.c with the files of tests/fuzz/corpus; it ends the program when something is not as it
 * must be. One thread.
 */
#ifndef GK_FUZZ_H
#define GK_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                                \
		}                                                                               \
	} while (0)

#endif
