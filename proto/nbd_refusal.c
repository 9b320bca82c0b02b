// SPDX-License-Identifier: MIT
#include "nbd_refusal.h"

#include <errno.h>
#include <stdio.h>

#include "nbd_export.h"
#include "nbd_wire.h"

const char *gk_nbd_option_name(uint32_t option)
{
	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		return "NBD_OPT_EXPORT_NAME";
	case NBD_OPT_LIST:
		return "NBD_OPT_LIST";
	case NBD_OPT_STARTTLS:
		return "NBD_OPT_STARTTLS";
	case NBD_OPT_INFO:
		return "NBD_OPT_INFO";
	case NBD_OPT_GO:
		return "NBD_OPT_GO";
	case NBD_OPT_STRUCTURED_REPLY:
		return "NBD_OPT_STRUCTURED_REPLY";
	default:
		return "an option";
	}
}

int gk_nbd_refusal_explain(const struct gk_nbd_refusal *refusal, char *ret_why, size_t why_size)
{
	const char *option = gk_nbd_option_name(refusal->option);
	char shown[GK_NBD_REFUSAL_SHOWN_BYTES];
	char own[GK_NBD_REFUSAL_SHOWN_BYTES + 32] = "";

	if (refusal->message_len > 0)
		snprintf(own, sizeof(own), " (the server says: %s)",
			 gk_nbd_export_printable(shown, sizeof(shown), refusal->message,
						 refusal->message_len));

	switch (refusal->type) {
	case NBD_REP_ERR_UNSUP:
		snprintf(ret_why, why_size, "the server does not know %s%s", option, own);
		return -ENOTSUP;
	case NBD_REP_ERR_POLICY:
		snprintf(ret_why, why_size, "the server's policy forbids %s to this client%s",
			 option, own);
		return -EPERM;
	case NBD_REP_ERR_INVALID:
		snprintf(ret_why, why_size, "the server calls %s invalid%s", option, own);
		return -EINVAL;
	case NBD_REP_ERR_PLATFORM:
		snprintf(ret_why, why_size, "the server's platform does not support %s%s", option,
			 own);
		return -ENOTSUP;
	case NBD_REP_ERR_TLS_REQD:
		snprintf(ret_why, why_size,
			 "the server requires TLS: begin the URI with nbds instead of nbd, and set "
			 "tls.ca or tls.psk_file if it has a certificate or keys of its own%s",
			 own);
		return -ENOTSUP;
	case NBD_REP_ERR_UNKNOWN:
		snprintf(ret_why, why_size,
			 "the server has no %s: check the URI; \"gkproxy probe\" with the URI up "
			 "to the host lists what there is%s",
			 refusal->export, own);
		return -ENOENT;
	case NBD_REP_ERR_SHUTDOWN:
		snprintf(ret_why, why_size, "the server is shutting down%s", own);
		return -ESHUTDOWN;
	case NBD_REP_ERR_BLOCK_SIZE_REQD:
		snprintf(ret_why, why_size,
			 "the server wants its block sizes honoured, although we asked for them%s",
			 own);
		return -EPROTO;
	case NBD_REP_ERR_TOO_BIG:
		snprintf(ret_why, why_size, "%s is too large for the server%s", option, own);
		return -E2BIG;
	default:
		snprintf(ret_why, why_size, "the server refuses %s with the unknown error %u%s",
			 option, refusal->type & ~NBD_REP_FLAG_ERROR, own);
		return -EPROTO;
	}
}
