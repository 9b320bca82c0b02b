// SPDX-License-Identifier: MIT
#include "mail.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

int gk_mail_init(struct gk_mail *mail, unsigned int n_sessions)
{
	int r;

	*mail = (struct gk_mail){.event_fd = -1, .n_offers = n_sessions};
	mail->offers = malloc(n_sessions * sizeof(*mail->offers));
	if (!mail->offers)
		return -ENOMEM;
	for (unsigned int i = 0; i < n_sessions; i++)
		mail->offers[i] = (struct gk_mail_offer){.fd = -1};
	pthread_mutex_init(&mail->lock, NULL);
	mail->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mail->event_fd < 0) {
		r = -errno;
		gk_mail_done(mail);
		return r;
	}
	return 0;
}

void gk_mail_done(struct gk_mail *mail)
{
	if (!mail->offers)
		return;
	for (unsigned int i = 0; i < mail->n_offers; i++)
		if (mail->offers[i].fd >= 0 && !mail->offers[i].taken) {
			close(mail->offers[i].fd);
			gk_tls_stream_free(mail->offers[i].facts.tls);
		}
	free(mail->offers);
	if (mail->event_fd >= 0)
		close(mail->event_fd);
	pthread_mutex_destroy(&mail->lock);
	*mail = (struct gk_mail){.event_fd = -1};
}

static void ring(struct gk_mail *mail)
{
	uint64_t one = 1;

	/* Fails only when the counter is full, and then it is readable as it should be. */
	(void)!write(mail->event_fd, &one, sizeof(one));
}

void gk_mail_offer(struct gk_mail *mail, unsigned int slot, const struct gk_mail_offer *offer)
{
	pthread_mutex_lock(&mail->lock);
	mail->offers[slot] = *offer;
	pthread_mutex_unlock(&mail->lock);
	ring(mail);
}

bool gk_mail_offered(struct gk_mail *mail, unsigned int slot)
{
	bool offered;

	pthread_mutex_lock(&mail->lock);
	offered = mail->offers[slot].fd >= 0;
	pthread_mutex_unlock(&mail->lock);
	return offered;
}

void gk_mail_order(struct gk_mail *mail, bool abort, bool detach)
{
	pthread_mutex_lock(&mail->lock);
	mail->abort |= abort;
	mail->detach |= detach;
	pthread_mutex_unlock(&mail->lock);
	ring(mail);
}

void gk_mail_leave(struct gk_mail *mail)
{
	pthread_mutex_lock(&mail->lock);
	mail->leave = true;
	pthread_mutex_unlock(&mail->lock);
	ring(mail);
}

void gk_mail_prove(struct gk_mail *mail)
{
	pthread_mutex_lock(&mail->lock);
	mail->prove = true;
	pthread_mutex_unlock(&mail->lock);
	ring(mail);
}

void gk_mail_hand_over(struct gk_mail *mail)
{
	pthread_mutex_lock(&mail->lock);
	mail->hand_over = true;
	pthread_mutex_unlock(&mail->lock);
	ring(mail);
}

void gk_mail_take(struct gk_mail *mail, struct gk_mail_offer *ret_offers,
		  struct gk_mail_orders *ret_orders)
{
	uint64_t count;

	(void)!read(mail->event_fd, &count, sizeof(count));
	pthread_mutex_lock(&mail->lock);
	for (unsigned int i = 0; i < mail->n_offers; i++) {
		ret_offers[i] = mail->offers[i];
		if (mail->offers[i].taken)
			ret_offers[i].fd = -1;
		mail->offers[i].taken = mail->offers[i].fd >= 0;
	}
	*ret_orders = (struct gk_mail_orders){mail->abort, mail->detach, mail->leave,
					      mail->prove, mail->hand_over};
	mail->leave = false;
	mail->prove = false;
	mail->hand_over = false;
	pthread_mutex_unlock(&mail->lock);
}

void gk_mail_taken(struct gk_mail *mail, unsigned int slot)
{
	pthread_mutex_lock(&mail->lock);
	mail->offers[slot] = (struct gk_mail_offer){.fd = -1};
	pthread_mutex_unlock(&mail->lock);
}
