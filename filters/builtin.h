/* The scanners that come along, and what of their configuration is done in each child.
 * mod_nssmtpd.c registers them.
 */
#ifndef NSSMTPD_FILTERS_BUILTIN_H
#define NSSMTPD_FILTERS_BUILTIN_H

#include "mod_nssmtpd.h"

extern const nssmtpd_scanner_t nssmtpd_clamd_scanner;
extern const nssmtpd_scanner_t nssmtpd_rspamd_scanner;
extern const nssmtpd_scanner_t nssmtpd_spamd_scanner;

/* Hook child_init: makes the gates of max=. */
void nssmtpd_scanners_child_init(apr_pool_t *pchild, server_rec *s);

#endif
