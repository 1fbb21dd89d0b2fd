/* Configurations of servers: made, merged and finished. What may be said in one is in
 * directives.c, what must fit together in check.c.
 */
#include "server/config.h"

#include <apr_strings.h>
#include <http_main.h>
#include <stdlib.h>

#include "server/changes.h"
#include "server/check.h"
#include "server/directives.h"
#include "server/memo.h"
#include "server/names.h"
#include "server/phase.h"
#include "server/tls.h"

extern module AP_MODULE_DECLARE_DATA nssmtpd_module;

static void unset(const nssmtpd_number_t *number, apr_int64_t *value, const apr_int64_t *outer)
{
    (void)number, (void)outer;
    *value = NSSMTPD_UNSET;
}

static void inherit(const nssmtpd_number_t *number, apr_int64_t *value, const apr_int64_t *outer)
{
    if (*value == NSSMTPD_UNSET && !number->is_own) {
        *value = *outer;
    }
}

static void set_default(const nssmtpd_number_t *number, apr_int64_t *value,
                        const apr_int64_t *outer)
{
    (void)outer;
    if (*value == NSSMTPD_UNSET) {
        *value = number->initial;
    }
}

void *nssmtpd_config_create(apr_pool_t *p, server_rec *s)
{
    nssmtpd_config_t *conf = apr_pcalloc(p, sizeof(*conf));

    conf->server = s;
    conf->changes = NSSMTPD_NO_PLACE;
    nssmtpd_directives_each(unset, conf, NULL);
    return conf;
}

void *nssmtpd_config_merge(apr_pool_t *p, void *base, void *add)
{
    const nssmtpd_config_t *outer = base, *inner = add;
    nssmtpd_config_t *conf = apr_pmemdup(p, inner, sizeof(*conf));

    nssmtpd_directives_each(inherit, conf, base);
    conf->spool_directory = inner->spool_directory ? inner->spool_directory
                                                   : outer->spool_directory;
    conf->hostname = inner->hostname ? inner->hostname : outer->hostname;
    conf->send_log = inner->send_log ? inner->send_log : outer->send_log;
    conf->relay_credentials = inner->relay_credentials ? inner->relay_credentials
                                                       : outer->relay_credentials;
    conf->relay = inner->relay ? inner->relay : outer->relay;
    conf->domains = inner->domains ? inner->domains : outer->domains;
    conf->auth_providers = inner->auth_providers ? inner->auth_providers : outer->auth_providers;
    conf->trusted = inner->trusted ? inner->trusted : outer->trusted;
    conf->name_servers = inner->name_servers ? inner->name_servers : outer->name_servers;
    conf->scanners = inner->scanners ? inner->scanners : outer->scanners;
    return conf;
}

nssmtpd_config_t *nssmtpd_config(const server_rec *s)
{
    return ap_get_module_config(s->module_config, &nssmtpd_module);
}

static void trust_loopback(nssmtpd_config_t *conf, apr_pool_t *p)
{
    if (!conf->trusted) {
        conf->trusted = apr_array_make(p, 2, sizeof(nssmtpd_client_t));
        nssmtpd_lists_parse_client(p, apr_array_push(conf->trusted), "127.0.0.0/8");
        nssmtpd_lists_parse_client(p, apr_array_push(conf->trusted), "::1");
    }
}

/* Each server gets routes of its own: mod_proxy's workers belong to one. */
static void copy_routes(nssmtpd_config_t *conf, apr_pool_t *p)
{
    int i;

    if (conf->relay) {
        conf->relay = apr_pmemdup(p, conf->relay, sizeof(*conf->relay));
        conf->relay->is_default = 1;
    }
    conf->domains = conf->domains ? apr_array_copy(p, conf->domains) : NULL;
    for (i = 0; conf->domains && i < conf->domains->nelts; i++) {
        nssmtpd_domain_t *domain = &APR_ARRAY_IDX(conf->domains, i, nssmtpd_domain_t);

        if (domain->route) {
            domain->route = apr_pmemdup(p, domain->route, sizeof(*domain->route));
        }
    }
}

