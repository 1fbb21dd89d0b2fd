/* The message as it is delivered: our Received field before the client's octets.
 */
#ifndef NSSMTPD_BODY_H
#define NSSMTPD_BODY_H

#include "server/transaction.h"

/* Sets t.body, which is empty or NULL, and what belongs to it from the spool; our field is
 * before what comes first of the message. */
apr_status_t nssmtpd_body_prepare(nssmtpd_mail_t *mail);

/* The keyword of RFC 3848 for this session's protocol. */
const char *nssmtpd_body_protocol(const nssmtpd_session_t *session);

#endif
