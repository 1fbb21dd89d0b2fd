/* ESMTP parameters of MAIL and RCPT (RFC 5321 4.1.1.11): KEYWORD[=VALUE], blanks
 * between. Finds and checks their form; what a keyword means is verbs.c's, and so
 * is counting them (SMTP_PARAMS_MAX).
 */
#ifndef SMTP_PARAMS_H
#define SMTP_PARAMS_H

#include <apr.h>

#include "smtp/chars.h"

typedef struct smtp_param_t {
    smtp_span_t key;
    smtp_span_t value; /* p is NULL where there is no '=' */
} smtp_param_t;

/* Takes the next parameter at *at. SMTP_OK: *param is set. SMTP_MORE: none left.
 * SMTP_BAD: *at stands at the octet that does not fit. */
smtp_parse_e smtp_params_next(smtp_param_t *param, const char **at, const char *end);

/* Reads a decimal number of 1 to 20 digits (RFC 1870 3). SMTP_BAD: something
 * else. A value beyond apr_int64_t becomes its maximum, never wraps. */
smtp_parse_e smtp_params_number(smtp_span_t value, apr_int64_t *number);

#endif
