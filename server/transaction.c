/* What happens to one mail. Order at RCPT: limits and syntax were the dialogue's, then
 * relay permission, then the route; at the end of data: the octets themselves, then the
 * delivery. RFC 5321 3.3, 6.3 (loops). Called by session.c.
 */
#include "server/transaction.h"

#include <apr_atomic.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_log.h>
#include <http_protocol.h>
#include <scoreboard.h>
#include <unistd.h>

#include "server/body.h"
#include "server/flow.h"
#include "server/phase.h"
#include "server/scanning.h"
#include "smtp/limits.h"

APLOG_USE_MODULE(nssmtpd);

/* The log */

static void log_request(request_rec *r)
{
    ap_run_log_transaction(r);
    if (r->connection->sbh) {
        ap_increment_counts(r->connection->sbh, r);
    }
}

static char *mail_command(apr_pool_t *p, const smtp_dialogue_t *d)
{
    return apr_psprintf(p, "MAIL %.*s", (int)d->argument.n, d->argument.p);
}

void nssmtpd_transaction_log_refused(nssmtpd_session_t *session, int is_mail)
{
    const smtp_dialogue_t *d = &session->dialogue;
    request_rec *r = nssmtpd_phase_request(session, "MAIL");
    int code = d->last_code;

    r->the_request = is_mail ? mail_command(r->pool, d) : "-";
    r->status = code;
    session->had_mail |= is_mail;
    apr_table_setn(r->subprocess_env, "SMTP_REPLY", apr_itoa(r->pool, code));
    log_request(r);
    apr_pool_destroy(r->pool);
}

void nssmtpd_set_variable(nssmtpd_transaction_t *t, const char *name, const char *value)
{
    apr_table_set(t->r->subprocess_env, name, value);
}

/* The envelope */

/* Unique on this host: pids are not reused within a microsecond and a counter. */
const char *nssmtpd_new_id(apr_pool_t *p)
{
    static apr_uint32_t counter;

    return apr_psprintf(p, "%" APR_UINT64_T_HEX_FMT "-%x-%x", (apr_uint64_t)apr_time_now(),
                        (unsigned)getpid(), apr_atomic_inc32(&counter));
}

static const char *span_dup(apr_pool_t *p, smtp_span_t span)
{
    return apr_pstrmemdup(p, span.p, span.n);
}

static void on_field(void *baton, const smtp_field_t *field)
{
    nssmtpd_mail_t *mail = baton;

    mail->hops += smtp_span_is(field->name, "Received");
}

void nssmtpd_transaction_begin(nssmtpd_session_t *session)
{
    const smtp_dialogue_t *d = &session->dialogue;
    request_rec *r = nssmtpd_phase_request(session, "MAIL");
    nssmtpd_mail_t *mail = apr_pcalloc(r->pool, sizeof(*mail));

    r->the_request = mail_command(r->pool, d);
    mail->session = session;
    mail->t.r = r;
    mail->t.id = nssmtpd_new_id(r->pool);
    mail->t.has_client = 1;
    mail->t.from = span_dup(r->pool, d->mail.from.text);
    mail->t.rcpts = apr_array_make(r->pool, 4, sizeof(nssmtpd_rcpt_t));
    mail->t.declared_size = d->mail.size;
    mail->t.body_8bitmime = d->mail.body == SMTP_BODY_8BITMIME;
    session->mail = mail;
    session->had_mail = 1;
    nssmtpd_scanning_forget(session);
}

void nssmtpd_transaction_note(nssmtpd_session_t *session, const smtp_reply_t *reply)
{
    nssmtpd_mail_t *mail = session->mail;

    mail->outcome = mail->t.rcpts->nelts == 0 ? reply : NULL;
    if (reply && !smtp_reply_is_positive(reply)) {
        nssmtpd_count(NSSMTPD_COUNT_RCPT_REFUSED, 1);
    }
}

/* Its way */

static int has_taken(const nssmtpd_mail_t *mail)
{
    int i;

    for (i = 0; i < mail->t.rcpts->nelts; i++) {
        if (!APR_ARRAY_IDX(mail->t.rcpts, i, nssmtpd_rcpt_t).is_new) {
            return 1;
        }
    }
    return 0;
}

