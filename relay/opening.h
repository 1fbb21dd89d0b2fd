/* Opens a relay connection for a mail.
 */
#ifndef NSSMTPD_OPENING_H
#define NSSMTPD_OPENING_H

#include "relay/upstream.h"

/* Takes a connection of mod_proxy's pool, or opens one: greeting, EHLO, TLS by the relay's
 * policy, AUTH. fresh: not one of the pool. Tries a balancer's members in turn. 0: failed,
 * u->failure is set; else u->link is the connection. */
int nssmtpd_opening_open(nssmtpd_upstream_t *u, int fresh);

#endif
