// SPDX-License-Identifier: MIT
#include "address.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int gk_address_parse(const char *text, struct addrinfo **ret_info)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC,
				       .ai_socktype = SOCK_STREAM,
				       .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
	const char *colon = strrchr(text, ':');
	char host[64] = "";
	size_t n;

	/* getaddrinfo() takes any number and cuts it down to 16 bits. */
	if (!colon || (size_t)(colon - text) >= sizeof(host) ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1) || strlen(colon + 1) > 5 ||
	    atoi(colon + 1) < 1 || atoi(colon + 1) > UINT16_MAX)
		return -EINVAL;
	n = (size_t)(colon - text);
	if (n > 1 && text[0] == '[' && colon[-1] == ']')
		memcpy(host, text + 1, n - 2);
	else
		memcpy(host, text, n);
	return getaddrinfo(host[0] ? host : NULL, colon + 1, &hints, ret_info) ? -EINVAL : 0;
}
