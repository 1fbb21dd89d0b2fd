/* What a spam filter wants to know of a mail's way to us. For the spam scanners of this folder. */
#ifndef NSSMTPD_FILTERS_TRACE_H
#define NSSMTPD_FILTERS_TRACE_H

#include "mod_nssmtpd.h"

/* The client's name, if HostnameLookups Double is on and the name leads back to the address: a
 * name that does not could be anybody's. NULL: not known. The first call of a connection may wait
 * for the name server, as that directive wants it. */
const char *nssmtpd_trace_client_name(const nssmtpd_scan_job_t *job);

/* Return-Path and Received for the job, ending in CRLF, to stand above the message's own fields; ""
 * without a client, as for a message that no session brought. */
const char *nssmtpd_trace_make(const nssmtpd_scan_job_t *job);

#endif
