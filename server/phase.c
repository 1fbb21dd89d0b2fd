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

static const struct {
    const char *name, *method;
} rows[] = {
    [NSSMTPD_PHASE_INIT] = { "init", "INIT" }, [NSSMTPD_PHASE_CONNECT] = { "connect", "CONNECT" },
    [NSSMTPD_PHASE_HELO] = { "helo", "HELO" }, [NSSMTPD_PHASE_AUTH] = { "auth", "AUTH" },
    [NSSMTPD_PHASE_MAIL] = { "mail", "MAIL" }, [NSSMTPD_PHASE_RCPT] = { "rcpt", "RCPT" },
    [NSSMTPD_PHASE_DATA] = { "data", "DATA" }, [NSSMTPD_PHASE_ERROR] = { "error", "ERROR" }
};

#define PREFIX "/smtp/"

const char *nssmtpd_phase_name(nssmtpd_phase_e phase)
{
    return rows[phase].name;
}

nssmtpd_phase_e nssmtpd_phase_of(const char *uri)
{
    int i = NSSMTPD_PHASE_COUNT;

    if (uri && strncmp(uri, PREFIX, strlen(PREFIX)) == 0) {
        for (i = 0; i < NSSMTPD_PHASE_COUNT; i++) {
            if (strcmp(uri + strlen(PREFIX), rows[i].name) == 0) {
                break;
            }
        }
    }
    return (nssmtpd_phase_e)i;
}

/* What <Location> and <If> make of a URI. */
static int walk(request_rec *r, nssmtpd_phase_e phase)
{
    int rc;

    r->uri = r->unparsed_uri = apr_pstrcat(r->pool, PREFIX, rows[phase].name, NULL);
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
    r->uri = r->unparsed_uri = PREFIX "mail";
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

/* What the phases before left for this one, and what is known of the mail. */
static void tell(request_rec *r, const nssmtpd_mail_t *mail)
{
    apr_table_t *env = r->subprocess_env;

    apr_table_overlap(env, mail->t.r->subprocess_env, APR_OVERLAP_TABLES_SET);
    apr_table_overlap(r->notes, mail->t.r->notes, APR_OVERLAP_TABLES_SET);
    apr_table_set(env, "SMTP_ID", mail->t.id);
    apr_table_set(env, "SMTP_FROM", mail->t.from);
    apr_table_set(env, "SMTP_RCPT_COUNT", apr_itoa(r->pool, mail->t.rcpts->nelts));
    if (mail->spool) {
        apr_table_set(env, "SMTP_SIZE", apr_off_t_toa(r->pool, mail->spool->length));
    }
}

static request_rec *create(nssmtpd_session_t *session, nssmtpd_phase_e phase)
{
    request_rec *r = nssmtpd_phase_request(session, rows[phase].method);

    r->the_request = apr_pstrcat(r->pool, r->method, " " PREFIX, rows[phase].name, NULL);
    if (session->mail) {
        tell(r, session->mail);
    }
    return r;
}

request_rec *nssmtpd_phase_begin(nssmtpd_session_t *session, nssmtpd_phase_e phase)
{
    request_rec *r = create(session, phase);

    if (walk(r, phase) != OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      "NS0026: <Location> or <If> sections for /smtp/%s cannot be applied",
                      rows[phase].name);
        apr_pool_destroy(r->pool);
        return NULL;
    }
    return r;
}

/* The answer holds for the life of the child where no section has a say, as a rule. */
nssmtpd_phase_state_t nssmtpd_phase_state(nssmtpd_session_t *session, nssmtpd_phase_e phase)
{
    nssmtpd_phase_state_t *known = &session->conf->phases[phase], state = { 1, 0, 0, 0 };
    const core_dir_config *core;
    request_rec *r;

    if (known->is_known) {
        return *known;
    }
    if (!(r = nssmtpd_phase_begin(session, phase))) {
        return state;
    }
    core = ap_get_core_module_config(r->per_dir_config);
    state.is_plain = r->per_dir_config == r->server->lookup_defaults && !core->sec_if;
    ap_run_fixups(r);
    state.has_handler = r->handler != NULL;
    state.has_filters = core->input_filters != NULL;
    apr_pool_destroy(r->pool);
    *known = state;
    return state;
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

const smtp_reply_t *nssmtpd_phase_authorize(nssmtpd_session_t *session, nssmtpd_phase_e phase,
                                            const char *rcpt)
{
    const smtp_reply_t *refusal = NULL;
    request_rec *r;
    int rc;

    if (nssmtpd_phase_state(session, phase).is_plain) {
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
                      rows[phase].name, rc);
        refusal = smtp_reply(SMTP_REPLY_LOCAL_FAULT);
    }
    else if (rc != OK) {
        refusal = smtp_reply(session->user ? SMTP_REPLY_NOT_AUTHORIZED : SMTP_REPLY_NEED_AUTH);
    }
    apr_pool_destroy(r->pool);
    return refusal;
}
