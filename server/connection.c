/* Between httpd's MPMs and sessions. On the event MPM a session that waits holds no
 * thread: process_connection returns and is called again. On worker and prefork the same
 * session is driven by poll() in its thread. Nothing here knows SMTP.
 */
#include "server/connection.h"

#include <ap_mpm.h>
#include <apr_portable.h>
#include <http_connection.h>
#include <http_core.h>
#include <http_log.h>
#include <mod_core.h>
#include <poll.h>
#include <sys/socket.h>
#include <util_filter.h>

#include "server/input.h"
#include "server/registry.h"

APLOG_USE_MODULE(nssmtpd);

extern module AP_MODULE_DECLARE_DATA nssmtpd_module;

/* Where pre_connection leaves the socket for the first process_connection. */
typedef struct connection_t {
    apr_socket_t *socket;
    nssmtpd_session_t *session;
} connection_t;

static int is_async;
static volatile int child_ends;
static APR_OPTIONAL_FN_TYPE(ap_logio_add_bytes_out) *count_output;

static connection_t *connection_of(const conn_rec *c)
{
    return ap_get_module_config(c->conn_config, &nssmtpd_module);
}

nssmtpd_session_t *nssmtpd_connection_session(const conn_rec *c)
{
    connection_t *connection = connection_of(c);

    return connection ? connection->session : NULL;
}

int nssmtpd_connection_is_clear(const conn_rec *c)
{
    const connection_t *connection = connection_of(c);

    return connection && (!connection->session || connection->session->tls == NSSMTPD_CLEAR);
}

/* Writing */

/* mod_ssl holds small writes back until a metadata bucket comes. A FLUSH would also make
 * the core filter block on a client that does not read; this one means nothing to it. */
static apr_status_t read_mark(apr_bucket *b, const char **data, apr_size_t *n,
                              apr_read_type_e block)
{
    (void)b, (void)block;
    *data = NULL;
    *n = 0;
    return APR_SUCCESS;
}

static const apr_bucket_type_t mark_type = {
    "NSSMTPD_MARK", 5, APR_BUCKET_METADATA, apr_bucket_destroy_noop, read_mark,
    apr_bucket_setaside_noop, apr_bucket_split_notimpl, apr_bucket_simple_copy
};

static void append_mark(apr_bucket_brigade *bb)
{
    apr_bucket *b = apr_bucket_alloc(sizeof(*b), bb->bucket_alloc);

    APR_BUCKET_INIT(b);
    b->free = apr_bucket_free;
    b->list = bb->bucket_alloc;
    b->type = &mark_type;
    b->length = 0;
    b->start = 0;
    b->data = NULL;
    APR_BRIGADE_INSERT_TAIL(bb, b);
}

/* In plaintext a batch of replies is one piece and mostly goes out in one: what does, needs no
 * filter to put it aside. The rest stays for the filters. */
static void send_at_once(nssmtpd_session_t *session)
{
    conn_rec *c = session->c;
    apr_bucket *b = APR_BRIGADE_FIRST(session->out);
    const char *data;
    apr_os_sock_t fd;
    apr_size_t n;
    ssize_t sent;

    if (c->data_in_output_filters || c->output_filters->frec != ap_core_output_filter_handle
        || !APR_BUCKET_IS_HEAP(b) || apr_bucket_read(b, &data, &n, APR_BLOCK_READ) != APR_SUCCESS) {
        return;
    }
    apr_os_sock_get(&fd, session->socket);
    sent = send(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent <= 0) {
        return;
    }
    if (count_output) {
        count_output(c, sent);
    }
    if ((apr_size_t)sent < n) {
        apr_bucket_split(b, sent);
    }
    apr_bucket_delete(b);
}

static apr_status_t push_pending(conn_rec *c)
{
    ap_filter_t *f = c->output_filters;

    if (!c->data_in_output_filters) {
        return APR_SUCCESS;
    }
    while (f->next) {
        f = f->next;
    }
    return f->frec->filter_func.out_func(f, NULL);
}

apr_status_t nssmtpd_connection_send(nssmtpd_session_t *session)
{
    conn_rec *c = session->c;
    apr_status_t rv = APR_SUCCESS;

    if (!APR_BRIGADE_EMPTY(session->out)) {
        send_at_once(session);
    }
    /* Then the core filter's own way to write what is pending, a NULL brigade. */
    if (!APR_BRIGADE_EMPTY(session->out)) {
        if (session->tls == NSSMTPD_SECURE) {
            append_mark(session->out);
        }
        rv = ap_pass_brigade(c->output_filters, session->out);
        apr_brigade_cleanup(session->out);
    }
    if (rv == APR_SUCCESS) {
        rv = push_pending(c);
    }
    if (rv != APR_SUCCESS || c->aborted) {
        return APR_ECONNABORTED;
    }
    return c->data_in_output_filters ? APR_EAGAIN : APR_SUCCESS;
}

