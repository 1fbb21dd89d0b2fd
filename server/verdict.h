/* The decisions about a mail: may this client send it, to whom, and is it taken?
 */
#ifndef NSSMTPD_VERDICT_H
#define NSSMTPD_VERDICT_H

#include "server/transaction.h"

/* The route of the recipient in the dialogue's address, or the reply that refuses it. */
const nssmtpd_route_t *nssmtpd_verdict_route(nssmtpd_session_t *session,
                                             const smtp_reply_t **refusal);

/* Where the configuration sends mail for a domain whoever sends it; NULL: nowhere. */
const nssmtpd_route_t *nssmtpd_verdict_way(const nssmtpd_session_t *session,
                                           const char *domain);

/* A recipient of the mail, in its pool. */
nssmtpd_rcpt_t nssmtpd_verdict_make_rcpt(nssmtpd_session_t *session,
                                         const smtp_address_t *address);

/* What the flags and scripts of /smtp/mail say of the sender; NULL: he may. May block. */
const smtp_reply_t *nssmtpd_verdict_sender(nssmtpd_session_t *session);

/* Asks Require and scripts about that recipient, then offers it to the route's delivery;
 * NULL: it is taken. May block. */
const smtp_reply_t *nssmtpd_verdict_rcpt(nssmtpd_session_t *session,
                                         const nssmtpd_route_t *route);

/* Filters, asks Require and scripts, delivers; the reply is the client's. May block. */
const smtp_reply_t *nssmtpd_verdict_message(nssmtpd_session_t *session);

#endif
