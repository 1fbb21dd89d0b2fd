/* Sends a message over a relay connection that has taken the envelope: whole, or, while the
 * client still sends it, as it comes.
 */
#ifndef NSSMTPD_MESSAGE_H
#define NSSMTPD_MESSAGE_H

#include "relay/upstream.h"
#include "smtp/dot.h"

/* How far the relay has the message over the connection in use. Zeroed: not at all. */
typedef struct nssmtpd_message_t {
    smtp_stuff_t stuff;
    apr_bucket_brigade *piece; /* of the message, on its way */
    apr_bucket_brigade *wire;  /* it as the relay gets it */
    unsigned is_asked : 1; /* DATA was said, its answer not heard yet */
    unsigned is_open : 1;  /* 354 was heard: from now on only closing takes it back */
} nssmtpd_message_t;

/* Says DATA and does not wait for the answer. */
void nssmtpd_message_ask(nssmtpd_upstream_t *u, nssmtpd_message_t *m);

/* Says DATA, unless that was done, and hears the answer. NULL: 354, octets may follow; else the
 * client's reply. */
const smtp_reply_t *nssmtpd_message_open(nssmtpd_upstream_t *u, nssmtpd_message_t *m);

/* Sends what is in u->t->body; the caller empties it. 0: the relay did not take it; nothing was
 * delivered, the connection is closed, and u->failure is set. */
int nssmtpd_message_send_part(nssmtpd_upstream_t *u, nssmtpd_message_t *m);

/* Sends u->t->body and the dot; the reply is the client's: positive when the relay has taken
 * the message, and only then. The connection may be closed afterwards. */
const smtp_reply_t *nssmtpd_message_finish(nssmtpd_upstream_t *u, nssmtpd_message_t *m);

#endif