static void finish_server(nssmtpd_config_t *conf, server_rec *s, apr_pool_t *pconf)
{
    conf->server = s;
    nssmtpd_directives_each(set_default, conf, NULL);
    if (conf->tls == NSSMTPD_UNSET) {
        conf->tls = nssmtpd_tls_is_on(s) ? NSSMTPD_TLS_STARTTLS : NSSMTPD_TLS_OFF;
    }
    trust_loopback(conf, pconf);
    copy_routes(conf, pconf);
    conf->spool_configured = conf->spool_directory != NULL;
    if (!conf->spool_directory) {
        conf->spool_directory = ap_runtime_dir_relative(pconf, NSSMTPD_SPOOL_DIRECTORY);
    }
    conf->offer.hostname = conf->hostname ? conf->hostname : s->server_hostname;
    conf->offer.max_line = conf->max_line;
    conf->offer.max_size = conf->max_message_size;
    conf->offer.max_errors = conf->max_errors;
    conf->offer.max_rcpts = conf->max_recipients;
    conf->phases = apr_pcalloc(pconf, NSSMTPD_PHASE_COUNT * sizeof(*conf->phases));
    conf->memo = nssmtpd_memo_create(pconf);
    conf->domain_list = nssmtpd_lists_index(pconf, conf->domains);
}

int nssmtpd_config_finish(apr_pool_t *pconf, apr_pool_t *ptemp, server_rec *main_server)
{
    server_rec *s;
    int rc = OK;

    for (s = main_server; s; s = s->next) {
        nssmtpd_config_t *conf = nssmtpd_config(s);

        if (conf->engine == 1) {
            finish_server(conf, s, pconf);
            if (nssmtpd_check_server(conf, pconf, ptemp) != OK) {
                rc = !OK;
            }
        }
    }
    return rc == OK ? nssmtpd_check_ports(main_server) : rc;
}

const char *nssmtpd_hostname(const server_rec *s)
{
    return nssmtpd_config(s)->offer.hostname;
}

const char *nssmtpd_relay_url(const server_rec *s)
{
    const nssmtpd_config_t *conf = nssmtpd_config(s);

    return conf->relay ? conf->relay->url : "";
}

int nssmtpd_is_host(const server_rec *s)
{
    return nssmtpd_config(s)->engine == 1;
}

const char *nssmtpd_send_log(const server_rec *s)
{
    return nssmtpd_config(s)->send_log;
}

apr_interval_time_t nssmtpd_timeout(const server_rec *s, nssmtpd_timeout_e which)
{
    return apr_time_from_sec(nssmtpd_config(s)->timeout[which]);
}

nssmtpd_relay_tls_e nssmtpd_relay_tls(const server_rec *s)
{
    return (nssmtpd_relay_tls_e)nssmtpd_config(s)->relay_tls;
}

apr_int64_t nssmtpd_script_memory(const server_rec *s)
{
    return nssmtpd_config(s)->script_memory;
}

nssmtpd_scanners_t *nssmtpd_scanners(const server_rec *s)
{
    return nssmtpd_config(s)->scanners;
}

apr_int64_t nssmtpd_max_message_size(const server_rec *s)
{
    return nssmtpd_config(s)->max_message_size;
}

apr_uint32_t nssmtpd_flags(const server_rec *s)
{
    return (apr_uint32_t)nssmtpd_config(s)->flags;
}

int nssmtpd_domain_takes_mail(const server_rec *s, apr_pool_t *p, const char *domain,
                              const char **why)
{
    nssmtpd_names_e rc = nssmtpd_names_domain(p, nssmtpd_config(s)->name_servers,
                                              NSSMTPD_DNS_TIMEOUT, domain, why);

    return rc == NSSMTPD_NAMES_UNKNOWN ? -1 : rc == NSSMTPD_NAMES_YES;
}

/* Hosts by name */

static server_rec *next_host(server_rec *s)
{
    while (s && nssmtpd_config(s)->engine != 1) {
        s = s->next;
    }
    return s;
}

/* "name:port", "name", or ":port": the first host that fits. */
static int is_called(const server_rec *s, const char *name)
{
    const char *colon = strrchr(name, ':');
    apr_size_t n = colon ? (apr_size_t)(colon - name) : strlen(name);
    const char *own = nssmtpd_config(s)->offer.hostname;
    apr_port_t port = s->addrs ? s->addrs->host_port : s->port;

    return (n == 0 || (strlen(own) == n && strncasecmp(own, name, n) == 0)
            || (strlen(s->server_hostname) == n && strncasecmp(s->server_hostname, name, n) == 0))
           && (!colon || atoi(colon + 1) == port);
}

/* The first in the configuration that fits; httpd's list of hosts has the last one first. */
static server_rec *first_host(const char *name)
{
    server_rec *s, *first = NULL;

    for (s = next_host(ap_server_conf); s; s = next_host(s->next)) {
        if (!name || is_called(s, name)) {
            first = s;
        }
    }
    return first;
}

server_rec *nssmtpd_host_find(const char *name)
{
    return first_host(name);
}

server_rec *nssmtpd_host_of(const request_rec *r)
{
    return nssmtpd_config(r->server)->engine == 1 ? r->server : first_host(NULL);
}

const char *nssmtpd_relay_credentials(const server_rec *s)
{
    return nssmtpd_config(s)->relay_credentials;
}
