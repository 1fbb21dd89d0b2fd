/* Sends a message over a relay connection that has taken the envelope.
 */
#ifndef NSSMTPD_MESSAGE_H
#define NSSMTPD_MESSAGE_H

#include "relay/upstream.h"

/* Sends u->t->body; the reply is the client's: positive when the relay has taken the
 * message, and only then. The connection may be closed afterwards. */
const smtp_reply_t *nssmtpd_message_send(nssmtpd_upstream_t *u);

#endif
