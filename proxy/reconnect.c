// SPDX-License-Identifier: MIT
#include "reconnect.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "fence_child.h"

#define DELAY_FIRST_MS 100
#define DELAY_CAP_MS   10000
#define STABLE_MS      2000
#define PROOF_MS       10000 /* for a connection from before to be answered, or to end */
#define RESTART_MS     60000 /* within which the ends of all connections are one restart */

/* Where a dead session sits. */
struct place {
	struct gk_queue *queue;
	unsigned int slot;
	unsigned int id;
};

unsigned int gk_reconnect_delay_ms(unsigned int attempt, unsigned int *seed)
{
	unsigned int ms = DELAY_FIRST_MS;

	if (!attempt)
		return 0;
	while (--attempt && ms < DELAY_CAP_MS)
		ms *= 2;
	if (ms > DELAY_CAP_MS)
		ms = DELAY_CAP_MS;
	/* Between half and all of it, so that many clients of one server spread out. */
	return ms / 2 + (unsigned int)rand_r(seed) % (ms / 2 + 1);
}

int gk_reconnect_init(struct gk_reconnect *reconnect)
{
	int r = 0;

	*reconnect = (struct gk_reconnect){0};
	/* Devices of one daemon, and daemons that start together as process 1 each, are to differ. */
	(void)!getrandom(&reconnect->seed, sizeof(reconnect->seed), 0);
	pthread_mutex_init(&reconnect->peer_lock, NULL);
	reconnect->dead_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (reconnect->dead_fd < 0)
		r = -errno;
	reconnect->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!r && reconnect->stop_fd < 0)
		r = -errno;
	if (r)
		gk_reconnect_done(reconnect);
	return r;
}

void gk_reconnect_done(struct gk_reconnect *reconnect)
{
	if (reconnect->dead_fd > 0)
		close(reconnect->dead_fd);
	if (reconnect->stop_fd > 0)
		close(reconnect->stop_fd);
	reconnect->dead_fd = 0;
	reconnect->stop_fd = 0;
}

void gk_reconnect_set_peer(struct gk_reconnect *reconnect, const char *peer)
{
	pthread_mutex_lock(&reconnect->peer_lock);
	snprintf(reconnect->peer, sizeof(reconnect->peer), "%s", peer);
	pthread_mutex_unlock(&reconnect->peer_lock);
}

void gk_reconnect_peer(struct gk_reconnect *reconnect, char *ret_peer, size_t size)
{
	pthread_mutex_lock(&reconnect->peer_lock);
	snprintf(ret_peer, size, "%s", reconnect->peer);
	pthread_mutex_unlock(&reconnect->peer_lock);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void ring(int event_fd)
{
	uint64_t one = 1;

	(void)!write(event_fd, &one, sizeof(one));
}

void gk_reconnect_wake(void *arg)
{
	struct gk_reconnect *reconnect = arg;

	ring(reconnect->dead_fd);
}

void gk_reconnect_stop(struct gk_reconnect *reconnect)
{
	if (!reconnect->started)
		return;
	ring(reconnect->stop_fd);
	pthread_join(reconnect->thread, NULL);
	reconnect->started = false;
}

/* Whether to go on: false when the thread is to end. */
static bool wait_ms(struct gk_reconnect *reconnect, int ms, bool for_dead)
{
	struct pollfd fds[] = {{.fd = reconnect->stop_fd, .events = POLLIN},
			       {.fd = for_dead ? reconnect->dead_fd : -1, .events = POLLIN}};
	uint64_t count;

	while (poll(fds, 2, ms) < 0)
		;
	if (fds[1].revents)
		(void)!read(reconnect->dead_fd, &count, sizeof(count));
	return !fds[0].revents;
}

static enum gk_session_state state_of(const struct gk_session *session)
{
	return __atomic_load_n(&session->state, __ATOMIC_ACQUIRE);
}

/* Whether a session is DEAD with no socket on its way to it. */
static bool is_dead(struct gk_device *device, unsigned int id, struct place *ret_place)
{
	struct gk_queue *queue = &device->queues[id % device->n_queues].queue;
	unsigned int slot = id / device->n_queues;

	*ret_place = (struct place){queue, slot, id};
	/* In this order: an offer goes away after its session has come UP. */
	return !gk_mail_offered(&queue->mail, slot) &&
	       state_of(&queue->sessions[slot]) == GK_SESSION_DEAD;
}

static unsigned int find_dead(struct gk_device *device, struct place *ret_places)
{
	struct place place;
	unsigned int n = 0;

	for (unsigned int c = 0; c < device->n_connections; c++)
		if (is_dead(device, c, &place))
			ret_places[n++] = place;
	return n;
}

/* Connections that the server ended, unasked or because it knew them no more. How many are dead. */
static unsigned int note_ends(struct gk_device *device)
{
	struct gk_reconnect *reconnect = &device->reconnect;
	struct place place;
	unsigned int n = 0;

	if (now_ms() - reconnect->ended_since_ms > RESTART_MS)
		memset(reconnect->ended, 0, device->n_connections * sizeof(*reconnect->ended));
	for (unsigned int c = 0; c < device->n_connections; c++) {
		enum gk_session_end end;

		if (!is_dead(device, c, &place))
			continue;
		n++;
		end = place.queue->sessions[place.slot].end;
		if (end != GK_SESSION_END_CLOSED && end != GK_SESSION_END_RESET)
			continue;
		reconnect->ended[c] = true;
		reconnect->ended_since_ms = now_ms();
	}
	return n;
}

/*
 * Whether the server lost what it had not flushed. It has not, as long as a connection from before
 * lives on, which ask_survivors() has made sure of. It has when it ended all of them, at once or,
 * since some of their ends may be seen later than others, one after the other; or when all are gone
 * and it was not listening for a while. Silence that ends with the old connections closed in order
 * was only the network's. And another server never had it.
 */
static bool server_restarted(const struct gk_device *device, unsigned int n_dead, size_t remote)
{
	unsigned int ended = 0;

	if (remote != device->reconnect.remote)
		return true;

	for (unsigned int i = 0; i < device->n_connections; i++)
		ended += device->reconnect.ended[i];
	if (n_dead == device->n_connections)
		return ended || device->reconnect.refused;
	return ended == device->n_connections;
}

static bool is_dirty(const struct gk_device *device)
{
	bool dirty = false;

	for (unsigned int i = 0; i < device->n_queues; i++)
		dirty |= gk_unflushed_is_dirty(&device->unflushed, &device->queues[i].queue.dirty);
	return dirty;
}

static uint64_t count_proofs(const struct gk_device *device)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < device->n_queues; i++)
		n += gk_count_read(&device->queues[i].queue.proofs);
	return n;
}

