/* SPDX-License-Identifier: MIT */
/*
 * Messages to a queue's thread from any other: a connection that is ready, or an order. The only
 * way in; posting wakes the loop. Each function says who may call it.
 */
#ifndef GK_MAIL_H
#define GK_MAIL_H

#include <pthread.h>
#include <stdbool.h>

#include "session.h"

/* A connected socket past its handshake, for a session that is DEAD. */
struct gk_mail_offer {
	int fd; /* -1: none */
	unsigned int id;
	struct gk_session_facts facts;
	bool taken; /* by the queue's thread, which is about to bring the session UP */
};

struct gk_mail {
	pthread_mutex_t lock;          /* of all but event_fd and n_offers */
	int event_fd;                  /* readable: there is mail */
	struct gk_mail_offer *offers;  /* one per session of the queue */
	unsigned int n_offers;
	bool abort;                    /* cut every connection, fence or not */
	bool detach;                   /* the device goes: do not wait for connections any more */
	bool leave;                    /* give up the connections that are UP; done once */
	bool prove;                    /* see whether the server lives on; done once */
	bool hand_over;                /* the next daemon has the device; done once */
};

/* What the queue's thread is told beside the offers. */
struct gk_mail_orders {
	bool abort;
	bool detach;
	bool leave;
	bool prove;
	bool hand_over;
};

/* 0 or -errno. Before the queue's thread starts. */
int gk_mail_init(struct gk_mail *mail, unsigned int n_sessions);

/* Closes sockets that nobody took. Takes a zeroed struct. After the thread has ended. */
void gk_mail_done(struct gk_mail *mail);

/* Any thread. The fd becomes the queue's; the session of that slot must be DEAD. */
void gk_mail_offer(struct gk_mail *mail, unsigned int slot, const struct gk_mail_offer *offer);

/*
 * Any thread. Whether there is an offer for that slot whose session is not UP yet. Who finds none
 * and then still sees the session DEAD knows that nobody else attends to it.
 */
bool gk_mail_offered(struct gk_mail *mail, unsigned int slot);

/* Any thread. Both orders stay in force. */
void gk_mail_order(struct gk_mail *mail, bool abort, bool detach);

/* Any thread. The server is to be left: requests of its connections go to the next ones. */
void gk_mail_leave(struct gk_mail *mail);

/*
 * Any thread. What is UP asks its server for something now, so that a connection whose end was not
 * seen ends, and the queue's `proofs` tells of one that was answered.
 */
void gk_mail_prove(struct gk_mail *mail);

/*
 * Any thread, once nobody makes offers any more. This daemon ends, and the next one takes the device
 * over: the connections are ended as those of a frozen server are, and requests wait.
 */
void gk_mail_hand_over(struct gk_mail *mail);

/*
 * The queue's thread: what arrived since the last time; *ret_offers has room for n_offers. Sockets
 * are the caller's; their offers stand until gk_mail_taken().
 */
void gk_mail_take(struct gk_mail *mail, struct gk_mail_offer *ret_offers,
		  struct gk_mail_orders *ret_orders);

/* The queue's thread: the session of a slot whose offer was taken is UP. */
void gk_mail_taken(struct gk_mail *mail, unsigned int slot);

#endif
