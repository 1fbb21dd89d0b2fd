/* One mail of a session, from MAIL to the reply to its data: the envelope and who may
 * send it, its octets, its delivery, its line in the log. There is one way out of it,
 * nssmtpd_transaction_end().
 */
#ifndef NSSMTPD_TRANSACTION_H
#define NSSMTPD_TRANSACTION_H

#include "server/session.h"
#include "server/spool.h"
#include "smtp/header.h"

struct nssmtpd_mail_t {
    nssmtpd_transaction_t t; /* first: what others see of it */
    nssmtpd_session_t *session;
    nssmtpd_spool_t *spool;
    smtp_header_t header;
    struct nssmtpd_fields_t *fields; /* its fields, once somebody asked: see fields.h */
    const smtp_reply_t *reworded; /* a script's words for our 250; NULL: none */
    int hops;                    /* Received fields */
    apr_time_t data_started;     /* later by what the relay took, if it flows */
    const smtp_reply_t *outcome; /* what %>s and SMTP_REPLY say; NULL: nothing decided */
    apr_status_t spool_status;
    unsigned too_big : 1;
    unsigned flows : 1;          /* the delivery has what came first: see flow.h */
    unsigned is_rewritten : 1;   /* lines may begin with dots that did not as it came */
    unsigned too_many : 1;       /* that it has too many recipients was logged */
};

/* MAIL was said and is in order: the dialogue's mail is set. */
void nssmtpd_transaction_begin(nssmtpd_session_t *session);

/* A recipient was answered: for the log, should no message follow. */
void nssmtpd_transaction_note(nssmtpd_session_t *session, const smtp_reply_t *reply);

/* 1 if the mail may go that way: none of its recipients goes another. */
int nssmtpd_transaction_may_go(const nssmtpd_mail_t *mail, const nssmtpd_route_t *route);

/* The same, and that is its way now: one where nobody was taken is left. */
int nssmtpd_transaction_go(nssmtpd_mail_t *mail, const nssmtpd_route_t *route);

/* Takes the recipient at that index off the list. */
void nssmtpd_transaction_drop_rcpt(nssmtpd_mail_t *mail, int index);

/* The message begins; octets of it. */
void nssmtpd_transaction_data(nssmtpd_session_t *session);
void nssmtpd_transaction_content(nssmtpd_session_t *session, smtp_span_t content);

/* Reads the header section of a message that filters have changed. */
void nssmtpd_transaction_scan_header(nssmtpd_mail_t *mail);

/* All octets are there: what refuses them before anybody else is asked, or NULL. */
const smtp_reply_t *nssmtpd_transaction_check(nssmtpd_session_t *session);

/* Ends the mail however it went: tells the delivery, logs, frees everything. */
void nssmtpd_transaction_end(nssmtpd_session_t *session);

/* The log line of a MAIL command that began no transaction (is_mail), or of a session that
 * came to none and ended in an error. The code is that of the last reply. */
void nssmtpd_transaction_log_refused(nssmtpd_session_t *session, int is_mail);

#endif
