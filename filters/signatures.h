/* libclamav's engines: one for each set of signatures and limits that SmtpdScanner clamav names.
 * The parent loads them, children only use them. Part of mod_nssmtpd_clamav.so, with clamav.c.
 */
#ifndef NSSMTPD_FILTERS_SIGNATURES_H
#define NSSMTPD_FILTERS_SIGNATURES_H

#include <httpd.h>

#include <clamav.h>

/* Limits of one scan: their keys are in signatures.c. */
enum { NSSMTPD_SIGNATURES_LIMITS = 5 };

/* What a line says; lines that say the same, whatever time they allow, share an engine. */
typedef struct nssmtpd_signatures_t {
    const char *database, *tmpdir;
    apr_int64_t limit[NSSMTPD_SIGNATURES_LIMITS]; /* 0: not given */
    apr_int64_t self_check, scan_time;            /* seconds */
} nssmtpd_signatures_t;

typedef struct nssmtpd_engine_t nssmtpd_engine_t;

/* The settings before any word is read. */
void nssmtpd_signatures_init(nssmtpd_signatures_t *settings, apr_pool_t *p);

/* Understands a key=value word. Returns what is wrong with it, or NULL. */
const char *nssmtpd_signatures_set(nssmtpd_signatures_t *settings, const char *word,
                                   apr_pool_t *p);

/* How long a scan may take if no word says so. */
void nssmtpd_signatures_set_time(nssmtpd_signatures_t *settings, apr_interval_time_t time);

/* The engine for such settings, which may be loaded later. Lives for ever. */
nssmtpd_engine_t *nssmtpd_signatures_engine(const nssmtpd_signatures_t *settings);

/* What scans; the engine is loaded in all children. */
const struct cl_engine *nssmtpd_signatures_use(const nssmtpd_engine_t *e);

/* Product, version and date. */
const char *nssmtpd_signatures_version(const nssmtpd_engine_t *e, apr_pool_t *p);

/* What libclamav calls for each file inside a message; set before the first is loaded. */
void nssmtpd_signatures_set_callback(clcb_pre_scan callback);

/* Hooks of httpd. */
int nssmtpd_signatures_pre_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp);
int nssmtpd_signatures_post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                                   server_rec *s);
void nssmtpd_signatures_child_init(apr_pool_t *pchild, server_rec *s);
int nssmtpd_signatures_monitor(apr_pool_t *p, server_rec *s);

#endif
