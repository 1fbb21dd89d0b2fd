/* From a delivery URL to a worker of mod_proxy: canonical name with an explicit port, so
 * that the same relay is one pool; no password in it, since mod_proxy shows names; and the
 * timeouts without which mod_proxy waits for ever. A worker made at run time stands alone:
 * the list of mod_proxy's must not grow while other threads walk it.
 */
#include "relay/route.h"

#include <apr_escape.h>
#include <apr_strings.h>
#include <http_config.h>

#include "relay/credentials.h"
#include "relay/policy.h"
#include "relay/proxy.h"

/* Idle connections are closed before the relay does it: Postfix waits 300 s. */
#define IDLE_SECONDS 240

/* A balancer's member that failed is tried again soon: there is no queue to wait in. */
#define RETRY_SECONDS 5

static const struct {
    const char *prefix;
    int port;
    int is_implicit, has_credentials;
} schemes[] = {
    { "smtp://", 25, 0, 0 },
    { "smtps://", 465, 1, 0 },
    { "plain://", 587, 0, 1 },
    { "", 25, 0, 0 } /* a bare host[:port] */
};

/* Where the URL leads. */
typedef struct target_t {
    const char *host; /* lower case, IPv6 without brackets */
    int port;
} target_t;

static nssmtpd_relay_t *configured; /* while httpd starts it grows, then it is read only */

/* plain://user:password@: percent-encoded, any octet but NUL. */
static const char *take_userinfo(apr_pool_t *p, nssmtpd_relay_t *relay, const char **rest)
{
    const char *at = strrchr(*rest, '@');
    char *user, *password;

    if (!at) {
        return "plain:// needs user:password@ before the host";
    }
    user = apr_pstrmemdup(p, *rest, at - *rest);
    *rest = at + 1;
    if (!(password = strchr(user, ':'))) {
        return "plain:// needs user:password@ before the host";
    }
    *password++ = '\0';
    relay->user = apr_punescape_url(p, user, NULL, NULL, 0);
    relay->password = apr_punescape_url(p, password, NULL, NULL, 0);
    return relay->user && *relay->user && relay->password && *relay->password
               ? NULL
               : "plain:// has a user or password that is empty or badly percent-encoded";
}

static const char *take_host(apr_pool_t *p, target_t *target, const char *rest, int port)
{
    char *host, *scope;
    apr_port_t given = 0;
    apr_size_t n = strlen(rest);

    if (n && rest[n - 1] == '/') {
        rest = apr_pstrmemdup(p, rest, n - 1);
    }
    if (apr_parse_addr_port(&host, &scope, &given, rest, p) != APR_SUCCESS || !host || scope
        || strpbrk(host, "/?#@ ")) {
        return "the URL has no host[:port]";
    }
    ap_str_tolower(host);
    target->host = host;
    target->port = given ? given : port;
    return NULL;
}

static const char *parse(apr_pool_t *p, const char *url, nssmtpd_relay_t *relay, target_t *target)
{
    const char *bar = strncmp(url, "unix:", 5) == 0 ? strchr(url, '|') : NULL;
    const char *rest = bar ? bar + 1 : url, *wrong = NULL;
    int i = 0;

    relay->socket = bar ? apr_pstrmemdup(p, url, rest - url) : "";
    while (strncasecmp(rest, schemes[i].prefix, strlen(schemes[i].prefix)) != 0) {
        i++;
    }
    rest += strlen(schemes[i].prefix);
    relay->is_implicit = schemes[i].is_implicit;
    if (schemes[i].has_credentials) {
        wrong = take_userinfo(p, relay, &rest);
    }
    return wrong ? wrong : take_host(p, target, rest, schemes[i].port);
}

/* What mod_proxy would leave at "for ever" or at what suits HTTP. */
static void set_defaults(proxy_worker *worker, server_rec *s, int member)
{
    proxy_worker_shared *shared = worker->s;
    apr_interval_time_t connect = nssmtpd_timeout(s, NSSMTPD_TIMEOUT_CONNECT);

    if (!shared->acquire_set) {
        shared->acquire = connect;
        shared->acquire_set = 1;
    }
    if (!shared->conn_timeout_set) {
        shared->conn_timeout = connect;
        shared->conn_timeout_set = 1;
    }
    if (!shared->timeout_set) {
        shared->timeout = nssmtpd_timeout(s, NSSMTPD_TIMEOUT_RELAY);
        shared->timeout_set = 1;
    }
    if (!shared->ttl) {
        shared->ttl = apr_time_from_sec(IDLE_SECONDS);
    }
    if (member && !shared->retry_set) {
        shared->retry = apr_time_from_sec(RETRY_SECONDS);
        shared->retry_set = 1;
    }
}

