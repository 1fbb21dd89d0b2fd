/* How much TLS and which credentials a relay's connections have.
 */
#ifndef NSSMTPD_POLICY_H
#define NSSMTPD_POLICY_H

#include "relay/proxy.h"
#include "relay/route.h"

/* Makes the server ready for what follows, once. Returns what is wrong, or NULL. While httpd
 * starts. */
const char *nssmtpd_policy_prepare(server_rec *s, apr_pool_t *pconf, apr_pool_t *ptemp);

/* Sets relay->tls and, for the default relay, user and password from the server's
 * SmtpdRelayTLS and SmtpdRelayCredentials. Returns what does not fit, or NULL. */
const char *nssmtpd_policy_set(nssmtpd_relay_t *relay, int is_default, server_rec *s,
                               apr_pool_t *pconf);

/* Makes mod_ssl's settings for a worker's connections what the policy needs: the SSLProxy
 * directives of the server hold, but for those that decide which certificate is good. */
void nssmtpd_policy_apply(const nssmtpd_relay_t *relay, proxy_worker *worker,
                          const server_rec *s);

/* A number that differs where TLS or credentials do, and says nothing of them. With
 * credentials it is a new one at each call; one call at a time. */
int nssmtpd_policy_number(const nssmtpd_relay_t *relay);

#endif
