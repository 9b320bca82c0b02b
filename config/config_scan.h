/* SPDX-License-Identifier: MIT */
/*
 * A look at the text before libconfig reads it, for what libconfig (1.5 to 1.7) lets through
 * without a word: a number beyond 32 bits is cut down, an open comment swallows the rest of the
 * file, an
 * @include of what cannot be read ends the process. Inside config/ only. Any thread.
 */
#ifndef GK_CONFIG_SCAN_H
#define GK_CONFIG_SCAN_H

#include <stddef.h>

/* Called once for every mistake. key is the name that stands before it, or NULL. */
typedef void gk_config_scan_fn(void *arg, unsigned int line, const char *key, const char *expected);

/* 0, or -EINVAL when libconfig must not see the text. Mistakes may have been told in both cases. */
int gk_config_scan(const char *text, size_t n, gk_config_scan_fn *mistake, void *arg);

#endif
