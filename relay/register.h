/* The delivery providers that come along. mod_nssmtpd.c registers them.
 */
#ifndef NSSMTPD_RELAY_REGISTER_H
#define NSSMTPD_RELAY_REGISTER_H

#include "mod_nssmtpd.h"

extern const nssmtpd_delivery_t nssmtpd_relay_delivery;   /* smtp, balancer */
extern const nssmtpd_delivery_t nssmtpd_maildir_delivery; /* maildir */
extern const nssmtpd_delivery_t nssmtpd_discard_delivery; /* discard */

/* Registers the filter that TLS connections to relays have. */
void nssmtpd_upstream_register(void);

#endif
