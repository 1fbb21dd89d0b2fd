/* The ring of this child's sessions, and the places for long work with their queue. httpd
 * wakes waiting connections for their sockets only, so whoever must be told of a deadline or
 * a restart is woken through its socket; who waits for a place has a bell in its stead.
 */
#include "server/registry.h"

#include <ap_mpm.h>
#include <apr_atomic.h>
#include <apr_portable.h>
#include <apr_thread_cond.h>
#include <apr_thread_mutex.h>
#include <apr_thread_proc.h>
#include <http_log.h>
#include <http_main.h>
#include <scoreboard.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

APLOG_USE_MODULE(nssmtpd);

/* What a session has of the places for long work. Changed with the mutex; its own thread may
 * look without, and others only turn the wish into a place. */
enum { NO_PLACE, IN_QUEUE, HAS_PLACE };

/* How a session waits for its client: somebody must wake it, and did so for its deadline, or to
 * have its client told that the child stops; or its thread stays and soon looks itself. */
enum { NOT_WAITING, TO_BE_WOKEN, WOKEN, TO_BE_TOLD, BACK_SOON };

static APR_RING_HEAD(sessions_t, nssmtpd_session_t) sessions;
static apr_thread_mutex_t *mutex;
static apr_pool_t *pool;
static int threads_per_child, is_async;
static apr_uint32_t busy, staying; /* threads with a place of whatever kind; between commands */

/* The places of all hosts that allow that many, and the queue for them. Others have their own, or
 * the waiting clients of a host that allows few would hold up everybody. */
static struct nssmtpd_places_t {
    struct nssmtpd_places_t *next;
    apr_int64_t max, taken;
    nssmtpd_session_t *first, *last;
} *places;
static volatile apr_uint32_t stopping;
static volatile apr_time_t grace_ends; /* every idle client is told from then on */

/* Who tells them, in a child that stops gracefully. */
static apr_thread_t *teller; /* NULL: there is none */
static apr_thread_cond_t *end;
static int has_ended;
#define TELLER_INTERVAL apr_time_from_msec(100)

/* MPMs end children for no other reason than that there are more than needed, and many clients
 * take a 421 for a reason to give up. So one in the midst of its mails is left alone until it
 * pauses, but not for ever, and less long if others wait for the new configuration. */
#define PAUSE apr_time_from_msec(300)
#define GRACE apr_time_from_sec(60)
#define GRACE_IN_RESTART apr_time_from_sec(10)

