// SPDX-License-Identifier: MIT
/*
 * A session died: what happens to its tags. They arrive here in the order in which they entered,
 * with no operation in flight on them, so each could go to gk_queue_submit() as well as it ends
 * here.
 */
#include <errno.h>

#include "datapath.h"

void gk_session_settle_tags(struct gk_queue *queue, struct gk_tag **tags, unsigned int n_tags)
{
	for (unsigned int i = 0; i < n_tags; i++) {
		struct gk_tag *tag = tags[i];

		/* Answered while it was still being sent: that outcome stands, if it is the whole. */
		if (tag->answered && tag->error)
			gk_tag_end(queue, tag, tag->error);
		else if (tag->answered && tag->done + tag->part == tag->len)
			gk_tag_end(queue, tag, (int32_t)tag->len);
		else
			gk_tag_end(queue, tag, -EIO);
	}
}
