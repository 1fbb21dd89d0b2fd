/* What a client sends, on its way into session->in. Nothing here waits for it.
 */
#ifndef NSSMTPD_INPUT_H
#define NSSMTPD_INPUT_H

#include "server/session.h"

/* In the child, before its first session. */
apr_status_t nssmtpd_input_init(apr_pool_t *p);

/* Appends what the client sent to session->in. APR_SUCCESS: something, and if
 * session->drained is set that was all; APR_EAGAIN: nothing now; anything else: nothing any
 * more. */
apr_status_t nssmtpd_input_read(nssmtpd_session_t *session);

/* A thread leaves the session, or it is over: gives up its buffer, unless there are octets in
 * it that are still to be taken. */
void nssmtpd_input_rest(nssmtpd_session_t *session);

#endif
