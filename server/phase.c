/* Phases. Each call gets its own request, with values copied, so that nothing of one phase
 * leaks into the next. Authorization runs as for HTTP, but the user is the one SMTP knows.
 */
#include "server/phase.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>

#include "server/body.h"
#include "server/transaction.h"

APLOG_USE_MODULE(nssmtpd);

/* What <Location> and <If> make of a URI. */
static int walk(request_rec *r, const char *phase)
{
    int rc;

    r->uri = r->unparsed_uri = apr_pstrcat(r->pool, "/smtp/", phase, NULL);
    r->per_dir_config = r->server->lookup_defaults;
    rc = ap_location_walk(r);
    return rc == OK ? ap_if_walk(r) : rc;
}

request_rec *nssmtpd_phase_request(nssmtpd_session_t *session, const char *method)
{
    request_rec *r = ap_create_request(session->c);

    r->server = session->conf->server;
    r->per_dir_config = r->server->lookup_defaults;
    r->request_time = apr_time_now();
    r->method = method;
    r->method_number = M_INVALID;
    r->protocol = (char *)nssmtpd_body_protocol(session);
    r->uri = r->unparsed_uri = "/smtp/mail";
    r->filename = "";
    r->finfo.filetype = APR_NOFILE;
    r->hostname = session->conf->offer.hostname;
    r->assbackwards = 1;
    r->useragent_addr = session->c->client_addr;
    r->useragent_ip = session->c->client_ip;
    r->user = session->user;
    r->ap_auth_type = session->user ? "SMTP" : NULL;
    if (session->dialogue.helo) {
        apr_table_set(r->subprocess_env, "SMTP_HELO", session->dialogue.helo);
    }
    apr_table_setn(r->subprocess_env, "SMTP_PROTOCOL", r->protocol);
    return r;
}

request_rec *nssmtpd_phase_begin(nssmtpd_session_t *session, const char *phase)
{
    request_rec *r = nssmtpd_phase_request(session, "SMTP");

    r->the_request = apr_pstrcat(r->pool, "SMTP /smtp/", phase, NULL);
    if (session->mail) {
        apr_table_set(r->subprocess_env, "SMTP_ID", session->mail->t.id);
        apr_table_set(r->subprocess_env, "SMTP_FROM", session->mail->t.from);
    }
    if (walk(r, phase) != OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      "NS0026: <Location> or <If> sections for /smtp/%s cannot be applied", phase);
        apr_pool_destroy(r->pool);
        return NULL;
    }
    return r;
}

int nssmtpd_phase_is_configured(nssmtpd_session_t *session, const char *phase)
{
    request_rec *r = session->mail->t.r;
    const ap_conf_vector_t *kept = r->per_dir_config;
    char *uri = r->uri;
    int rc = walk(r, phase);
    int is_configured = rc != OK || r->per_dir_config != r->server->lookup_defaults;

    r->per_dir_config = (ap_conf_vector_t *)kept;
    r->uri = r->unparsed_uri = uri;
    return is_configured;
}

/* As ap_process_request_internal() does, without what asks an HTTP client for a password. */
static int run_access(request_rec *r)
{
    int rc = ap_run_access_checker(r);

    if (rc != OK && rc != DECLINED) {
        return rc;
    }
    rc = ap_run_access_checker_ex(r);
    if (rc == DECLINED && r->user) {
        rc = ap_run_auth_checker(r);
    }
    return rc == DECLINED ? HTTP_UNAUTHORIZED : rc;
}

const smtp_reply_t *nssmtpd_phase_authorize(nssmtpd_session_t *session, const char *phase,
                                            const char *rcpt)
{
    const smtp_reply_t *refusal = NULL;
    request_rec *r;
    int rc;

    if (!nssmtpd_phase_is_configured(session, phase)) {
        return NULL;
    }
    if (!(r = nssmtpd_phase_begin(session, phase))) {
        return smtp_reply(SMTP_REPLY_LOCAL_FAULT);
    }
    if (rcpt) {
        apr_table_set(r->subprocess_env, "SMTP_RCPT", rcpt);
    }
    rc = run_access(r);
    if (rc >= HTTP_INTERNAL_SERVER_ERROR) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "NS0027: Require for /smtp/%s failed with %d",
                      phase, rc);
        refusal = smtp_reply(SMTP_REPLY_LOCAL_FAULT);
    }
    else if (rc != OK) {
        refusal = smtp_reply(session->user ? SMTP_REPLY_NOT_AUTHORIZED : SMTP_REPLY_NEED_AUTH);
    }
    apr_pool_destroy(r->pool);
    return refusal;
}