static const char *set_params(const nssmtpd_route_t *route, const char *name, server_rec *s,
                              apr_pool_t *pconf, apr_pool_t *ptemp)
{
    const char *args = name;
    int i;

    for (i = 0; route->params[i]; i++) {
        args = apr_pstrcat(ptemp, args, " ", route->params[i], NULL);
    }
    return i ? nssmtpd_proxy_set(s, pconf, ptemp, args) : NULL;
}

static const char *configure_balancer(nssmtpd_relay_t *relay, server_rec *s, apr_pool_t *ptemp)
{
    proxy_balancer *balancer;
    int i;

    if (!ap_find_linked_module("mod_proxy_balancer.c")) {
        return "balancer:// needs mod_proxy_balancer; add LoadModule proxy_balancer_module and "
               "a LoadModule lbmethod_.._module";
    }
    balancer = nssmtpd_proxy.get_balancer(ptemp, nssmtpd_proxy_conf(s), relay->name, 0);
    if (!balancer) {
        return apr_psprintf(ptemp, "there is no <Proxy %s> with BalancerMembers in this server",
                            relay->name);
    }
    for (i = 0; i < balancer->workers->nelts; i++) {
        proxy_worker *member = APR_ARRAY_IDX(balancer->workers, i, proxy_worker *);

        if (member->s->port == 0 || strcasecmp(member->s->scheme, "smtp") != 0) {
            return apr_psprintf(ptemp, "BalancerMember %s of %s must be smtp://host:port, with "
                                "the port written out", member->s->name_ex, relay->name);
        }
        set_defaults(member, s, 1);
        nssmtpd_policy_apply(relay, member, s);
    }
    return NULL;
}

/* Connections that differ in TLS or credentials never share a pool: the path of the name
 * tells them apart and means nothing else. */
static const char *worker_name(apr_pool_t *p, const nssmtpd_relay_t *relay,
                               const target_t *target)
{
    const char *id = relay->user || relay->tls > NSSMTPD_RELAY_TLS_MAY || relay->is_implicit
                         ? apr_itoa(p, nssmtpd_policy_number(relay))
                         : "";
    int is_ipv6 = strchr(target->host, ':') != NULL;

    return apr_psprintf(p, "smtp://%s%s%s:%d/%s", is_ipv6 ? "[" : "", target->host,
                        is_ipv6 ? "]" : "", target->port, id);
}

static const char *configure_worker(const nssmtpd_route_t *route, nssmtpd_relay_t *relay,
                                    server_rec *s, apr_pool_t *pconf, apr_pool_t *ptemp)
{
    proxy_server_conf *conf = nssmtpd_proxy_conf(s);
    const char *wrong = NULL;
    proxy_worker *worker;

    worker = nssmtpd_proxy.get_worker(ptemp, NULL, conf, relay->name);
    if (!worker || strcmp(worker->s->name_ex, relay->name) != 0) {
        wrong = nssmtpd_proxy.define_worker(pconf, &worker, NULL, conf,
                                            apr_pstrcat(pconf, relay->socket, relay->name, NULL),
                                            0);
    }
    if (!wrong) {
        wrong = set_params(route, relay->name, s, pconf, ptemp);
    }
    if (!wrong) {
        set_defaults(worker, s, 0);
        nssmtpd_policy_apply(relay, worker, s);
    }
    return wrong;
}

/* The same as mod_proxy makes workers of its own in a child. */
static const char *make_worker(nssmtpd_relay_t *relay, server_rec *s, apr_pool_t *pool,
                               apr_pool_t *ptemp)
{
    const char *name = apr_pstrcat(ptemp, relay->socket, relay->name, NULL);
    const char *wrong = nssmtpd_proxy.define_worker(pool, &relay->worker, NULL, NULL, name, 0);

    if (wrong) {
        return wrong;
    }
    set_defaults(relay->worker, s, 0);
    nssmtpd_policy_apply(relay, relay->worker, s);
    return nssmtpd_proxy.initialize_worker(relay->worker, s, pool) == APR_SUCCESS
               ? NULL
               : "mod_proxy cannot make a worker for it; its own line in the error log says why";
}

