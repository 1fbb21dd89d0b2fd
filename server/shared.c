/* Anonymous shared memory in the process pool, found again after a restart by its name. No
 * file, no key: nothing of it is left when httpd ends, and nobody else can open it.
 */
#include "server/shared.h"

#include <apr_shm.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_log.h>

APLOG_USE_MODULE(nssmtpd);

void *nssmtpd_shared_keep(server_rec *s, const char *name, apr_size_t size, int *is_new)
{
    /* A module with another layout finds none, should it come by a graceful restart. */
    const char *key = apr_psprintf(s->process->pool, "nssmtpd-%s-%" APR_SIZE_T_FMT, name, size);
    apr_shm_t **kept = ap_retained_data_get(key);
    apr_status_t rv;

    *is_new = kept == NULL || *kept == NULL;
    if (!kept) {
        kept = ap_retained_data_create(key, sizeof(*kept));
    }
    if (!*kept && (rv = apr_shm_create(kept, size, NULL, s->process->pool)) != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, rv, s,
                     "NS0008: cannot make shared memory of %" APR_SIZE_T_FMT " octets for %s",
                     size, name);
        *kept = NULL;
        return NULL;
    }
    return apr_shm_baseaddr_get(*kept);
}
