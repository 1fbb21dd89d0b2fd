/* The sessions of this child: who waits, until when, and how a waiting one is woken that
 * the MPM holds. Waking shuts down the socket's reading half, which makes it readable: the
 * session then finds out itself why. Also the places for long work. Thread safe.
 */
#ifndef NSSMTPD_REGISTRY_H
#define NSSMTPD_REGISTRY_H

#include "server/session.h"

/* In the child, before its first session. threads is ThreadsPerChild; async: the MPM runs
 * waiting sessions without a thread. p must outlive every thread of the child. */
apr_status_t nssmtpd_registry_init(apr_pool_t *p, int threads, int async);

void nssmtpd_registry_add(nssmtpd_session_t *session);
void nssmtpd_registry_remove(nssmtpd_session_t *session);

/* The session begins to wait for its client. 0: the child stops, and it is time to tell the
 * client so instead; session->told is set then. */
int nssmtpd_registry_wait(nssmtpd_session_t *session);

/* The same for one that waits already, with a thread that looks at the clock. */
int nssmtpd_registry_wait_on(nssmtpd_session_t *session);

/* A thread works for the session again. Sets session->told if it was woken for that. */
void nssmtpd_registry_resume(nssmtpd_session_t *session);

/* 1 once the child takes no new work: a graceful restart or stop. */
int nssmtpd_registry_is_stopping(void);

/* The child stops. Gracefully: idle sessions are woken to say 421, those in the midst of their
 * mails once they pause, or a minute is over. Otherwise there is no time for that: what can be
 * said at once is said here. pchild is the child's pool. */
void nssmtpd_registry_stop(apr_pool_t *pchild, int graceful);

/* Before the sessions' pools are destroyed at the child's end, with no thread of the MPM's left. */
void nssmtpd_registry_end(void);

/* Wakes the sessions whose deadline is over. About every second. */
void nssmtpd_registry_sweep(apr_time_t now);

/* Places for long work: what blocks on others, and clients that never pause. There are max
 * of them (SmtpdMaxBusy; 0: three quarters of the threads) for all who ask with the same max,
 * so that some threads are always left for what is short. Who gets none is put in a queue,
 * and session->bell becomes readable when it has one; it must then wait for that
 * (NSSMTPD_WAIT_PLACE).
 * Returns 1: it has a place; 0: it is in the queue; -1: not even that can be had now. */
int nssmtpd_registry_take_place(nssmtpd_session_t *session, apr_int64_t max);

/* A place if there is one at once, without any queue. 1: it has one. */
int nssmtpd_registry_try_place(nssmtpd_session_t *session, apr_int64_t max);

/* Gives up a place, or the wish for one; the next in the queue gets it. */
void nssmtpd_registry_give_place(nssmtpd_session_t *session);

/* 1: a thread may stay for a session's next command, for milliseconds, since no more than
 * three quarters of them are in long work or stay so; it says when it no longer does. */
int nssmtpd_registry_stay(nssmtpd_session_t *session);
void nssmtpd_registry_stay_no_longer(nssmtpd_session_t *session);

#endif
