/* The way to the relay for messages that nobody here wants to see whole, while their client is
 * quick: DATA goes ahead of them, and large ones go on as they come, instead of into a file.
 */
#ifndef NSSMTPD_FLOW_H
#define NSSMTPD_FLOW_H

#include "server/transaction.h"

/* The client has said DATA, and is about to send. */
void nssmtpd_flow_begin(nssmtpd_session_t *session);

/* The message in hand goes on by content, which is not in the spool. 1: content, and all that
 * the spool held, was taken; 0: the spool must have it. May wait for the relay. */
int nssmtpd_flow_take(nssmtpd_session_t *session, smtp_span_t content);

/* The session, which has a mail that was offered, is about to wait for its client. */
void nssmtpd_flow_rest(nssmtpd_session_t *session);

#endif
