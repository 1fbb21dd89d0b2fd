/* Delivery to a relay by SMTP, while the client waits: its envelope goes to the relay as
 * it comes, its message at the end, and the relay's word is the client's reply. RFC 5321
 * 3.3, RFC 2920 (envelope in one batch), RFC 1870, 6152. A relay connection is never a slow
 * client's hostage: too many kept ones are given back and the envelope is said again.
 */
#include <httpd.h>

#include <apr_atomic.h>
#include <apr_strings.h>
#include <http_log.h>

#include "relay/register.h"
#include "relay/route.h"
#include "relay/upstream.h"
#include "smtp/dot.h"

APLOG_USE_MODULE(nssmtpd);

/* Replies that are read at least every so many commands, lest both sides only write. */
#define BATCH_MAX 100

/* RFC 5321 4.5.3.2.6 gives a client ten minutes from its dot to our reply. */
#define DOT_TO_DOT apr_time_from_sec(540)

/* A mail's state with its relay; t->delivery. */
typedef struct envelope_t {
    nssmtpd_upstream_t u;             /* first */
    int said;                         /* of t->rcpts, how many this connection has taken; -1:
                                       * not even MAIL */
    const smtp_reply_t *mail_refusal; /* the answer to every RCPT */
    unsigned replay_refused : 1;      /* a recipient was taken, then not again */
} envelope_t;

static envelope_t *envelope_of(nssmtpd_transaction_t *t)
{
    envelope_t *e = t->delivery;

    if (!e) {
        t->delivery = e = apr_pcalloc(t->r->pool, sizeof(*e));
        e->u.t = t;
        e->u.relay = t->route->baton;
        e->said = -1;
    }
    return e;
}

static void give_back(envelope_t *e, int close)
{
    nssmtpd_upstream_release(&e->u, close);
    e->said = -1;
}

/* Kept connections */

static int keep(envelope_t *e)
{
    nssmtpd_relay_t *relay = e->u.relay;
    apr_uint32_t max = e->u.worker->s->hmax ? e->u.worker->s->hmax : 1;

    if (!e->u.kept) {
        if (apr_atomic_inc32(&relay->kept) * 2 >= max) {
            apr_atomic_dec32(&relay->kept);
            return 0;
        }
        e->u.kept = 1;
    }
    return 1;
}

static void unkeep(envelope_t *e)
{
    if (e->u.kept) {
        apr_atomic_dec32(&e->u.relay->kept);
        e->u.kept = 0;
    }
}

/* The envelope */

/* A batch: the steps a relay has still to hear before a recipient, then that one. */
typedef struct batch_t {
    smtp_step_e step;
    const char *arg; /* recipient */
} batch_t;

static void put_step(envelope_t *e, const batch_t *b)
{
    nssmtpd_transaction_t *t = e->u.t;
    nssmtpd_link_t *link = e->u.link;

    if (b->step == SMTP_STEP_MAIL) {
        smtp_client_put_mail(&link->client, link->out, t->from,
                             t->body ? t->body_length : t->declared_size, t->body_8bitmime);
    }
    else {
        smtp_client_put(link->out, b->step, b->arg);
    }
}

static void add_step(apr_array_header_t *batch, smtp_step_e step, const char *arg)
{
    APR_ARRAY_PUSH(batch, batch_t) = (batch_t){ step, arg };
}

static apr_array_header_t *make_batch(const envelope_t *e, const nssmtpd_rcpt_t *rcpt)
{
    const nssmtpd_transaction_t *t = e->u.t;
    apr_array_header_t *batch = apr_array_make(t->r->pool, 4, sizeof(batch_t));
    int i;

    if (e->said < 0) {
        if (e->u.link->used) {
            add_step(batch, SMTP_STEP_RSET, NULL);
        }
        add_step(batch, SMTP_STEP_MAIL, NULL);
    }
    for (i = e->said < 0 ? 0 : e->said; i < t->rcpts->nelts; i++) {
        add_step(batch, SMTP_STEP_RCPT, APR_ARRAY_IDX(t->rcpts, i, nssmtpd_rcpt_t).address);
    }
    if (rcpt) {
        add_step(batch, SMTP_STEP_RCPT, rcpt->address);
    }
    return batch;
}

/* Takes the verdict on one step of a batch. The new recipient, the last step, may be
 * refused: then that is its reply. Everything else must be taken. */
static void judge_step(envelope_t *e, const batch_t *b, int is_new, smtp_verdict_e verdict,
                       const smtp_reply_t *reply, const smtp_reply_t **new_reply)
{
    if (verdict == SMTP_VERDICT_TAKEN || e->mail_refusal) {
        return; /* after a refused MAIL each RCPT is, and means nothing */
    }
    if (verdict == SMTP_VERDICT_FAULT) {
        nssmtpd_upstream_fault(&e->u, b->step);
    }
    if (b->step == SMTP_STEP_RSET) {
        e->u.failure = reply;
    }
    else if (b->step == SMTP_STEP_MAIL) {
        e->mail_refusal = reply;
    }
    else if (is_new) {
        *new_reply = reply;
    }
    else {
        e->replay_refused = 1;
    }
}

