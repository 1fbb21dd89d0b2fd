/* What was learnt of the scripts of a host's phases: that one has no function for a phase,
 * until its file changes, and that one could not be loaded, for a second. In each child,
 * for all its threads.
 */
#ifndef NSSMTPD_MEMO_H
#define NSSMTPD_MEMO_H

#include <httpd.h>

#include "mod_nssmtpd.h"

typedef struct nssmtpd_memo_t nssmtpd_memo_t;

/* For all phases of a host, in p. */
nssmtpd_memo_t *nssmtpd_memo_create(apr_pool_t *p);

/* The script file has no function for the phase. */
void nssmtpd_memo_set_missing(nssmtpd_memo_t *memo, nssmtpd_phase_e phase, const char *file);

/* 1 if the script that lacks the phase has not changed since. */
int nssmtpd_memo_is_missing(nssmtpd_memo_t *memo, nssmtpd_phase_e phase, apr_pool_t *ptemp);

/* The script could not be loaded just now. mod_lua forgets what it knows of the file in r's
 * thread: it would take a second change of it for one of a state that it does not have. */
void nssmtpd_memo_set_broken(nssmtpd_memo_t *memo, nssmtpd_phase_e phase, const char *file,
                             request_rec *r);

/* 1 if that was less than a second ago. */
int nssmtpd_memo_is_broken(const nssmtpd_memo_t *memo, nssmtpd_phase_e phase);

#endif
