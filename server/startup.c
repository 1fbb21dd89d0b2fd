/* Start and restart: listeners, shared state, timeouts, the clock. The configuration is
 * finished in the check_config hook, so that httpd -t finds what is wrong.
 */
#include "server/startup.h"

#include <apr_optional.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <mod_watchdog.h>
#include <unistd.h>
#include <unixd.h>

#include "server/board.h"
#include "server/changes.h"
#include "server/check.h"
#include "server/config.h"
#include "server/counters.h"
#include "server/permits.h"
#include "server/registry.h"
#include "server/state.h"
#include "server/tls.h"

APLOG_USE_MODULE(nssmtpd);

static int is_wanted(server_rec *s)
{
    for (; s; s = s->next) {
        if (nssmtpd_config(s)->engine == 1) {
            return 1;
        }
    }
    return 0;
}

int nssmtpd_startup_check_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                                 server_rec *s)
{
    (void)plog;
    if (!is_wanted(s)) {
        return OK;
    }
    nssmtpd_check_mark_listeners(s);
    return nssmtpd_config_finish(pconf, ptemp, s);
}

/* The MPM's timeout must not come before ours; see use_own_timeout() in session.c. */
static void stretch_timeouts(server_rec *s)
{
    for (; s; s = s->next) {
        nssmtpd_config_t *conf = nssmtpd_config(s);
        apr_int64_t longest = conf->timeout[NSSMTPD_TIMEOUT_COMMAND];

        if (conf->engine == 1) {
            if (longest < conf->timeout[NSSMTPD_TIMEOUT_DATA]) {
                longest = conf->timeout[NSSMTPD_TIMEOUT_DATA];
            }
            s->timeout = apr_time_from_sec(longest + 5);
            s->keep_alive_timeout_set = 1; /* or the event MPM takes the main server's */
        }
    }
}

/* The default spool is a directory of the children's own, since they may not write to
 * DefaultRuntimeDir itself. Made here, as root, for the user that they will be. */
static int make_spool(server_rec *s, apr_pool_t *p)
{
    const char *path = ap_runtime_dir_relative(p, NSSMTPD_SPOOL_DIRECTORY);
    apr_status_t rv = apr_dir_make(path, APR_FPROT_UREAD | APR_FPROT_UWRITE | APR_FPROT_UEXECUTE,
                                   p);

    if (APR_STATUS_IS_EEXIST(rv)) {
        rv = APR_SUCCESS;
    }
    if (rv == APR_SUCCESS && geteuid() == 0
        && chown(path, ap_unixd_config.user_id, ap_unixd_config.group_id) != 0) {
        rv = errno;
    }
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, rv, s,
                     "NS0011: SmtpdSpool: cannot make %s for messages on their way; name another "
                     "place with SmtpdSpool directory=", path);
        return !OK;
    }
    return OK;
}

void nssmtpd_startup_child_init(apr_pool_t *pchild, server_rec *s)
{
    apr_status_t rv = nssmtpd_permits_init(s->process->pool);

    (void)pchild;
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s, "NS0064: cannot make the lock of lists");
    }
    for (; s; s = s->next) {
        const nssmtpd_config_t *conf = nssmtpd_config(s);

        if (conf->engine == 1 && access(conf->spool_directory, W_OK | X_OK) != 0) {
            ap_log_error(APLOG_MARK, APLOG_CRIT, errno, s,
                         "NS0012: SmtpdSpool: %s cannot be written to; messages larger than "
                         "memory= will be refused with 451", conf->spool_directory);
        }
    }
}

static apr_status_t tick(int state, void *data, apr_pool_t *pool)
{
    (void)data, (void)pool;
    if (state == AP_WATCHDOG_STATE_RUNNING) {
        nssmtpd_registry_sweep(apr_time_now());
    }
    return APR_SUCCESS;
}

/* On worker and prefork each session's thread looks at the clock itself. */
static void start_clock(apr_pool_t *pconf, server_rec *s)
{
    APR_OPTIONAL_FN_TYPE(ap_watchdog_get_instance) *get =
        APR_RETRIEVE_OPTIONAL_FN(ap_watchdog_get_instance);
    APR_OPTIONAL_FN_TYPE(ap_watchdog_register_callback) *add =
        APR_RETRIEVE_OPTIONAL_FN(ap_watchdog_register_callback);
    ap_watchdog_t *watchdog;
    int is_async = 0;

    ap_mpm_query(AP_MPMQ_IS_ASYNC, &is_async);
    if (!is_async) {
        return;
    }
    if (!get || !add || get(&watchdog, "nssmtpd", 0, 0, pconf) != APR_SUCCESS
        || add(watchdog, APR_USEC_PER_SEC, NULL, tick) != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                     "NS0010: SmtpdTimeout: without mod_watchdog a silent client is cut off by "
                     "Timeout only; add LoadModule watchdog_module");
    }
}

static int make_shared(server_rec *s)
{
    return nssmtpd_state_create(s) == OK && nssmtpd_board_create(s) == OK
           && nssmtpd_counters_create(s) == OK && nssmtpd_changes_create(s) == OK ? OK : !OK;
}

int nssmtpd_startup_post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                                server_rec *s)
{
    (void)plog;
    if (!is_wanted(s) || ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG) {
        return OK; /* the first of two passes only checks */
    }
    if (make_spool(s, ptemp) != OK || make_shared(s) != OK) {
        return !OK;
    }
    nssmtpd_tls_install_gate();
    stretch_timeouts(s);
    nssmtpd_check_undefer_listeners(s);
    start_clock(pconf, s);
    return OK;
}

void nssmtpd_startup_child_status(server_rec *s, pid_t pid, ap_generation_t gen, int slot,
                                  mpm_child_status state)
{
    (void)s, (void)gen, (void)slot;
    if (state == MPM_CHILD_EXITED) {
        nssmtpd_board_reap(pid);
        nssmtpd_state_reap(pid);
    }
}
