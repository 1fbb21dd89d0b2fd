/* The scanners' part in a mail's end: who asked for them, and what follows from what they say.
 */
#ifndef NSSMTPD_SCANNING_H
#define NSSMTPD_SCANNING_H

#include "server/transaction.h"

/* 1 if some recipient of the mail in hand is to be scanned for. */
int nssmtpd_scanning_is_wanted(const nssmtpd_mail_t *mail);

/* Asks the scanners, marks the message, its recipients and the session's flags. Returns the
 * refusal, or NULL; *is_discarded: the message is to go nowhere. May block. */
const smtp_reply_t *nssmtpd_scanning_run(nssmtpd_mail_t *mail, int *is_discarded);

/* A new mail: what was found in the one before does not count any more. */
void nssmtpd_scanning_forget(nssmtpd_session_t *session);

#endif
