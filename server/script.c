/* Runs the handler of a phase as httpd would, on a short request of its own whose output is
 * caught, and judges what it says. Any handler will do; mod_lua's is the usual one. How it
 * fails is failure.c's, what it may do meanwhile envelope.c's and fields.c's.
 */
#include "server/script.h"

#include <apr_atomic.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <util_filter.h>

#include "server/failure.h"
#include "server/memo.h"
#include "server/phase.h"
#include "server/transaction.h"

APLOG_USE_MODULE(nssmtpd);

/* A reply is short; what is printed behind it is for nobody. */
#define PRINTED_MAX (16 * 1024)

static __thread nssmtpd_script_t *running;
static ap_filter_rec_t *sink;
static apr_uint32_t calls;

nssmtpd_script_t *nssmtpd_script_current(void)
{
    return running;
}

nssmtpd_call_t *nssmtpd_call(void)
{
    return running ? &running->call : NULL;
}

/* What it says */

static apr_status_t catch_output(ap_filter_t *f, apr_bucket_brigade *bb)
{
    nssmtpd_script_t *script = f->ctx;
    apr_off_t n = 0;
    const char *data;
    apr_size_t len;
    apr_bucket *b;

    apr_brigade_length(script->printed, 1, &n);
    for (b = APR_BRIGADE_FIRST(bb); b != APR_BRIGADE_SENTINEL(bb); b = APR_BUCKET_NEXT(b)) {
        if (!APR_BUCKET_IS_METADATA(b) && n < PRINTED_MAX
            && apr_bucket_read(b, &data, &len, APR_BLOCK_READ) == APR_SUCCESS) {
            apr_brigade_write(script->printed, NULL, NULL, data, len);
            n += len;
        }
    }
    apr_brigade_cleanup(bb);
    return APR_SUCCESS;
}

static void set_output(nssmtpd_script_t *script, request_rec *r)
{
    ap_filter_t *f = apr_pcalloc(r->pool, sizeof(*f));

    f->frec = sink;
    f->ctx = script;
    f->r = r;
    f->c = r->connection;
    r->output_filters = r->proto_output_filters = f;
    script->printed = apr_brigade_create(r->pool, r->connection->bucket_alloc);
}

static const char *parse_said(nssmtpd_script_t *script, const char *text, apr_size_t n)
{
    apr_pool_t *p = script->call.r->pool;
    smtp_reply_t *reply = apr_pcalloc(p, sizeof(*reply));

    if (n > 1 && memcmp(text + n - 2, "\r\n", 2) == 0) {
        n -= 2;
    }
    if (memchr(text, '\r', n) || memchr(text, '\n', n) || memchr(text, '\0', n)) {
        return "a reply is one line, without CR, LF or NUL";
    }
    if (smtp_reply_parse(p, (smtp_span_t){ text, n }, reply) != SMTP_OK) {
        return "a reply begins with a code, such as \"550 5.7.1 No\"";
    }
    script->said = reply;
    return NULL;
}

/* A script that does not look at what setreply returns must not let pass what it refused. */
const char *nssmtpd_call_set_reply(nssmtpd_call_t *call, const char *text, apr_size_t n)
{
    nssmtpd_script_t *script = (nssmtpd_script_t *)call;

    script->wrong = nssmtpd_call_keep(call, 3 * n);
    if (!script->wrong) {
        script->wrong = parse_said(script, text, n);
    }
    return script->wrong;
}

static int is_code(const char *text, apr_size_t n)
{
    return n >= 3 && apr_isdigit(text[0]) && apr_isdigit(text[1]) && apr_isdigit(text[2])
           && (n == 3 || strchr(" -\r\n", text[3]));
}

/* What was printed is the reply if it begins as one. */
static const smtp_reply_t *printed_reply(nssmtpd_script_t *script)
{
    request_rec *r = script->call.r;
    smtp_reply_t *reply = apr_pcalloc(r->pool, sizeof(*reply));
    smtp_span_t text = { NULL, 0 };
    char *printed;

    if (apr_brigade_pflatten(script->printed, &printed, &text.n, r->pool) != APR_SUCCESS) {
        return NULL;
    }
    while (text.n && strchr("\r\n", printed[text.n - 1])) {
        text.n--;
    }
    text.p = printed;
    if (smtp_reply_parse(r->pool, text, reply) == SMTP_OK) {
        return reply;
    }
    script->wrong = is_code(text.p, text.n) ? "what it prints begins as no reply can" : NULL;
    return NULL;
}

/* What may be said */

