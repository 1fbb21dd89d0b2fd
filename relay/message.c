/* The message on its way to the relay: DATA, the octets with dots stuffed, the dot, and
 * the answer that decides. RFC 5321 4.5.2, RFC 1047 (what a lost answer means). Until the
 * dot is sent nothing is delivered, so every doubt ends before it. Called by relay.c.
 */
#include "relay/message.h"

#include <http_log.h>

#include "smtp/dot.h"

APLOG_USE_MODULE(nssmtpd);

static int pass(nssmtpd_upstream_t *u, apr_bucket_brigade *bb)
{
    nssmtpd_upstream_start_step(u, SMTP_STEP_DOT);
    return nssmtpd_upstream_pass(u, bb);
}

/* Stuffs what from holds into to. The buckets stay in from: to refers to their octets. */
static apr_status_t stuff(smtp_stuff_t *state, apr_bucket_brigade *from, apr_bucket_brigade *to)
{
    apr_bucket *b;

    for (b = APR_BRIGADE_FIRST(from); b != APR_BRIGADE_SENTINEL(from); b = APR_BUCKET_NEXT(b)) {
        const char *at, *end;
        apr_size_t n;
        apr_status_t rv = apr_bucket_read(b, &at, &n, APR_BLOCK_READ);

        if (rv != APR_SUCCESS) {
            return rv;
        }
        for (end = at + n; at < end;) {
            smtp_span_t run;

            smtp_stuff_next(state, &at, end, &run);
            if (run.n) {
                APR_BRIGADE_INSERT_TAIL(to, apr_bucket_transient_create(run.p, run.n,
                                                                        to->bucket_alloc));
            }
        }
    }
    return APR_SUCCESS;
}

/* Moves the first octets of the message, at most PIECE, to bb. */
static apr_status_t next_piece(apr_bucket_brigade *body, apr_bucket_brigade *bb)
{
    enum { PIECE = 64 * 1024 };
    apr_bucket *after;
    apr_status_t rv = apr_brigade_partition(body, PIECE, &after);

    if (rv != APR_SUCCESS && rv != APR_INCOMPLETE) {
        return rv;
    }
    while (APR_BRIGADE_FIRST(body) != after) {
        apr_bucket *b = APR_BRIGADE_FIRST(body);

        APR_BUCKET_REMOVE(b);
        APR_BRIGADE_INSERT_TAIL(bb, b);
    }
    return APR_SUCCESS;
}

/* Everything but the dot, whose octets go to *end. 0: it could not be passed on. A piece at
 * a time, so that a relay that reads slowly meets its deadline. */
static int send_content(nssmtpd_upstream_t *u, apr_bucket_brigade *last, smtp_span_t *end)
{
    nssmtpd_transaction_t *t = u->t;
    apr_bucket_brigade *piece = apr_brigade_create(t->r->pool, t->body->bucket_alloc);
    smtp_stuff_t state;

    smtp_stuff_init(&state);
    *end = smtp_stuff_end(&state);
    while (!APR_BRIGADE_EMPTY(t->body)) {
        if (!APR_BRIGADE_EMPTY(last) && !pass(u, last)) {
            return 0;
        }
        apr_brigade_cleanup(piece);
        if (next_piece(t->body, piece) != APR_SUCCESS) {
            return 0;
        }
        if (!t->body_has_dots) {
            APR_BRIGADE_CONCAT(last, piece);
            continue;
        }
        if (stuff(&state, piece, last) != APR_SUCCESS || !pass(u, last)) {
            return 0;
        }
        *end = smtp_stuff_end(&state);
    }
    return 1;
}

static const smtp_reply_t *lost_before_dot(nssmtpd_upstream_t *u)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r,
                  "NS0046: %s: relay %s did not take the message's octets; nothing was delivered",
                  u->t->id, u->peer);
    nssmtpd_upstream_release(u, 1);
    return smtp_reply(SMTP_REPLY_RELAY_LOST);
}

/* The relay spoke before our dot, or left: whatever it says is no answer to the dot, which
 * is not sent. A refusal is believed, nothing else. */