apr_status_t nssmtpd_registry_init(apr_pool_t *p, int threads, int async)
{
    apr_status_t rv;

    APR_RING_INIT(&sessions, nssmtpd_session_t, link);
    apr_pool_create(&pool, p); /* only with the mutex; others use p at the same time */
    places = NULL;
    threads_per_child = threads;
    is_async = async;
    stopping = busy = staying = 0;
    teller = NULL;
    has_ended = 0;
    rv = apr_thread_mutex_create(&mutex, APR_THREAD_MUTEX_DEFAULT, p);
    return rv == APR_SUCCESS ? apr_thread_cond_create(&end, p) : rv;
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

/* How the end begins */

static apr_time_t grace(void)
{
    int generation = 0;

    ap_mpm_query(AP_MPMQ_GENERATION, &generation);
    return generation == ap_get_scoreboard_global()->running_generation ? GRACE : GRACE_IN_RESTART;
}

static void begin_to_stop(int graceful)
{
    grace_ends = graceful ? apr_time_now() + grace() : 0;
    apr_atomic_xchg32(&stopping, 1);
}

int nssmtpd_registry_is_stopping(void)
{
    int state;

    /* prefork tells its children by a signal only */
    if (!stopping && threads_per_child == 1
        && ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS && state == AP_MPMQ_STOPPING) {
        begin_to_stop(1);
    }
    return stopping;
}

static int is_due(const nssmtpd_session_t *session, apr_time_t now)
{
    return session->idle && nssmtpd_registry_is_stopping()
           && (now > session->since + PAUSE || now > grace_ends);
}

/* Waiting */

/* No lock: each wake-up comes here. */
int nssmtpd_registry_wait(nssmtpd_session_t *session)
{
    session->idle = !nssmtpd_session_has_mail(session);
    session->since = apr_time_now();
    apr_atomic_xchg32(&session->waiting, TO_BE_WOKEN);
    return nssmtpd_registry_wait_on(session);
}

int nssmtpd_registry_wait_on(nssmtpd_session_t *session)
{
    if (!is_due(session, apr_time_now())) {
        return 1;
    }
    session->told = 1;
    apr_atomic_set32(&session->waiting, NOT_WAITING);
    return 0;
}

void nssmtpd_registry_resume(nssmtpd_session_t *session)
{
    if (apr_atomic_xchg32(&session->waiting, NOT_WAITING) == TO_BE_TOLD) {
        session->told = 1;
    }
}

static void ring_bell(const nssmtpd_session_t *session)
{
    const apr_uint64_t one = 1;

    if (write(session->bell, &one, sizeof(one)) < 0) {
        return; /* only if it has rung 2^64 times */
    }
}

/* The socket's owner does not touch it while it waits, and leaves the ring first. */
static void wake(nssmtpd_session_t *session, int by_bell)
{
    if (by_bell) {
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

/* What to wake it for, if anything. */
static apr_uint32_t reason_to_wake(const nssmtpd_session_t *session, apr_time_t now)
{
    if (is_due(session, now)) {
        return TO_BE_TOLD;
    }
    return session->deadline && session->deadline < now ? WOKEN : NOT_WAITING;
}

/* A client or a place may take it up at any moment, so it is looked at again when it is ours. */
static void attend_to(nssmtpd_session_t *session, apr_time_t now)
{
    apr_uint32_t waiting = apr_atomic_read32(&session->waiting);
    apr_uint32_t reason = reason_to_wake(session, now);
    int by_bell = session->place == IN_QUEUE || session->parked >= 0;

    if (waiting != TO_BE_WOKEN || reason == NOT_WAITING
        || apr_atomic_cas32(&session->waiting, reason, TO_BE_WOKEN) != TO_BE_WOKEN) {
        return;
    }
    if (reason_to_wake(session, now) == reason) {
        wake(session, by_bell);
    }
    else {
        apr_atomic_cas32(&session->waiting, TO_BE_WOKEN, reason);
    }
}

/* With the mutex. */
static void sweep(apr_time_t now)
{
    nssmtpd_session_t *session;

    APR_RING_FOREACH(session, &sessions, nssmtpd_session_t, link) {
        attend_to(session, now);
    }
}

void nssmtpd_registry_sweep(apr_time_t now)
{
    if (mutex) {
        apr_thread_mutex_lock(mutex);
        sweep(now);
        apr_thread_mutex_unlock(mutex);
    }
}

/* The end */

static void *APR_THREAD_FUNC tell(apr_thread_t *thread, void *unused)
{
    (void)thread, (void)unused;
    apr_thread_mutex_lock(mutex);
    while (!has_ended) {
        sweep(apr_time_now());
        apr_thread_cond_timedwait(end, mutex, TELLER_INTERVAL);
    }
    apr_thread_mutex_unlock(mutex);
    return NULL;
}

/* Nobody else is there to do it: mod_watchdog leaves a child that stops. */
static void start_teller(apr_pool_t *pchild)
{
    apr_pool_t *p;
    apr_status_t rv;

    apr_pool_create(&p, pchild);
    rv = apr_thread_create(&teller, NULL, tell, NULL, p);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, rv, ap_server_conf,
                     "NS0109: a child that stops cannot start a thread: clients in the "
                     "midst of their mails are told so at once");
        teller = NULL;
        grace_ends = 0;
        nssmtpd_registry_sweep(apr_time_now());
    }
}

/* prefork comes here from a signal handler, maybe in the midst of a session. */
static void say_421_to_all(void)
{
    nssmtpd_session_t *session;

    if ((threads_per_child > 1 ? apr_thread_mutex_lock(mutex)
                               : apr_thread_mutex_trylock(mutex)) != APR_SUCCESS) {
        return;
    }
    APR_RING_FOREACH(session, &sessions, nssmtpd_session_t, link) {
        if (apr_atomic_read32(&session->waiting) != NOT_WAITING) {
            say_421(session);
        }
    }
    apr_thread_mutex_unlock(mutex);
}

void nssmtpd_registry_stop(apr_pool_t *pchild, int graceful)
{
    begin_to_stop(graceful);
    if (!mutex) {
        return;
    }
    if (!graceful) {
        say_421_to_all();
    }
    else if (threads_per_child > 1) {
        start_teller(pchild);
    }
}

void nssmtpd_registry_end(void)
{
    apr_status_t rv;

    if (!teller) {
        return;
    }
    apr_thread_mutex_lock(mutex);
    has_ended = 1;
    apr_thread_cond_signal(end);
    apr_thread_mutex_unlock(mutex);
    apr_thread_join(&rv, teller);
    teller = NULL;
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
    struct nssmtpd_places_t *at = session->places;

    *(session->ahead ? &session->ahead->behind : &at->first) = session->behind;
    *(session->behind ? &session->behind->ahead : &at->last) = session->ahead;
}

static void enqueue(nssmtpd_session_t *session)
{
    struct nssmtpd_places_t *at = session->places;

    if (session->place == IN_QUEUE) {
        still_bell(session);
        return;
    }
    session->ahead = at->last;
    session->behind = NULL;
    *(at->last ? &at->last->behind : &at->first) = session;
    at->last = session;
    apr_atomic_set32(&session->place, IN_QUEUE);
}

static apr_uint32_t most_threads(void)
{
    return (threads_per_child * 3 + 3) / 4;
}

/* With the mutex. There are as many of them as different values in the configuration. */
static struct nssmtpd_places_t *places_of(apr_int64_t max)
{
    struct nssmtpd_places_t *at = places;

    max = max > 0 ? max : most_threads();
    while (at && at->max != max) {
        at = at->next;
    }
    if (!at) {
        at = apr_pcalloc(pool, sizeof(*at));
        at->max = max;
        at->next = places;
        places = at;
    }
    return at;
}

/* With the mutex. 1: it has a place, if only since now. */
static int take_free(nssmtpd_session_t *session, apr_int64_t max)
{
    if (session->place == NO_PLACE) {
        session->places = places_of(max);
        if (session->places->taken < session->places->max && !session->places->first) {
            session->places->taken++;
            apr_atomic_set32(&session->place, HAS_PLACE);
            apr_atomic_inc32(&busy);
        }
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

/* The place goes from hand to hand: as many are taken as before. */
static void hand_on(struct nssmtpd_places_t *at)
{
    nssmtpd_session_t *next = at->first;

    if (!next) {
        at->taken--;
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
        hand_on(session->places);
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
