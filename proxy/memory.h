/* SPDX-License-Identifier: MIT */
/*
 * Memory that is there before it is needed. A kernel that is short of memory writes dirty pages to
 * our devices, and we must not need memory, or a page that was swapped out or dropped, to let it.
 * Control thread, except where a line says otherwise.
 */
#ifndef GK_MEMORY_H
#define GK_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Once, before the first thread and the first device: locks all memory of the process, present and
 * future (mlockall), with small stacks for its threads, makes all of these I/O flushers, and asks
 * the kernel's OOM killer to take others first (oom_score_adj -1000, unless somebody has set one).
 * What the process is not allowed to do is a warning that says what it needs, and the daemon goes on.
 */
void gk_memory_protect(void);

/* Makes the pages of a buffer present for writing, locked or not. 0, or -ENOMEM. Any thread. */
int gk_memory_populate(void *start, size_t bytes);

/*
 * Bytes that this process can still take without swapping: what the host has (MemAvailable), or
 * what the limit of a cgroup leaves, of the process's own or one above it: memory.max and
 * memory.high (cgroup v2), memory.limit_in_bytes (v1), less what is used and no page cache; mounted
 * at /sys/fs/cgroup, as systemd and containers do. UINT64_MAX: unknown. root: goes in front of
 * every path, "" but in tests. limit: gets the path of the file whose limit it is, or "".
 * Linux: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
 */
uint64_t gk_memory_available(const char *root, char *limit, size_t limit_size);

#endif
