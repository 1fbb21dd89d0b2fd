/* The delivery provider of maildir: URLs: maildir:/path, where %d is the recipient's domain,
 * %u the local part and %% a percent sign (see mailpath.h). A relative path starts at
 * ServerRoot. mod_nssmtpd.c registers it.
 */
#ifndef NSSMTPD_MAILDIR_H
#define NSSMTPD_MAILDIR_H

#include "mod_nssmtpd.h"

extern const nssmtpd_delivery_t nssmtpd_maildir_delivery;

#endif
