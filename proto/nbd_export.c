// SPDX-License-Identifier: MIT
#include "nbd_export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbd_wire.h"

void gk_nbd_export_facts_init(struct nbd_export_facts *facts)
{
	*facts = (struct nbd_export_facts){
		.block_min = 1,
		.block_preferred = 4096,
		.block_max = 32U << 20,
	};
}

static bool power_of_two(uint32_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

static const char *wrong_block_sizes(const struct nbd_export_facts *f)
{
	if (!power_of_two(f->block_min) || f->block_min > 65536)
		return "the minimum must be a power of two up to 65536";
	if (!power_of_two(f->block_preferred) || f->block_preferred < 512 ||
	    f->block_preferred < f->block_min)
		return "the preferred one must be a power of two, at least 512 and the minimum";
	if (f->block_max == 0 || (f->block_max != UINT32_MAX && f->block_max % f->block_min != 0))
		return "the maximum must be a multiple of the minimum";
	return NULL;
}

int gk_nbd_export_facts_check(struct nbd_export_facts *facts, char *why, size_t why_size)
{
	const char *wrong = wrong_block_sizes(facts);

	if (facts->size_bytes > INT64_MAX) {
		snprintf(why, why_size,
			 "the server claims an export of %llu bytes, more than a disk can have",
			 (unsigned long long)facts->size_bytes);
		return -EOVERFLOW;
	}
	if (wrong) {
		snprintf(why, why_size,
			 "the server sent impossible block sizes (minimum %u, preferred %u, "
			 "maximum %u): %s",
			 facts->block_min, facts->block_preferred, facts->block_max, wrong);
		return -EPROTO;
	}
	if (!(facts->flags & NBD_FLAG_HAS_FLAGS))
		facts->flags &= NBD_FLAG_READ_ONLY;
	if (!facts->structured)
		facts->flags &= (uint16_t)~NBD_FLAG_SEND_DF;
	return 0;
}

int gk_nbd_export_list_add(struct gk_nbd_export_list *list, const void *name, size_t name_len,
			   const void *description, size_t description_len)
{
	struct gk_nbd_export *export;

	if (memchr(name, '\0', name_len))
		return -EPROTO;
	if (list->n == GK_NBD_EXPORT_LIST_MAX)
		return 0;
	if (!list->exports)
		list->exports = calloc(GK_NBD_EXPORT_LIST_MAX, sizeof(*list->exports));
	if (!list->exports)
		return -ENOMEM;
	export = &list->exports[list->n];
	export->name = strndup(name, name_len);
	export->description = strndup(description, description_len);
	if (!export->name || !export->description) {
		free(export->name);
		free(export->description);
		return -ENOMEM;
	}
	list->n++;
	return 0;
}

void gk_nbd_export_list_done(struct gk_nbd_export_list *list)
{
	if (!list)
		return;
	for (size_t i = 0; i < list->n; i++) {
		free(list->exports[i].name);
		free(list->exports[i].description);
		free(list->exports[i].why);
	}
	free(list->exports);
	*list = (struct gk_nbd_export_list){0};
}

char *gk_nbd_export_printable(char *dst, size_t dst_size, const void *text, size_t len)
{
	const unsigned char *src = text;
	size_t n = len < dst_size ? len : dst_size - 1;

	for (size_t i = 0; i < n; i++)
		dst[i] = src[i] >= 0x20 && src[i] < 0x7f ? (char)src[i] : '?';
	if (n < len)
		for (size_t i = n < 3 ? 0 : n - 3; i < n; i++)
			dst[i] = '.';
	dst[n] = '\0';
	return dst;
}
