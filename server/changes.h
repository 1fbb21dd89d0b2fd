/* Lists that were changed while httpd runs, as text in shared memory: what scripts say
 * holds for every child, over graceful restarts. Nothing here knows what the text means.
 */
#ifndef NSSMTPD_CHANGES_H
#define NSSMTPD_CHANGES_H

#include <httpd.h>

#include <apr_tables.h>
#include <mpm_common.h>

#include "mod_nssmtpd.h"

/* A host without a place keeps the lists of its configuration. */
#define NSSMTPD_NO_PLACE (-1)

/* Octets of a list, a word a line. */
#define NSSMTPD_CHANGES_MAX (64 * 1024)

/* Finds the shared memory and gives each SMTP host its place in it. In the parent; OK or
 * not. */
int nssmtpd_changes_create(server_rec *main_server);

/* Hook: httpd starts, or starts again after it stopped all children. Drops all changes. */
int nssmtpd_changes_pre_mpm(apr_pool_t *p, ap_scoreboard_e type);

/* Which version of the list holds; 0: it is as configured. One atomic read. */
apr_uint32_t nssmtpd_changes_version(int place, nssmtpd_list_e list);

/* The lines of a changed list, of const char *, allocated in p, and their version. */
apr_array_header_t *nssmtpd_changes_read(int place, nssmtpd_list_e list, apr_pool_t *p,
                                         apr_uint32_t *version);

/* Changes the lines, of const char *; returns what is wrong, and then nothing changes. */
typedef const char *nssmtpd_changes_edit_t(apr_array_header_t *lines, void *baton);

/* Calls edit with the lines as they stand, those of configured where nothing has changed,
 * and makes what it leaves of them the next version. No other process edits meanwhile.
 * Returns what is wrong, or NULL. */
const char *nssmtpd_changes_edit(int place, nssmtpd_list_e list, apr_pool_t *p,
                                 const apr_array_header_t *configured,
                                 nssmtpd_changes_edit_t *edit, void *baton);

#endif
