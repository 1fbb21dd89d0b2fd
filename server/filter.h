/* Input filters of the configuration at work on a whole message, at the end of its data.
 */
#ifndef NSSMTPD_FILTER_H
#define NSSMTPD_FILTER_H

#include "server/session.h"

/* 1 if a filter may see the message. */
int nssmtpd_filter_is_wanted(nssmtpd_session_t *session);

/* Runs the message through the filters that SetInputFilter names for /smtp/data; what comes
 * out is the message from then on. NULL: all is well, as where there are none. May block. */
const smtp_reply_t *nssmtpd_filter_run(nssmtpd_session_t *session);

/* Registers SMTPD_BODY, which gives the spool to the filters above it. */
void nssmtpd_filter_register(void);

#endif