/* Two routes of one provider's may lead to the same place. */
static int is_same_way(const nssmtpd_route_t *a, const nssmtpd_route_t *b)
{
    return a == b || (a->delivery == b->delivery && a->baton && a->baton == b->baton
                      && strcmp(a->url, b->url) == 0);
}

int nssmtpd_transaction_may_go(const nssmtpd_mail_t *mail, const nssmtpd_route_t *route)
{
    return !mail->t.route || is_same_way(mail->t.route, route) || !has_taken(mail);
}

static void end_delivery(nssmtpd_mail_t *mail)
{
    if (mail->t.offered) {
        mail->t.route->delivery->end(&mail->t);
    }
}

static void leave_route(nssmtpd_mail_t *mail)
{
    end_delivery(mail);
    mail->t.offered = 0;
    mail->t.delivery = NULL;
    mail->t.step = NULL;
    apr_table_unset(mail->t.r->subprocess_env, "SMTP_RELAY");
}

int nssmtpd_transaction_go(nssmtpd_mail_t *mail, const nssmtpd_route_t *route)
{
    if (!nssmtpd_transaction_may_go(mail, route)) {
        return 0;
    }
    if (mail->t.route && is_same_way(mail->t.route, route)) {
        return 1;
    }
    if (mail->t.route) {
        leave_route(mail);
    }
    mail->t.route = route;
    return 1;
}

void nssmtpd_transaction_drop_rcpt(nssmtpd_mail_t *mail, int index)
{
    nssmtpd_rcpt_t *rcpt = &APR_ARRAY_IDX(mail->t.rcpts, index, nssmtpd_rcpt_t);

    memmove(rcpt, rcpt + 1, (mail->t.rcpts->nelts - index - 1) * sizeof(*rcpt));
    mail->t.rcpts->nelts--;
}

/* The message */

void nssmtpd_transaction_data(nssmtpd_session_t *session)
{
    nssmtpd_mail_t *mail = session->mail;

    mail->data_started = apr_time_now();
    mail->spool = nssmtpd_spool_create(mail->t.r->pool, session->c->bucket_alloc,
                                       session->conf->spool_directory,
                                       session->conf->spool_memory);
    smtp_header_init(&mail->header, on_field, mail);
}

void nssmtpd_transaction_scan_header(nssmtpd_mail_t *mail)
{
    apr_bucket_brigade *bb = apr_brigade_create(mail->t.r->pool, mail->session->c->bucket_alloc);
    apr_bucket *b;

    mail->fields = NULL;
    mail->hops = 0;
    smtp_header_init(&mail->header, on_field, mail);
    nssmtpd_spool_read(mail->spool, bb);
    for (b = APR_BRIGADE_FIRST(bb); b != APR_BRIGADE_SENTINEL(bb) && !mail->header.done;
         b = APR_BUCKET_NEXT(b)) {
        const char *data;
        apr_size_t n;

        if (apr_bucket_read(b, &data, &n, APR_BLOCK_READ) != APR_SUCCESS) {
            break;
        }
        smtp_header_feed(&mail->header, data, n);
    }
    smtp_header_finish(&mail->header);
    apr_brigade_destroy(bb);
}

void nssmtpd_transaction_content(nssmtpd_session_t *session, smtp_span_t content)
{
    nssmtpd_mail_t *mail = session->mail;
    apr_int64_t max = session->conf->max_message_size;

    if (mail->too_big || mail->spool_status != APR_SUCCESS) {
        return; /* only the end of it matters any more */
    }
    if (max && mail->spool->length + (apr_int64_t)content.n > max) {
        mail->too_big = 1;
        nssmtpd_spool_close(mail->spool);
        return;
    }
    smtp_header_feed(&mail->header, content.p, content.n);
    if (nssmtpd_flow_take(session, content)) {
        return;
    }
    mail->spool_status = nssmtpd_spool_write(mail->spool, content.p, content.n);
    if (mail->spool_status != APR_SUCCESS) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, mail->spool_status, mail->t.r,
                      "NS0021: %s: cannot write the message to a file in %s (SmtpdSpool)",
                      mail->t.id, session->conf->spool_directory);
        nssmtpd_spool_close(mail->spool);
    }
}