static const smtp_reply_t *early_answer(nssmtpd_upstream_t *u)
{
    const smtp_reply_t *reply;
    smtp_verdict_e verdict;

    if (!nssmtpd_upstream_read(u, SMTP_STEP_DOT, &verdict, &reply)) {
        return u->failure;
    }
    if (verdict != SMTP_VERDICT_REFUSED) {
        nssmtpd_upstream_fault(u, SMTP_STEP_DATA);
        reply = smtp_reply(SMTP_REPLY_RELAY_FAULT);
    }
    nssmtpd_upstream_release(u, 1);
    return reply;
}

/* The answer to the dot decides. Lost, it may have been either: the client hears 451 and
 * will send again, which may double the mail but never loses it (RFC 1047). */
static const smtp_reply_t *hear_outcome(nssmtpd_upstream_t *u)
{
    nssmtpd_transaction_t *t = u->t;
    const smtp_reply_t *reply;
    smtp_verdict_e verdict;

    nssmtpd_upstream_start_step(u, SMTP_STEP_DOT);
    if (!nssmtpd_upstream_read(u, SMTP_STEP_DOT, &verdict, &reply)) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, t->r,
                      "NS0047: %s: relay %s may have taken the mail all the same; the client was "
                      "told to try again", t->id, u->peer);
        return u->failure;
    }
    u->link->in_step = 1;
    if (verdict == SMTP_VERDICT_FAULT) {
        nssmtpd_upstream_fault(u, SMTP_STEP_DOT);
    }
    if (verdict == SMTP_VERDICT_TAKEN && reply->code != 250) {
        smtp_reply_t *own = apr_pmemdup(t->r->pool, reply, sizeof(*reply));

        own->code = 250;
        reply = own;
    }
    return reply;
}

/* NULL: 354, the message may follow. */
static const smtp_reply_t *start_data(nssmtpd_upstream_t *u)
{
    const smtp_reply_t *reply;
    smtp_verdict_e verdict;

    nssmtpd_upstream_start_step(u, SMTP_STEP_DATA);
    smtp_client_put(u->link->out, SMTP_STEP_DATA, NULL);
    if (!nssmtpd_upstream_flush(u, SMTP_STEP_DATA)
        || !nssmtpd_upstream_read(u, SMTP_STEP_DATA, &verdict, &reply)) {
        return u->failure;
    }
    if (verdict == SMTP_VERDICT_TAKEN) {
        return NULL;
    }
    u->link->in_step = 1;
    if (verdict == SMTP_VERDICT_FAULT) {
        nssmtpd_upstream_fault(u, SMTP_STEP_DATA);
    }
    return reply;
}

static const smtp_reply_t *send_octets(nssmtpd_upstream_t *u)
{
    nssmtpd_transaction_t *t = u->t;
    apr_bucket_brigade *last = apr_brigade_create(t->r->pool, t->body->bucket_alloc);
    smtp_span_t dot;

    if (!send_content(u, last, &dot)) {
        return lost_before_dot(u);
    }
    if (!nssmtpd_upstream_is_quiet(u)) {
        return early_answer(u);
    }
    if (nssmtpd_client_is_gone(t)) {
        /* After 354 the only way not to deliver is to close without the dot. */
        nssmtpd_upstream_release(u, 1);
        return smtp_reply(SMTP_REPLY_CLIENT_GONE);
    }
    if (!nssmtpd_upstream_has_time(u)) {
        return lost_before_dot(u);
    }
    APR_BRIGADE_INSERT_TAIL(last, apr_bucket_immortal_create(dot.p, dot.n, last->bucket_alloc));
    if (!pass(u, last)) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, t->r,
                      "NS0047: %s: relay %s may have taken the mail all the same; the client was "
                      "told to try again", t->id, u->peer);
        nssmtpd_upstream_release(u, 1);
        return smtp_reply(SMTP_REPLY_RELAY_LOST);
    }
    return hear_outcome(u);
}

const smtp_reply_t *nssmtpd_message_send(nssmtpd_upstream_t *u)
{
    const smtp_reply_t *reply = start_data(u);

    return reply ? reply : send_octets(u);
}
