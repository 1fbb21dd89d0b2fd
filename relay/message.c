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
    nssmtpd_upstream_start_step(u, u->t->ended ? SMTP_STEP_DOT : SMTP_STEP_DATA);
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

/* Sends the message but for its end, which may stay in m->wire for the dot. 0: it could not be
 * passed on. A piece at a time, so that a relay that reads slowly meets its deadline. */
static int send_content(nssmtpd_upstream_t *u, nssmtpd_message_t *m)
{
    nssmtpd_transaction_t *t = u->t;

    while (!APR_BRIGADE_EMPTY(t->body)) {
        if (!APR_BRIGADE_EMPTY(m->wire) && !pass(u, m->wire)) {
            return 0;
        }
        apr_brigade_cleanup(m->piece);
        if (next_piece(t->body, m->piece) != APR_SUCCESS) {
            return 0;
        }
        if (!t->body_has_dots) {
            APR_BRIGADE_CONCAT(m->wire, m->piece);
        }
        else if (stuff(&m->stuff, m->piece, m->wire) != APR_SUCCESS || !pass(u, m->wire)) {
            return 0;
        }
    }
    return 1;
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

/* Who does not take the rest may have said why. */
static const smtp_reply_t *lost_before_dot(nssmtpd_upstream_t *u)
{
    if (nssmtpd_upstream_has_words(u)) {
        return early_answer(u);
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, u->t->r,
                  "NS0046: %s: relay %s did not take the message's octets; nothing was delivered",
                  u->t->id, u->peer);
    nssmtpd_upstream_release(u, 1);
    return smtp_reply(SMTP_REPLY_RELAY_LOST);
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

void nssmtpd_message_ask(nssmtpd_upstream_t *u, nssmtpd_message_t *m)
{
    nssmtpd_upstream_start_step(u, SMTP_STEP_DATA);
    smtp_client_put(u->link->out, SMTP_STEP_DATA, NULL);
    m->is_asked = nssmtpd_upstream_flush(u, SMTP_STEP_DATA);
}

/* The relay stops before it was needed: another will do, and that is no error. */
static int is_leaving(const nssmtpd_upstream_t *u)
{
    return u->is_early && u->answer->code == 421;
}

const smtp_reply_t *nssmtpd_message_open(nssmtpd_upstream_t *u, nssmtpd_message_t *m)
{
    const smtp_reply_t *reply;
    smtp_verdict_e verdict;

    if (m->is_asked) {
        nssmtpd_upstream_start_step(u, SMTP_STEP_DATA); /* that was a while ago */
    }
    else {
        nssmtpd_message_ask(u, m);
    }
    if (!m->is_asked) {
        return u->failure;
    }
    m->is_asked = 0;
    if (!nssmtpd_upstream_read(u, SMTP_STEP_DATA, &verdict, &reply)) {
        return u->failure;
    }
    if (verdict == SMTP_VERDICT_TAKEN) {
        m->is_open = 1;
        smtp_stuff_init(&m->stuff);
        m->piece = apr_brigade_create(u->t->r->pool, u->t->body->bucket_alloc);
        m->wire = apr_brigade_create(u->t->r->pool, u->t->body->bucket_alloc);
        return NULL;
    }
    u->link->in_step = 1;
    if (verdict == SMTP_VERDICT_FAULT && !is_leaving(u)) {
        nssmtpd_upstream_fault(u, SMTP_STEP_DATA);
    }
    return reply;
}

/* For octets that go out as they stand: where the next ones begin. */
static apr_status_t follow(smtp_stuff_t *state, apr_bucket_brigade *bb)
{
    apr_status_t rv = APR_SUCCESS;
    apr_bucket *b;

    for (b = APR_BRIGADE_FIRST(bb); rv == APR_SUCCESS && b != APR_BRIGADE_SENTINEL(bb);
         b = APR_BUCKET_NEXT(b)) {
        const char *data;
        apr_size_t n;

        rv = apr_bucket_read(b, &data, &n, APR_BLOCK_READ);
        if (rv == APR_SUCCESS) {
            smtp_stuff_skip(state, data, data + n);
        }
    }
    return rv;
}

int nssmtpd_message_send_part(nssmtpd_upstream_t *u, nssmtpd_message_t *m)
{
    int is_well = u->t->body_has_dots || follow(&m->stuff, u->t->body) == APR_SUCCESS;

    if (!is_well || !send_content(u, m) || (!APR_BRIGADE_EMPTY(m->wire) && !pass(u, m->wire))) {
        u->failure = lost_before_dot(u);
        return 0;
    }
    return 1;
}

const smtp_reply_t *nssmtpd_message_finish(nssmtpd_upstream_t *u, nssmtpd_message_t *m)
{
    nssmtpd_transaction_t *t = u->t;
    smtp_span_t dot;

    if (!send_content(u, m)) {
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
    if (!t->body_has_dots) {
        smtp_stuff_init(&m->stuff); /* what needs no stuffing ends in CRLF */
    }
    dot = smtp_stuff_end(&m->stuff);
    APR_BRIGADE_INSERT_TAIL(m->wire,
                            apr_bucket_immortal_create(dot.p, dot.n, m->wire->bucket_alloc));
    if (!pass(u, m->wire)) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, t->r,
                      "NS0047: %s: relay %s may have taken the mail all the same; the client was "
                      "told to try again", t->id, u->peer);
        nssmtpd_upstream_release(u, 1);
        return smtp_reply(SMTP_REPLY_RELAY_LOST);
    }
    return hear_outcome(u);
}
