/* Relay TLS by mod_ssl: a worker gets a <Proxy> section with the SSLProxy directives that its
 * policy needs. A server has two such sections, made here while httpd starts, since mod_ssl
 * makes nothing ready later; relays made at run time use them too. Called by route.c.
 */
#include "relay/policy.h"

#include <apr_strings.h>
#include <http_config.h>

#include "relay/credentials.h"

/* What the configuration says of TLS to a server's relays, whichever they are. */
typedef struct ground_t {
    struct ground_t *next;
    const server_rec *server;
    int has_ssl;                 /* mod_ssl is loaded */
    int may_try;                 /* and SSLProxyEngine is on */
    int knows_whom_to_trust;
    ap_conf_vector_t *any;       /* the section for any certificate; NULL: no mod_ssl */
    ap_conf_vector_t *good;      /* for good ones only; NULL: nobody is trusted */
} ground_t;

static ground_t *grounds; /* of this configuration; read only once httpd has started */

static const ground_t *ground_of(const server_rec *s)
{
    const ground_t *ground = grounds;

    while (ground && ground->server != s) {
        ground = ground->next;
    }
    return ground;
}

static int is_on(const server_rec *s, const char *directive)
{
    const char *word = nssmtpd_find_directive(s, directive);

    return word && strcasecmp(word, "on") == 0;
}

static const char *check(const nssmtpd_relay_t *relay, const ground_t *ground)
{
    if (relay->user && relay->tls < NSSMTPD_RELAY_TLS_ENCRYPT) {
        return "credentials need SmtpdRelayTLS verify, or encrypt";
    }
    if (relay->tls >= NSSMTPD_RELAY_TLS_ENCRYPT && !ground->has_ssl) {
        return "SmtpdRelayTLS encrypt and verify, smtps:// and plain:// need mod_ssl; add "
               "LoadModule ssl_module";
    }
    if (relay->tls == NSSMTPD_RELAY_TLS_VERIFY && !ground->knows_whom_to_trust) {
        return "SmtpdRelayTLS verify (the default with credentials) needs to know whom to trust; "
               "add SSLProxyCACertificateFile, such as /etc/ssl/certs/ca-certificates.crt";
    }
    return NULL;
}

const char *nssmtpd_policy_set(nssmtpd_relay_t *relay, int is_default, server_rec *s,
                               apr_pool_t *pconf)
{
    const char *source = is_default ? nssmtpd_relay_credentials(s) : NULL, *wrong = NULL;
    const ground_t *ground = ground_of(s);

    if (source && relay->user) {
        return "plain:// has credentials already; drop them or SmtpdRelayCredentials";
    }
    if (source) {
        wrong = nssmtpd_credentials_read(pconf, s, source, &relay->user, &relay->password);
    }
    relay->tls = nssmtpd_relay_tls(s);
    if (relay->tls == NSSMTPD_RELAY_TLS_UNSET) {
        relay->tls = relay->user ? NSSMTPD_RELAY_TLS_VERIFY : NSSMTPD_RELAY_TLS_MAY;
    }
    if (relay->is_implicit && relay->tls < NSSMTPD_RELAY_TLS_ENCRYPT) {
        relay->tls = NSSMTPD_RELAY_TLS_ENCRYPT;
    }
    if (relay->tls == NSSMTPD_RELAY_TLS_MAY && !relay->user && !ground->may_try) {
        relay->tls = NSSMTPD_RELAY_TLS_NONE;
    }
    return wrong ? wrong : check(relay, ground);
}

static ap_directive_t **add_line(apr_pool_t *p, ap_directive_t *parent, ap_directive_t **next,
                                 const char *directive, const char *args)
{
    *next = apr_pcalloc(p, sizeof(**next));
    (*next)->directive = directive;
    (*next)->args = args;
    (*next)->filename = parent->filename;
    (*next)->parent = parent;
    return &(*next)->next;
}

/* A section as if it stood in the configuration, with the server's own SSLProxy directives
 * first: mod_proxy's directive takes it. */
