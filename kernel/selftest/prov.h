/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The test provider, /dev/gkgrp_test: one buffer of our making, lent to group members. A test that
 * uses it has to end with prov_check_returned: every buffer that was lent has come back.
 */
#ifndef PROV_H
#define PROV_H

#include <stddef.h>
#include <stdint.h>

#include "gk_grp_test.h"
#include "ring.h"

/* Opens the device; skips the test when the kernel has none. No buffer yet. */
int prov_open(void);
void prov_layout(int fd, const struct gkt_seg *segs, unsigned int count);
/* A buffer of `pages` single pages. */
int prov_open_pages(unsigned int pages);
size_t prov_bytes(int fd);

void prov_write(int fd, size_t position, const void *data, size_t len);
void prov_read(int fd, size_t position, void *data, size_t len);
void prov_fill(int fd, unsigned int stream, size_t position, size_t len);
void prov_check_pattern(int fd, unsigned int stream, size_t at, size_t position, size_t len);
void prov_check_zero(int fd, size_t at, size_t len);

/* PROVIDE of the whole buffer. The command is in the SQE for the caller to change. */
struct gkt_cmd *prov_lend(struct ring *ring, uint64_t user_data, uint8_t flags, int fd,
			  uint8_t dir);
struct gkt_cmd *prov_echo(struct ring *ring, uint64_t user_data, uint8_t flags, int fd, int res);

struct gkt_stats prov_stats(int fd);
void prov_wait(int fd, unsigned int what, unsigned int count);
int prov_go(int fd, unsigned int count);
/* Everything lent was released; `provided` times in all (or -1: any number). */
void prov_check_returned(int fd, int provided);

#endif
