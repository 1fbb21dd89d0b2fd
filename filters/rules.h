/* The names of the rules that a message has hit, as one text for a header field and the log.
 * For the spam scanners of this folder.
 */
#ifndef NSSMTPD_FILTERS_RULES_H
#define NSSMTPD_FILTERS_RULES_H

#include "mod_nssmtpd.h"

enum { NSSMTPD_RULES_MAX = 800 }; /* octets: a field's line has 998 at most */

typedef struct nssmtpd_rules_t {
    char text[NSSMTPD_RULES_MAX + 1];
    apr_size_t n;
} nssmtpd_rules_t;

/* Puts a name behind a comma; what is no letter, digit or one of _.- becomes '?'. Names that no
 * longer fit are left out. An empty set is all zero. */
void nssmtpd_rules_add(nssmtpd_rules_t *rules, const char *name, apr_size_t n);

/* "ONE,TWO", or NULL when there is none. */
const char *nssmtpd_rules_text(const nssmtpd_rules_t *rules, apr_pool_t *p);

#endif
