/* The names of Maildirs and of the files in them. Results live in t->r->pool.
 */
#ifndef NSSMTPD_MAILPATH_H
#define NSSMTPD_MAILPATH_H

#include "mod_nssmtpd.h"

/* Puts the recipient into a path: %d is the domain in lower case, %u the local part without
 * quotes, %% a percent sign; the path holds no other %.
 *
 * What %d and %u become cannot leave the directory they stand in, and two addresses never
 * become the same: letters, digits and . _ + = - stay, every other octet and a leading dot
 * is %xx, an empty one is %00, and a long one goes on in a sub-directory, where the part
 * before ends in a lone %. postmaster is in lower case (RFC 5321 4.5.1), and without a
 * domain it is the one of nssmtpd_hostname(). */
const char *nssmtpd_mailpath_expand(const nssmtpd_transaction_t *t, const char *path,
                                    const nssmtpd_rcpt_t *rcpt);

/* A file name that no delivery to any Maildir had before, on this host or, as its name is in
 * it, another one. */
const char *nssmtpd_mailpath_unique(const nssmtpd_transaction_t *t);

#endif
