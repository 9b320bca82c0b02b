// SPDX-License-Identifier: MIT
#include "coalesce.h"

#define STEP_US	    5
#define ENOUGH	    12	 /* requests in a turn: more of them hardly make it cheaper */
#define TRIAL_TURNS 16	 /* to find out what a turn brings without waiting */
#define TRIAL_EVERY 1024 /* turns */
#define FEW	    2	 /* requests in such a turn, on average, below which waiting pays */

/* From the next turn on. */
static void change(struct gk_coalesce *coalesce, bool waits)
{
	coalesce->waits = waits;
	coalesce->turns = 0;
	coalesce->ended = 0;
}

unsigned int gk_coalesce_begin(struct gk_coalesce *coalesce, unsigned int in_flight, bool large)
{
	coalesce->in_flight = large ? 0 : in_flight;
	if (coalesce->in_flight < GK_COALESCE_DEPTH)
		change(coalesce, false);
	/* Nothing came for a whole window: sleep until something does, rather than poll. */
	return coalesce->waits && !coalesce->in_vain ? coalesce->window_us : 0;
}

static void adapt(struct gk_coalesce *coalesce, unsigned int ended)
{
	unsigned int in_flight = coalesce->in_flight;

	if (ended * 2 > in_flight || (ended * 3 > in_flight && ended > ENOUGH)) {
		coalesce->window_us /= 2;
		if (coalesce->window_us < STEP_US) {
			coalesce->window_us = 0;
			change(coalesce, false);
		}
	} else if (ended && (ended * 6 < in_flight || (ended * 4 < in_flight && ended < ENOUGH))) {
		coalesce->window_us += STEP_US;
		if (coalesce->window_us > GK_COALESCE_MAX_US)
			coalesce->window_us = GK_COALESCE_MAX_US;
	}
}

void gk_coalesce_end(struct gk_coalesce *coalesce, unsigned int ended, bool in_vain)
{
	coalesce->in_vain = in_vain;
	if (coalesce->in_flight < GK_COALESCE_DEPTH)
		return;
	coalesce->turns++;
	coalesce->ended += ended;
	if (coalesce->waits && coalesce->turns == TRIAL_EVERY)
		change(coalesce, false);
	else if (coalesce->waits)
		adapt(coalesce, ended);
	else if (coalesce->turns == TRIAL_TURNS) {
		bool few = coalesce->ended && coalesce->ended < FEW * TRIAL_TURNS;

		if (few && !coalesce->window_us)
			coalesce->window_us = STEP_US;
		change(coalesce, few);
	}
}
