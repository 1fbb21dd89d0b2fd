/* The chain SMTPD_BODY -> SetInputFilter's: it is read once, blocking, from the spool into
 * another spool, in one thread. So no filter meets half a message or EAGAIN, and none is
 * called while the client still sends. Called by transaction.c.
 */
#include "server/filter.h"

#include <apr_strings.h>
#include <http_config.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <util_filter.h>

#include "server/phase.h"
#include "server/script.h"
#include "server/transaction.h"
#include "smtp/lines.h"

APLOG_USE_MODULE(nssmtpd);

static ap_filter_rec_t *body_filter;

/* Gives the message and EOS, all at once: its buckets only point to it. */
static apr_status_t give_body(ap_filter_t *f, apr_bucket_brigade *bb, ap_input_mode_t mode,
                              apr_read_type_e block, apr_off_t n)
{
    nssmtpd_mail_t *mail = f->ctx;
    apr_status_t rv = APR_SUCCESS;

    (void)mode, (void)block, (void)n;
    if (mail) {
        rv = nssmtpd_spool_read(mail->spool, bb);
        f->ctx = NULL;
    }
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(bb->bucket_alloc));
    return rv;
}

/* 1 if there is anything above the body. */
static int make_chain(request_rec *r, nssmtpd_mail_t *mail)
{
    ap_filter_t *f = apr_pcalloc(r->pool, sizeof(*f)), *above;

    f->frec = body_filter;
    f->ctx = mail;
    f->r = r;
    f->c = r->connection;
    r->input_filters = r->proto_input_filters = f;
    ap_run_insert_filter(r);
    for (above = r->input_filters; above && above != f; above = above->next) {
        if (above->frec->filter_init_func) {
            above->frec->filter_init_func(above);
        }
    }
    return r->input_filters != f;
}

/* Where the filtered message goes: whatever a filter made of its lines, they end in CRLF. */
typedef struct drain_t {
    nssmtpd_spool_t *spool;
    smtp_lines_t lines;
    int at_end;
} drain_t;

static apr_status_t write_lines(drain_t *d, const char *at, apr_size_t n)
{
    const char *end = at + n;
    apr_status_t rv = APR_SUCCESS;
    smtp_span_t run;

    while (rv == APR_SUCCESS && at < end) {
        smtp_lines_next(&d->lines, &at, end, &run);
        rv = run.n ? nssmtpd_spool_write(d->spool, run.p, run.n) : APR_SUCCESS;
    }
    return rv;
}

static apr_status_t take(drain_t *d, apr_bucket_brigade *bb)
{
    apr_status_t rv = APR_SUCCESS;

    while (rv == APR_SUCCESS && !d->at_end && !APR_BRIGADE_EMPTY(bb)) {
        apr_bucket *b = APR_BRIGADE_FIRST(bb);
        const char *data;
        apr_size_t n;

        d->at_end = APR_BUCKET_IS_EOS(b);
        if (!APR_BUCKET_IS_METADATA(b)
            && (rv = apr_bucket_read(b, &data, &n, APR_BLOCK_READ)) == APR_SUCCESS) {
            rv = write_lines(d, data, n);
        }
        apr_bucket_delete(b);
    }
    return rv;
}

/* A filter that gives nothing for so long will give nothing any more. */
static apr_status_t drain(request_rec *r, nssmtpd_spool_t *spool, apr_int64_t max)
{
    enum { AT_ONCE = 64 * 1024, EMPTY_MAX = 1000 };
    apr_bucket_brigade *bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    drain_t d = { .spool = spool };
    apr_status_t rv = APR_SUCCESS;
    smtp_span_t end;
    int empty = 0;

    smtp_lines_init(&d.lines);
    while (rv == APR_SUCCESS && !d.at_end) {
        rv = ap_get_brigade(r->input_filters, bb, AP_MODE_READBYTES, APR_BLOCK_READ, AT_ONCE);
        if (rv == APR_SUCCESS && APR_BRIGADE_EMPTY(bb) && ++empty > EMPTY_MAX) {
            rv = APR_EGENERAL;
        }
        if (rv == APR_SUCCESS) {
            rv = take(&d, bb);
        }
        if (rv == APR_SUCCESS && max && spool->length > max) {
            rv = APR_ENOSPC;
        }
        apr_brigade_cleanup(bb);
    }
    end = smtp_lines_end(&d.lines);
    return rv == APR_SUCCESS && end.n ? nssmtpd_spool_write(spool, end.p, end.n) : rv;
}

/* The filtered message is the mail's now, its header is another. */
static void replace(nssmtpd_mail_t *mail, nssmtpd_spool_t *spool)
{
    nssmtpd_spool_close(mail->spool);
    mail->spool = spool;
    mail->is_rewritten = 1;
    nssmtpd_transaction_scan_header(mail);
}

static void log_failure(const nssmtpd_mail_t *mail, request_rec *r, apr_status_t rv,
                        const char *reason)
{
    if (rv >= HTTP_BAD_REQUEST && rv < 600) { /* mod_lua returns an HTTP status */
        rv = APR_EGENERAL;
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, reason ? APR_SUCCESS : rv, r,
                  "NS0077: %s: an input filter for /smtp/data has failed%s%s (SetInputFilter)",
                  mail->t.id, reason ? ": " : "", reason ? reason : "");
}

static const smtp_reply_t *run(nssmtpd_mail_t *mail, request_rec *r)
{
    const nssmtpd_config_t *conf = mail->session->conf;
    nssmtpd_script_t script = { .outcome = NULL }; /* a LuaInputFilter has a script's limits */
    nssmtpd_spool_t *spool;
    apr_status_t rv;

    if (!make_chain(r, mail)) {
        return NULL;
    }
    spool = nssmtpd_spool_create(mail->t.r->pool, r->connection->bucket_alloc,
                                 conf->spool_directory, conf->spool_memory);
    nssmtpd_script_enter(&script, mail->session, NSSMTPD_PHASE_DATA, r);
    rv = drain(r, spool, conf->max_message_size);
    nssmtpd_script_leave();
    if (rv == APR_SUCCESS && !script.failed) {
        replace(mail, spool);
        return NULL;
    }
    nssmtpd_spool_close(spool);
    log_failure(mail, r, rv, script.failed);
    return smtp_reply(SMTP_REPLY_LOCAL_FAULT);
}

int nssmtpd_filter_is_wanted(nssmtpd_session_t *session)
{
    nssmtpd_phase_state_t state = nssmtpd_phase_state(session, NSSMTPD_PHASE_DATA);

    return (!state.is_plain || state.has_filters) && !(session->flags & NSSMTPD_FLAG_FASTPROXY);
}

const smtp_reply_t *nssmtpd_filter_run(nssmtpd_session_t *session)
{
    const smtp_reply_t *reply;
    request_rec *r;

    if (!nssmtpd_filter_is_wanted(session)) {
        return NULL;
    }
    if (!(r = nssmtpd_phase_begin(session, NSSMTPD_PHASE_DATA))) {
        return smtp_reply(SMTP_REPLY_LOCAL_FAULT);
    }
    reply = run(session->mail, r);
    apr_pool_destroy(r->pool);
    return reply;
}

void nssmtpd_filter_register(void)
{
    body_filter = ap_register_input_filter("SMTPD_BODY", give_body, NULL, AP_FTYPE_PROTOCOL);
}
