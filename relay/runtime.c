/* Delivery routes that no configuration names: of a list that a script has changed, or of a
 * host that a script sends to. Made in a child when they are first needed and kept for its
 * life, since any thread may have one in hand. Called by whoever works in a child.
 */
#include "relay/runtime.h"

#include <apr_hash.h>
#include <apr_strings.h>
#include <apr_thread_mutex.h>
#include <http_config.h>
#include <http_log.h>

#include "relay/proxy.h"
#include "relay/route.h"

APLOG_USE_MODULE(nssmtpd);

/* A route to a relay holds some 30 KB, and its connections more. */
#define ROUTES_MAX 256

static struct {
    apr_pool_t *pool;
    apr_thread_mutex_t *mutex; /* guards all of it, and the making of a route */
    apr_hash_t *routes;        /* of nssmtpd_route_t, by server and URL */
} child;

/* Each thread has its own, so that a sentence needs no memory that stays. */
static __thread char sentence[400];

int nssmtpd_runtime_check_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                                 server_rec *s)
{
    (void)plog;
    if (!ap_find_linked_module("mod_proxy.c")) {
        return OK; /* then there are Maildirs */
    }
    for (; s; s = s->next) {
        const char *wrong = nssmtpd_is_host(s) ? nssmtpd_route_prepare(s, pconf, ptemp) : NULL;

        if (wrong) {
            ap_log_error(APLOG_MARK, APLOG_EMERG, 0, s, "NS0003: %s: %s", "SmtpdEngine", wrong);
            return !OK;
        }
    }
    return OK;
}

void nssmtpd_runtime_child_init(apr_pool_t *pchild, server_rec *s)
{
    apr_status_t rv;

    (void)s;
    apr_pool_create(&child.pool, pchild);
    apr_pool_tag(child.pool, "nssmtpd-routes");
    child.routes = apr_hash_make(child.pool);
    rv = apr_thread_mutex_create(&child.mutex, APR_THREAD_MUTEX_DEFAULT, child.pool);
    ap_assert(rv == APR_SUCCESS);
}

/* What the provider makes of the URL. */
static const char *configure(nssmtpd_route_t *route, server_rec *s, apr_pool_t *pool,
                             apr_pool_t *ptemp)
{
    const char *scheme;

    route->delivery = nssmtpd_delivery_find(ptemp, route->url, &scheme);
    return route->delivery
               ? route->delivery->configure(route, s, pool, ptemp)
               : apr_psprintf(ptemp, "no delivery for URLs of scheme \"%s\"; there are smtp, "
                              "balancer, maildir and discard", scheme);
}

static const char *make(server_rec *s, const char *url, nssmtpd_route_t **made)
{
    static const char *const none[] = { NULL };
    nssmtpd_route_t *route;
    apr_pool_t *pool, *ptemp;
    const char *wrong;

    if (apr_hash_count(child.routes) >= ROUTES_MAX) {
        return "this child has as many routes made at run time as it may have, 256; a graceful "
               "restart lets go of them";
    }
    apr_pool_create(&pool, child.pool);
    apr_pool_create(&ptemp, pool);
    route = apr_pcalloc(pool, sizeof(*route));
    route->url = apr_pstrdup(pool, url);
    route->params = none;
    route->at_run_time = 1;
    if ((wrong = configure(route, s, pool, ptemp))) {
        apr_cpystrn(sentence, wrong, sizeof(sentence));
        apr_pool_destroy(pool);
        return sentence;
    }
    apr_pool_destroy(ptemp);
    *made = route;
    return NULL;
}

/* The key is looked up often and kept once. */
static const char *find_or_make(server_rec *s, const char *url, nssmtpd_route_t **route)
{
    char key[512];
    apr_size_t n = apr_snprintf(key, sizeof(key), "%pp %s", (void *)s, url);
    const char *wrong = NULL;

    if (n >= sizeof(key) - 1) {
        return "the URL is too long";
    }
    *route = apr_hash_get(child.routes, key, n);
    if (!*route && !(wrong = make(s, url, route))) {
        apr_hash_set(child.routes, apr_pstrmemdup(child.pool, key, n), n, *route);
    }
    return wrong;
}

const char *nssmtpd_route_at_run_time(server_rec *s, const char *url, nssmtpd_route_t **route)
{
    const char *wrong;

    *route = NULL;
    apr_thread_mutex_lock(child.mutex);
    wrong = find_or_make(s, url, route);
    apr_thread_mutex_unlock(child.mutex);
    return wrong;
}
