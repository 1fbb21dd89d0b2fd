/* What no single directive can see: that there is a delivery and its module, that a port
 * speaks one protocol, that the MPM can wait without a thread, and that listeners do not
 * wait for the client to speak first, as they do for HTTP.
 */
#include "server/check.h"

#include <httpd.h>

#include <ap_listen.h>
#include <ap_mpm.h>
#include <ap_provider.h>
#include <apr_portable.h>
#include <apr_strings.h>
#include <http_log.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/auth.h"
#include "server/tls.h"

APLOG_USE_MODULE(nssmtpd);

/* The scheme of a delivery URL; a bare host is smtp's. unix:/path|smtp://host is how
 * mod_proxy writes a socket. */
static const char *scheme_of(apr_pool_t *p, const char *url)
{
    const char *bar = strncmp(url, "unix:", 5) == 0 ? strchr(url, '|') : NULL;
    const char *start = bar ? bar + 1 : url;
    const char *colon = strchr(start, ':');
    char *scheme = colon ? apr_pstrmemdup(p, start, colon - start) : NULL;

    if (!scheme) {
        return "smtp";
    }
    ap_str_tolower(scheme);
    if (strncmp(colon, "://", 3) == 0
        || ap_lookup_provider(NSSMTPD_DELIVERY_GROUP, scheme, NSSMTPD_DELIVERY_VERSION)) {
        return scheme;
    }
    return "smtp";
}

const nssmtpd_delivery_t *nssmtpd_delivery_find(apr_pool_t *p, const char *url,
                                                const char **scheme)
{
    *scheme = scheme_of(p, url);
    return ap_lookup_provider(NSSMTPD_DELIVERY_GROUP, *scheme, NSSMTPD_DELIVERY_VERSION);
}

static int check_route(nssmtpd_route_t *route, const char *directive, server_rec *s,
                       apr_pool_t *pconf, apr_pool_t *ptemp)
{
    const char *scheme, *wrong;

    route->delivery = nssmtpd_delivery_find(ptemp, route->url, &scheme);
    if (!route->delivery) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, 0, s,
                     "NS0002: %s: no delivery for URLs of scheme \"%s\"; there are smtp, "
                     "balancer, maildir and discard", directive, scheme);
        return !OK;
    }
    if ((wrong = route->delivery->configure(route, s, pconf, ptemp))) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, 0, s, "NS0003: %s: %s", directive, wrong);
        return !OK;
    }
    return OK;
}

static int check_tls(const nssmtpd_config_t *conf)
{
    const char *wrong = NULL;

    if (conf->tls == NSSMTPD_TLS_OFF) {
        wrong = conf->tls_required ? "required needs TLS; say starttls or immediate, or drop it"
                                   : NULL;
    }
    else if (!ap_find_linked_module("mod_ssl.c")) {
        wrong = "needs mod_ssl; add LoadModule ssl_module";
    }
    else if (!nssmtpd_tls_is_on(conf->server)) {
        wrong = "needs SSLEngine on and a certificate in the same virtual host";
    }
    if (wrong) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, 0, conf->server, "NS0016: SmtpdTLS: %s", wrong);
        return !OK;
    }
    return OK;
}

static int is_directory(const char *path, apr_pool_t *p)
{
    apr_finfo_t info;

    return apr_stat(&info, path, APR_FINFO_TYPE, p) == APR_SUCCESS && info.filetype == APR_DIR;
}

static int check_scanners(nssmtpd_config_t *conf, apr_pool_t *pconf, apr_pool_t *ptemp)
{
    const char *wrong = conf->scanners ? nssmtpd_scanners_configure(&conf->scanners, conf->server,
                                                                    pconf, ptemp)
                                       : NULL;

    if (wrong) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, 0, conf->server, "NS0084: SmtpdScanner %s", wrong);
        return !OK;
    }
    return OK;
}

/* Root writes anywhere; what its children may, they say when they start. */
static int is_writable(const char *path)
{
    return geteuid() == 0 || access(path, W_OK | X_OK) == 0;
}

