/* The bridge to mod_proxy's symbols. Only relay/ uses it.
 */
#include "relay/proxy.h"

#include <apr_dso.h>
#include <apr_strings.h>
#include <dlfcn.h>
#include <http_config.h>
#include <http_main.h>

nssmtpd_proxy_t nssmtpd_proxy;

typedef struct symbol_t {
    const char *name;
    apr_size_t offset;
} symbol_t;

static const symbol_t symbols[] = {
    { "proxy_hook_canon_handler", APR_OFFSETOF(nssmtpd_proxy_t, hook_canon_handler) },
#define SYMBOL(name) { "ap_proxy_" #name, APR_OFFSETOF(nssmtpd_proxy_t, name) },
    NSSMTPD_PROXY_FUNCTIONS(SYMBOL)
#undef SYMBOL
};

static void *find(const module *proxy, const char *name)
{
    apr_dso_handle_sym_t symbol = NULL;

    if (!proxy->dynamic_load_handle) { /* linked into httpd */
        return dlsym(RTLD_DEFAULT, name);
    }
    return apr_dso_sym(&symbol, proxy->dynamic_load_handle, name) == APR_SUCCESS ? symbol : NULL;
}

/* mod_proxy_balancer refuses members of a scheme that no one makes canonical. */
static int canonicalize(request_rec *r, char *url)
{
    if (ap_cstr_casecmpn(url, "smtp:", 5) != 0 || strcmp(r->method, "MAIL") != 0) {
        return DECLINED;
    }
    r->filename = apr_pstrcat(r->pool, "proxy:", url, NULL);
    return OK;
}

/* mod_proxy's hooks end with the configuration, and so does the table. */
static apr_status_t forget(void *unused)
{
    (void)unused;
    nssmtpd_proxy.module = NULL;
    return APR_SUCCESS;
}

static const char *missing(apr_pool_t *p, const char *name)
{
    return apr_psprintf(p, "this mod_proxy has no %s(); httpd 2.4.63 or later has", name);
}

const char *nssmtpd_proxy_resolve(apr_pool_t *p)
{
    module *proxy = ap_find_linked_module("mod_proxy.c");
    apr_size_t i;

    if (nssmtpd_proxy.module) {
        return NULL;
    }
    if (!proxy) {
        return "mail to a relay needs mod_proxy; add LoadModule proxy_module";
    }
    for (i = 0; i < sizeof(symbols) / sizeof(*symbols); i++) {
        void *function = find(proxy, symbols[i].name);

        if (!function) {
            return missing(p, symbols[i].name);
        }
        memcpy((char *)&nssmtpd_proxy + symbols[i].offset, &function, sizeof(function));
    }
    nssmtpd_proxy.hook_canon_handler(canonicalize, NULL, NULL, APR_HOOK_FIRST);
    nssmtpd_proxy.module = proxy;
    apr_pool_cleanup_register(p, NULL, forget, apr_pool_cleanup_null);
    return NULL;
}

void nssmtpd_proxy_own_conf(server_rec *s, apr_pool_t *pconf)
{
    const module *proxy = nssmtpd_proxy.module;
    void *shared = ap_get_module_config(ap_server_conf->module_config, proxy);

    if (s != ap_server_conf && ap_get_module_config(s->module_config, proxy) == shared) {
        ap_set_module_config(s->module_config, proxy,
                             proxy->merge_server_config(pconf, shared,
                                                        proxy->create_server_config(pconf, s)));
    }
}

proxy_server_conf *nssmtpd_proxy_conf(const server_rec *s)
{
    return ap_get_module_config(s->module_config, nssmtpd_proxy.module);
}

const char *nssmtpd_proxy_set(server_rec *s, apr_pool_t *pconf, apr_pool_t *ptemp,
                              const char *args)
{
    const command_rec *set = ap_find_command("ProxySet", nssmtpd_proxy.module->cmds);
    ap_directive_t directive = { .directive = "ProxySet", .args = args };
    cmd_parms cmd = { .override = RSRC_CONF, .pool = pconf, .temp_pool = ptemp, .server = s,
                      .directive = &directive, .cmd = set, .info = NULL };

    return set->AP_RAW_ARGS(&cmd, NULL, args);
}
