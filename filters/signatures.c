/* Engines of libclamav over the life of httpd: loaded once by the parent, shared with its children
 * page by page, kept over restarts. When the files change the parent loads them again while its
 * children go on, and a graceful restart takes what is ready: no mail waits for it. Called by
 * clamav.c and by httpd's hooks.
 */
#include "filters/signatures.h"

#include <ap_mpm.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <errno.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_main.h>
#include <mpm_common.h>
#include <signal.h>
#include <unistd.h>
#include <unixd.h>

extern module AP_MODULE_DECLARE_DATA nssmtpd_clamav_module;

APLOG_USE_MODULE(nssmtpd_clamav);

#define SELF_CHECK 600 /* seconds between two looks at the files, as clamd has it */

/* The limits of one scan, by their keys; libclamav's own defaults hold where none is given. */
static const struct {
    const char *key;
    enum cl_engine_field field;
    int scale;
} limits[NSSMTPD_SIGNATURES_LIMITS] = {
    { "maxfiles", CL_ENGINE_MAX_FILES, 1 },
    { "maxfilesize", CL_ENGINE_MAX_FILESIZE, 1 },
    { "maxrecursion", CL_ENGINE_MAX_RECURSION, 1 },
    { "maxscansize", CL_ENGINE_MAX_SCANSIZE, 1 },
    { "maxscantime", CL_ENGINE_MAX_SCANTIME, 1000 }
};

enum { LIMIT_SCANTIME = NSSMTPD_SIGNATURES_LIMITS - 1 };

/* Lives as long as the parent, over all restarts, and so does what it points to. */
struct nssmtpd_engine_t {
    nssmtpd_signatures_t settings;
    struct cl_engine *engine;  /* in use; NULL: not loaded yet */
    struct cl_engine *ready;   /* newer, for the next start of children */
    struct cl_stat files;
    unsigned signatures;
    apr_time_t loaded, checked;
    int is_wanted;             /* by the configuration that is read now */
};

typedef struct retained_t {
    apr_array_header_t *engines; /* of nssmtpd_engine_t * */
    int is_initialized;
} retained_t;

static retained_t *retained(void)
{
    static const char key[] = "mod_nssmtpd_clamav";
    retained_t *kept = ap_retained_data_get(key);

    if (!kept) {
        kept = ap_retained_data_create(key, sizeof(*kept));
        kept->engines = apr_array_make(ap_pglobal, 1, sizeof(nssmtpd_engine_t *));
    }
    return kept;
}

static nssmtpd_engine_t *engine_at(int i)
{
    apr_array_header_t *engines = retained()->engines;

    return i < engines->nelts ? APR_ARRAY_IDX(engines, i, nssmtpd_engine_t *) : NULL;
}

static clcb_pre_scan pre_scan;

void nssmtpd_signatures_set_callback(clcb_pre_scan callback)
{
    pre_scan = callback;
}

/* Configuration */

/* But for the time: an engine takes the longest of those who share it. */
static int is_same(const nssmtpd_signatures_t *a, const nssmtpd_signatures_t *b)
{
    return strcmp(a->database, b->database) == 0 && strcmp(a->tmpdir, b->tmpdir) == 0
           && memcmp(a->limit, b->limit, sizeof(a->limit)) == 0 && a->self_check == b->self_check;
}

nssmtpd_engine_t *nssmtpd_signatures_engine(const nssmtpd_signatures_t *settings)
{
    nssmtpd_engine_t *e;
    int i;

    for (i = 0; (e = engine_at(i)); i++) {
        if (is_same(&e->settings, settings)) {
            if (e->settings.scan_time < settings->scan_time) {
                e->settings.scan_time = settings->scan_time;
            }
            e->is_wanted = 1;
            return e;
        }
    }
    e = apr_pcalloc(ap_pglobal, sizeof(*e));
    e->settings = *settings;
    e->settings.database = apr_pstrdup(ap_pglobal, settings->database);
    e->settings.tmpdir = apr_pstrdup(ap_pglobal, settings->tmpdir);
    e->is_wanted = 1;
    APR_ARRAY_PUSH(retained()->engines, nssmtpd_engine_t *) = e;
    return e;
}

void nssmtpd_signatures_init(nssmtpd_signatures_t *settings, apr_pool_t *p)
{
    memset(settings, 0, sizeof(*settings));
    settings->database = cl_retdbdir();
    settings->tmpdir = ap_runtime_dir_relative(p, "nssmtpd-clamav");
    settings->self_check = SELF_CHECK;
}

void nssmtpd_signatures_set_time(nssmtpd_signatures_t *settings, apr_interval_time_t time)
{
    settings->scan_time = apr_time_sec(time);
}