int nssmtpd_check_server(nssmtpd_config_t *conf, apr_pool_t *pconf, apr_pool_t *ptemp)
{
    int i, routes = 0, rc = OK;

    if (conf->relay) {
        routes++;
        rc |= check_route(conf->relay, "SmtpdRelay", conf->server, pconf, ptemp);
    }
    for (i = 0; conf->domains && i < conf->domains->nelts; i++) {
        nssmtpd_route_t *route = APR_ARRAY_IDX(conf->domains, i, nssmtpd_domain_t).route;

        if (route) {
            routes++;
            rc |= check_route(route, "SmtpdRelayDomains", conf->server, pconf, ptemp);
        }
        else if (!conf->relay) {
            ap_log_error(APLOG_MARK, APLOG_EMERG, 0, conf->server,
                         "NS0004: SmtpdRelayDomains: %s has no route and there is no SmtpdRelay "
                         "to take its mail; add either",
                         APR_ARRAY_IDX(conf->domains, i, nssmtpd_domain_t).name);
            rc = !OK;
        }
    }
    rc |= check_scanners(conf, pconf, ptemp);
    if (check_tls(conf) != OK || nssmtpd_auth_check_config(conf) != OK) {
        rc = !OK;
    }
    if (conf->spool_configured
        && (!is_directory(conf->spool_directory, ptemp) || !is_writable(conf->spool_directory))) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, 0, conf->server,
                     "NS0013: SmtpdSpool: there is no directory %s that can be written to; make "
                     "it, writable for User", conf->spool_directory);
        rc = !OK;
    }
    if (!routes) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, 0, conf->server,
                     "NS0005: SmtpdEngine on for %s, but mail could go nowhere; add SmtpdRelay "
                     "with a URL, such as smtp://127.0.0.1:25", conf->offer.hostname);
        rc = !OK;
    }
    return rc;
}

/* Ports */

static int same_address(const server_addr_rec *a, const server_addr_rec *b)
{
    return a->host_port == b->host_port && apr_sockaddr_equal(a->host_addr, b->host_addr);
}

static int share_address(const server_rec *a, const server_rec *b)
{
    const server_addr_rec *x, *y;

    for (x = a->addrs; x; x = x->next) {
        for (y = b->addrs; y; y = y->next) {
            if (same_address(x, y)) {
                return 1;
            }
        }
    }
    return 0;
}

static int check_mixed(server_rec *smtp, server_rec *main_server)
{
    server_rec *s;

    for (s = main_server->next; s; s = s->next) {
        if (s != smtp && nssmtpd_config(s)->engine != 1 && share_address(smtp, s)) {
            ap_log_error(APLOG_MARK, APLOG_EMERG, 0, smtp,
                         "NS0006: SmtpdEngine: virtual hosts %s (%s:%u) and %s (%s:%u) share an "
                         "address and port, but only one speaks SMTP; give each its own port",
                         smtp->server_hostname, smtp->defn_name, smtp->defn_line_number,
                         s->server_hostname, s->defn_name, s->defn_line_number);
            return !OK;
        }
    }
    return OK;
}

static int check_mpm(server_rec *s)
{
    int async = 0, can_wait = 0;

    ap_mpm_query(AP_MPMQ_IS_ASYNC, &async);
    if (async && (ap_mpm_query(AP_MPMQ_CAN_WAITIO, &can_wait) != APR_SUCCESS || !can_wait)) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, 0, s,
                     "NS0007: SmtpdEngine: this httpd's event MPM cannot wait for a client "
                     "without a thread; use httpd 2.4.63 or later, or the worker MPM");
        return !OK;
    }
    return OK;
}

int nssmtpd_check_ports(server_rec *main_server)
{
    server_rec *s;

    for (s = main_server; s; s = s->next) {
        if (nssmtpd_config(s)->engine == 1
            && (check_mpm(s) != OK || check_mixed(s, main_server) != OK)) {
            return !OK;
        }
    }
    return OK;
}

/* Listeners */

static int serves(const server_rec *s, const apr_sockaddr_t *bound, int exactly)
{
    const server_addr_rec *addr;

    for (addr = s->addrs; addr; addr = addr->next) {
        if ((addr->host_port == 0 || addr->host_port == bound->port)
            && (apr_sockaddr_equal(addr->host_addr, bound)
                || (!exactly && (apr_sockaddr_is_wildcard(addr->host_addr)
                                 || apr_sockaddr_is_wildcard(bound))))) {
            return 1;
        }
    }
    return 0;
}

/* As httpd chooses: a virtual host of just this address, of any, or the main server. */
static int is_smtp(const ap_listen_rec *lr, const server_rec *main_server)
{
    const server_rec *s;
    int exactly;

    for (exactly = 1; exactly >= 0; exactly--) {
        for (s = main_server->next; s; s = s->next) {
            if (serves(s, lr->bind_addr, exactly)) {
                return nssmtpd_config(s)->engine == 1;
            }
        }
    }
    return nssmtpd_config(main_server)->engine == 1;
}

void nssmtpd_check_mark_listeners(server_rec *main_server)
{
    ap_listen_rec *lr;

    for (lr = ap_listeners; lr; lr = lr->next) {
        if (is_smtp(lr, main_server)) {
            lr->protocol = "smtp";
        }
    }
}

void nssmtpd_check_undefer_listeners(server_rec *main_server)
{
#ifdef TCP_DEFER_ACCEPT
    ap_listen_rec *lr;
    apr_os_sock_t fd;
    int off = 0;

    for (lr = ap_listeners; lr; lr = lr->next) {
        if (lr->sd && is_smtp(lr, main_server)
            && apr_os_sock_get(&fd, lr->sd) == APR_SUCCESS) {
            setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &off, sizeof(off));
        }
    }
#endif
}
