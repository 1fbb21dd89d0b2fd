/* A session's I/O and its life in httpd: the hooks that run it, reading and writing that
 * never block, and waiting, with or without a thread.
 */
#ifndef NSSMTPD_CONNECTION_H
#define NSSMTPD_CONNECTION_H

#include "server/session.h"

/* Hooks; see mod_nssmtpd.c. */
int nssmtpd_connection_pre(conn_rec *c, void *csd);
int nssmtpd_connection_process(conn_rec *c);
int nssmtpd_connection_pre_close(conn_rec *c);
void nssmtpd_connection_child_init(apr_pool_t *pchild, server_rec *s);
void nssmtpd_connection_child_stopping(apr_pool_t *pchild, int graceful);

/* The session of a connection; NULL: it is none of ours. */
nssmtpd_session_t *nssmtpd_connection_session(const conn_rec *c);

/* 1 if this is an SMTP connection that TLS has not begun on. */
int nssmtpd_connection_is_clear(const conn_rec *c);

/* Passes session->out on, the only way anything is written to a client. APR_SUCCESS: all
 * is written; APR_EAGAIN: the client does not take it now; else it is gone. */
apr_status_t nssmtpd_connection_send(nssmtpd_session_t *session);

/* A command was complete: a thread may stay for the next one. */
void nssmtpd_connection_moves_on(nssmtpd_session_t *session);

/* 1 as long as a thread stays, or would, for what the client sends next; always where each
 * session has a thread. */
int nssmtpd_connection_is_quick(const nssmtpd_session_t *session);

/* 1 if the client's end is closed: reset, or no more to come. Looks, does not read. */
int nssmtpd_connection_has_left(nssmtpd_session_t *session, int *was_reset);

#endif