/* Digits with K, M or G behind them; 0: it is no such number. */
static apr_int64_t number_of(const char *text)
{
    static const char units[] = "KMG";
    const char *unit;
    char *end;
    apr_int64_t n = apr_strtoi64(text, &end, 10);
    int shift = 0;

    if (end > text && *end && (unit = strchr(units, apr_toupper(*end)))) {
        shift = 10 * (unit - units + 1);
        end++;
    }
    return end == text || *end || n < 1 || n > APR_INT32_MAX ? 0 : n << shift;
}

static int is_key(const char *word, const char *key)
{
    apr_size_t n = strlen(key);

    return strncasecmp(word, key, n) == 0 && word[n] == '=';
}

static const char *set_number(apr_pool_t *p, const char *word, apr_int64_t *value)
{
    *value = number_of(strchr(word, '=') + 1);
    return *value ? NULL
                  : apr_psprintf(p, "%s needs a number from 1, with K, M or G or without", word);
}

const char *nssmtpd_signatures_set(nssmtpd_signatures_t *settings, const char *word,
                                   apr_pool_t *p)
{
    const char *value = strchr(word, '=') + 1;
    int i;

    for (i = 0; i < NSSMTPD_SIGNATURES_LIMITS; i++) {
        if (is_key(word, limits[i].key)) {
            return set_number(p, word, &settings->limit[i]);
        }
    }
    if (is_key(word, "selfcheck")) {
        return set_number(p, word, &settings->self_check);
    }
    if (is_key(word, "database") && *value) {
        settings->database = ap_server_root_relative(p, value);
    }
    else if (is_key(word, "tmpdir") && *value) {
        settings->tmpdir = ap_server_root_relative(p, value);
    }
    else {
        return apr_psprintf(p, "%s is none of its key=value words", word);
    }
    return NULL;
}

int nssmtpd_signatures_pre_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    nssmtpd_engine_t *e;
    int i;

    (void)pconf, (void)plog, (void)ptemp;
    for (i = 0; (e = engine_at(i)); i++) {
        e->is_wanted = 0;
        e->settings.scan_time = 0;
    }
    return OK;
}

/* Loading, in the parent */

static void set_limits(struct cl_engine *engine, const nssmtpd_signatures_t *settings)
{
    int i;

    for (i = 0; i < NSSMTPD_SIGNATURES_LIMITS; i++) {
        if (settings->limit[i]) {
            cl_engine_set_num(engine, limits[i].field, settings->limit[i] * limits[i].scale);
        }
    }
    cl_engine_set_str(engine, CL_ENGINE_TMPDIR, settings->tmpdir);
}

/* Another one than at the last start needs no other engine. */
static void set_scan_time(const nssmtpd_engine_t *e)
{
    if (!e->settings.limit[LIMIT_SCANTIME]) {
        cl_engine_set_num(e->engine, limits[LIMIT_SCANTIME].field,
                          e->settings.scan_time * limits[LIMIT_SCANTIME].scale);
    }
}

/* NULL: *why. */
static struct cl_engine *load(nssmtpd_engine_t *e, const char **why)
{
    struct cl_engine *engine = cl_engine_new();
    cl_error_t rc;

    if (!engine) {
        *why = "no memory";
        return NULL;
    }
    set_limits(engine, &e->settings);
    cl_engine_set_clcb_pre_scan(engine, pre_scan);
    cl_statfree(&e->files);
    cl_statinidir(e->settings.database, &e->files); /* before it reads them: no change is missed */
    e->signatures = 0;
    rc = cl_load(e->settings.database, engine, &e->signatures, CL_DB_STDOPT);
    if (rc == CL_SUCCESS) {
        rc = cl_engine_compile(engine);
    }
    if (rc != CL_SUCCESS || !e->signatures) {
        *why = rc == CL_SUCCESS ? "there are none" : cl_strerror(rc);
        cl_engine_free(engine);
        return NULL;
    }
    e->loaded = e->checked = apr_time_now();
    return engine;
}

static int load_first(nssmtpd_engine_t *e, server_rec *s)
{
    apr_time_t began = apr_time_now();
    const char *why;

    e->engine = load(e, &why);
    if (!e->engine) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, 0, s, "NS0086: SmtpdScanner clamav: cannot load the "
                     "signatures in %s: %s; freshclam fetches them", e->settings.database, why);
        return !OK;
    }
    ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, s, "NS0085: SmtpdScanner clamav: %u signatures of "
                 "%s loaded in %d ms", e->signatures, e->settings.database,
                 (int)apr_time_as_msec(apr_time_now() - began));
    return OK;
}

/* The children that are left have pages of their own by now: freeing hurts nobody. */
static int take_ready(nssmtpd_engine_t *e, server_rec *s)
{
    if (!e->is_wanted || e->ready) {
        if (e->engine) {
            cl_engine_free(e->engine);
        }
        e->engine = e->ready;
        e->ready = NULL;
    }
    return e->is_wanted && !e->engine ? load_first(e, s) : OK;
}

