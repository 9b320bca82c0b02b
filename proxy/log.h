/* SPDX-License-Identifier: MIT */
/*
 * One line per event on stderr, with its dev/queue/tag/session. Only proxy/ logs. Any thread; a
 * line is one write(2), so lines of different threads never mix.
 */
#ifndef GK_LOG_H
#define GK_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "config.h"

/* Lines above this level are dropped. Starts as GK_LOG_INFO; set by the control thread. */
void gk_log_set_level(enum gk_log_level level);
enum gk_log_level gk_log_get_level(void);

/*
 * Writes one line; text without newline. Long lines are cut. Never waits for who reads a pipe or a
 * socket: what does not fit is lost, and the next line says how many were.
 */
void gk_log(enum gk_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * From now on, lines of this thread up to that level are also put into text (size bytes, without
 * level and newline, joined by "; "); NULL ends it. For who must tell somebody why.
 */
void gk_log_tell(enum gk_log_level level, char *text, size_t size);

/* Name of an errno, negative or positive: "Connection refused". Never NULL, thread-safe. */
const char *gk_strerror(int error);

/* At most 5 lines in 10 s of what a server can trigger; the next line says how many were left out. */
struct gk_log_limit {
	uint64_t window_ns;
	unsigned int lines;
	unsigned int dropped;
};

/*
 * Whether a line may be written now; *ret_dropped: how many were dropped since the last window
 * and should be mentioned. One thread per limit.
 */
int gk_log_limit_pass(struct gk_log_limit *limit, unsigned int *ret_dropped);

#define GK_LOG_LIMITED(limit, level, ...)                                                          \
	do {                                                                                       \
		unsigned int gk_dropped_;                                                          \
		if (gk_log_limit_pass(limit, &gk_dropped_)) {                                      \
			if (gk_dropped_)                                                           \
				gk_log(level, "%u similar lines were left out",          \
				       gk_dropped_);                                               \
			gk_log(level, __VA_ARGS__);                                                \
		}                                                                                  \
	} while (0)

#endif