static int poll_socket(apr_socket_t *socket, short events, int timeout, short *revents)
{
    struct pollfd pfd = { -1, events, 0 };
    int rc;

    apr_os_sock_get(&pfd.fd, socket);
    rc = poll(&pfd, 1, timeout);
    *revents = pfd.revents;
    return rc;
}

int nssmtpd_connection_has_left(nssmtpd_session_t *session, int *was_reset)
{
    short revents;

    poll_socket(session->socket, POLLIN | POLLRDHUP, 0, &revents);
    *was_reset = (revents & (POLLERR | POLLNVAL)) != 0;
    return (revents & (POLLERR | POLLNVAL | POLLHUP | POLLRDHUP)) != 0;
}

/* Waiting */

/* With a thread: looks at least every second whether the child is to stop, since prefork
 * tells nobody. */
static void wait_with_thread(nssmtpd_session_t *session, nssmtpd_wait_e wait)
{
    short events = wait == NSSMTPD_WAIT_WRITE ? POLLOUT : POLLIN, revents;
    int rc = 0, may_wait = nssmtpd_registry_wait(session);

    while (rc <= 0 && may_wait) {
        apr_time_t left = session->deadline - apr_time_now();

        if (left <= 0) {
            break;
        }
        rc = poll_socket(session->socket, events,
                         left > APR_USEC_PER_SEC ? 1000 : (int)apr_time_as_msec(left) + 1,
                         &revents);
        may_wait = rc > 0 || nssmtpd_registry_wait_on(session);
    }
    nssmtpd_registry_resume(session);
}

/* The way through the MPM and back costs more than a short command. So a thread stays for the
 * next one while the session goes on as quickly as a near and busy client makes it go, and
 * threads are plenty. STAY_MS is beyond the kernel's tick: a timer before that costs more. */
#define STAY_MS 20
#define QUICK apr_time_from_msec(5)
#define STAYS_A_COMMAND 4
#define STAYS_A_TURN 100
#define COMMANDS_OF_A_SLOW_CLIENT 16

/* 1: the client has sent more. */
static int stay(nssmtpd_session_t *session)
{
    apr_time_t start = apr_time_now();
    short revents;
    int rc;

    if (session->patience <= 0) {
        return 0;
    }
    session->wants_write = 0;
    if (++session->stays > STAYS_A_TURN || !nssmtpd_registry_stay(session)) {
        session->stays = 0;
        return 0;
    }
    rc = poll_socket(session->socket, POLLIN, STAY_MS, &revents);
    nssmtpd_registry_stay_no_longer(session);
    session->patience--;
    if (rc <= 0 || apr_time_now() - start > QUICK) {
        session->patience = -COMMANDS_OF_A_SLOW_CLIENT;
    }
    return rc > 0;
}

void nssmtpd_connection_moves_on(nssmtpd_session_t *session)
{
    session->patience = session->patience < 0 ? session->patience + 1 : STAYS_A_COMMAND;
}

int nssmtpd_connection_is_quick(const nssmtpd_session_t *session)
{
    return session->patience > 0;
}

/* The MPM polls a connection's socket and nothing else. For who waits for a place, its bell
 * stands in the socket's place until it rings. */
static void park(nssmtpd_session_t *session)
{
    apr_os_sock_t bell = session->bell;

    apr_os_sock_get(&session->parked, session->socket);
    apr_os_sock_put(&session->socket, &bell, session->c->pool);
}

/* A thread works for the session again. */
static void resume(nssmtpd_session_t *session)
{
    apr_os_sock_t own = session->parked;

    nssmtpd_registry_resume(session);
    if (own >= 0) {
        apr_os_sock_put(&session->socket, &own, session->c->pool);
        session->parked = -1;
    }
}

/* Without: 1 if the session is left to the MPM. */
static int wait_without_thread(nssmtpd_session_t *session, nssmtpd_wait_e wait)
{
    conn_rec *c = session->c;

    if (wait == NSSMTPD_WAIT_PLACE) {
        park(session);
    }
    session->wants_write = wait == NSSMTPD_WAIT_WRITE; /* before anybody may wake it */
    if (!nssmtpd_registry_wait(session)) {
        resume(session);
        return 0;
    }
    c->cs->sense = wait == NSSMTPD_WAIT_WRITE ? CONN_SENSE_WANT_WRITE : CONN_SENSE_WANT_READ;
    c->cs->state = CONN_STATE_ASYNC_WAITIO;
    return 1;
}

