/* The phase /smtp/init, once per start and restart.
 */
#ifndef NSSMTPD_INIT_H
#define NSSMTPD_INIT_H

#include <httpd.h>

/* Hook: runs it for all hosts in the first child of a generation; the others wait for that
 * before they greet anybody. */
void nssmtpd_init_child(apr_pool_t *pchild, server_rec *main_server);

#endif