/* Hears the replies to the steps from got on, up to put. 0: the connection was lost. */
static int hear(envelope_t *e, const apr_array_header_t *batch, int got, int put, int has_new,
                const smtp_reply_t **new_reply)
{
    for (; got < put; got++) {
        const batch_t *b = &APR_ARRAY_IDX(batch, got, batch_t);
        const smtp_reply_t *reply;
        smtp_verdict_e verdict;

        nssmtpd_upstream_start_step(&e->u, b->step);
        if (!nssmtpd_upstream_flush(&e->u, b->step)
            || !nssmtpd_upstream_read(&e->u, b->step, &verdict, &reply)) {
            return 0;
        }
        judge_step(e, b, has_new && got == batch->nelts - 1, verdict, reply, new_reply);
    }
    return 1;
}

/* Says a batch and hears every reply, all at once or one by one as the relay can. */
static int exchange(envelope_t *e, const apr_array_header_t *batch, int has_new,
                    const smtp_reply_t **new_reply)
{
    int at_once = e->u.link->client.capabilities & SMTP_CAN_PIPELINING ? BATCH_MAX : 1;
    int got, put = 0;

    for (got = 0; got < batch->nelts; got = put) {
        while (put < batch->nelts && put - got < at_once) {
            put_step(e, &APR_ARRAY_IDX(batch, put++, batch_t));
        }
        if (!hear(e, batch, got, put, has_new, new_reply)) {
            return 0;
        }
    }
    e->u.link->in_step = 1;
    return 1;
}

static int try_envelope(envelope_t *e, const nssmtpd_rcpt_t *rcpt, int fresh,
                        const smtp_reply_t **reply)
{
    if (e->u.link && !nssmtpd_upstream_is_quiet(&e->u)) {
        give_back(e, 1); /* the relay has left, or says something nobody asked */
    }
    if (!e->u.link) {
        e->said = -1;
        if (!nssmtpd_upstream_open(&e->u, fresh)) {
            return 0;
        }
    }
    e->u.failure = NULL;
    if (!exchange(e, make_batch(e, rcpt), rcpt != NULL, reply)) {
        return 0;
    }
    if (e->u.failure) { /* RSET was refused: this connection is not what it was */
        e->u.is_stale = 1;
        give_back(e, 1);
        return 0;
    }
    e->said = e->u.t->rcpts->nelts;
    return 1;
}

/* Brings the relay to know MAIL, all accepted recipients and, if given, one more; *reply is
 * the word about that one when it is not taken. 0: e->u.failure. A pooled connection may
 * have died unseen; nothing was delivered over it, so a new one is tried, once. */
static int say_envelope(envelope_t *e, const nssmtpd_rcpt_t *rcpt, const smtp_reply_t **reply)
{
    *reply = NULL;
    e->u.is_stale = 0;
    if (try_envelope(e, rcpt, 0, reply)) {
        return 1;
    }
    if (!e->u.is_stale) {
        return 0;
    }
    *reply = NULL;
    return try_envelope(e, rcpt, 1, reply);
}

static const smtp_reply_t *rcpt(nssmtpd_transaction_t *t, const nssmtpd_rcpt_t *who)
{
    envelope_t *e = envelope_of(t);
    const smtp_reply_t *reply;

    unkeep(e);
    if (e->mail_refusal) {
        return e->mail_refusal;
    }
    if (!say_envelope(e, who, &reply)) {
        return e->u.failure;
    }
    if (e->mail_refusal) {
        give_back(e, 0);
        return e->mail_refusal;
    }
    if (!reply) {
        e->said++; /* t->rcpts will have it too */
    }
    return reply;
}

/* The message */

static int pass(envelope_t *e, apr_bucket_brigade *bb)
{
    nssmtpd_upstream_start_step(&e->u, SMTP_STEP_DOT);
    return nssmtpd_upstream_pass(&e->u, bb);
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
    enum { PIECE = 256 * 1024 };
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
static int send_content(envelope_t *e, apr_bucket_brigade *last, smtp_span_t *end)
{
    nssmtpd_transaction_t *t = e->u.t;
    apr_bucket_brigade *piece = apr_brigade_create(t->r->pool, t->body->bucket_alloc);
    smtp_stuff_t state;

    smtp_stuff_init(&state);
    *end = smtp_stuff_end(&state);
    while (!APR_BRIGADE_EMPTY(t->body)) {
        if (!APR_BRIGADE_EMPTY(last) && !pass(e, last)) {
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
        if (stuff(&state, piece, last) != APR_SUCCESS || !pass(e, last)) {
            return 0;
        }
        *end = smtp_stuff_end(&state);
    }
    return 1;
}

static const smtp_reply_t *lost_before_dot(envelope_t *e)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, e->u.t->r,
                  "NS0046: %s: relay %s did not take the message's octets; nothing was delivered",
                  e->u.t->id, e->u.peer);
    give_back(e, 1);
    return smtp_reply(SMTP_REPLY_RELAY_LOST);
}

