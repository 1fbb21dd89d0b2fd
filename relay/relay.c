/* Delivery to a relay by SMTP while the client waits: its envelope goes to the relay as it
 * comes, its message (message.c) at the end, and the relay's word is the client's reply.
 * RFC 5321 3.3, RFC 2920 (envelope in one batch), RFC 1870, 6152. A relay connection is
 * never a slow client's hostage: too many kept ones are given back and said again.
 */
#include <httpd.h>

#include <apr_atomic.h>
#include <apr_strings.h>
#include <http_log.h>

#include "relay/message.h"
#include "relay/opening.h"
#include "relay/register.h"
#include "relay/route.h"
#include "relay/upstream.h"

APLOG_USE_MODULE(nssmtpd);

/* Replies that are read at least every so many commands, lest both sides only write. */
#define BATCH_MAX 100

/* A mail's state with its relay; t->delivery. */
typedef struct envelope_t {
    nssmtpd_upstream_t u;             /* first */
    int has_mail;                     /* this connection has taken MAIL */
    const smtp_reply_t *mail_refusal; /* the answer to every RCPT */
    nssmtpd_message_t message;
    const smtp_reply_t *refusal;      /* of the message before its end, which settles it */
    unsigned has_part : 1;            /* some of the message has gone, and nobody else has it */
    unsigned replay_refused : 1;      /* a recipient was taken, then not again */
} envelope_t;

static envelope_t *envelope_of(nssmtpd_transaction_t *t)
{
    envelope_t *e = t->delivery;

    if (!e) {
        t->delivery = e = apr_pcalloc(t->r->pool, sizeof(*e));
        e->u.t = t;
        e->u.relay = t->route->baton;
    }
    return e;
}

static nssmtpd_rcpt_t *rcpt_at(const envelope_t *e, int i)
{
    return &APR_ARRAY_IDX(e->u.t->rcpts, i, nssmtpd_rcpt_t);
}

/* The next connection hears the envelope from its beginning. */
static void forget(envelope_t *e)
{
    int i;

    e->has_mail = 0;
    e->u.is_early = 0;
    e->message = (nssmtpd_message_t){ 0 };
    if (e->has_part && !e->refusal) {
        e->refusal = smtp_reply(SMTP_REPLY_RELAY_LOST); /* the rest alone is no message */
    }
    for (i = 0; i < e->u.t->rcpts->nelts; i++) {
        rcpt_at(e, i)->is_told = 0;
    }
}

static void give_back(envelope_t *e, int close)
{
    nssmtpd_upstream_release(&e->u, close);
    forget(e);
}

/* Kept connections */

/* Of the connections that may be kept slow clients leave half to others. */
static int gives_way(const envelope_t *e, apr_uint32_t max)
{
    return e->u.t->is_slow && apr_atomic_read32(&e->u.relay->kept) * 4 > max;
}

