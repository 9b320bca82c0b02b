// SPDX-License-Identifier: MIT
#include "no_memory.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

static __thread bool is_spared;
static unsigned int countdown; /* to the one that fails; 0: none does */
static unsigned int n_failed;

void no_memory_spare_me(bool on)
{
	is_spared = on;
}

void no_memory_fail(unsigned int nth)
{
	__atomic_store_n(&n_failed, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&countdown, nth, __ATOMIC_RELAXED);
}

bool no_memory_failed(void)
{
	return __atomic_load_n(&n_failed, __ATOMIC_RELAXED);
}

static bool fails(void)
{
	unsigned int left;

	if (is_spared)
		return false;
	left = __atomic_load_n(&countdown, __ATOMIC_RELAXED);
	while (left && !__atomic_compare_exchange_n(&countdown, &left, left - 1, false,
						    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	if (left != 1)
		return false;
	__atomic_fetch_add(&n_failed, 1, __ATOMIC_RELAXED);
	errno = ENOMEM;
	return true;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
int __wrap_asprintf(char **ret_text, const char *format, ...);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
			  void *arg);
int __real_eventfd(unsigned int count, int flags);
int __wrap_eventfd(unsigned int count, int flags);
int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
void *__real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset);

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *memory, size_t size)
{
	return fails() ? NULL : __real_realloc(memory, size);
}

char *__wrap_strdup(const char *text)
{
	return fails() ? NULL : __real_strdup(text);
}

int __wrap_asprintf(char **ret_text, const char *format, ...)
{
	va_list args;
	int n;

	if (fails())
		return -1;
	va_start(args, format);
	n = vasprintf(ret_text, format, args);
	va_end(args);
	return n;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
			  void *arg)
{
	return fails() ? EAGAIN : __real_pthread_create(thread, attr, run, arg);
}

int __wrap_eventfd(unsigned int count, int flags)
{
	return fails() ? -1 : __real_eventfd(count, flags);
}

int __wrap_socket(int domain, int type, int protocol)
{
	return fails() ? -1 : __real_socket(domain, type, protocol);
}

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return fails() ? MAP_FAILED : __real_mmap(addr, len, prot, flags, fd, offset);
}