/*
 * n connections are dead and the others say nothing, which the end of a server that restarted may
 * look like too: of an idle connection it is only seen when something is asked. So that is done
 * before anything, a flush above all, goes to the server that answers now. Returns how many are
 * dead then: all, or as few as there were.
 */
static unsigned int ask_survivors(struct gk_device *device, unsigned int n)
{
	int64_t until_ms = now_ms() + PROOF_MS;
	uint64_t proofs = count_proofs(device);
	int64_t left_ms;

	if (n == device->n_connections || !is_dirty(device) ||
	    !(device->facts.flags & NBD_FLAG_SEND_FLUSH))
		return n;
	for (unsigned int i = 0; i < device->n_queues; i++)
		gk_mail_prove(&device->queues[i].queue.mail);
	while (count_proofs(device) == proofs && (left_ms = until_ms - now_ms()) > 0) {
		if (note_ends(device) == device->n_connections)
			return device->n_connections;
		if (!wait_ms(&device->reconnect, (int)left_ms, true))
			break;
	}
	return n;
}

static void settle_unflushed(struct gk_device *device, unsigned int n_dead, size_t remote)
{
	if (device->config->unflushed != GK_UNFLUSHED_FAIL_NEXT_FLUSH)
		return;
	n_dead = ask_survivors(device, n_dead);
	if (!server_restarted(device, n_dead, remote))
		return;
	memset(device->reconnect.ended, 0,
	       device->n_connections * sizeof(*device->reconnect.ended));
	if (!is_dirty(device))
		return;
	gk_log(GK_LOG_ERROR,
	       "dev%d: %s: the server restarted with acknowledged writes not flushed, they may be "
	       "lost: the next flush fails, so that whoever calls fsync hears of it",
	       device->dev_id, device->config->name);
	gk_unflushed_owe(&device->unflushed);
}

/* Takes over growth, as far as the kernel can; refuses an export that is not ours any more. */
static int check_export(struct gk_device *device, const struct nbd_export_facts *facts)
{
	char why[256];
	int r = gk_plan_compare(device->config, &device->plan, &device->facts, facts, why, sizeof(why));

	if (r) {
		GK_LOG_LIMITED(&device->reconnect.log, GK_LOG_ERROR,
			       "dev%d: %s: the server is back but %s: not reconnected",
			       device->dev_id, device->config->name, why);
		return r;
	}
	gk_device_grow(device, facts->size_bytes);
	return 0;
}

static void hand_over(struct gk_device *device, const struct place *place,
		      struct gk_dialled *dialled)
{
	struct gk_mail_offer offer = {
		.fd = dialled->fd,
		.id = place->id,
		.facts = gk_device_session_facts(device, dialled),
	};

	gk_fence_child_hold(device->config, device->fence_fd, place->id, dialled->fd);
	dialled->fd = -1;
	gk_mail_offer(&place->queue->mail, place->slot, &offer);
	gk_count(&device->reconnect.reconnects, 1);
}

/* Dials one remote for n dead sessions. How many came back, or -errno. */
static int dial(struct gk_device *device, size_t remote, const struct place *dead, unsigned int n,
		struct gk_dialled *dialled)
{
	const struct gk_nbd_uri *uri = &device->config->remotes[remote];
	struct gk_dial_options options = gk_device_dial_options(device, device->reconnect.stop_fd);
	char why[GK_DIAL_WHY_BYTES];
	int got = gk_dial_parallel(uri, &options, n, why, sizeof(why), dialled);
	int r;

