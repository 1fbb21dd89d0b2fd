/* A phase of a session as httpd sees it: a short request for /smtp/<phase> of the virtual
 * host, so that <Location> sections, authorization, providers and scripts find what they
 * expect.
 */
#ifndef NSSMTPD_PHASE_H
#define NSSMTPD_PHASE_H

#include "server/session.h"

/* What is known of a phase in a host without looking again; in each child. */
typedef struct nssmtpd_phase_state_t {
    unsigned is_known : 1;
    unsigned is_plain : 1;    /* no <Location> and no <If> has a say in it, ever */
    unsigned has_handler : 1; /* and without them, something handles it */
    unsigned has_filters : 1; /* or filters what it reads */
} nssmtpd_phase_state_t;

/* Looks once how the configuration stands to the phase. */
nssmtpd_phase_state_t nssmtpd_phase_state(nssmtpd_session_t *session, nssmtpd_phase_e phase);

/* "rcpt" */
const char *nssmtpd_phase_name(nssmtpd_phase_e phase);

/* The phase of a URI "/smtp/rcpt"; NSSMTPD_PHASE_COUNT: it is none. */
nssmtpd_phase_e nssmtpd_phase_of(const char *uri);

/* A request of the session: for the log and, with a mail, for filters and authorization.
 * It never is an HTTP one: no header, no body, no file. It has a pool of its own. */
request_rec *nssmtpd_phase_request(nssmtpd_session_t *session, const char *method);

/* A request for the phase with what is known of session and mail, its configuration
 * walked. It has a pool of its own: apr_pool_destroy(r->pool) ends it. NULL: the
 * configuration has a fault, which is logged. */
request_rec *nssmtpd_phase_begin(nssmtpd_session_t *session, nssmtpd_phase_e phase);

/* What Require in <Location "/smtp/phase"> says of the mail in hand and, if not NULL, of a
 * recipient: NULL, or the refusal. May block if the phase is not plain. */
const smtp_reply_t *nssmtpd_phase_authorize(nssmtpd_session_t *session, nssmtpd_phase_e phase,
                                            const char *rcpt);

#endif
