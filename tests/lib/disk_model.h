/* SPDX-License-Identifier: MIT */
/*
 * RAM-disk servers and a model of their disk: random READs, WRITEs, TRIMs and WRITE_ZEROES of mixed
 * sizes in flight together, every byte of every READ and at last the whole disk compared with the
 * model. Fails the running cmocka test at the first byte that differs.
 */
#ifndef GK_DISK_MODEL_H
#define GK_DISK_MODEL_H

#include "wire_rig.h"

#define DISK_MODEL_BYTES (256 * 1024)
#define DISK_MODEL_DEPTH 32

struct disk_model {
	struct rig rig;
	struct fake_disk_server servers[RIG_SESSIONS];
	uint8_t disk[DISK_MODEL_BYTES];		/* the servers' */
	uint8_t bytes[DISK_MODEL_BYTES];	/* what is there when nothing is in flight */
	uint8_t locked[DISK_MODEL_BYTES / 512]; /* a request in flight covers this sector */
	unsigned int seed;
	unsigned int n_left;
};

/* Servers, and a rig of DISK_MODEL_DEPTH connected to them, for n_requests random requests. */
struct disk_model *disk_model_begin(const struct rig_options *rig,
				    const struct fake_disk_options *options,
				    unsigned int n_requests);

void disk_model_run(struct disk_model *model);

/* Compares the disks and frees; returns the counters of the queue. */
struct gk_counters disk_model_end(struct disk_model *model);

/* All three. */
struct gk_counters disk_model_serve(const struct rig_options *rig,
				    const struct fake_disk_options *options,
				    unsigned int n_requests);

#endif
