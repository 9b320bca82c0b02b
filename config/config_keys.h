/* SPDX-License-Identifier: MIT */
/*
 * The keys of proxy.conf as tables: name, kind, limits, default, place in the struct. Inside config/ only. Any thread.
 */
#ifndef GK_CONFIG_KEYS_H
#define GK_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <libconfig.h>

enum gk_key_kind {
	GK_KEY_BOOL,	/* bool */
	GK_KEY_NUMBER,	/* int or unsigned int */
	GK_KEY_SIZE,	/* uint32_t, bytes */
	GK_KEY_TIME,	/* double, seconds */
	GK_KEY_CHOICE,	/* enum, counted as in choices */
	GK_KEY_TEXT,	/* char * on the heap; min and max are its length in bytes */
	GK_KEY_NAME,	/* the same, with the characters of a device name */
	GK_KEY_ADDRESS, /* the same, empty or as address.h has it */
	GK_KEY_REMOTE,	/* one or several NBD URIs; config.c reads them */
	GK_KEY_SECTION, /* devices and defaults; config.c reads them */
};

struct gk_config_key {
	const char *name; /* with its group: "tls.verify"; NULL ends a table */
	enum gk_key_kind kind;
	size_t offset;
	double min, max;
	double fallback;	   /* the default of all kinds but texts */
	const char *text_fallback; /* the default of texts */
	const char *choices[5];
};

extern const struct gk_config_key gk_config_file_keys[];   /* of struct gk_config */
extern const struct gk_config_key gk_config_device_keys[]; /* of struct gk_device_config */

/* The key called name ("tls.verify"), or NULL. */
const struct gk_config_key *gk_config_keys_find(const struct gk_config_key *keys, const char *name);

/* Is name the group that some keys stand in ("tls")? */
bool gk_config_keys_is_group(const struct gk_config_key *keys, const char *name);

/* Gives every key of a zeroed base its default. 0 or -ENOMEM; end base in both cases. */
int gk_config_keys_init(const struct gk_config_key *keys, void *base);

/* Frees the texts of base. */
void gk_config_keys_done(const struct gk_config_key *keys, void *base);

/*
 * Reads one setting of any kind but REMOTE and SECTION into base. -EINVAL: expected (size bytes)
 * says what should stand there, and base is as before. -ENOMEM.
 */
int gk_config_keys_set(const struct gk_config_key *key, const config_setting_t *setting, void *base,
		       char *expected, size_t size);

/* The same for a text, as on a command line: "true", "7", "1.5" for what is no text in a file. */
int gk_config_keys_set_text(const struct gk_config_key *key, const char *text, void *base,
			    char *expected, size_t size);

#endif
