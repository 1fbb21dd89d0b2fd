/* SmtpdScanner user=: as whom a spam filter is to look at a message, for preferences and
 * statistics of its own. For the spam scanners of this folder.
 */
#ifndef NSSMTPD_FILTERS_USERNAME_H
#define NSSMTPD_FILTERS_USERNAME_H

#include "mod_nssmtpd.h"

enum { NSSMTPD_USERNAME_MAX = 255 };

/* conf's user= for the job: %u, %d and %r are the local part, the domain and the whole address
 * of its first recipient, %% is a percent sign. What is no letter, digit or one of @.-_+= becomes
 * '_', and so does a '.' or '-' at the beginning: it may become a file's name. NULL: there is no
 * user=, nobody to take it from, or nothing left. */
const char *nssmtpd_username_make(const nssmtpd_scan_conf_t *conf, const nssmtpd_scan_job_t *job);

#endif
