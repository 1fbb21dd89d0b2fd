/* Failures of what handles a phase, mod_lua's above all.
 */
#ifndef NSSMTPD_FAILURE_H
#define NSSMTPD_FAILURE_H

#include "server/script.h"

/* What failed in a handler that returned rc: a sentence for the log. NULL: it has run to its
 * end, or, if *is_silent, there was nothing to run. */
const char *nssmtpd_failure_of(nssmtpd_script_t *script, int rc, int *is_silent);

/* Logs and counts a failure. */
void nssmtpd_failure_log(nssmtpd_script_t *script, const char *reason);

/* Hook error_log: a line of mod_lua's about the script that this thread runs. */
void nssmtpd_failure_watch_log(const ap_errorlog_info *info, const char *text);

#endif
