/* Looking up who may send where. As long as nothing was changed at run time that is one
 * atomic read and the configuration's index. A changed list is parsed once by each child
 * and version, under a lock that lookups share; routes live for ever. Called for each
 * connection and recipient, and by scripts.
 */
#include "server/permits.h"

#include <apr_strings.h>
#include <apr_thread_rwlock.h>
#include <http_log.h>

#include "server/changes.h"
#include "smtp/address.h"

APLOG_USE_MODULE(nssmtpd);

/* One changed list of one host, parsed. */
typedef struct snapshot_t {
    struct snapshot_t *next;
    int place;
    nssmtpd_list_e list;
    apr_uint32_t version;
    apr_pool_t *pool;
    nssmtpd_domains_t *domains;
    apr_array_header_t *clients; /* of nssmtpd_client_t */
} snapshot_t;

static snapshot_t *snapshots;
static apr_thread_rwlock_t *lock;
static apr_pool_t *pool;

apr_status_t nssmtpd_permits_init(apr_pool_t *p)
{
    snapshots = NULL;
    apr_pool_create(&pool, p); /* only with the lock; others use p at the same time */
    return apr_thread_rwlock_create(&lock, p);
}

/* Parsing */

const char *nssmtpd_permits_route(const nssmtpd_config_t *conf, const nssmtpd_domain_t *domain,
                                  nssmtpd_route_t **route)
{
    int i;

    for (i = 0; conf->domains && i < conf->domains->nelts; i++) {
        const nssmtpd_domain_t *own = &APR_ARRAY_IDX(conf->domains, i, nssmtpd_domain_t);

        if (strcmp(own->url, domain->url) == 0) {
            *route = own->route;
            return NULL;
        }
    }
    return nssmtpd_route_at_run_time(conf->server, domain->url, route);
}

/* An entry that cannot be used still says that its mail is taken, so nobody is refused for good:
 * the fault is ours. */
static const smtp_reply_t *defer_rcpt(nssmtpd_transaction_t *t, const nssmtpd_rcpt_t *rcpt)
{
    (void)t, (void)rcpt;
    return smtp_reply(SMTP_REPLY_LOCAL_FAULT);
}

static const smtp_reply_t *defer(nssmtpd_transaction_t *t)
{
    (void)t;
    return smtp_reply(SMTP_REPLY_LOCAL_FAULT);
}

static void nothing(nssmtpd_transaction_t *t)
{
    (void)t;
}

static const nssmtpd_delivery_t deferral = {
    .rcpt = defer_rcpt,
    .deliver = defer,
    .idle = nothing,
    .restart = nothing,
    .end = nothing
};

static const char *const no_params[] = { NULL };
static nssmtpd_route_t deferring = { .url = "", .params = no_params, .delivery = &deferral };

static const char *add_domain(const nssmtpd_config_t *conf, apr_array_header_t *domains,
                              const char *line)
{
    nssmtpd_domain_t domain;
    const char *wrong = nssmtpd_lists_parse_domain(domains->pool, &domain, line);

    if (wrong) {
        return wrong;
    }
    if (domain.route) {
        wrong = nssmtpd_permits_route(conf, &domain, &domain.route);
    }
    else if (!conf->relay) {
        wrong = "there is no SmtpdRelay any more to take its mail";
    }
    if (wrong) {
        domain.route = &deferring;
    }
    APR_ARRAY_PUSH(domains, nssmtpd_domain_t) = domain;
    return wrong;
}

static const char *add_client(apr_array_header_t *clients, const char *line)
{
    nssmtpd_client_t client;
    const char *wrong = nssmtpd_lists_parse_client(clients->pool, &client, line);

    if (!wrong) {
        APR_ARRAY_PUSH(clients, nssmtpd_client_t) = client;
    }
    return wrong;
}

/* All of it was checked before it came into the list, but a graceful restart may have taken
 * away what an entry needs. Its URL may hold a password: only the name is told. */
static void parse(const nssmtpd_config_t *conf, snapshot_t *snapshot,
                  const apr_array_header_t *lines)
{
    int i, is_relay = snapshot->list == NSSMTPD_LIST_RELAY;
    apr_array_header_t *domains = apr_array_make(snapshot->pool, 16, sizeof(nssmtpd_domain_t));

    snapshot->clients = apr_array_make(snapshot->pool, 16, sizeof(nssmtpd_client_t));
    for (i = 0; i < lines->nelts; i++) {
        const char *line = APR_ARRAY_IDX(lines, i, const char *);
        const char *wrong = is_relay ? add_domain(conf, domains, line)
                                     : add_client(snapshot->clients, line);

        if (wrong) {
            ap_log_error(APLOG_MARK, APLOG_ERR, 0, conf->server,
                         "NS0062: an entry of a list that a script has changed cannot be "
                         "used: %.*s: %s", (int)strcspn(line, ":=\t"), line, wrong);
        }
    }
    snapshot->domains = nssmtpd_lists_index(snapshot->pool, domains);
}

/* Snapshots */

static snapshot_t *find(int place, nssmtpd_list_e list)
{
    snapshot_t *snapshot = snapshots;

    while (snapshot && (snapshot->place != place || snapshot->list != list)) {
        snapshot = snapshot->next;
    }
    return snapshot;
}

static snapshot_t *add(int place, nssmtpd_list_e list)
{
    snapshot_t *snapshot = apr_pcalloc(pool, sizeof(*snapshot));

    snapshot->place = place;
    snapshot->list = list;
    snapshot->next = snapshots;
    snapshots = snapshot;
    return snapshot;
}

