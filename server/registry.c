/* The ring of this child's sessions, and the places for long work with their queue. httpd
 * wakes waiting connections for their sockets only, so whoever must be told of a deadline or
 * a restart is woken through its socket; who waits for a place has a bell in its stead.
 */
#include "server/registry.h"

#include <ap_mpm.h>
#include <apr_atomic.h>
#include <apr_portable.h>
#include <apr_thread_mutex.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a session has of the places for long work. Changed with the mutex; its own thread may
 * look without, and others only turn the wish into a place. */
enum { NO_PLACE, IN_QUEUE, HAS_PLACE };

/* How a session waits for its client: somebody must wake it, or its thread stays and soon sees
 * itself what there is to see. */
enum { NOT_WAITING, TO_BE_WOKEN, BACK_SOON };

static APR_RING_HEAD(sessions_t, nssmtpd_session_t) sessions;
static apr_thread_mutex_t *mutex;
static nssmtpd_session_t *first, *last; /* of the queue for a place */
static int threads_per_child, is_async;
static apr_uint32_t busy, staying;
static volatile apr_uint32_t stopping;
static volatile apr_time_t stopped; /* when that began */

/* How long a client that sends mail after mail is left alone when its child stops: MPMs end
 * children for no other reason than that there are more than needed. */
#define GRACE apr_time_from_sec(10)