/* The answer to the dot decides. Lost, it may have been either: the client hears 451 and
 * will send again, which may double the mail but never loses it (RFC 1047). */
static const smtp_reply_t *hear_outcome(envelope_t *e)
{
    nssmtpd_transaction_t *t = e->u.t;
    const smtp_reply_t *reply;
    smtp_verdict_e verdict;

    nssmtpd_upstream_start_step(&e->u, SMTP_STEP_DOT);
    if (e->u.deadline > t->ended + DOT_TO_DOT) {
        e->u.deadline = t->ended + DOT_TO_DOT;
    }
    if (!nssmtpd_upstream_read(&e->u, SMTP_STEP_DOT, &verdict, &reply)) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, t->r,
                      "NS0047: %s: relay %s may have taken the mail all the same; the client was "
                      "told to try again", t->id, e->u.peer);
        return e->u.failure;
    }
    e->u.link->in_step = 1;
    if (verdict == SMTP_VERDICT_FAULT) {
        nssmtpd_upstream_fault(&e->u, SMTP_STEP_DOT);
    }
    if (verdict == SMTP_VERDICT_TAKEN && reply->code != 250) {
        smtp_reply_t *own = apr_pmemdup(t->r->pool, reply, sizeof(*reply));

        own->code = 250;
        reply = own;
    }
    return reply;
}

static const smtp_reply_t *send_message(envelope_t *e)
{
    nssmtpd_transaction_t *t = e->u.t;
    apr_bucket_brigade *last = apr_brigade_create(t->r->pool, t->body->bucket_alloc);
    smtp_span_t dot;

    if (!send_content(e, last, &dot)) {
        return lost_before_dot(e);
    }
    if (nssmtpd_client_is_gone(t)) {
        give_back(e, 1); /* after 354 the only way not to deliver is to close without the dot */
        return smtp_reply(SMTP_REPLY_CLIENT_GONE);
    }
    APR_BRIGADE_INSERT_TAIL(last, apr_bucket_immortal_create(dot.p, dot.n, last->bucket_alloc));
    if (!pass(e, last)) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, t->r,
                      "NS0047: %s: relay %s may have taken the mail all the same; the client was "
                      "told to try again", t->id, e->u.peer);
        give_back(e, 1);
        return smtp_reply(SMTP_REPLY_RELAY_LOST);
    }
    return hear_outcome(e);
}

/* NULL: 354, the message may follow. */
static const smtp_reply_t *start_data(envelope_t *e)
{
    const smtp_reply_t *reply;
    smtp_verdict_e verdict;

    nssmtpd_upstream_start_step(&e->u, SMTP_STEP_DATA);
    smtp_client_put(e->u.link->out, SMTP_STEP_DATA, NULL);
    if (!nssmtpd_upstream_flush(&e->u, SMTP_STEP_DATA)
        || !nssmtpd_upstream_read(&e->u, SMTP_STEP_DATA, &verdict, &reply)) {
        return e->u.failure;
    }
    if (verdict == SMTP_VERDICT_TAKEN) {
        return NULL;
    }
    e->u.link->in_step = 1;
    if (verdict == SMTP_VERDICT_FAULT) {
        nssmtpd_upstream_fault(&e->u, SMTP_STEP_DATA);
    }
    return reply;
}

static const smtp_reply_t *deliver(nssmtpd_transaction_t *t)
{
    envelope_t *e = envelope_of(t);
    const smtp_reply_t *reply;

    unkeep(e);
    if (nssmtpd_client_is_gone(t)) {
        return smtp_reply(SMTP_REPLY_CLIENT_GONE);
    }
    if (!say_envelope(e, NULL, &reply)) {
        return e->u.failure;
    }
    if (e->mail_refusal) {
        return e->mail_refusal;
    }
    if (e->replay_refused) {
        return smtp_reply(SMTP_REPLY_RELAY_CHANGED);
    }
    if (t->body_is_8bit && !(e->u.link->client.capabilities & SMTP_CAN_8BITMIME)) {
        return smtp_reply(SMTP_REPLY_NEED_7BIT);
    }
    reply = start_data(e);
    return reply ? reply : send_message(e);
}

static void idle(nssmtpd_transaction_t *t)
{
    envelope_t *e = t->delivery;

    if (e && e->u.link && !keep(e)) {
        give_back(e, 0);
    }
}

static void end(nssmtpd_transaction_t *t)
{
    envelope_t *e = t->delivery;

    if (e) {
        unkeep(e);
        give_back(e, 0);
    }
}

const nssmtpd_delivery_t nssmtpd_relay_delivery = { nssmtpd_route_configure, rcpt, deliver,
                                                    idle, end, 1 };