static int is_allowed(const nssmtpd_script_t *script, int code)
{
    static const short positive[][2] = {
        [NSSMTPD_PHASE_CONNECT] = { 220, 220 }, [NSSMTPD_PHASE_HELO] = { 250, 250 },
        [NSSMTPD_PHASE_AUTH] = { 235, 235 },    [NSSMTPD_PHASE_MAIL] = { 250, 250 },
        [NSSMTPD_PHASE_RCPT] = { 250, 251 },    [NSSMTPD_PHASE_DATA] = { 250, 250 },
        [NSSMTPD_PHASE_ERROR] = { 0, 0 }
    };
    const short *range = positive[script->call.phase];

    return code >= 400 || (!script->outcome && code >= range[0] && code <= range[1]);
}

static const smtp_reply_t *copy(apr_pool_t *p, const smtp_reply_t *reply)
{
    smtp_reply_t *own = apr_pmemdup(p, reply, sizeof(*reply));

    own->enhanced = apr_pstrdup(p, reply->enhanced);
    own->text = apr_pstrdup(p, reply->text);
    return own;
}

/* A refusal stands whatever becomes of the script; otherwise its fault is ours. */
static const smtp_reply_t *without(const smtp_reply_t *outcome)
{
    return outcome ? outcome : smtp_reply(SMTP_REPLY_LOCAL_FAULT);
}

static const smtp_reply_t *judge(nssmtpd_script_t *script, int rc, apr_pool_t *p)
{
    const smtp_reply_t *reply;
    const char *failure;
    int is_silent;

    if ((failure = nssmtpd_failure_of(script, rc, &is_silent))) {
        nssmtpd_failure_log(script, failure);
        return without(script->outcome);
    }
    if (is_silent) {
        return script->outcome;
    }
    reply = script->said || script->wrong ? script->said : printed_reply(script);
    if (reply && !script->wrong && !is_allowed(script, reply->code)) {
        script->wrong = apr_psprintf(script->call.r->pool, "a reply %d may not stand here",
                                     reply->code);
    }
    if (script->wrong) {
        nssmtpd_failure_log(script, script->wrong);
        return without(script->outcome);
    }
    return reply ? copy(p, reply) : script->outcome;
}

/* Running it */

/* mod_auth_*, mod_rewrite and CGI believe these of an HTTP client. They can be had by
 * gethdr. */
static int is_framing(const char *name)
{
    static const char *const names[] = { "Authorization", "Proxy-Authorization", "Proxy", "Host",
                                         "Content-Length", "Transfer-Encoding", "Cookie",
                                         "X-Forwarded-For", "Expect", "Upgrade", "Connection",
                                         "Range", "TE", "Trailer", NULL };
    int i = 0;

    while (names[i] && strcasecmp(names[i], name) != 0) {
        i++;
    }
    return names[i] != NULL;
}

static void fill_headers(nssmtpd_script_t *script)
{
    const apr_array_header_t *fields = nssmtpd_call_fields(&script->call);
    int i;

    for (i = 0; i < fields->nelts; i++) {
        const nssmtpd_field_t *field = &APR_ARRAY_IDX(fields, i, nssmtpd_field_t);

        if (!is_framing(field->name)) {
            apr_table_addn(script->call.r->headers_in, field->name, field->value);
        }
    }
}

/* A value that is new, copied: the call's own pool goes with it. */
static int keep_value(void *table, const char *key, const char *value)
{
    const char *known = apr_table_get(table, key);

    if (!known || strcmp(known, value) != 0) {
        apr_table_set(table, key, value);
    }
    return 1;
}

/* What it left in notes and environment is for later phases and the log. */
static void keep_tables(const nssmtpd_script_t *script)
{
    const nssmtpd_mail_t *mail = script->session->mail;

    if (mail) {
        apr_table_do(keep_value, mail->t.r->notes, script->call.r->notes, NULL);
        apr_table_do(keep_value, mail->t.r->subprocess_env, script->call.r->subprocess_env, NULL);
    }
}

void nssmtpd_script_enter(nssmtpd_script_t *script, nssmtpd_session_t *session,
                          nssmtpd_phase_e phase, request_rec *r)
{
    script->session = session;
    script->call.r = r;
    script->call.serial = (apr_uint64_t)apr_atomic_inc32(&calls) + 1;
    script->call.phase = phase;
    script->call.t = session->mail ? &session->mail->t : NULL;
    script->call.line = r->the_request;
    script->call.deadline = apr_time_now()
                            + apr_time_from_sec(session->conf->timeout[NSSMTPD_TIMEOUT_SCRIPT]);
    running = script;
}