apr_status_t nssmtpd_registry_init(apr_pool_t *p, int threads, int async)
{
    APR_RING_INIT(&sessions, nssmtpd_session_t, link);
    first = last = NULL;
    threads_per_child = threads;
    is_async = async;
    stopping = busy = staying = 0;
    stopped = 0;
    return apr_thread_mutex_create(&mutex, APR_THREAD_MUTEX_DEFAULT, p);
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

/* No lock: each wake-up comes here. Whoever stops the child says so first and looks at
 * waiting then, here it is the other way round: one of both sees the other. */
int nssmtpd_registry_wait(nssmtpd_session_t *session)
{
    session->idle = !nssmtpd_session_has_mail(session);
    apr_atomic_xchg32(&session->waiting, TO_BE_WOKEN);
    if (stopping && session->idle) {
        apr_atomic_set32(&session->waiting, NOT_WAITING);
        return 0;
    }
    return 1;
}

void nssmtpd_registry_resume(nssmtpd_session_t *session)
{
    apr_atomic_xchg32(&session->waiting, NOT_WAITING);
}

int nssmtpd_registry_is_stopping(void)
{
    int state;

    /* prefork tells its children by a signal only */
    return stopping
           || (ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS
               && state == AP_MPMQ_STOPPING);
}

int nssmtpd_registry_has_patience(void)
{
    return apr_time_now() < stopped + GRACE;
}

static void ring_bell(const nssmtpd_session_t *session)
{
    const apr_uint64_t one = 1;

    if (write(session->bell, &one, sizeof(one)) < 0) {
        return; /* only if it has rung 2^64 times */
    }
}

/* The socket's owner does not touch it while it waits, and leaves the ring first. */
static void wake(nssmtpd_session_t *session)
{
    if (session->place == IN_QUEUE || session->parked >= 0) {
        ring_bell(session);
        return;
    }
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

    stopped = graceful ? apr_time_now() : 0;
    apr_atomic_xchg32(&stopping, 1);
    /* prefork calls this from a signal handler, maybe in the midst of a session */
    if (!mutex || (threads_per_child > 1 ? apr_thread_mutex_lock(mutex)
                                         : apr_thread_mutex_trylock(mutex)) != APR_SUCCESS) {
        return;
    }
    APR_RING_FOREACH(session, &sessions, nssmtpd_session_t, link) {
        apr_uint32_t waiting = apr_atomic_read32(&session->waiting);

        if (waiting != NOT_WAITING && !graceful) {
            say_421(session);
        }
        else if (waiting == TO_BE_WOKEN && session->idle) {
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
        if (apr_atomic_read32(&session->waiting) == TO_BE_WOKEN && session->deadline
            && session->deadline < now) {
            wake(session);
        }
    }
    apr_thread_mutex_unlock(mutex);
}

/* Places */

static int has_bell(nssmtpd_session_t *session)
{
    if (session->bell < 0) {
        session->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    return session->bell >= 0;
}

static void drop_bell(nssmtpd_session_t *session)
{
    if (session->bell >= 0) {
        close(session->bell);
        session->bell = -1;
    }
}

/* It rang for something else than a place. */
static void still_bell(const nssmtpd_session_t *session)
{
    apr_uint64_t rung;

    if (read(session->bell, &rung, sizeof(rung)) < 0) {
        return; /* it did not */
    }
}

static void leave_queue(nssmtpd_session_t *session)
{
    *(session->ahead ? &session->ahead->behind : &first) = session->behind;
    *(session->behind ? &session->behind->ahead : &last) = session->ahead;
}

static void enqueue(nssmtpd_session_t *session)
{
    if (session->place == IN_QUEUE) {
        still_bell(session);
        return;
    }
    session->ahead = last;
    session->behind = NULL;
    *(last ? &last->behind : &first) = session;
    last = session;
    apr_atomic_set32(&session->place, IN_QUEUE);
}

static apr_uint32_t most_threads(void)
{
    return (threads_per_child * 3 + 3) / 4;
}

/* With the mutex. 1: it has a place, if only since now. */
static int take_free(nssmtpd_session_t *session, apr_int64_t max)
{
    max = max > 0 ? max : most_threads();
    if (session->place == NO_PLACE && busy < max && !first) {
        apr_atomic_set32(&session->place, HAS_PLACE);
        apr_atomic_inc32(&busy);
    }
    return session->place == HAS_PLACE;
}

int nssmtpd_registry_try_place(nssmtpd_session_t *session, apr_int64_t max)
{
    int has_place;

    if (!is_async || apr_atomic_read32(&session->place) == HAS_PLACE) {
        return 1;
    }
    apr_thread_mutex_lock(mutex);
    has_place = take_free(session, max);
    apr_thread_mutex_unlock(mutex);
    return has_place;
}

int nssmtpd_registry_take_place(nssmtpd_session_t *session, apr_int64_t max)
{
    int rc = -1;

    if (!is_async) {
        return 1; /* each session has its thread anyway */
    }
    apr_thread_mutex_lock(mutex);
    if (take_free(session, max)) {
        drop_bell(session);
        rc = 1;
    }
    else if (has_bell(session)) {
        enqueue(session);
        rc = 0;
    }
    apr_thread_mutex_unlock(mutex);
    return rc;
}

/* The place goes from hand to hand: busy stays what it is. */
static void hand_on(void)
{
    nssmtpd_session_t *next = first;

    if (!next) {
        apr_atomic_dec32(&busy);
        return;
    }
    leave_queue(next);
    apr_atomic_set32(&next->place, HAS_PLACE);
    ring_bell(next);
}

void nssmtpd_registry_give_place(nssmtpd_session_t *session)
{
    apr_uint32_t had;

    if (apr_atomic_read32(&session->place) == NO_PLACE) {
        return;
    }
    apr_thread_mutex_lock(mutex);
    had = session->place;
    apr_atomic_set32(&session->place, NO_PLACE);
    if (had == IN_QUEUE) {
        leave_queue(session);
    }
    else {
        hand_on();
    }
    drop_bell(session);
    apr_thread_mutex_unlock(mutex);
}

/* The sum may be past the limit for a moment: it is no place that somebody could keep. */
int nssmtpd_registry_stay(nssmtpd_session_t *session)
{
    if (apr_atomic_inc32(&staying) + apr_atomic_read32(&busy) < most_threads()) {
        session->idle = !nssmtpd_session_has_mail(session);
        apr_atomic_xchg32(&session->waiting, BACK_SOON);
        return 1;
    }
    apr_atomic_dec32(&staying);
    return 0;
}

void nssmtpd_registry_stay_no_longer(nssmtpd_session_t *session)
{
    apr_atomic_dec32(&staying);
    nssmtpd_registry_resume(session);
}
