/* mod_nssmtpd: SMTP in httpd. The module record and its hooks, in the order in which they
 * run: the table of contents. Logic is in the folders: smtp/ the language, server/ the
 * server, relay/ where mail goes, filters/ who looks into it.
 */
#include "mod_nssmtpd.h"

#include <ap_provider.h>
#include <apr_optional_hooks.h>
#include <http_config.h>
#include <http_connection.h>
#include <http_core.h>
#include <http_protocol.h>
#include <mpm_common.h>

#include "filters/builtin.h"
#include "lua/binding.h"
#include "relay/register.h"
#include "relay/runtime.h"
#include "relay/sendlog.h"
#include "server/changes.h"
#include "server/config.h"
#include "server/connection.h"
#include "server/directives.h"
#include "server/failure.h"
#include "server/filter.h"
#include "server/init.h"
#include "server/script.h"
#include "server/startup.h"
#include "server/tls.h"

static void register_deliveries(apr_pool_t *p)
{
    static const struct {
        const char *scheme;
        const nssmtpd_delivery_t *delivery;
    } rows[] = {
        { "smtp", &nssmtpd_relay_delivery },
        { "smtps", &nssmtpd_relay_delivery },
        { "plain", &nssmtpd_relay_delivery },
        { "balancer", &nssmtpd_relay_delivery },
        { "maildir", &nssmtpd_maildir_delivery },
        { "discard", &nssmtpd_discard_delivery }
    };
    apr_size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        ap_register_provider(p, NSSMTPD_DELIVERY_GROUP, rows[i].scheme, NSSMTPD_DELIVERY_VERSION,
                             rows[i].delivery);
    }
}

static void register_scanners(apr_pool_t *p)
{
    static const struct {
        const char *name;
        const nssmtpd_scanner_t *scanner;
    } rows[] = {
        { "clamd", &nssmtpd_clamd_scanner },
        { "spamd", &nssmtpd_spamd_scanner },
        { "rspamd", &nssmtpd_rspamd_scanner }
    };
    apr_size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        ap_register_provider(p, NSSMTPD_SCANNER_GROUP, rows[i].name, NSSMTPD_SCANNER_VERSION,
                             rows[i].scanner);
    }
}

static void register_hooks(apr_pool_t *p)
{
    /* They would read or filter the client's octets as HTTP. */
    static const char *const http[] = { "mod_reqtimeout.c", "mod_http2.c", "mod_ssl.c",
                                        "http_core.c", NULL };
    /* Its timeout queues are made of what ours sets. */
    static const char *const mpm[] = { "event.c", "mod_watchdog.c", NULL };

    /* Its thread looks at our sessions. */
    static const char *const clock[] = { "mod_watchdog.c", NULL };
    /* It is let in only when TLS begins, and must know of the connection before. */
    static const char *const ssl[] = { "mod_ssl.c", NULL };

    /* A script of /smtp/init may use what theirs make ready. */
    static const char *const others[] = { "mod_lua.c", "mod_proxy.c", "mod_ssl.c", NULL };

    register_deliveries(p);
    register_scanners(p);
    nssmtpd_script_register(p);
    nssmtpd_filter_register();
    nssmtpd_upstream_register();

    /* httpd starts */
    ap_hook_check_config(nssmtpd_startup_check_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_config(nssmtpd_runtime_check_config, NULL, NULL, APR_HOOK_LAST);
    ap_hook_open_logs(nssmtpd_sendlog_open, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(nssmtpd_startup_post_config, NULL, mpm, APR_HOOK_FIRST);
    ap_hook_child_init(nssmtpd_runtime_child_init, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_pre_mpm(nssmtpd_changes_pre_mpm, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(nssmtpd_startup_child_init, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(nssmtpd_scanners_child_init, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(nssmtpd_connection_child_init, NULL, clock, APR_HOOK_FIRST);

    ap_hook_child_init(nssmtpd_init_child, others, NULL, APR_HOOK_LAST);

    /* A client comes and goes */
    ap_hook_pre_connection(nssmtpd_connection_pre, NULL, ssl, APR_HOOK_MIDDLE);
    ap_hook_protocol_get(nssmtpd_tls_protocol_get, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_protocol_switch(nssmtpd_tls_protocol_switch, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_process_connection(nssmtpd_connection_process, NULL, http, APR_HOOK_REALLY_FIRST);
    ap_hook_pre_close_connection(nssmtpd_connection_pre_close, NULL, NULL, APR_HOOK_FIRST);

    /* A phase's script runs; a web page does not */
    ap_hook_handler(nssmtpd_script_refuse_http, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_handler(nssmtpd_script_take_declined, NULL, NULL, APR_HOOK_LAST);
    ap_hook_error_log(nssmtpd_failure_watch_log, NULL, NULL, APR_HOOK_MIDDLE);

    /* Any script is about to run. REALLY_FIRST, mod_lua pushes the request. */
    APR_OPTIONAL_HOOK(ap_lua, lua_request, nssmtpd_binding_request, NULL, NULL, APR_HOOK_MIDDLE);

    /* A child stops, or died */
    ap_hook_child_stopping(nssmtpd_connection_child_stopping, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_child_status(nssmtpd_startup_child_status, NULL, NULL, APR_HOOK_MIDDLE);
}

/* Everything else is hidden: httpd loads modules with RTLD_GLOBAL. */
extern module AP_MODULE_DECLARE_DATA nssmtpd_module __attribute__((visibility("default")));

AP_DECLARE_MODULE(nssmtpd) = {
    STANDARD20_MODULE_STUFF,
    NULL, /* per directory: none */
    NULL,
    nssmtpd_config_create,
    nssmtpd_config_merge,
    nssmtpd_commands,
    register_hooks,
    AP_MODULE_FLAG_ALWAYS_MERGE /* or a host without a word of ours inherits SmtpdEngine */
};