static int keep(envelope_t *e)
{
    nssmtpd_relay_t *relay = e->u.relay;
    apr_uint32_t max = e->u.worker->s->hmax; /* 0 on prefork: one session, one connection */

    if (max && gives_way(e, max)) {
        return 0;
    }
    if (max && !e->u.kept) {
        if ((apr_atomic_inc32(&relay->kept) + 1) * 2 > max) {
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

    if (!e->has_mail) {
        if (e->u.link->used) {
            add_step(batch, SMTP_STEP_RSET, NULL);
        }
        add_step(batch, SMTP_STEP_MAIL, NULL);
    }
    for (i = 0; i < t->rcpts->nelts; i++) {
        const nssmtpd_rcpt_t *known = rcpt_at(e, i);

        if (nssmtpd_rcpt_is_due(known) && !known->is_told) {
            add_step(batch, SMTP_STEP_RCPT, known->address);
        }
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
    int i;

    if (e->u.link && !nssmtpd_upstream_is_quiet(&e->u)) {
        give_back(e, 1); /* the relay has left, or says something nobody asked */
    }
    if (!e->u.link) {
        forget(e);
        if (!nssmtpd_opening_open(&e->u, fresh)) {
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
    e->has_mail = 1;
    for (i = 0; i < e->u.t->rcpts->nelts; i++) {
        rcpt_at(e, i)->is_told |= nssmtpd_rcpt_is_due(rcpt_at(e, i));
    }
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
    *reply = e->mail_refusal = NULL; /* what the dying connection said does not count */
    e->replay_refused = 0;
    return try_envelope(e, rcpt, 1, reply);
}

/* In a batch other steps were heard behind it. */
static const smtp_reply_t *refuse_mail(envelope_t *e)
{
    e->u.t->step = smtp_step(SMTP_STEP_MAIL)->name;
    return e->mail_refusal;
}

static const smtp_reply_t *rcpt(nssmtpd_transaction_t *t, const nssmtpd_rcpt_t *who)
{
    envelope_t *e = envelope_of(t);
    const smtp_reply_t *reply;

    unkeep(e);
    if (!e->mail_refusal) {
        if (!say_envelope(e, who, &reply)) {
            return e->u.failure;
        }
        if (!e->mail_refusal) {
            return reply;
        }
        give_back(e, 0);
    }
    return refuse_mail(e);
}

/* The message */

/* 1 if the relay has taken everybody who is to have the mail, and somebody is. */
static int all_are_told(const envelope_t *e)
{
    int i, n = 0;

    for (i = 0; i < e->u.t->rcpts->nelts; i++) {
        const nssmtpd_rcpt_t *rcpt = rcpt_at(e, i);

        if (nssmtpd_rcpt_is_due(rcpt)) {
            if (!rcpt->is_told) {
                return 0;
            }
            n++;
        }
    }
    return n > 0;
}

/* 1 if the relay has all that it must have heard before DATA. */
static int is_ready(envelope_t *e)
{
    return e->u.link && e->has_mail && !e->mail_refusal && !e->replay_refused && all_are_told(e)
           && (e->u.link->client.capabilities & SMTP_CAN_8BITMIME)
           && nssmtpd_upstream_is_quiet(&e->u);
}

/* After DATA this connection cannot be given back any more, so it must be one that may be kept
 * while the client thinks. */
static void begin(nssmtpd_transaction_t *t)
{
    envelope_t *e = envelope_of(t);

    if (is_ready(e) && keep(e)) {
        e->u.is_early = 1;
        nssmtpd_message_ask(&e->u, &e->message);
        e->u.is_early = e->message.is_asked;
    }
}

/* Hears what became of DATA that begin() said. 0: the relay has left meanwhile, or wants to;
 * another connection will do. */
static int hear_early(envelope_t *e)
{
    const smtp_reply_t *refusal;

    e->u.is_stale = 0;
    refusal = nssmtpd_message_open(&e->u, &e->message);
    e->u.is_early = 0;
    if (e->u.link ? e->u.answer->code == 421 || !(refusal || nssmtpd_upstream_is_quiet(&e->u))
                  : e->u.is_stale) {
        give_back(e, 1);
        return 0;
    }
    e->refusal = refusal;
    return 1;
}

/* 1: the relay takes octets, or has refused them. */
static int open_flow(envelope_t *e)
{
    if (e->refusal || e->message.is_open) {
        return 1;
    }
    if (!e->message.is_asked) {
        begin(e->u.t);
    }
    return e->message.is_asked && hear_early(e);
}

static int flow(nssmtpd_transaction_t *t)
{
    envelope_t *e = envelope_of(t);

    if (!open_flow(e)) {
        return 0;
    }
    e->has_part = 1;
    if (!e->refusal && !nssmtpd_message_send_part(&e->u, &e->message)) {
        e->refusal = e->u.failure;
    }
    if (e->refusal) { /* which deliver() says; whoever comes next may have the connection */
        unkeep(e);
        give_back(e, 0);
    }
    apr_brigade_cleanup(t->body);
    return 1;
}

static const smtp_reply_t *deliver(nssmtpd_transaction_t *t)
{
    envelope_t *e = envelope_of(t);
    const smtp_reply_t *reply;

    unkeep(e);
    if (e->message.is_asked) {
        hear_early(e);
    }
    if (e->refusal) {
        return e->refusal;
    }
    if (e->message.is_open) {
        return nssmtpd_message_finish(&e->u, &e->message);
    }
    if (nssmtpd_client_is_gone(t)) {
        return smtp_reply(SMTP_REPLY_CLIENT_GONE);
    }
    if (!say_envelope(e, NULL, &reply)) {
        return e->u.failure;
    }
    if (e->mail_refusal) {
        return refuse_mail(e);
    }
    if (e->replay_refused) {
        return smtp_reply(SMTP_REPLY_RELAY_CHANGED);
    }
    if (t->body_is_8bit && !(e->u.link->client.capabilities & SMTP_CAN_8BITMIME)) {
        return smtp_reply(SMTP_REPLY_NEED_7BIT);
    }
    reply = nssmtpd_message_open(&e->u, &e->message);
    return reply ? reply : nssmtpd_message_finish(&e->u, &e->message);
}

static void idle(nssmtpd_transaction_t *t)
{
    envelope_t *e = t->delivery;

    if (e && !e->u.link) {
        unkeep(e); /* it was lost */
    }
    else if (e && !keep(e)) {
        unkeep(e);
        give_back(e, 0);
    }
}

static void restart(nssmtpd_transaction_t *t)
{
    envelope_t *e = t->delivery;

    if (e) {
        unkeep(e);
        give_back(e, 0);
        e->mail_refusal = NULL;
        e->replay_refused = 0;
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

const nssmtpd_delivery_t nssmtpd_relay_delivery = {
    .configure = nssmtpd_route_configure,
    .rcpt = rcpt,
    .begin = begin,
    .flow = flow,
    .deliver = deliver,
    .idle = idle,
    .restart = restart,
    .end = end,
    .blocks = 1
};