void nssmtpd_script_leave(void)
{
    running = NULL;
}

static int handle(nssmtpd_script_t *script)
{
    request_rec *r = script->call.r;
    int rc;

    if (script->call.phase == NSSMTPD_PHASE_DATA) {
        fill_headers(script);
    }
    set_output(script, r);
    rc = ap_run_handler(r);
    ap_rflush(r); /* or what r:puts has said stays in httpd's own buffer */
    nssmtpd_script_leave();
    keep_tables(script);
    return rc;
}

static request_rec *make_request(nssmtpd_session_t *session, nssmtpd_phase_e phase,
                                 const char *line, const char *user)
{
    request_rec *r = nssmtpd_phase_begin(session, phase);

    if (r) {
        r->the_request = line ? apr_pstrdup(r->pool, line) : r->the_request;
        r->user = user ? apr_pstrdup(r->pool, user) : r->user;
        if (phase == NSSMTPD_PHASE_HELO && line) {
            r->method = apr_pstrmemdup(r->pool, line, strcspn(line, " "));
        }
    }
    return r;
}

/* Behind AUTH a script wants to know how it ended. */
static void tell_outcome(request_rec *r, const smtp_reply_t *outcome)
{
    outcome = outcome ? outcome : smtp_reply(SMTP_REPLY_AUTHENTICATED);
    apr_table_setn(r->subprocess_env, "SMTP_REPLY", smtp_reply_line(r->pool, outcome));
}

/* Walked and fixed up; 0: something stands in the way, which is logged. */
static int prepare(request_rec *r)
{
    const char *uri = r->uri;
    int rc = ap_run_header_parser(r); /* SetEnvIf in <Location> */

    if (rc == OK || rc == DECLINED) {
        rc = ap_run_fixups(r);
    }
    if ((rc == OK || rc == DECLINED) && strcmp(uri, r->uri) == 0) {
        return 1;
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                  "NS0058: %s: a Redirect, rewrite or fallback of the configuration answers %d "
                  "where only scripts can; keep it out of this virtual host", uri, rc);
    return 0;
}

static const smtp_reply_t *run(nssmtpd_session_t *session, nssmtpd_phase_e phase, request_rec *r,
                               const smtp_reply_t *outcome, apr_pool_t *p)
{
    nssmtpd_script_t script = { .outcome = outcome };

    if (!prepare(r)) {
        return without(outcome);
    }
    if (!r->handler) {
        return outcome;
    }
    nssmtpd_script_enter(&script, session, phase, r);
    return judge(&script, handle(&script), p);
}

int nssmtpd_script_is_configured(nssmtpd_session_t *session, nssmtpd_phase_e phase)
{
    nssmtpd_phase_state_t state = nssmtpd_phase_state(session, phase);

    return !state.is_plain
           || (state.has_handler
               && !nssmtpd_memo_is_missing(session->conf->memo, phase, session->c->pool));
}

const smtp_reply_t *nssmtpd_script_run(nssmtpd_session_t *session, nssmtpd_phase_e phase,
                                       const char *line, const char *user,
                                       const smtp_reply_t *outcome, apr_pool_t *p)
{
    const smtp_reply_t *reply;
    request_rec *r;

    if (!nssmtpd_script_is_configured(session, phase)) {
        return outcome;
    }
    if (nssmtpd_memo_is_broken(session->conf->memo, phase)
        || !(r = make_request(session, phase, line, user))) {
        return without(outcome);
    }
    if (phase == NSSMTPD_PHASE_AUTH) {
        tell_outcome(r, outcome);
    }
    reply = run(session, phase, r, outcome, p);
    apr_pool_destroy(r->pool);
    return reply;
}

/* Hooks */

void nssmtpd_script_register(apr_pool_t *p)
{
    (void)p;
    sink = ap_register_output_filter("NSSMTPD_SINK", catch_output, NULL, AP_FTYPE_PROTOCOL);
}

/* LuaMapHandler matches URIs of any request. */
int nssmtpd_script_refuse_http(request_rec *r)
{
    if (nssmtpd_phase_of(r->uri) == NSSMTPD_PHASE_COUNT || (running && running->call.r == r)) {
        return DECLINED;
    }
    return HTTP_NOT_FOUND;
}

/* Behind all handlers but httpd's own for files, which would answer a status of its own. */
int nssmtpd_script_take_declined(request_rec *r)
{
    if (!running || running->call.r != r) {
        return DECLINED;
    }
    running->is_declined = 1;
    return OK;
}
