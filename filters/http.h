/* As much of HTTP/1.1 as it takes to understand one answer on a connection that is closed behind
 * it: status, two fields and the body, plain or chunked. No sockets, no httpd. For scanners
 * whose daemons speak HTTP. RFC 9112.
 */
#ifndef NSSMTPD_FILTERS_HTTP_H
#define NSSMTPD_FILTERS_HTTP_H

#include <apr_pools.h>

#include "smtp/chars.h"

typedef struct nssmtpd_http_answer_t {
    int status;       /* 100 to 599 */
    char server[64];  /* the field Server, as much of it as fits; "": there is none */
    smtp_span_t body; /* without the chunks' sizes */
} nssmtpd_http_answer_t;

/* Understands what has come so far; is_over: the other side has closed. SMTP_OK: it is whole,
 * SMTP_MORE: not yet, or never if is_over; SMTP_BAD: it is no HTTP. The body is a part of got,
 * or in p, of which nothing is taken before the answer is whole. */
smtp_parse_e nssmtpd_http_parse(apr_pool_t *p, smtp_span_t got, int is_over,
                                nssmtpd_http_answer_t *answer);

/* text with '?' for all that might end a field or begin another, cut at max octets: what
 * strangers chose, as a field's value. */
const char *nssmtpd_http_value(apr_pool_t *p, const char *text, apr_size_t max);

#endif
