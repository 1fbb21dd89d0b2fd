/* Runs /smtp/init in the first child, as its user, before any child greets a client. There
 * is no connection then, so it gets one that nobody is at the other end of. A child that
 * dies in it leaves the work to the next.
 */
#include "server/init.h"

#include <ap_mpm.h>
#include <apr_portable.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_log.h>
#include <signal.h>
#include <unistd.h>

#include "server/script.h"
#include "server/state.h"

APLOG_USE_MODULE(nssmtpd);

/* mod_lua keeps its states with the thread. */
static apr_thread_t *this_thread(apr_pool_t *p)
{
    apr_os_thread_t self = apr_os_thread_current();
    apr_thread_t *thread = NULL;

    apr_os_thread_put(&thread, &self, p);
    return thread;
}

static nssmtpd_session_t *make_session(apr_pool_t *p, server_rec *s)
{
    conn_rec *c = apr_pcalloc(p, sizeof(*c));
    nssmtpd_session_t *session = apr_pcalloc(p, sizeof(*session));

    c->pool = p;
    c->base_server = s;
    c->bucket_alloc = apr_bucket_alloc_create(p);
    c->conn_config = ap_create_conn_config(p);
    c->notes = apr_table_make(p, 1);
    c->current_thread = this_thread(p);
    c->client_ip = c->local_ip = "127.0.0.1";
    c->id = -1;
    apr_sockaddr_info_get(&c->client_addr, c->client_ip, APR_INET, 0, 0, p);
    c->local_addr = c->client_addr;
    session->c = c;
    session->conf = nssmtpd_config(s);
    session->slot = NSSMTPD_NO_SLOT;
    session->flags = (apr_uint32_t)session->conf->flags;
    return session;
}

static void run_hosts(apr_pool_t *pchild, server_rec *s)
{
    for (; s; s = s->next) {
        apr_pool_t *p;

        if (nssmtpd_config(s)->engine == 1) {
            apr_pool_create(&p, pchild);
            nssmtpd_script_run(make_session(p, s), NSSMTPD_PHASE_INIT, NULL, NULL, NULL, p);
            apr_pool_destroy(p);
        }
    }
}

static int is_wanted(apr_pool_t *pchild, server_rec *s)
{
    int wanted = 0;

    for (; s && !wanted; s = s->next) {
        apr_pool_t *p;

        if (nssmtpd_config(s)->engine == 1) {
            apr_pool_create(&p, pchild);
            wanted = nssmtpd_script_is_configured(make_session(p, s), NSSMTPD_PHASE_INIT);
            apr_pool_destroy(p);
        }
    }
    return wanted;
}

void nssmtpd_init_child(apr_pool_t *pchild, server_rec *main_server)
{
    enum { STEP_MS = 10, PATIENCE_MS = 60 * 1000 };
    int generation = 0, waited = 0;

    if (!is_wanted(pchild, main_server)) {
        return;
    }
    ap_mpm_query(AP_MPMQ_GENERATION, &generation);
    while (!nssmtpd_state_is_initialized(generation)) {
        if (nssmtpd_state_begin_init()) {
            if (!nssmtpd_state_is_initialized(generation)) {
                run_hosts(pchild, main_server);
            }
            nssmtpd_state_end_init(generation);
            return;
        }
        if ((waited += STEP_MS) > PATIENCE_MS) {
            ap_log_error(APLOG_MARK, APLOG_ERR, 0, main_server,
                         "NS0059: /smtp/init still runs in another child after %d s; this one "
                         "begins without it", PATIENCE_MS / 1000);
            return;
        }
        apr_sleep(apr_time_from_msec(STEP_MS));
    }
}
