/* Answers to the events of a session's dialogue. session.c runs the loop.
 */
#ifndef NSSMTPD_ANSWERS_H
#define NSSMTPD_ANSWERS_H

#include "server/session.h"

/* Greets, unless flags or scripts of /smtp/connect keep the client out. */
nssmtpd_wait_e nssmtpd_answers_greet(nssmtpd_session_t *session);

/* Answers the event; what is returned is what the session needs before it can go on. */
nssmtpd_wait_e nssmtpd_answers_give(nssmtpd_session_t *session, smtp_event_e event);

/* Sends what replies there are. GO_ON: they are written. */
nssmtpd_wait_e nssmtpd_answers_send(nssmtpd_session_t *session);

/* Nothing is left to take: sets the deadline of what must come, lets the delivery know. */
nssmtpd_wait_e nssmtpd_answers_wait(nssmtpd_session_t *session);

#endif
