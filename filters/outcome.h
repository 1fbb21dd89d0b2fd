/* From a scanner's verdict to what becomes of the message: reply, header fields, log, counters.
 * Called by scan.c once a line of SmtpdScanner has had its say.
 */
#ifndef NSSMTPD_FILTERS_OUTCOME_H
#define NSSMTPD_FILTERS_OUTCOME_H

#include "filters/scanners.h"

/* 1 if the verdict refuses or discards the message, so that no other matters. */
int nssmtpd_outcome_is_final(const nssmtpd_line_t *line, const nssmtpd_scan_t *scan,
                             apr_uint32_t must_refuse);

/* The fields that no message may bring along, into result->remove. */
void nssmtpd_outcome_begin(const nssmtpd_scan_job_t *job, apr_uint32_t wanted,
                           nssmtpd_scanned_t *result);

/* Adds the scan's to the result. took is how long it was. A final one overrules a deferral. */
void nssmtpd_outcome_add(const nssmtpd_line_t *line, const nssmtpd_scan_t *scan,
                         apr_uint32_t must_refuse, apr_interval_time_t took,
                         nssmtpd_scanned_t *result);

/* All have had their say: adds the fields that speak of all spam scanners. */
void nssmtpd_outcome_end(const nssmtpd_scan_job_t *job, nssmtpd_scanned_t *result);

/* The scan has failed, but there is another line of its name. */
void nssmtpd_outcome_tell_failover(const nssmtpd_line_t *line, const nssmtpd_scan_t *scan);

#endif