const smtp_reply_t *nssmtpd_transaction_check(nssmtpd_session_t *session)
{
    nssmtpd_mail_t *mail = session->mail;
    const smtp_dot_t *dot = &session->dialogue.dot;

    if (!mail->t.ended) { /* or it comes back from waiting for a place */
        mail->t.ended = apr_time_now();
    }
    if (mail->too_big) {
        return smtp_reply(SMTP_REPLY_TOO_BIG);
    }
    if (dot->bare_cr || (dot->bare_lf && !dot->normalize)) {
        return smtp_reply(SMTP_REPLY_BARE_NEWLINE);
    }
    if (mail->spool_status != APR_SUCCESS) {
        return smtp_reply(SMTP_REPLY_LOCAL_FAULT);
    }
    smtp_header_finish(&mail->header);
    if (mail->hops >= SMTP_HOPS_MAX) {
        return smtp_reply(SMTP_REPLY_LOOP);
    }
    return NULL;
}

/* The end */

static const char *list_rcpts(nssmtpd_mail_t *mail)
{
    enum { LISTED = 20 };
    apr_array_header_t *names = apr_array_make(mail->t.r->pool, LISTED, sizeof(char *));
    int i;

    for (i = 0; i < mail->t.rcpts->nelts && i < LISTED; i++) {
        APR_ARRAY_PUSH(names, const char *) =
            APR_ARRAY_IDX(mail->t.rcpts, i, nssmtpd_rcpt_t).address;
    }
    return apr_array_pstrcat(mail->t.r->pool, names, ',');
}

/* Of a mail that nobody has decided anything about: it was given up by RSET, EHLO or STARTTLS, by
 * QUIT or our 421, or by a script. */
static const smtp_reply_t *end_of(const smtp_dialogue_t *d)
{
    if (d->state != SMTP_STATE_CLOSED) {
        return smtp_reply(SMTP_REPLY_RESET);
    }
    return d->last->code == 221 || !smtp_reply_is_positive(d->last)
               ? d->last : smtp_reply(SMTP_REPLY_ABORTED);
}

static void publish(nssmtpd_mail_t *mail)
{
    apr_table_t *env = mail->t.r->subprocess_env;
    apr_pool_t *p = mail->t.r->pool;

    apr_table_setn(env, "SMTP_ID", mail->t.id);
    apr_table_setn(env, "SMTP_FROM", mail->t.from);
    apr_table_setn(env, "SMTP_RCPT", list_rcpts(mail));
    apr_table_setn(env, "SMTP_RCPT_COUNT", apr_itoa(p, mail->t.rcpts->nelts));
    apr_table_setn(env, "SMTP_SIZE", apr_off_t_toa(p, mail->spool ? mail->spool->length : 0));
    if (mail->t.route && !apr_table_get(env, "SMTP_RELAY")) { /* a relay set its address */
        apr_table_setn(env, "SMTP_RELAY", mail->t.route->url);
    }
    if (!mail->outcome) {
        mail->outcome = end_of(&mail->session->dialogue);
    }
    mail->t.r->status = mail->outcome->code;
    apr_table_setn(env, "SMTP_REPLY", smtp_reply_line(p, mail->outcome));
}

/* A message that came to its end. */
static void count(const nssmtpd_mail_t *mail)
{
    int class = mail->outcome->code / 100;

    if (!mail->t.ended) {
        return;
    }
    nssmtpd_count(class == 2 ? NSSMTPD_COUNT_MAILS
                             : class == 4 ? NSSMTPD_COUNT_DEFERRED : NSSMTPD_COUNT_REFUSED, 1);
    if (class == 2) {
        nssmtpd_count(NSSMTPD_COUNT_RECIPIENTS, mail->t.rcpts->nelts);
        nssmtpd_count(NSSMTPD_COUNT_BYTES, mail->spool->length);
    }
}

void nssmtpd_transaction_end(nssmtpd_session_t *session)
{
    nssmtpd_mail_t *mail = session->mail;

    if (!mail) {
        return;
    }
    session->mail = NULL;
    end_delivery(mail);
    publish(mail);
    count(mail);
    log_request(mail->t.r);
    if (mail->spool) {
        nssmtpd_spool_close(mail->spool);
    }
    apr_pool_destroy(mail->t.r->pool);
}
