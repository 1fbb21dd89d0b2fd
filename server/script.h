/* Runs what handles a phase, a Lua script as a rule, and makes a reply of what it says. What
 * the script may ask and change meanwhile is envelope.c's and fields.c's.
 */
#ifndef NSSMTPD_SCRIPT_H
#define NSSMTPD_SCRIPT_H

#include <http_core.h>

#include "server/session.h"

/* A handler's call. */
typedef struct nssmtpd_script_t {
    nssmtpd_call_t call; /* first: what the script's language sees of it */
    nssmtpd_session_t *session;
    const smtp_reply_t *outcome;  /* without the script; NULL: the usual positive reply */
    const smtp_reply_t *said;     /* by setreply */
    const char *wrong;            /* why what it said last is no reply; NULL: it is one */
    const char *failed;           /* why, if it has told by nssmtpd_call_fail() */
    apr_bucket_brigade *printed;  /* its output, up to some length */
    unsigned is_missing : 1;      /* the script has no function for the phase */
    unsigned is_broken : 1;       /* it could not be loaded */
    unsigned is_declined : 1;     /* no handler wanted it */
} nssmtpd_script_t;

/* The call that this thread runs, or NULL. */
nssmtpd_script_t *nssmtpd_script_current(void);

/* Makes script the call that this thread runs, about the phase of r, until it leaves it. */
void nssmtpd_script_enter(nssmtpd_script_t *script, nssmtpd_session_t *session,
                          nssmtpd_phase_e phase, request_rec *r);
void nssmtpd_script_leave(void);

/* 1 if something may handle the phase in this host. Cheap where nothing does. */
int nssmtpd_script_is_configured(nssmtpd_session_t *session, nssmtpd_phase_e phase);

/* Runs the phase. outcome is what the client would hear without it; NULL: the usual positive
 * reply. line is the command, for scripts; user, if not NULL, who wants to be let in. Returns
 * what it hears now: a script can make it worse or reword it, never turn a refusal into
 * anything else. Its own failure is 451. The reply lives in p. May block. */
const smtp_reply_t *nssmtpd_script_run(nssmtpd_session_t *session, nssmtpd_phase_e phase,
                                       const char *line, const char *user,
                                       const smtp_reply_t *outcome, apr_pool_t *p);

/* Hooks; see mod_nssmtpd.c. */
void nssmtpd_script_register(apr_pool_t *p);
int nssmtpd_script_refuse_http(request_rec *r);
int nssmtpd_script_take_declined(request_rec *r);

#endif
