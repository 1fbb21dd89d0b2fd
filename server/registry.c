/* The ring of this child's sessions and the count of its threads in blocking work.
 * httpd wakes waiting connections for their sockets only, so whoever must be told of a
 * deadline or a restart is woken through its socket.
 */
#include "server/registry.h"

#include <ap_mpm.h>
#include <apr_portable.h>
#include <apr_thread_cond.h>
#include <apr_thread_mutex.h>
#include <sys/socket.h>

/* How long a thread waits for a place before it goes back to other sessions: long enough
 * to catch one that is about to come free, short enough to keep no web page waiting. */
#define PLACE_WAIT apr_time_from_msec(5)

static APR_RING_HEAD(sessions_t, nssmtpd_session_t) sessions;
static apr_thread_mutex_t *mutex;
static apr_thread_cond_t *place_free;
static int threads_per_child, is_async, busy;
static volatile int stopping;

apr_status_t nssmtpd_registry_init(apr_pool_t *p, int threads, int async)
{
    apr_status_t rv = apr_thread_cond_create(&place_free, p);

    APR_RING_INIT(&sessions, nssmtpd_session_t, link);
    threads_per_child = threads;
    is_async = async;
    stopping = busy = 0;
    return rv == APR_SUCCESS ? apr_thread_mutex_create(&mutex, APR_THREAD_MUTEX_DEFAULT, p) : rv;
}

void nssmtpd_registry_add(nssmtpd_session_t *session)
{
    apr_thread_mutex_lock(mutex);
    APR_RING_INSERT_TAIL(&sessions, session, nssmtpd_session_t, link);
    apr_thread_mutex_unlock(mutex);
}

void nssmtpd_registry_remove(nssmtpd_session_t *session)
{
    apr_thread_mutex_lock(mutex);
    APR_RING_REMOVE(session, link);
    apr_thread_mutex_unlock(mutex);
}

int nssmtpd_registry_wait(nssmtpd_session_t *session)
{
    int may_wait, idle = !nssmtpd_session_has_mail(session);

    apr_thread_mutex_lock(mutex);
    may_wait = !(stopping && idle);
    session->idle = idle;
    session->waiting = may_wait;
    apr_thread_mutex_unlock(mutex);
    return may_wait;
}

void nssmtpd_registry_resume(nssmtpd_session_t *session)
{
    apr_thread_mutex_lock(mutex);
    session->waiting = 0;
    apr_thread_mutex_unlock(mutex);
}

int nssmtpd_registry_is_stopping(void)
{
    int state;

    /* prefork tells its children by a signal only */
    return stopping
           || (ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS
               && state == AP_MPMQ_STOPPING);
}

/* The socket's owner does not touch it while it waits, and leaves the ring first. */
static void wake(nssmtpd_session_t *session)
{
    apr_socket_shutdown(session->socket, session->wants_write ? APR_SHUTDOWN_READWRITE
                                                              : APR_SHUTDOWN_READ);
}

/* One line to a client that waits for nothing, without a filter and without waiting. */
static void say_421(nssmtpd_session_t *session)
{
    static const char text[] = "421 4.3.2 Server is stopping; try again\r\n";
    apr_os_sock_t fd;

    if (session->idle && session->tls == NSSMTPD_CLEAR
        && apr_os_sock_get(&fd, session->socket) == APR_SUCCESS) {
        (void)send(fd, text, sizeof(text) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

void nssmtpd_registry_stop(int graceful)
{
    nssmtpd_session_t *session;

    stopping = 1;
    /* prefork calls this from a signal handler, maybe in the midst of a session */
    if (!mutex || (threads_per_child > 1 ? apr_thread_mutex_lock(mutex)
                                         : apr_thread_mutex_trylock(mutex)) != APR_SUCCESS) {
        return;
    }
    APR_RING_FOREACH(session, &sessions, nssmtpd_session_t, link) {
        if (!session->waiting) {
            continue;
        }
        if (!graceful) {
            say_421(session);
        }
        else if (session->idle) {
            wake(session);
        }
    }
    apr_thread_mutex_unlock(mutex);
}

void nssmtpd_registry_sweep(apr_time_t now)
{
    nssmtpd_session_t *session;

    if (!mutex) {
        return;
    }
    apr_thread_mutex_lock(mutex);
    APR_RING_FOREACH(session, &sessions, nssmtpd_session_t, link) {
        if (session->waiting && session->deadline && session->deadline < now) {
            wake(session);
        }
    }
    apr_thread_mutex_unlock(mutex);
}

int nssmtpd_registry_enter_work(apr_int64_t max)
{
    int entered;

    if (!is_async) {
        return 1; /* each session has its thread anyway */
    }
    max = max > 0 ? max : (threads_per_child * 3 + 3) / 4;
    apr_thread_mutex_lock(mutex);
    if (busy >= max) {
        apr_thread_cond_timedwait(place_free, mutex, PLACE_WAIT);
    }
    entered = busy < max;
    busy += entered;
    apr_thread_mutex_unlock(mutex);
    return entered;
}

void nssmtpd_registry_leave_work(void)
{
    if (!is_async) {
        return;
    }
    apr_thread_mutex_lock(mutex);
    busy--;
    apr_thread_cond_signal(place_free);
    apr_thread_mutex_unlock(mutex);
}
