/* One connection to a relay while a mail uses it: spoken to in batches of steps, given
 * back. opening.h opens it; which steps in which order is relay.c's; what a reply means is
 * smtp/client.c's.
 */
#ifndef NSSMTPD_UPSTREAM_H
#define NSSMTPD_UPSTREAM_H

#include <apr_buckets.h>

#include "mod_nssmtpd.h"
#include "relay/proxy.h"
#include "relay/route.h"
#include "smtp/client.h"

/* What stays with a connection from mail to mail, in its scpool. */
typedef struct nssmtpd_link_t {
    smtp_client_t client;
    proxy_conn_rec *backend;
    apr_bucket_brigade *in;  /* read from the relay, not yet taken */
    apr_bucket_brigade *out; /* commands not yet passed on */
    apr_time_t deadline;     /* of the reads below TLS */
    unsigned in_step : 1;    /* no reply is owed and none lies unread: QUIT may be said */
    unsigned used : 1;       /* a mail went before: RSET comes first */
    unsigned is_broken : 1;  /* the relay does not behave: close it when done */
} nssmtpd_link_t;

#define NSSMTPD_PROXY_FUNCTION "SMTP" /* how mod_proxy names us in its log */

typedef struct nssmtpd_upstream_t {
    nssmtpd_transaction_t *t;
    nssmtpd_relay_t *relay;
    proxy_worker *worker;
    nssmtpd_link_t *link;        /* NULL: no connection */
    const char *peer;            /* host:port for the log */
    const smtp_reply_t *answer;  /* the relay's last reply, as it came */
    const smtp_reply_t *failure; /* why the last call failed, as the client hears it */
    apr_time_t deadline;         /* of the step in hand */
    unsigned kept : 1;           /* counted in relay->kept */
    unsigned without_tls : 1;    /* a handshake has failed, and plaintext is allowed */
    unsigned is_early : 1;       /* DATA was said before it must be: a loss is no news yet */
    unsigned is_stale : 1;       /* lost so that a new connection may do */
} nssmtpd_upstream_t;

/* The connection is of no use any more and nothing was delivered over it. Closes it, sets
 * u->failure. Always 0. */
int nssmtpd_upstream_fail(nssmtpd_upstream_t *u, smtp_reply_e reply);

/* Starts the clock of a step: what is read and written after it must end in time. */
void nssmtpd_upstream_start_step(nssmtpd_upstream_t *u, smtp_step_e step);

/* 1 while there is time to send the dot and hear its answer, before the client gives up. */
int nssmtpd_upstream_has_time(const nssmtpd_upstream_t *u);

/* Writes what is in link->out. 0: the connection is lost, u->failure is set. */
int nssmtpd_upstream_flush(nssmtpd_upstream_t *u, smtp_step_e step);

/* Passes bb on and empties it. 0 as above. */
int nssmtpd_upstream_pass(nssmtpd_upstream_t *u, apr_bucket_brigade *bb);

/* Reads and judges the reply to a step; *reply is what the client would hear of it. 0: no
 * reply came or it was none; the connection is closed, u->failure is set. */
int nssmtpd_upstream_read(nssmtpd_upstream_t *u, smtp_step_e step, smtp_verdict_e *verdict,
                          const smtp_reply_t **reply);

/* A verdict was SMTP_VERDICT_FAULT and matters: logs it and marks the connection. */
void nssmtpd_upstream_fault(nssmtpd_upstream_t *u, smtp_step_e step);

/* Lets the filters above it, mod_ssl's, wait for the relay until u->deadline and no longer. */
void nssmtpd_upstream_bound(nssmtpd_upstream_t *u);

/* 1 if octets of the relay lie unread. That it has closed is none. */
int nssmtpd_upstream_has_words(nssmtpd_upstream_t *u);

/* 1 while the relay says nothing and has not closed, as between two steps it must. */
int nssmtpd_upstream_is_quiet(nssmtpd_upstream_t *u);

/* Gives the connection back to the pool, or closes it. Without one it does nothing. */
void nssmtpd_upstream_release(nssmtpd_upstream_t *u, int close);

#endif
