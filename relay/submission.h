/* A message of our own, as it is sent: what a script wrote, with canonical lines, what RFC 6409
 * 8 lets who submits mail add, and what scanners want in its header.
 */
#ifndef NSSMTPD_SUBMISSION_H
#define NSSMTPD_SUBMISSION_H

#include "mod_nssmtpd.h"

typedef struct nssmtpd_submission_t {
    apr_array_header_t *pieces; /* of smtp_span_t: the message is one behind the other */
    apr_off_t length;           /* of all of them; they end in CRLF */
    apr_size_t dots;            /* lines that begin with one */
    unsigned is_8bit : 1;
} nssmtpd_submission_t;

/* Makes the message of a script's text: bare LF and CR become CRLF, Date and Message-ID (of
 * id) are added where the header section has none. The text is copied to p, once, if its
 * lines are not canonical or if in_one asks for a single piece; else it is referred to. */
void nssmtpd_submission_make(nssmtpd_submission_t *m, apr_pool_t *p, const server_rec *s,
                             const char *id, smtp_span_t text, int in_one);

/* Changes the header of a message of one piece as scanners want it. */
void nssmtpd_submission_mark(nssmtpd_submission_t *m, apr_pool_t *p,
                             const nssmtpd_scanned_t *found);

/* Sets t->body and what belongs to it. The octets stay m's. */
void nssmtpd_submission_give(const nssmtpd_submission_t *m, nssmtpd_transaction_t *t);

#endif
