/* The sessions of this child: who waits, until when, and how a waiting one is woken that
 * the MPM holds. Waking shuts down the socket's reading half, which makes it readable: the
 * session then finds out itself why. Also the places for blocking work. Thread safe.
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

/* The child stops. Gracefully: idle sessions are woken and say 421. Otherwise there is no
 * time for that: what can be said at once is said here. */
void nssmtpd_registry_stop(int graceful);

/* Wakes the sessions whose deadline is over. Called about every second. */
void nssmtpd_registry_sweep(apr_time_t now);

/* Takes a place for blocking work, of at most max (SmtpdMaxBusy; 0: three quarters of the
 * threads). Waits for one a few milliseconds at most. 0: there is none now. */
int nssmtpd_registry_enter_work(apr_int64_t max);
void nssmtpd_registry_leave_work(void);

#endif
