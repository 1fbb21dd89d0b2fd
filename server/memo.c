/* What scripts lack and which do not load. A stat() per call tells that a file has changed;
 * without a memo each call would ask mod_lua again, which logs that at level crit. Called
 * by script.c.
 */
#include "server/memo.h"

#include <apr_strings.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define RETRY apr_time_from_sec(1)

struct nssmtpd_memo_t {
    char *file; /* malloc'd; NULL: nothing is known to be missing */
    apr_time_t mtime;
    apr_off_t size;
    volatile apr_time_t broken_until;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

nssmtpd_memo_t *nssmtpd_memo_create(apr_pool_t *p)
{
    return apr_pcalloc(p, NSSMTPD_PHASE_COUNT * sizeof(nssmtpd_memo_t));
}

void nssmtpd_memo_set_missing(nssmtpd_memo_t *memo, nssmtpd_phase_e phase, const char *file)
{
    apr_pool_t *p;
    apr_finfo_t info;

    memo += phase;
    apr_pool_create(&p, NULL);
    pthread_mutex_lock(&mutex);
    if (apr_stat(&info, file, APR_FINFO_MTIME | APR_FINFO_SIZE, p) == APR_SUCCESS) {
        free(memo->file);
        memo->file = strdup(file);
        memo->mtime = info.mtime;
        memo->size = info.size;
    }
    pthread_mutex_unlock(&mutex);
    apr_pool_destroy(p);
}

int nssmtpd_memo_is_missing(nssmtpd_memo_t *memo, nssmtpd_phase_e phase, apr_pool_t *ptemp)
{
    apr_finfo_t info;
    int is_missing = 0;

    memo += phase;
    if (!memo->file) { /* a race costs one call more */
        return 0;
    }
    pthread_mutex_lock(&mutex);
    if (memo->file) {
        is_missing = apr_stat(&info, memo->file, APR_FINFO_MTIME | APR_FINFO_SIZE, ptemp)
                         == APR_SUCCESS
                     && info.mtime == memo->mtime && info.size == memo->size;
    }
    if (!is_missing) {
        free(memo->file);
        memo->file = NULL;
    }
    pthread_mutex_unlock(&mutex);
    return is_missing;
}

static void forget(apr_pool_t *pool, const char *key)
{
    if (pool) {
        apr_pool_userdata_setn(NULL, key, NULL, pool);
    }
}

void nssmtpd_memo_set_broken(nssmtpd_memo_t *memo, nssmtpd_phase_e phase, const char *file,
                             request_rec *r)
{
    const conn_rec *c = r->connection;
    const char *key = apr_pstrcat(r->pool, "ap_lua_modified:", file, NULL);

    memo[phase].broken_until = apr_time_now() + RETRY;
    forget(c->pool, key);
    forget(c->current_thread ? apr_thread_pool_get(c->current_thread) : NULL, key);
}

int nssmtpd_memo_is_broken(const nssmtpd_memo_t *memo, nssmtpd_phase_e phase)
{
    return memo[phase].broken_until > apr_time_now();
}
