/* What rspamd says of a message in JSON: the answer to /checkv2. Called by rspamd.c. */
#ifndef NSSMTPD_FILTERS_RSPAMDRESULT_H
#define NSSMTPD_FILTERS_RSPAMDRESULT_H

#include "mod_nssmtpd.h"

/* Actions that rspamd leaves to whom it talks to, as this configuration wants them. */
typedef struct nssmtpd_rspamdresult_wishes_t {
    nssmtpd_verdict_e quarantine, discard;
} nssmtpd_rspamdresult_wishes_t;

/* Fills in the scan's result. NULL: done, and the verdict is set; else what is wrong with the
 * answer, and nothing is set. */
const char *nssmtpd_rspamdresult_read(nssmtpd_scan_t *scan, smtp_span_t json,
                                      const nssmtpd_rspamdresult_wishes_t *wishes);

/* What an answer {"error": ".."} says, printable and short; "" if it says nothing. */
const char *nssmtpd_rspamdresult_error(apr_pool_t *p, smtp_span_t json);

#endif
