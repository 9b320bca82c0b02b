/* SPDX-License-Identifier: MIT */
/* Where the daemon listens: "address:port", "[address]:port" or ":port", numbers only. */
#ifndef GK_ADDRESS_H
#define GK_ADDRESS_H

#include <netdb.h>

/* 0 and what to bind to, for freeaddrinfo(); -EINVAL: something else, or no memory. Any thread. */
int gk_address_parse(const char *text, struct addrinfo **ret_info);

#endif
