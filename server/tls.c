/* The seam to mod_ssl. RFC 3207 (STARTTLS), 7301 (ALPN), 6066 (server name). Whether TLS is
 * on is asked of mod_ssl each time: it removes itself when a client speaks HTTP to it, and
 * whoever believed a flag of his own would go on in plaintext.
 */
#include "server/tls.h"

#include <ap_mpm.h>
#include <http_connection.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_ssl.h>
#include <http_vhost.h>
#include <mod_ssl.h>
#include <util_filter.h>

#include "server/connection.h"

APLOG_USE_MODULE(nssmtpd);

typedef int pre_connection_t(conn_rec *c, void *csd);

static pre_connection_t *ssl_pre_connection; /* mod_ssl's own, since the last start */

/* Configuration */

static int is_section_of(const ap_directive_t *d, const server_rec *s)
{
    return s->defn_name && d->line_num == (int)s->defn_line_number
           && strcmp(d->filename, s->defn_name) == 0;
}

static void add_directives(apr_array_header_t *found, const ap_directive_t *d,
                           const char *prefix)
{
    for (; d; d = d->next) {
        if (strncasecmp(d->directive, prefix, strlen(prefix)) == 0) {
            APR_ARRAY_PUSH(found, const ap_directive_t *) = d;
        }
    }
}

apr_array_header_t *nssmtpd_find_directives(apr_pool_t *p, const server_rec *s,
                                            const char *prefix)
{
    apr_array_header_t *found = apr_array_make(p, 8, sizeof(const ap_directive_t *));
    const ap_directive_t *d;

    add_directives(found, ap_conftree, prefix);
    for (d = ap_conftree; d; d = d->next) {
        if (strcasecmp(d->directive, "<VirtualHost") == 0 && is_section_of(d, s)) {
            add_directives(found, d->first_child, prefix);
        }
    }
    return found;
}

const char *nssmtpd_find_directive(const server_rec *s, const char *directive)
{
    const apr_array_header_t *found = nssmtpd_find_directives(s->process->pconf, s, directive);
    int i;

    for (i = found->nelts - 1; i >= 0; i--) {
        const ap_directive_t *d = APR_ARRAY_IDX(found, i, const ap_directive_t *);

        if (strcasecmp(d->directive, directive) == 0) {
            return d->args;
        }
    }
    return NULL;
}

int nssmtpd_tls_is_on(const server_rec *s)
{
    const char *word = nssmtpd_find_directive(s, "SSLEngine");

    return word && strcasecmp(word, "on") == 0;
}

/* The gate */

static int gate(conn_rec *c, void *csd)
{
    return nssmtpd_connection_is_clear(c) ? DECLINED : ssl_pre_connection(c, csd);
}

int nssmtpd_tls_install_gate(void)
{
    apr_array_header_t *hooks = ap_hook_get_pre_connection();
    int i;

    for (i = 0; hooks && i < hooks->nelts; i++) {
        ap_LINK_pre_connection_t *hook = &((ap_LINK_pre_connection_t *)hooks->elts)[i];

        if (strcmp(hook->szName, "mod_ssl.c") == 0) {
            if (hook->pFunc != gate) {
                ssl_pre_connection = hook->pFunc;
                hook->pFunc = gate;
            }
            return 1;
        }
    }
    return 0;
}

apr_status_t nssmtpd_tls_start(nssmtpd_session_t *session)
{
    int rc;

    if (!ssl_pre_connection) {
        return APR_ENOTIMPL;
    }
    rc = ssl_pre_connection(session->c, session->socket);
    return rc == OK || rc == DONE ? APR_SUCCESS : APR_EGENERAL;
}

/* The handshake */

static const char *server_name(const nssmtpd_session_t *session)
{
    APR_OPTIONAL_FN_TYPE(ssl_var_lookup) *lookup = APR_RETRIEVE_OPTIONAL_FN(ssl_var_lookup);
    char *name = lookup ? lookup(session->c->pool, session->c->base_server, session->c, NULL,
                                 "SSL_TLS_SNI")
                        : NULL;

    return name && *name ? name : NULL;
}

typedef struct choice_t {
    const char *name;
    server_rec *server;
} choice_t;

static int has_name(const apr_array_header_t *names, const char *name, int wild)
{
    int i;

    for (i = 0; names && i < names->nelts; i++) {
        const char *own = APR_ARRAY_IDX(names, i, const char *);

        if (own && (wild ? ap_strcasecmp_match(name, own) : strcasecmp(name, own)) == 0) {
            return 1;
        }
    }
    return 0;
}

static int choose(void *baton, conn_rec *c, server_rec *s)
{
    choice_t *choice = baton;

    (void)c;
    if (strcasecmp(choice->name, s->server_hostname) == 0 || has_name(s->names, choice->name, 0)
        || has_name(s->wild_names, choice->name, 1)) {
        choice->server = s;
        return 1;
    }
    return 0;
}

/* The name-based SMTP host of this address that the client named; none: the first stays. */
static void choose_host(nssmtpd_session_t *session)
{
    choice_t choice = { server_name(session), NULL };

    if (choice.name) {
        ap_vhost_iterate_given_conn(session->c, choose, &choice);
    }
    if (choice.server && nssmtpd_config(choice.server)->engine == 1) {
        session->conf = nssmtpd_config(choice.server);
    }
}

apr_status_t nssmtpd_tls_handshake(nssmtpd_session_t *session)
{
    apr_status_t rv = ap_get_brigade(session->c->input_filters, session->in, AP_MODE_INIT,
                                     APR_NONBLOCK_READ, 0);

    apr_brigade_cleanup(session->in);
    if (APR_STATUS_IS_EAGAIN(rv)) {
        return APR_EAGAIN;
    }
    if (rv != APR_SUCCESS || !nssmtpd_tls_is_active(session) || session->wrong_protocol) {
        ap_log_cerror(APLOG_MARK, APLOG_INFO, rv, session->c,
                      "NS0014: TLS handshake failed%s; closing",
                      session->wrong_protocol ? ": ALPN asks for another protocol" : "");
        return rv == APR_SUCCESS ? APR_EGENERAL : rv;
    }
    choose_host(session);
    return APR_SUCCESS;
}

int nssmtpd_tls_is_active(const nssmtpd_session_t *session)
{
    return ap_ssl_conn_is_ssl(session->c);
}

/* ALPN */

int nssmtpd_tls_protocol_switch(conn_rec *c, request_rec *r, server_rec *s, const char *protocol)
{
    nssmtpd_session_t *session = nssmtpd_connection_session(c);

    (void)r, (void)s;
    if (!session || strcmp(protocol, "acme-tls/1") == 0) { /* that one is mod_md's */
        return DECLINED;
    }
    session->wrong_protocol = strcmp(protocol, "smtp") != 0;
    return OK;
}

const char *nssmtpd_tls_protocol_get(const conn_rec *c)
{
    return nssmtpd_connection_session(c) ? "smtp" : NULL;
}
