// SPDX-License-Identifier: MIT
#include "coalesce.h"

#define STEP_US 5

unsigned int gk_coalesce_begin(struct gk_coalesce *coalesce, unsigned int in_flight, bool large)
{
	coalesce->in_flight = in_flight;
	if (in_flight < GK_COALESCE_DEPTH || large)
		coalesce->window_us = 0;
	/* Nothing came for a whole window: sleep until something does, rather than poll. */
	return coalesce->in_vain ? 0 : coalesce->window_us;
}

void gk_coalesce_end(struct gk_coalesce *coalesce, unsigned int ended, bool in_vain)
{
	coalesce->in_vain = in_vain;
	if (coalesce->in_flight < GK_COALESCE_DEPTH)
		return;
	if (ended * 4 > coalesce->in_flight) {
		coalesce->window_us /= 2;
		if (coalesce->window_us < STEP_US)
			coalesce->window_us = 0;
	} else if (ended && ended * 8 < coalesce->in_flight) {
		coalesce->window_us += STEP_US;
		if (coalesce->window_us > GK_COALESCE_MAX_US)
			coalesce->window_us = GK_COALESCE_MAX_US;
	}
}
