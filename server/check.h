/* Checks of the finished configuration, each with directive, reason and remedy in the
 * error log. Called by config.c while httpd starts or tests its configuration.
 */
#ifndef NSSMTPD_CHECK_H
#define NSSMTPD_CHECK_H

#include "server/config.h"

/* One server with SmtpdEngine on: finds the delivery providers of its URLs and makes the
 * routes ready. */
int nssmtpd_check_server(nssmtpd_config_t *conf, apr_pool_t *pconf, apr_pool_t *ptemp);

/* All servers: no address and port serves both SMTP and HTTP; the MPM can wait. */
int nssmtpd_check_ports(server_rec *main_server);

/* Marks the listeners of SMTP servers, so that httpd does not wait for the client to
 * speak first on them. Before the sockets are opened. */
void nssmtpd_check_mark_listeners(server_rec *main_server);

/* The same for sockets that were opened before a restart made them SMTP's. */
void nssmtpd_check_undefer_listeners(server_rec *main_server);

#endif