	if (got < 0) {
		if ((got == -ECONNREFUSED || got == -ENOENT) && remote == device->reconnect.remote)
			device->reconnect.refused = true;
		if (got != -ECANCELED)
			GK_LOG_LIMITED(&device->reconnect.log, GK_LOG_WARNING,
				       "dev%d: %s: %s; trying again", device->dev_id,
				       device->config->name, why);
		return got;
	}
	r = check_export(device, &dialled[0].facts);
	if (!r) {
		settle_unflushed(device, n, remote);
		__atomic_store_n(&device->reconnect.remote, remote, __ATOMIC_RELAXED);
		device->reconnect.refused = false;
		gk_reconnect_set_peer(&device->reconnect, dialled[0].peer);
		gk_log(GK_LOG_INFO, "dev%d: %s: reconnected to %s: %d connection%s",
		       device->dev_id, device->config->name, dialled[0].peer, got,
		       got == 1 ? "" : "s");
		gk_device_log_tls(device, &dialled[0]);
		for (int i = 0; i < got; i++)
			hand_over(device, &dead[i], &dialled[i]);
	}
	for (int i = 0; i < got; i++)
		gk_dial_done(&dialled[i]);
	return r ? r : got;
}

/*
 * All connections of a device lead to one server, so the list of remotes is only gone through,
 * the preferred one first, when none of them is left. One that takes no connection any more is
 * left: a frozen server never ends those that happen to be idle.
 */
static int redial(struct gk_device *device, const struct place *dead, unsigned int n,
		  struct gk_dialled *dialled)
{
	int r = -ENOENT;

	if (n < device->n_connections) {
		r = dial(device, device->reconnect.remote, dead, n, dialled);
		if (r < 0 && r != -ECANCELED && device->config->n_remotes > 1)
			for (unsigned int i = 0; i < device->n_queues; i++)
				gk_mail_leave(&device->queues[i].queue.mail);
		return r;
	}
	for (size_t i = 0; i < device->config->n_remotes && r < 0 && r != -ECANCELED; i++)
		r = dial(device, i, dead, n, dialled);
	return r;
}

/* What the thread needs, made before it: without it connections would never come back. */
struct work {
	struct gk_device *device;
	struct place *dead;
	struct gk_dialled *dialled;
};

static void work_free(struct work *work)
{
	struct gk_reconnect *reconnect = &work->device->reconnect;

	free(reconnect->ended);
	reconnect->ended = NULL;
	free(work->dialled);
	free(work->dead);
	free(work);
}

static struct work *work_new(struct gk_device *device)
{
	struct gk_reconnect *reconnect = &device->reconnect;
	struct work *work = malloc(sizeof(*work));

	if (!work)
		return NULL;
	work->device = device;
	work->dead = calloc(device->n_connections, sizeof(*work->dead));
	work->dialled = calloc(device->n_connections, sizeof(*work->dialled));
	reconnect->ended = calloc(device->n_connections, sizeof(*reconnect->ended));
	if (work->dead && work->dialled && reconnect->ended)
		return work;
	work_free(work);
	return NULL;
}

static void *reconnect_thread(void *arg)
{
	struct work *work = arg;
	struct gk_device *device = work->device;
	struct gk_reconnect *reconnect = &device->reconnect;
	struct place *dead = work->dead;
	struct gk_dialled *dialled = work->dialled;
	unsigned int attempt = 0;
	int64_t back_ms = INT64_MIN / 2;
	bool go_on = true;

	while (go_on) {
		unsigned int n = find_dead(device, dead);

		if (!n) {
			go_on = wait_ms(reconnect, -1, true);
			/* A server that drops us as soon as it has us is not dialled in a storm. */
			if (now_ms() - back_ms > STABLE_MS)
				attempt = 0;
			continue;
		}
		/* What is closed here must be closed altogether: the server may wait to be read. */
		for (unsigned int i = 0; device->fence_fd >= 0 && i < n; i++)
			gk_fence_child_drop(device->config->name, dead[i].id);
		/*
		 * All connections of a server that restarts die, but not in one instant: while one
		 * is left there is no hurry, and more to learn for server_restarted().
		 */
		if (n < device->n_connections && !attempt)
			attempt = 1;
		go_on = wait_ms(reconnect, (int)gk_reconnect_delay_ms(attempt, &reconnect->seed),
				false);
		attempt++;
		/* More of them may have died during the wait. */
		n = find_dead(device, dead);
		(void)note_ends(device);
		if (go_on && n && redial(device, dead, n, dialled) == (int)n)
			back_ms = now_ms();
	}
	work_free(work);
	return NULL;
}

int gk_reconnect_start(struct gk_device *device)
{
	struct work *work = work_new(device);
	int r = work ? -pthread_create(&device->reconnect.thread, NULL, reconnect_thread, work)
		     : -ENOMEM;

	device->reconnect.started = !r;
	if (r && work)
		work_free(work);
	return r;
}
