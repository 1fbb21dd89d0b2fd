/* The part of mod_nssmtpd.h, which includes it, that is about sending: mail of scripts, from any
 * request, by any thread that may block.
 */
#ifndef MOD_NSSMTPD_SEND_H
#define MOD_NSSMTPD_SEND_H

#include <httpd.h>

#include "smtp/chars.h"
#include "smtp/reply.h"

typedef struct nssmtpd_sent_t {
    const char *address;
    const smtp_reply_t *reply;
} nssmtpd_sent_t;

typedef struct nssmtpd_send_t {
    const char *from;                /* "" or "<>" is the null sender */
    const apr_array_header_t *rcpts; /* of const char *; brackets may stand around them */
    smtp_span_t message;             /* lines end in LF or CRLF */
    const char *host;                /* NULL: as the host's lists and SmtpdRelay say */
    int port;                        /* 0: 25 */
    /* What became of it */
    const smtp_reply_t *reply;       /* the last word; NULL: nothing was said to anybody */
    const char *phase;               /* what it was the answer to: "connect", "RCPT", "end of
                                      * data" .., or "scan"; "arguments": there is none */
    apr_array_header_t *results;     /* of nssmtpd_sent_t, one for each of rcpts; empty where
                                      * there is no reply */
    int taken;                       /* recipients for whom the message was accepted */
} nssmtpd_send_t;

/* Sends a mail as host s would, to the relays of its recipients one after the other. NULL:
 * somebody was taken, see send->taken; else what has failed, and nobody has the mail but
 * where the relay's last answer was lost. Results are allocated in r->pool. Writes a line to
 * SmtpdSendLog. In a phase the mail in hand lets go of its relay first. May take as long as
 * SmtpdTimeout allows for each step. */
const char *nssmtpd_send(request_rec *r, server_rec *s, nssmtpd_send_t *send);

#endif
