/* SPDX-License-Identifier: MIT */
/*
 * What a device becomes: from the configuration and the export's facts to queues, connections and
 * ublk parameters. Pure; any thread.
 */
#ifndef GK_DEVICE_PLAN_H
#define GK_DEVICE_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "gk_ublk.h"
#include "nbd_handshake.h"

#define GK_MAX_IO_BYTES (512U * 1024) /* longest request that the kernel is told to send us */

struct gk_device_plan {
	struct ublk_params params;
	uint32_t max_io_bytes;    /* multiple of the page size; what max_sectors says */
	uint32_t max_payload;     /* longest part on the wire, a multiple of the block size */
	uint32_t block_size;      /* logical */
	uint64_t size_bytes;      /* of the device */
	uint32_t tail_bytes;      /* of the export, left out because they fill no block */
};

/* How many connections to ask for: as configured, else one per CPU up to four. */
unsigned int gk_plan_connections(const struct gk_device_config *config, unsigned int n_cpus);

/* How many queues for the connections that there are: never more than those. */
unsigned int gk_plan_queues(const struct gk_device_config *config, unsigned int n_connections,
			    unsigned int n_cpus);

/*
 * Fills *ret_plan; each feature is offered to the kernel exactly when the server advertises it.
 * -EINVAL with a sentence in why when the export cannot be a disk here: empty, or blocks larger
 * than a page (page_size bytes).
 */
int gk_plan_device(const struct gk_device_config *config, const struct nbd_export_facts *facts,
		   uint32_t page_size, char *why, size_t why_size, struct gk_device_plan *ret_plan);

/*
 * Whether a server that is dialled again still has the export that was attached (plan, old):
 * 0, also when it has grown; -ESTALE with half a sentence in why ("the export shrank ...") when it
 * is smaller, wants larger blocks, became read-only, or lost a command that the kernel may send.
 */
int gk_plan_compare(const struct gk_device_config *config, const struct gk_device_plan *plan,
		    const struct nbd_export_facts *old, const struct nbd_export_facts *now,
		    char *why, size_t why_size);

#endif
