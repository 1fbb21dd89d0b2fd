/* A phase of a session as httpd sees it: a short request for /smtp/<phase> of the virtual
 * host, so that <Location> sections, authorization and providers find what they expect.
 */
#ifndef NSSMTPD_PHASE_H
#define NSSMTPD_PHASE_H

#include "server/session.h"

/* A request of the session: for the log and, with a mail, for filters and authorization.
 * It never is an HTTP one: no header, no body, no file. It has a pool of its own. */
request_rec *nssmtpd_phase_request(nssmtpd_session_t *session, const char *method);

/* A request for the phase with what is known of session and mail, its configuration
 * walked. It has a pool of its own: apr_pool_destroy(r->pool) ends it. NULL: the
 * configuration has a fault, which is logged. */
request_rec *nssmtpd_phase_begin(nssmtpd_session_t *session, const char *phase);

/* 1 if a <Location> or <If> of the configuration has a say in the phase. */
int nssmtpd_phase_is_configured(nssmtpd_session_t *session, const char *phase);

/* What Require in <Location "/smtp/phase"> says of the mail in hand and, if not NULL, of a
 * recipient: NULL, or the refusal. May block. */
const smtp_reply_t *nssmtpd_phase_authorize(nssmtpd_session_t *session, const char *phase,
                                            const char *rcpt);

#endif
