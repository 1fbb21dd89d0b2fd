/* mod_proxy's functions as this module uses them, found at run time: LoadModule lines may
 * come in any order, and a server without relays needs no mod_proxy at all.
 */
#ifndef NSSMTPD_PROXY_H
#define NSSMTPD_PROXY_H

#include <httpd.h>

#include <mod_proxy.h>

/* The functions: each row is a member of nssmtpd_proxy and the symbol it is found by. */
#define NSSMTPD_PROXY_FUNCTIONS(X)                                                                 \
    X(define_worker)                                                                               \
    X(get_worker)                                                                                  \
    X(get_balancer)                                                                                \
    X(initialize_worker)                                                                           \
    X(pre_request)                                                                                 \
    X(acquire_connection)                                                                          \
    X(release_connection)                                                                          \
    X(determine_connection)                                                                        \
    X(connect_backend)                                                                             \
    X(connection_create)

typedef struct nssmtpd_proxy_t {
    module *module;
    void (*hook_canon_handler)(int (*handler)(request_rec *r, char *url),
                               const char *const *before, const char *const *after, int order);
#define NSSMTPD_PROXY_MEMBER(name) __typeof__(&ap_proxy_##name) name;
    NSSMTPD_PROXY_FUNCTIONS(NSSMTPD_PROXY_MEMBER)
#undef NSSMTPD_PROXY_MEMBER
} nssmtpd_proxy_t;

/* Set once nssmtpd_proxy_resolve() succeeded; read only afterwards. */
extern nssmtpd_proxy_t nssmtpd_proxy;

/* Finds mod_proxy. Returns what is missing, with the remedy, or NULL. While httpd starts. */
const char *nssmtpd_proxy_resolve(apr_pool_t *pconf);

/* Gives the server a configuration of mod_proxy of its own, where it shares the main
 * server's because it has no directive of mod_proxy: workers are a host's. While httpd
 * starts. */
void nssmtpd_proxy_own_conf(server_rec *s, apr_pool_t *pconf);

/* mod_proxy's configuration of a server. */
proxy_server_conf *nssmtpd_proxy_conf(const server_rec *s);

/* Runs mod_proxy's own ProxySet with "name key=value .." on a server's worker; what it
 * finds wrong is returned. */
const char *nssmtpd_proxy_set(server_rec *s, apr_pool_t *pconf, apr_pool_t *ptemp,
                              const char *args);

#endif