static int drive(nssmtpd_session_t *session)
{
    for (;;) {
        nssmtpd_wait_e wait = nssmtpd_session_run(session);

        if (wait == NSSMTPD_CLOSE) {
            if (is_async && session->dialogue.last_code == 221) {
                stay(session); /* who said QUIT closes now, and nothing is left to linger for */
            }
            nssmtpd_session_end(session);
            nssmtpd_input_rest(session);
            if (session->c->cs) {
                session->c->cs->state = CONN_STATE_LINGER;
            }
            return OK;
        }
        if (is_async && wait == NSSMTPD_WAIT_READ && stay(session)) {
            continue;
        }
        nssmtpd_input_rest(session);
        if (!is_async) {
            wait_with_thread(session, wait);
        }
        else if (wait_without_thread(session, wait)) {
            return OK;
        }
    }
}

/* Hooks */

int nssmtpd_connection_pre(conn_rec *c, void *csd)
{
    connection_t *connection;

    if (c->outgoing || c->master || nssmtpd_config(c->base_server)->engine != 1) {
        return DECLINED;
    }
    connection = apr_pcalloc(c->pool, sizeof(*connection));
    connection->socket = csd;
    ap_set_module_config(c->conn_config, &nssmtpd_module, connection);
    return OK;
}

/* The process ends, on prefork maybe in a signal handler: pools of the relays are gone
 * before those of the clients, and a mutex may be held. There is nothing to tidy up. */
static apr_status_t note_end(void *unused)
{
    (void)unused;
    nssmtpd_registry_end();
    child_ends = 1;
    return APR_SUCCESS;
}

/* Before the socket is closed and its number given to another. */
static apr_status_t leave_registry(void *session)
{
    if (child_ends) {
        return APR_SUCCESS;
    }
    nssmtpd_session_end(session);
    nssmtpd_input_rest(session);
    nssmtpd_registry_remove(session);
    return APR_SUCCESS;
}

int nssmtpd_connection_process(conn_rec *c)
{
    connection_t *connection = connection_of(c);

    if (!connection) {
        return DECLINED;
    }
    if (!connection->session) {
        connection->session = nssmtpd_session_create(c, connection->socket,
                                                     nssmtpd_config(c->base_server));
        nssmtpd_registry_add(connection->session);
        connection->session->patience = STAYS_A_COMMAND;
        apr_pool_pre_cleanup_register(c->pool, connection->session, leave_registry);
    }
    else {
        resume(connection->session);
    }
    return drive(connection->session);
}

/* The MPM closes, maybe because its own Timeout is over. A last word must not block: it is
 * passed on without a flush, ap_flush_conn() follows. */
int nssmtpd_connection_pre_close(conn_rec *c)
{
    connection_t *connection = connection_of(c);
    nssmtpd_session_t *session = connection ? connection->session : NULL;

    if (!session) {
        return DECLINED;
    }
    resume(session);
    if (session->over) {
        return OK;
    }
    if (nssmtpd_session_can_speak(session) && !c->aborted && !session->eof
        && !c->data_in_output_filters) {
        smtp_dialogue_close(&session->dialogue, SMTP_REPLY_TIMEOUT);
        ap_pass_brigade(c->output_filters, session->out);
    }
    nssmtpd_session_end(session);
    return OK;
}

void nssmtpd_connection_child_init(apr_pool_t *pchild, server_rec *s)
{
    int threads = 1;
    apr_status_t rv;

    ap_mpm_query(AP_MPMQ_IS_ASYNC, &is_async);
    ap_mpm_query(AP_MPMQ_MAX_THREADS, &threads);
    child_ends = 0;
    count_output = APR_RETRIEVE_OPTIONAL_FN(ap_logio_add_bytes_out);
    apr_pool_pre_cleanup_register(pchild, NULL, note_end);
    rv = nssmtpd_registry_init(s->process->pool, threads, is_async);
    if (rv == APR_SUCCESS) {
        rv = nssmtpd_input_init(s->process->pool);
    }
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s, "NS0009: cannot make the mutex of sessions");
    }
}

void nssmtpd_connection_child_stopping(apr_pool_t *pchild, int graceful)
{
    nssmtpd_registry_stop(pchild, graceful);
}