/* Routes to the same relay share it, for its connections are the same ones; what the configuration
 * says of it holds at run time too. Not where there are credentials: those are for whom they were
 * given. */
static nssmtpd_relay_t *find_configured(const nssmtpd_relay_t *relay, const server_rec *s)
{
    nssmtpd_relay_t *known = configured;

    while (known && (relay->user || known->user || known->server != s
                     || strcmp(known->name, relay->name) != 0
                     || strcmp(known->socket, relay->socket) != 0)) {
        known = known->next;
    }
    return known;
}

static const char *configure_url(nssmtpd_route_t *route, nssmtpd_relay_t *relay, server_rec *s,
                                 apr_pool_t *pool, apr_pool_t *ptemp)
{
    target_t target;
    const char *wrong = parse(pool, route->url, relay, &target);
    nssmtpd_relay_t *known;

    route->url = wrong ? "" : apr_psprintf(pool, "%s:%d", target.host, target.port);
    if (!wrong) {
        wrong = nssmtpd_policy_set(relay, route->is_default, s, pool);
    }
    if (wrong) {
        return wrong;
    }
    relay->name = worker_name(pool, relay, &target);
    if ((known = find_configured(relay, s))) {
        route->baton = known;
    }
    if (!route->at_run_time) {
        return configure_worker(route, relay, s, pool, ptemp);
    }
    return known ? NULL : make_worker(relay, s, pool, ptemp);
}

static const char *configure_cluster(nssmtpd_route_t *route, nssmtpd_relay_t *relay,
                                     server_rec *s, apr_pool_t *pool, apr_pool_t *ptemp)
{
    nssmtpd_relay_t *known;
    const char *wrong = NULL;

    relay->name = route->url;
    relay->socket = "";
    if (*route->params) {
        return "balancer:// takes no parameters here; ProxySet in its <Proxy> section does";
    }
    if (!route->at_run_time) {
        wrong = nssmtpd_policy_set(relay, route->is_default, s, pool);
    }
    if (!wrong && (known = find_configured(relay, s))) {
        route->baton = known;
        return NULL;
    }
    if (route->at_run_time) {
        return "at run time there are only balancers that SmtpdRelay or SmtpdRelayDomains has "
               "named, and no credentials";
    }
    return wrong ? wrong : configure_balancer(relay, s, ptemp);
}

static apr_status_t forget(void *unused)
{
    (void)unused;
    configured = NULL;
    return APR_SUCCESS;
}

static void remember(nssmtpd_relay_t *relay, apr_pool_t *pconf)
{
    if (!configured) {
        apr_pool_cleanup_register(pconf, NULL, forget, apr_pool_cleanup_null);
    }
    relay->next = configured;
    configured = relay;
}

const char *nssmtpd_route_prepare(server_rec *s, apr_pool_t *pconf, apr_pool_t *ptemp)
{
    const char *wrong = nssmtpd_proxy_resolve(pconf);

    if (wrong) {
        return wrong;
    }
    nssmtpd_proxy_own_conf(s, pconf);
    return nssmtpd_policy_prepare(s, pconf, ptemp);
}

const char *nssmtpd_route_configure(nssmtpd_route_t *route, server_rec *s, apr_pool_t *pool,
                                    apr_pool_t *ptemp)
{
    nssmtpd_relay_t *relay = apr_pcalloc(pool, sizeof(*relay));
    const char *wrong = NULL;

    if (!route->at_run_time) {
        wrong = nssmtpd_route_prepare(s, pool, ptemp);
    }
    else if (!nssmtpd_proxy.module) {
        wrong = "mail to a relay needs mod_proxy; add LoadModule proxy_module";
    }
    if (wrong) {
        return wrong;
    }
    route->baton = relay;
    relay->server = s;
    relay->is_balancer = strncasecmp(route->url, "balancer://", 11) == 0;
    wrong = relay->is_balancer ? configure_cluster(route, relay, s, pool, ptemp)
                               : configure_url(route, relay, s, pool, ptemp);
    if (!wrong && !route->at_run_time && route->baton == relay) {
        remember(relay, pool);
    }
    return wrong;
}
