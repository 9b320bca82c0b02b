// SPDX-License-Identifier: MIT
#include "resolve.h"

#include <sys/socket.h> /* before linux/vm_sockets.h */

#include <errno.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

struct gk_resolve {
	atomic_int owners; /* the caller and the thread; the last one frees */
	int done_fd;	   /* eventfd, readable when the thread has left the fields below alone */
	char *host;
	char *port;
	struct addrinfo *found;
	int gai_error;
	int sys_error; /* of EAI_SYSTEM */
};

static const struct addrinfo hints = {
	.ai_family = AF_UNSPEC,
	.ai_socktype = SOCK_STREAM,
};

static void keep(const struct addrinfo *found, struct gk_resolve_list *list)
{
	list->n = 0;
	for (; found && list->n < GK_RESOLVE_MAX; found = found->ai_next) {
		struct gk_resolve_address *a = &list->address[list->n++];

		memcpy(&a->addr, found->ai_addr, found->ai_addrlen);
		a->len = found->ai_addrlen;
	}
}

static int unix_address(const char *path, char *why, size_t why_size, struct gk_resolve_list *list)
{
	struct gk_resolve_address *a = &list->address[0];
	struct sockaddr_un *un = (struct sockaddr_un *)&a->addr;
	size_t len = strlen(path);

	if (len >= sizeof(un->sun_path)) {
		snprintf(why, why_size,
			 "the socket path is longer than the %zu bytes that Linux allows",
			 sizeof(un->sun_path) - 1);
		return -ENAMETOOLONG;
	}
	memset(un, 0, sizeof(*un));
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len + 1);
	a->len = sizeof(*un);
	list->n = 1;
	return 0;
}

static void vsock_address(const struct gk_nbd_uri *uri, struct gk_resolve_list *list)
{
	struct gk_resolve_address *a = &list->address[0];
	struct sockaddr_vm *vm = (struct sockaddr_vm *)&a->addr;

	memset(vm, 0, sizeof(*vm));
	vm->svm_family = AF_VSOCK;
	vm->svm_cid = uri->vsock_cid;
	vm->svm_port = uri->vsock_port;
	a->len = sizeof(*vm);
	list->n = 1;
}

static bool numeric_address(const struct gk_nbd_uri *uri, struct gk_resolve_list *list)
{
	struct addrinfo numeric = hints, *found;

	numeric.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	if (getaddrinfo(uri->host, uri->port, &numeric, &found) != 0)
		return false;
	keep(found, list);
	freeaddrinfo(found);
	return true;
}

void gk_resolve_drop(struct gk_resolve *lookup)
{
	if (!lookup || atomic_fetch_sub(&lookup->owners, 1) > 1)
		return;
	if (lookup->found)
		freeaddrinfo(lookup->found);
	if (lookup->done_fd >= 0)
		close(lookup->done_fd);
	free(lookup->host);
	free(lookup->port);
	free(lookup);
}

static void *look_up(void *arg)
{
	struct gk_resolve *lookup = arg;

	lookup->gai_error = getaddrinfo(lookup->host, lookup->port, &hints, &lookup->found);
	lookup->sys_error = errno;
	/* Cannot fail: the counter is 0 and written once. */
	eventfd_write(lookup->done_fd, 1);
	gk_resolve_drop(lookup);
	return NULL;
}

static int start_thread(struct gk_resolve *lookup)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	r = pthread_attr_init(&attr);
	if (r)
		return -r;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	atomic_store(&lookup->owners, 2);
	r = pthread_create(&thread, &attr, look_up, lookup);
	pthread_attr_destroy(&attr);
	if (r)
		atomic_store(&lookup->owners, 1);
	return -r;
}

static int look_up_elsewhere(const struct gk_nbd_uri *uri, struct gk_resolve **ret_lookup)
{
	struct gk_resolve *lookup = calloc(1, sizeof(*lookup));
	int r;

	if (!lookup)
		return -ENOMEM;
	atomic_init(&lookup->owners, 1);
	lookup->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (lookup->done_fd < 0) {
		r = -errno;
		goto fail;
	}
	lookup->host = strdup(uri->host);
	lookup->port = strdup(uri->port);
	if (!lookup->host || !lookup->port) {
		r = -ENOMEM;
		goto fail;
	}
	r = start_thread(lookup);
	if (r < 0)
		goto fail;
	*ret_lookup = lookup;
	return 0;
fail:
	gk_resolve_drop(lookup);
	return r;
}

int gk_resolve_start(const struct gk_nbd_uri *uri, char *why, size_t why_size,
		     struct gk_resolve_list *ret_list, struct gk_resolve **ret_lookup)
{
	int r;

	*ret_lookup = NULL;
	switch (uri->transport) {
	case GK_TRANSPORT_UNIX:
		return unix_address(uri->socket_path, why, why_size, ret_list);
	case GK_TRANSPORT_VSOCK:
		vsock_address(uri, ret_list);
		return 0;
	default:
		break;
	}
	if (numeric_address(uri, ret_list))
		return 0;
	r = look_up_elsewhere(uri, ret_lookup);
	if (r < 0)
		snprintf(why, why_size, "cannot start to look up the host name: %s", gk_strerror(r));
	return r;
}

int gk_resolve_fd(const struct gk_resolve *lookup)
{
	return lookup->done_fd;
}

int gk_resolve_finish(struct gk_resolve *lookup, char *why, size_t why_size,
		      struct gk_resolve_list *ret_list)
{
	eventfd_t done;

	/* Orders the thread's writes before our reads. */
	if (eventfd_read(lookup->done_fd, &done) < 0) {
		snprintf(why, why_size, "the host name is still being looked up");
		return -EAGAIN;
	}
	if (lookup->gai_error) {
		snprintf(why, why_size,
			 "the host name \"%.100s\" does not resolve (%s): check it, or the name "
			 "server",
			 lookup->host,
			 lookup->gai_error == EAI_SYSTEM ? gk_strerror(lookup->sys_error)
							 : gai_strerror(lookup->gai_error));
		return -EHOSTUNREACH;
	}
	keep(lookup->found, ret_list);
	return 0;
}

char *gk_resolve_text(const struct gk_resolve_address *address, char *dst, size_t dst_size)
{
	const struct sockaddr *sa = (const struct sockaddr *)&address->addr;
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (sa->sa_family == AF_UNIX) {
		snprintf(dst, dst_size, "unix:%s", ((const struct sockaddr_un *)sa)->sun_path);
	} else if (sa->sa_family == AF_VSOCK) {
		const struct sockaddr_vm *vm = (const struct sockaddr_vm *)sa;

		snprintf(dst, dst_size, "vsock:%u:%u", vm->svm_cid, vm->svm_port);
	} else if (getnameinfo(sa, address->len, host, sizeof(host), port, sizeof(port),
			       NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
		bool v6 = sa->sa_family == AF_INET6;

		snprintf(dst, dst_size, "%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
	} else {
		snprintf(dst, dst_size, "(unknown address)");
	}
	return dst;
}
