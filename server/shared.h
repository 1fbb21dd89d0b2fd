/* Memory that all children share, made once in the life of the parent process: old and new
 * children of a graceful restart see the same.
 */
#ifndef NSSMTPD_SHARED_H
#define NSSMTPD_SHARED_H

#include <httpd.h>

/* The memory of that name, zeroed when it is made; then *is_new is 1. What is never touched
 * costs nothing. NULL: there is none to be had, which is logged. In the parent. */
void *nssmtpd_shared_keep(server_rec *s, const char *name, apr_size_t size, int *is_new);

#endif
