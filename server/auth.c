/* Passwords are checked by httpd's authn providers, as for web pages, on a request for
 * /smtp/auth where their own directives stand. A wrong one makes its address wait: each
 * further one doubles the time. RFC 4954 6. No password, and no user who was not let in,
 * reaches a log.
 */
#include "server/auth.h"

#include <ap_provider.h>
#include <http_config.h>
#include <apr_strings.h>
#include <http_log.h>
#include <mod_auth.h>

#include "server/phase.h"
#include "server/state.h"

APLOG_USE_MODULE(nssmtpd);

static const authn_provider *find(const char *name)
{
    return ap_lookup_provider(AUTHN_PROVIDER_GROUP, name, AUTHN_PROVIDER_VERSION);
}

int nssmtpd_auth_check_config(const nssmtpd_config_t *conf)
{
    int i, rc = OK;

    for (i = 0; conf->auth_providers && i < conf->auth_providers->nelts; i++) {
        const char *name = APR_ARRAY_IDX(conf->auth_providers, i, const char *);
        const authn_provider *provider = find(name);

        if (!provider || !provider->check_password) {
            ap_log_error(APLOG_MARK, APLOG_EMERG, 0, conf->server,
                         "NS0015: SmtpdAuthProvider: there is no provider \"%s\"; add LoadModule "
                         "for the module that has it, such as authn_%s_module", name, name);
            rc = !OK;
        }
    }
    return rc;
}

/* The first provider that knows the user decides, as for HTTP. */
static authn_status ask(const nssmtpd_config_t *conf, request_rec *r, const smtp_sasl_t *sasl)
{
    authn_status status = AUTH_USER_NOT_FOUND;
    int i;

    for (i = 0; i < conf->auth_providers->nelts && status == AUTH_USER_NOT_FOUND; i++) {
        const authn_provider *provider = find(APR_ARRAY_IDX(conf->auth_providers, i, const char *));

        status = provider ? provider->check_password(r, sasl->user, sasl->password)
                          : AUTH_GENERAL_ERROR;
    }
    return status;
}

/* Nobody's credentials are not asked for, but count as any wrong ones: a client that makes
 * them up must wait, too. */
static authn_status check(nssmtpd_session_t *session)
{
    const smtp_sasl_t *sasl = &session->dialogue.sasl;
    authn_status status;
    request_rec *r;

    if (sasl->is_nobody) {
        return AUTH_DENIED;
    }
    if (!(r = nssmtpd_phase_begin(session, NSSMTPD_PHASE_AUTH))) {
        return AUTH_GENERAL_ERROR;
    }
    r->user = sasl->user;
    status = ask(session->conf, r, sasl);
    apr_pool_destroy(r->pool);
    return status;
}

static const smtp_reply_t *refuse(nssmtpd_session_t *session, smtp_reply_e reply,
                                  const char *reason)
{
    ap_log_cerror(APLOG_MARK, APLOG_WARNING, 0, session->c, "NS0025: denied: authentication %s",
                  reason);
    return smtp_reply(reply);
}

const smtp_reply_t *nssmtpd_auth_check(nssmtpd_session_t *session)
{
    const apr_sockaddr_t *client = session->c->client_addr;
    authn_status status;

    if (nssmtpd_state_is_delayed(client, apr_time_now())) {
        return refuse(session, SMTP_REPLY_AUTH_DELAYED, "too soon after a failure");
    }
    status = check(session);
    if (status == AUTH_GRANTED) {
        nssmtpd_count(NSSMTPD_COUNT_AUTH_OK, 1);
        nssmtpd_state_forgive(client);
        session->user = apr_pstrdup(session->c->pool, session->dialogue.sasl.user);
        return NULL;
    }
    if (status == AUTH_GENERAL_ERROR) {
        ap_log_cerror(APLOG_MARK, APLOG_ERR, 0, session->c,
                      "NS0028: a provider of SmtpdAuthProvider cannot check passwords now");
        return smtp_reply(SMTP_REPLY_AUTH_FAULT);
    }
    nssmtpd_count(NSSMTPD_COUNT_AUTH_FAILED, 1);
    nssmtpd_state_delay(client, apr_time_now());
    return refuse(session, SMTP_REPLY_BAD_CREDENTIALS, "failed");
}