static const char *make_section(server_rec *s, apr_pool_t *pconf, apr_pool_t *ptemp,
                                const char *name, const char *const lines[][2],
                                ap_conf_vector_t **section)
{
    const command_rec *proxy = ap_find_command("<Proxy", nssmtpd_proxy.module->cmds);
    ap_directive_t *parent = apr_pcalloc(pconf, sizeof(*parent)), **next = &parent->first_child;
    cmd_parms cmd = { .override = RSRC_CONF | ACCESS_CONF, .limited = -1, .pool = pconf,
                      .temp_pool = ptemp, .server = s, .directive = parent, .cmd = proxy };
    const apr_array_header_t *own = nssmtpd_find_directives(ptemp, s, "SSLProxy");
    const char *wrong;
    int i;

    parent->directive = "<Proxy";
    parent->args = apr_pstrcat(pconf, name, ">", NULL);
    parent->filename = "SmtpdRelayTLS";
    for (i = 0; i < own->nelts; i++) {
        const ap_directive_t *d = APR_ARRAY_IDX(own, i, const ap_directive_t *);

        next = add_line(pconf, parent, next, d->directive, d->args);
    }
    for (i = 0; lines[i][0]; i++) {
        next = add_line(pconf, parent, next, lines[i][0], lines[i][1]);
    }
    wrong = proxy->AP_RAW_ARGS(&cmd, NULL, parent->args);
    if (!wrong) {
        const apr_array_header_t *sections = nssmtpd_proxy_conf(s)->sec_proxy;

        *section = APR_ARRAY_IDX(sections, sections->nelts - 1, ap_conf_vector_t *);
    }
    return wrong;
}

static const char *make_sections(ground_t *ground, server_rec *s, apr_pool_t *pconf,
                                 apr_pool_t *ptemp)
{
    static const char *const any[][2] = {
        { "SSLProxyEngine", "on" },       { "SSLProxyVerify", "none" },
        { "SSLProxyCheckPeerCN", "off" }, { "SSLProxyCheckPeerName", "off" },
        { "SSLProxyCheckPeerExpire", "off" }, { NULL, NULL }
    };
    static const char *const good[][2] = {
        { "SSLProxyEngine", "on" },       { "SSLProxyVerify", "require" },
        { "SSLProxyCheckPeerName", "on" }, { "SSLProxyCheckPeerExpire", "on" },
        { NULL, NULL }
    };
    const char *wrong = make_section(s, pconf, ptemp, "smtp://any.invalid/", any, &ground->any);

    return wrong || !ground->knows_whom_to_trust
               ? wrong
               : make_section(s, pconf, ptemp, "smtp://good.invalid/", good, &ground->good);
}

static apr_status_t forget(void *unused)
{
    (void)unused;
    grounds = NULL;
    return APR_SUCCESS;
}

const char *nssmtpd_policy_prepare(server_rec *s, apr_pool_t *pconf, apr_pool_t *ptemp)
{
    ground_t *ground;

    if (ground_of(s)) {
        return NULL;
    }
    if (!grounds) {
        apr_pool_cleanup_register(pconf, NULL, forget, apr_pool_cleanup_null);
    }
    ground = apr_pcalloc(pconf, sizeof(*ground));
    ground->server = s;
    ground->has_ssl = ap_find_linked_module("mod_ssl.c") != NULL;
    ground->may_try = ground->has_ssl && is_on(s, "SSLProxyEngine");
    ground->knows_whom_to_trust = nssmtpd_find_directive(s, "SSLProxyCACertificateFile")
                                  || nssmtpd_find_directive(s, "SSLProxyCACertificatePath");
    ground->next = grounds;
    grounds = ground;
    return ground->has_ssl ? make_sections(ground, s, pconf, ptemp) : NULL;
}

void nssmtpd_policy_apply(const nssmtpd_relay_t *relay, proxy_worker *worker,
                          const server_rec *s)
{
    const ground_t *ground = ground_of(s);

    if (relay->tls != NSSMTPD_RELAY_TLS_NONE && !worker->section_config) {
        /* a balancer's members have the section that stands there */
        worker->section_config = relay->tls == NSSMTPD_RELAY_TLS_VERIFY ? ground->good
                                                                        : ground->any;
    }
}

int nssmtpd_policy_number(const nssmtpd_relay_t *relay)
{
    static int with_credentials = 2 * (NSSMTPD_RELAY_TLS_VERIFY + 1);

    return relay->user ? with_credentials++ : relay->tls * 2 + relay->is_implicit;
}
