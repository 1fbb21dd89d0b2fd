/* AUTH: users and passwords, which are the authn providers'.
 */
#ifndef NSSMTPD_AUTH_H
#define NSSMTPD_AUTH_H

#include "server/session.h"

/* Finds the providers of SmtpdAuthProvider. While httpd starts; what is wrong is logged. */
int nssmtpd_auth_check_config(const nssmtpd_config_t *conf);

/* Checks the dialogue's user and password. NULL: they are right, session->user is set;
 * else the refusal, which is logged without either. May block. */
const smtp_reply_t *nssmtpd_auth_check(nssmtpd_session_t *session);

#endif
