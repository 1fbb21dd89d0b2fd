/* The counters of NSSMTPD_COUNTERS, one set for all children, from the start of httpd on.
 */
#ifndef NSSMTPD_COUNTERS_H
#define NSSMTPD_COUNTERS_H

#include "mod_nssmtpd.h"

/* Finds the shared memory. In the parent; OK or not. */
int nssmtpd_counters_create(server_rec *s);

#endif
