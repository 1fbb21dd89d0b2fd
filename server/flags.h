/* SmtpdFlags.
 */
#ifndef NSSMTPD_FLAGS_H
#define NSSMTPD_FLAGS_H

#include <apr_pools.h>

/* Adds the flag called word, or takes all away for "none". Returns what is wrong, or NULL. */
const char *nssmtpd_flags_add(apr_pool_t *p, apr_int64_t *flags, const char *word);

#endif