static void hear(enum cl_msg severity, const char *all, const char *text, void *context)
{
    int level = severity >= CL_MSG_ERROR ? APLOG_ERR : severity >= CL_MSG_WARN ? APLOG_WARNING
                                                                                : APLOG_INFO;

    (void)all, (void)context;
    ap_log_error(APLOG_MARK, level, 0, ap_server_conf, "NS0089: libclamav: %.*s",
                 (int)strcspn(text, "\r\n"), text);
}

/* Archives are unpacked by the children, who may not write to DefaultRuntimeDir itself. */
static void make_tmpdir(const char *path, apr_pool_t *p)
{
    apr_status_t rv = apr_dir_make(path, APR_FPROT_UREAD | APR_FPROT_UWRITE | APR_FPROT_UEXECUTE,
                                   p);

    if (rv == APR_SUCCESS && geteuid() == 0
        && chown(path, ap_unixd_config.user_id, ap_unixd_config.group_id) != 0) {
        rmdir(path); /* each child says that it is not there */
    }
}

int nssmtpd_signatures_post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                                   server_rec *s)
{
    nssmtpd_engine_t *e;
    int i, rc = OK;

    (void)pconf, (void)plog;
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG) {
        return OK; /* the first of two passes only checks */
    }
    if (engine_at(0) && !retained()->is_initialized) {
        cl_set_clcb_msg(hear);
        if (cl_init(CL_INIT_DEFAULT) != CL_SUCCESS) {
            return !OK;
        }
        retained()->is_initialized = 1;
    }
    for (i = 0; rc == OK && (e = engine_at(i)); i++) {
        rc = take_ready(e, s);
        if (rc == OK && e->is_wanted) {
            set_scan_time(e);
            make_tmpdir(e->settings.tmpdir, ptemp);
        }
    }
    return rc;
}

void nssmtpd_signatures_child_init(apr_pool_t *pchild, server_rec *s)
{
    const nssmtpd_engine_t *e;
    int i;

    (void)pchild;
    for (i = 0; (e = engine_at(i)); i++) {
        if (e->is_wanted && access(e->settings.tmpdir, W_OK | X_OK) != 0) {
            ap_log_error(APLOG_MARK, APLOG_CRIT, errno, s,
                         "NS0088: SmtpdScanner clamav: %s cannot be written to; archives cannot be "
                         "scanned", e->settings.tmpdir);
        }
    }
}

/* Loading again, while the children go on */

static int is_changed(nssmtpd_engine_t *e, apr_time_t now)
{
    if (!e->is_wanted || !e->engine
        || now - e->checked < apr_time_from_sec(e->settings.self_check)) {
        return 0;
    }
    e->checked = now;
    return cl_statchkdir(&e->files) == 1;
}

static int reload(nssmtpd_engine_t *e, server_rec *s)
{
    const char *why;
    unsigned signatures = e->signatures;

    e->ready = load(e, &why);
    if (!e->ready) {
        e->signatures = signatures;
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, s, "NS0108: SmtpdScanner clamav: cannot load the "
                     "new signatures in %s: %s; the old ones stay in use", e->settings.database,
                     why);
        return 0;
    }
    ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, s, "NS0087: SmtpdScanner clamav: %s has changed; "
                 "children with its %u signatures are started", e->settings.database,
                 e->signatures);
    return 1;
}

/* Every ten seconds or so. Children accept meanwhile; only new ones are not made. */
int nssmtpd_signatures_monitor(apr_pool_t *p, server_rec *s)
{
    apr_time_t now = apr_time_now();
    nssmtpd_engine_t *e;
    int i, is_ready = 0;

    (void)p;
    for (i = 0; (e = engine_at(i)); i++) {
        if (is_changed(e, now)) {
            is_ready |= reload(e, s);
        }
    }
    if (is_ready) {
        kill(getpid(), AP_SIG_GRACEFUL);
    }
    return OK;
}

/* For the children */

const struct cl_engine *nssmtpd_signatures_use(const nssmtpd_engine_t *e)
{
    return e->engine;
}

const char *nssmtpd_signatures_version(const nssmtpd_engine_t *e, apr_pool_t *p)
{
    apr_time_t made = apr_time_from_sec(cl_engine_get_num(e->engine, CL_ENGINE_DB_TIME, NULL));
    char date[APR_CTIME_LEN];

    apr_ctime(date, made ? made : e->loaded);
    return apr_psprintf(p, "ClamAV %s/%d/%s", cl_retver(),
                        (int)cl_engine_get_num(e->engine, CL_ENGINE_DB_VERSION, NULL), date);
}
