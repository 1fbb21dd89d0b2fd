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

/* The session's thread is about to leave it to wait. 0: the child stops and the session
 * is idle, so say so to the client instead. */
int nssmtpd_registry_wait(nssmtpd_session_t *session);

/* A thread works for the session again. */
void nssmtpd_registry_resume(nssmtpd_session_t *session);

/* 1 once the child takes no new work: a graceful restart or stop. */
int nssmtpd_registry_is_stopping(void);

/* 1 while, in a child that stops, a client in the midst of its mails may still send the next. */
int nssmtpd_registry_has_patience(void);

/* The child stops. Gracefully: idle sessions are woken and say 421. Otherwise there is no
 * time for that: what can be said at once is said here. */
void nssmtpd_registry_stop(int graceful);

/* Wakes the sessions whose deadline is over. Called about every second. */
void nssmtpd_registry_sweep(apr_time_t now);

/* Places for long work: what blocks on others, and clients that never pause. There are max
 * of them (SmtpdMaxBusy; 0: three quarters of the threads), so that some threads are always
 * left for what is short. Who gets none is put in a queue, and session->bell becomes
 * readable when it has one; it must then wait for that (NSSMTPD_WAIT_PLACE).
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
