/* From a delivery URL to a worker of mod_proxy: canonical name with an explicit port, so
 * that the same relay is one pool, and the timeouts without which mod_proxy waits for ever.
 * Called while httpd starts.
 */
#include "relay/route.h"

#include <apr_strings.h>
#include <apr_uri.h>
#include <http_config.h>

#include "relay/proxy.h"
#include "smtp/address.h"

#define DEFAULT_PORT 25

/* Idle connections are closed before the relay does it: Postfix waits 300 s. */
#define IDLE_SECONDS 240

/* A balancer's member that failed is tried again soon: there is no queue to wait in. */
#define RETRY_SECONDS 5

/* smtp://host:port/ of "host", "host:port", "1.2.3.4:25", "[::1]:25" or smtp://..; the
 * part before a '|' names a socket and stays. NULL: this is no such URL. */
static const char *canonical(apr_pool_t *p, const char *url, const char **wrong)
{
    const char *bar = strncmp(url, "unix:", 5) == 0 ? strchr(url, '|') : NULL;
    const char *rest = bar ? bar + 1 : url;
    apr_uri_t uri;
    char *host;

    if (!strstr(rest, "://")) {
        rest = apr_pstrcat(p, "smtp://", rest, NULL);
    }
    if (apr_uri_parse(p, rest, &uri) != APR_SUCCESS || !uri.hostname || !*uri.hostname
        || (uri.path && strcmp(uri.path, "/") != 0) || uri.query || uri.fragment) {
        *wrong = apr_psprintf(p, "\"%s\" is no smtp://host[:port]", url);
        return NULL;
    }
    if (uri.user || uri.password) {
        *wrong = "smtp: takes no user and password";
        return NULL;
    }
    host = uri.hostname;
    ap_str_tolower(host);
    return apr_psprintf(p, "%.*ssmtp://%s%s%s:%d/", bar ? (int)(bar + 1 - url) : 0, url,
                        strchr(host, ':') ? "[" : "", host, strchr(host, ':') ? "]" : "",
                        uri.port ? uri.port : DEFAULT_PORT);
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
    }
    return NULL;
}

static const char *configure_worker(const nssmtpd_route_t *route, nssmtpd_relay_t *relay,
                                    const char *url, server_rec *s, apr_pool_t *pconf,
                                    apr_pool_t *ptemp)
{
    proxy_server_conf *conf = nssmtpd_proxy_conf(s);
    proxy_worker *worker = nssmtpd_proxy.get_worker(ptemp, NULL, conf, relay->name);
    const char *wrong = NULL;

    if (!worker) {
        wrong = nssmtpd_proxy.define_worker(pconf, &worker, NULL, conf, url, 0);
    }
    if (!wrong) {
        wrong = set_params(route, relay->name, s, pconf, ptemp);
    }
    if (!wrong) {
        set_defaults(worker, s, 0);
    }
    return wrong;
}

const char *nssmtpd_route_configure(nssmtpd_route_t *route, server_rec *s, apr_pool_t *pconf,
                                    apr_pool_t *ptemp)
{
    nssmtpd_relay_t *relay = apr_pcalloc(pconf, sizeof(*relay));
    const char *wrong = nssmtpd_proxy_resolve(ptemp), *url, *bar;

    if (wrong) {
        return wrong;
    }
    route->baton = relay;
    relay->is_balancer = strncasecmp(route->url, "balancer://", 11) == 0;
    if (relay->is_balancer) {
        relay->name = route->url;
        if (*route->params) {
            return "balancer:// takes no parameters here; ProxySet in its <Proxy> section does";
        }
        return configure_balancer(relay, s, ptemp);
    }
    if (!(url = canonical(pconf, route->url, &wrong))) {
        return wrong;
    }
    bar = strchr(url, '|');
    relay->name = bar ? bar + 1 : url;
    route->url = url;
    return configure_worker(route, relay, url, s, pconf, ptemp);
}