/* With the lock for writing. A pool of its own, not below another: httpd's threads may use
 * those at the same time. */
static void renew(const nssmtpd_config_t *conf, snapshot_t *snapshot)
{
    snapshot_t old = *snapshot;
    const apr_array_header_t *lines;

    if (apr_pool_create_unmanaged(&snapshot->pool) != APR_SUCCESS) {
        snapshot->pool = old.pool;
        return;
    }
    lines = nssmtpd_changes_read(conf->changes, snapshot->list, snapshot->pool,
                                 &snapshot->version);
    if (!lines) {
        apr_pool_destroy(snapshot->pool);
        *snapshot = old;
        return;
    }
    parse(conf, snapshot, lines);
    if (old.pool) {
        apr_pool_destroy(old.pool);
    }
}

/* The snapshot of a changed list, with the lock for reading; NULL without it: the list is as
 * configured. */
static const snapshot_t *enter(const nssmtpd_config_t *conf, nssmtpd_list_e list)
{
    apr_uint32_t version = nssmtpd_changes_version(conf->changes, list);
    snapshot_t *snapshot;

    if (!version) {
        return NULL;
    }
    apr_thread_rwlock_rdlock(lock);
    snapshot = find(conf->changes, list);
    if (!snapshot || snapshot->version != version) {
        apr_thread_rwlock_unlock(lock);
        apr_thread_rwlock_wrlock(lock);
        snapshot = find(conf->changes, list);
        snapshot = snapshot ? snapshot : add(conf->changes, list);
        if (snapshot->version != version) {
            renew(conf, snapshot);
        }
    }
    if (!snapshot->pool) { /* it could not even be read */
        apr_thread_rwlock_unlock(lock);
        return NULL;
    }
    return snapshot;
}

static void leave(void)
{
    apr_thread_rwlock_unlock(lock);
}

/* Lookups */

int nssmtpd_permits_domain(const nssmtpd_config_t *conf, const char *domain,
                           const nssmtpd_route_t **route)
{
    const snapshot_t *snapshot = enter(conf, NSSMTPD_LIST_RELAY);
    const nssmtpd_domain_t *found =
        nssmtpd_lists_find(snapshot ? snapshot->domains : conf->domain_list, domain);

    *route = found ? found->route : NULL;
    if (snapshot) {
        leave();
    }
    return found != NULL;
}

int nssmtpd_permits_client(const nssmtpd_config_t *conf, apr_sockaddr_t *addr)
{
    const snapshot_t *snapshot = enter(conf, NSSMTPD_LIST_LOCALS);
    int is_listed = nssmtpd_lists_has_client(snapshot ? snapshot->clients : conf->trusted, addr);

    if (snapshot) {
        leave();
    }
    return is_listed;
}

apr_uint32_t nssmtpd_permits_clients_version(const nssmtpd_config_t *conf)
{
    return nssmtpd_changes_version(conf->changes, NSSMTPD_LIST_LOCALS);
}

const nssmtpd_route_t *nssmtpd_route_of(server_rec *s, const char *domain)
{
    const nssmtpd_config_t *conf = nssmtpd_config(s);
    const nssmtpd_route_t *own;

    nssmtpd_permits_domain(conf, domain, &own);
    return own ? own : conf->relay;
}

/* For scripts */

/* The route of a domain as scripts see it: a bare host is smtp's, and no password. */
static const char *show_url(apr_pool_t *p, const char *url)
{
    const char *host = strstr(url, "://"), *at = strrchr(url, '@'), *colon, *scheme;

    if (host && at > host && (colon = memchr(host + 3, ':', at - host - 3))) {
        return apr_psprintf(p, "%.*s%s", (int)(colon - url), url, at);
    }
    nssmtpd_delivery_find(p, url, &scheme);
    if (!*url || host || strcmp(scheme, "smtp") != 0) {
        return apr_pstrdup(p, url);
    }
    colon = strrchr(url, ':');
    return apr_pstrcat(p, "smtp://", url, colon && !strchr(colon, ']') ? "" : ":25", NULL);
}

const char *nssmtpd_list_route(server_rec *s, apr_pool_t *p, const char *address)
{
    const nssmtpd_config_t *conf = nssmtpd_config(s);
    const nssmtpd_domain_t *found;
    const snapshot_t *snapshot;
    smtp_address_t parsed;
    const char *url;
    char *domain;

    if (smtp_address_parse_mailbox(&parsed, (smtp_span_t){ address, strlen(address) })
        != SMTP_OK) {
        return NULL;
    }
    domain = apr_pstrmemdup(p, parsed.domain.p, parsed.domain.n);
    ap_str_tolower(domain);
    snapshot = enter(conf, NSSMTPD_LIST_RELAY);
    found = nssmtpd_lists_find(snapshot ? snapshot->domains : conf->domain_list, domain);
    url = found ? show_url(p, found->url) : NULL;
    if (snapshot) {
        leave();
    }
    return url;
}

int nssmtpd_list_trusts(server_rec *s, apr_pool_t *p, const char *ip)
{
    apr_sockaddr_t *addr;

    return nssmtpd_lists_is_address(ip)
           && apr_sockaddr_info_get(&addr, ip, APR_UNSPEC, 0, 0, p) == APR_SUCCESS
           && nssmtpd_permits_client(nssmtpd_config(s), addr);
}
