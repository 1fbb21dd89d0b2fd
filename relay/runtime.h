/* Delivery routes made at run time; what others call is in mod_nssmtpd.h.
 */
#ifndef NSSMTPD_RUNTIME_H
#define NSSMTPD_RUNTIME_H

#include <httpd.h>

/* Hooks; see mod_nssmtpd.c. The first one runs behind the server's own. */
int nssmtpd_runtime_check_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                                 server_rec *s);
void nssmtpd_runtime_child_init(apr_pool_t *pchild, server_rec *s);

#endif
