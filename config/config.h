/* SPDX-License-Identifier: MIT */
/*
 * The configuration as plain data: what proxy.conf says, checked, with the default and the limits
 * beside each field. Read by the control thread; the queue threads see copies of what they need.
 */
#ifndef GK_CONFIG_H
#define GK_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nbd_uri.h"

enum gk_log_level { GK_LOG_ERROR, GK_LOG_WARNING, GK_LOG_INFO, GK_LOG_DEBUG };
enum gk_data_path { GK_PATH_AUTO, GK_PATH_GROUP, GK_PATH_REGISTERED, GK_PATH_COPY };
enum gk_unflushed { GK_UNFLUSHED_FAIL_NEXT_FLUSH, GK_UNFLUSHED_IGNORE, GK_UNFLUSHED_FUA };
enum gk_fence { GK_FENCE_TIMEOUT, GK_FENCE_STRICT };
enum gk_on_exit { GK_ON_EXIT_REMOVE, GK_ON_EXIT_KEEP };
enum gk_tls_version { GK_TLS_VERSION_1_2, GK_TLS_VERSION_1_3 };
enum gk_ktls { GK_KTLS_AUTO, GK_KTLS_SEND, GK_KTLS_OFF };

struct gk_tls_config {
	bool verify;    /* true */
	char *ca;       /* ""; paths */
	char *cert;
	char *key;
	char *psk_file;
	char *hostname;
	char *ciphers;  /* ""; OpenSSL's names */
	enum gk_tls_version min_version; /* 1.2 */
	enum gk_ktls ktls;               /* auto: both directions */
};

struct gk_device_config {
	char *name;                  /* required, unique; [A-Za-z0-9._-], 1-64 characters, no leading dot */
	struct gk_nbd_uri *remotes;  /* required; tried in order */
	size_t n_remotes;            /* 1-16 */
	int id;                      /* -1: the kernel picks; else 0-1048575 */
	unsigned int queues;         /* 0: automatic; else 1-64 */
	unsigned int queue_depth;    /* 128; 1-4096 */
	unsigned int connections;    /* 0: automatic; else 1-64 */
	enum gk_data_path data_path; /* auto */
	uint32_t zero_copy_threshold_bytes; /* 0: the data path's own; else up to 32M */
	bool send_zc;                /* false */
	bool read_only;              /* false */
	bool structured_replies;     /* false */
	double connect_timeout_s;    /* 10; 0-86400, 0: no limit */
	double request_timeout_s;    /* 30; 0-86400, 0: no limit */
	double reconnect_timeout_s;  /* 0; 0-31536000, 0: no limit */
	enum gk_unflushed unflushed; /* fail-next-flush */
	enum gk_fence fence;         /* timeout */
	double fence_timeout_s;      /* 10; 0-86400 */
	enum gk_on_exit on_exit;     /* remove */
	struct gk_tls_config tls;
	unsigned int line;           /* where the device stands in the file */
};

struct gk_config {
	char *path;                   /* of the file */
	enum gk_log_level log_level;  /* info */
	char *state_dir;              /* /run/gkproxy */
	char *control_socket;         /* /run/gkproxy/control.sock */
	char *metrics;                /* "address:port"; "": off */
	struct gk_device_config defaults; /* no name, and seldom a remote */
	struct gk_device_config *devices; /* at least one */
	size_t n_devices;
};

/*
 * Called once for every mistake, with a whole line "file:line: key: what was expected"; without key
 * for what is no key (a syntax error), without line too for a file that cannot be read.
 */
typedef void gk_config_report_fn(void *arg, const char *message);

/*
 * Reads and checks a file; every mistake is reported before it returns, not only the first (but a
 * syntax error hides those behind it).
 * 0 and *ret_config (end it with gk_config_free()), or -EINVAL when at least one mistake was
 * reported, or -errno when the file cannot be read (also reported). Any thread.
 */
int gk_config_load(const char *path, gk_config_report_fn *report, void *arg, struct gk_config **ret_config);

/* Frees a configuration. Takes NULL. */
void gk_config_free(struct gk_config *config);

#endif
