/* User and password for a relay, from where SmtpdRelayCredentials says.
 */
#ifndef NSSMTPD_CREDENTIALS_H
#define NSSMTPD_CREDENTIALS_H

#include <httpd.h>

/* Reads "user:password" from env:NAME, file:PATH or exec:PATH; both live in p. Returns what
 * is wrong, without either, or NULL. While httpd starts, as its user then (root). */
const char *nssmtpd_credentials_read(apr_pool_t *p, server_rec *s, const char *source,
                                     const char **user, const char **password);

/* Splits text at its first colon; the text is changed. Returns as above. */
const char *nssmtpd_credentials_split(char *text, const char **user, const char **password);

#endif
