/* What happens once when httpd starts or restarts. Hooks; see mod_nssmtpd.c.
 */
#ifndef NSSMTPD_STARTUP_H
#define NSSMTPD_STARTUP_H

#include <httpd.h>

#include <ap_mpm.h>
#include <mpm_common.h>

int nssmtpd_startup_check_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                                 server_rec *s);
int nssmtpd_startup_post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                                server_rec *s);
void nssmtpd_startup_child_init(apr_pool_t *pchild, server_rec *s);
void nssmtpd_startup_child_status(server_rec *s, pid_t pid, ap_generation_t gen, int slot,
                                  mpm_child_status state);

#endif
