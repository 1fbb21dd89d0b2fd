/* Mail that a script sends: the recipients, sorted by where they go; for each of these places a
 * mail of its own over the delivery providers, as the server does it for a client, but with
 * nobody who waits for single replies. RFC 5321 3.3, 6409 (submission). Partial success is
 * success: each recipient has its reply. Called by scripts, through mod_nssmtpd.h.
 */
#include <httpd.h>

#include <apr_strings.h>
#include <arpa/inet.h>
#include <http_config.h>
#include <http_log.h>
#include <http_protocol.h>

#include "mod_nssmtpd.h"
#include "relay/sendlog.h"
#include "relay/submission.h"

APLOG_USE_MODULE(nssmtpd);

/* Recipients with the same route. */
typedef struct group_t {
    const nssmtpd_route_t *route;
    apr_array_header_t *members; /* of int: their places in sending_t.rcpts */
} group_t;

/* One call. */
typedef struct sending_t {
    request_rec *r;
    server_rec *s;
    nssmtpd_send_t *send;
    apr_pool_t *p;              /* ends with the call */
    const char *id;             /* of the mail, on all its ways */
    const char *from;
    apr_array_header_t *rcpts;  /* of nssmtpd_rcpt_t, one for each of send->rcpts */
    apr_array_header_t *groups; /* of group_t */
    nssmtpd_submission_t message;
    nssmtpd_sendlog_t entry;
} sending_t;

/* Addresses */

static const char *bad(const sending_t *x, const char *what, const char *text)
{
    return apr_psprintf(x->r->pool, "the %s \"%s\" is no address", what,
                        ap_escape_logitem(x->p, text));
}

/* Nothing but one path with blanks around it: no command can hide in it. */
static int parse(smtp_address_t *address, const char *text)
{
    const char *at = text, *end = text + strlen(text);

    return smtp_address_parse(address, &at, end) == SMTP_OK && at == end;
}

static const char *take_from(sending_t *x)
{
    const char *text = x->send->from ? x->send->from : "";
    smtp_address_t address;

    if (text[strspn(text, " \t")] == '\0') {
        x->from = "";
        return NULL;
    }
    if (!parse(&address, text)) {
        return bad(x, "sender", text);
    }
    x->from = apr_pstrmemdup(x->p, address.text.p, address.text.n);
    return NULL;
}

static const char *take_rcpts(sending_t *x)
{
    const apr_array_header_t *given = x->send->rcpts;
    int i;

    for (i = 0; i < given->nelts; i++) {
        const char *text = APR_ARRAY_IDX(given, i, const char *);
        smtp_address_t address;

        if (!parse(&address, text) || address.text.n == 0) {
            return bad(x, "recipient", text);
        }
        APR_ARRAY_PUSH(x->rcpts, nssmtpd_rcpt_t) = nssmtpd_rcpt_make(x->p, &address);
    }
    return i ? NULL : "there is no recipient";
}

/* Routes */

static group_t *group_of(sending_t *x, const nssmtpd_route_t *route)
{
    group_t *group = (group_t *)x->groups->elts, *end = group + x->groups->nelts;

    while (group < end && group->route != route) {
        group++;
    }
    if (group == end) {
        group = apr_array_push(x->groups);
        group->route = route;
        group->members = apr_array_make(x->p, 4, sizeof(int));
    }
    return group;
}

/* A name or an address, with nothing that would be more of a URL. */
static int is_host(const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];

    return inet_pton(AF_INET6, host, address) == 1 || inet_pton(AF_INET, host, address) == 1
           || (*host != '['
               && smtp_address_check_domain((smtp_span_t){ host, strlen(host) }) == SMTP_OK);
}

static const char *route_to_host(const sending_t *x, nssmtpd_route_t **route)
{
    const char *host = x->send->host, *wrong;
    int port = x->send->port ? x->send->port : 25, is_ipv6 = strchr(host, ':') != NULL;

    if (!is_host(host) || port < 0 || port > 65535) {
        return apr_psprintf(x->r->pool, "\"%s\" port %d is no host to send to",
                            ap_escape_logitem(x->p, host), port);
    }
    wrong = nssmtpd_route_at_run_time(x->s,
                                      apr_psprintf(x->p, "smtp://%s%s%s:%d", is_ipv6 ? "[" : "",
                                                   host, is_ipv6 ? "]" : "", port), route);
    return wrong ? apr_psprintf(x->r->pool, "%s port %d: %s", host, port, wrong) : NULL;
}

static const char *find_routes(sending_t *x)
{
    nssmtpd_route_t *given = NULL;
    const char *wrong = x->send->host ? route_to_host(x, &given) : NULL;
    int i;

    for (i = 0; !wrong && i < x->rcpts->nelts; i++) {
        const nssmtpd_rcpt_t *rcpt = &APR_ARRAY_IDX(x->rcpts, i, nssmtpd_rcpt_t);
        const nssmtpd_route_t *route = given ? given : nssmtpd_route_of(x->s, rcpt->domain);

        if (!route) {
            return apr_psprintf(x->r->pool, "there is no way to %s: its domain has no route in "
                                "the list of relay domains, and there is no SmtpdRelay",
                                rcpt->address);
        }
        APR_ARRAY_PUSH(group_of(x, route)->members, int) = i;
    }
    return wrong;
}

/* One mail */

/* A request as the server makes them for its clients' mails: see server/phase.c. */
static request_rec *make_request(const sending_t *x)
{
    request_rec *r = ap_create_request(x->r->connection);

    r->server = x->s;
    r->per_dir_config = r->server->lookup_defaults;
    r->request_time = apr_time_now();
    r->method = "MAIL";
    r->method_number = M_INVALID;
    r->protocol = "SMTP";
    r->the_request = apr_psprintf(r->pool, "MAIL FROM:<%s>", x->from);
    r->uri = r->unparsed_uri = "/smtp/send";
    r->filename = "";
    r->finfo.filetype = APR_NOFILE;
    r->hostname = nssmtpd_hostname(x->s);
    r->assbackwards = 1;
    r->useragent_addr = x->r->useragent_addr;
    r->useragent_ip = x->r->useragent_ip;
    return r;
}

static nssmtpd_transaction_t *begin(const sending_t *x, const group_t *group)
{
    request_rec *r = make_request(x);
    nssmtpd_transaction_t *t = apr_pcalloc(r->pool, sizeof(*t));

    t->r = r;
    t->id = x->id;
    t->from = x->from;
    t->rcpts = apr_array_make(r->pool, group->members->nelts, sizeof(nssmtpd_rcpt_t));
    t->route = group->route;
    nssmtpd_submission_give(&x->message, t);
    return t;
}

/* NULL: taken. */
static const smtp_reply_t *offer(nssmtpd_transaction_t *t, nssmtpd_rcpt_t rcpt)
{
    const smtp_reply_t *reply;

    t->offered = 1;
    reply = t->route->delivery->rcpt(t, &rcpt);
    if (reply && !smtp_reply_is_positive(reply)) {
        return reply;
    }
    rcpt.is_told = 1;
    APR_ARRAY_PUSH(t->rcpts, nssmtpd_rcpt_t) = rcpt;
    return NULL;
}

/* A reply that speaks of the way there, not of one recipient: asking on would only wait. */
static int ends_all(const smtp_reply_t *reply)
{
    static const smtp_reply_e rows[] = {
        SMTP_REPLY_RELAY_UNREACHABLE, SMTP_REPLY_RELAY_LOST,        SMTP_REPLY_RELAY_FAULT,
        SMTP_REPLY_RELAY_INSECURE,    SMTP_REPLY_RELAY_CREDENTIALS, SMTP_REPLY_BUSY,
        SMTP_REPLY_LOCAL_FAULT
    };
    apr_size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (reply == smtp_reply(rows[i])) {
            return 1;
        }
    }
    return 0;
}

static const smtp_reply_t *deliver(nssmtpd_transaction_t *t)
{
    const smtp_reply_t *reply;

    t->ended = apr_time_now();
    reply = t->route->delivery->deliver(t);
    return reply ? reply : smtp_reply(SMTP_REPLY_ACCEPTED);
}

/* Results */

static nssmtpd_sent_t *result_at(const sending_t *x, int i)
{
    return &APR_ARRAY_IDX(x->send->results, i, nssmtpd_sent_t);
}

/* The mail's own pool ends before the results are read. */
static const smtp_reply_t *keep(apr_pool_t *p, const smtp_reply_t *reply)
{
    smtp_reply_t *copy = apr_pmemdup(p, reply, sizeof(*reply));

    copy->enhanced = apr_pstrdup(p, reply->enhanced);
    copy->text = apr_pstrdup(p, reply->text);
    return copy;
}

/* A mail's outcome is the call's, but that one who was taken outweighs any other. */
static void conclude(sending_t *x, const nssmtpd_transaction_t *t, const smtp_reply_t *reply)
{
    if (smtp_reply_is_positive(reply)) {
        x->send->taken += t->rcpts->nelts;
    }
    else if (x->send->taken) {
        return;
    }
    x->send->reply = keep(x->r->pool, reply);
    x->send->phase = apr_pstrdup(x->r->pool, t->step ? t->step : "delivery");
    nssmtpd_sendlog_judge(&x->entry, x->p, t, reply);
}

static void send_group(sending_t *x, const group_t *group)
{
    nssmtpd_transaction_t *t = begin(x, group);
    const int *members = (const int *)group->members->elts;
    const smtp_reply_t *all = NULL, *last = smtp_reply(SMTP_REPLY_LOCAL_FAULT);
    int i;

    for (i = 0; i < group->members->nelts; i++) {
        const smtp_reply_t *refusal =
            all ? all : offer(t, APR_ARRAY_IDX(x->rcpts, members[i], nssmtpd_rcpt_t));

        if (refusal) {
            result_at(x, members[i])->reply = keep(x->r->pool, last = refusal);
            all = ends_all(refusal) ? refusal : all;
        }
    }
    if (!all && t->rcpts->nelts) {
        last = deliver(t);
    }
    for (i = 0; i < group->members->nelts; i++) {
        if (!result_at(x, members[i])->reply) {
            result_at(x, members[i])->reply = keep(x->r->pool, last);
        }
    }
    conclude(x, t, last);
    if (t->offered) {
        t->route->delivery->end(t);
    }
    apr_pool_destroy(t->r->pool);
}

/* The call */

/* A phase's own mail may hold the connection that we would wait for. */
static void let_go(void)
{
    nssmtpd_call_t *call = nssmtpd_call();

    if (call && call->t && call->t->offered) {
        call->t->route->delivery->restart(call->t);
    }
}

static const char *check(sending_t *x)
{
    const char *wrong = take_from(x);

    wrong = wrong ? wrong : take_rcpts(x);
    return wrong ? wrong : find_routes(x);
}

/* Scanners, which have the only word before anybody hears of the mail. */

static apr_uint32_t wanted_scans(const sending_t *x)
{
    return nssmtpd_flags(x->s) & nssmtpd_scan_kinds(x->s);
}

static void fill_job(nssmtpd_scan_job_t *job, const sending_t *x)
{
    job->p = x->p;
    job->s = x->s;
    job->r = x->r;
    job->message = APR_ARRAY_IDX(x->message.pieces, 0, smtp_span_t);
    job->id = x->id;
    job->from = x->from;
    job->helo = "";
    job->client = x->r->useragent_ip;
    job->user = x->r->user ? x->r->user : "";
    job->rcpts = x->rcpts;
}

/* What ends the call here, a refusal or the reply to a mail that is thrown away; or NULL. */
static const smtp_reply_t *scan(sending_t *x)
{
    nssmtpd_scanned_t found = { 0 };
    nssmtpd_scan_job_t job = { 0 };

    if (!wanted_scans(x)) {
        return NULL;
    }
    fill_job(&job, x);
    nssmtpd_scan(&job, wanted_scans(x), wanted_scans(x), &found);
    if (!found.reply && !found.is_discarded) {
        nssmtpd_submission_mark(&x->message, x->p, &found);
    }
    return !found.reply && found.is_discarded ? smtp_reply(SMTP_REPLY_ACCEPTED) : found.reply;
}

static void end_with(sending_t *x, const smtp_reply_t *reply)
{
    int i;

    x->send->reply = keep(x->r->pool, reply);
    x->send->phase = "scan";
    x->entry.status = reply->code;
    x->entry.outcome = smtp_reply_is_positive(reply) ? "SUCCESS" : "STATUS_ERROR";
    for (i = 0; i < x->rcpts->nelts; i++) {
        result_at(x, i)->reply = x->send->reply;
        x->send->taken += smtp_reply_is_positive(reply);
    }
}

static void send_all(sending_t *x)
{
    const smtp_reply_t *end;
    int i;

    for (i = 0; i < x->rcpts->nelts; i++) {
        nssmtpd_sent_t *result = apr_array_push(x->send->results);

        result->address = apr_pstrdup(x->r->pool,
                                      APR_ARRAY_IDX(x->rcpts, i, nssmtpd_rcpt_t).address);
        result->reply = NULL;
    }
    nssmtpd_submission_make(&x->message, x->p, x->s, x->id, x->send->message,
                            wanted_scans(x) != 0);
    if ((end = scan(x))) {
        end_with(x, end);
        return;
    }
    let_go();
    for (i = 0; i < x->groups->nelts; i++) {
        send_group(x, &APR_ARRAY_IDX(x->groups, i, group_t));
    }
}

/* As they were understood, or where that failed as they came. */
static const apr_array_header_t *rcpts_for_log(const sending_t *x)
{
    apr_array_header_t *texts = apr_array_make(x->p, x->rcpts->nelts, sizeof(char *));
    int i;

    for (i = 0; i < x->rcpts->nelts; i++) {
        APR_ARRAY_PUSH(texts, const char *) = APR_ARRAY_IDX(x->rcpts, i, nssmtpd_rcpt_t).address;
    }
    return i == x->send->rcpts->nelts ? texts : x->send->rcpts;
}

/* The send log, the error log and the counters. */
static void tell(sending_t *x, const char *wrong)
{
    nssmtpd_send_t *send = x->send;
    int n = send->rcpts->nelts;

    x->entry.from = x->from ? x->from : send->from;
    x->entry.rcpts = rcpts_for_log(x);
    if (send->taken && x->entry.host) {
        x->entry.octets = x->message.length + x->message.dots;
    }
    nssmtpd_sendlog_write(x->p, x->s, &x->entry);
    nssmtpd_count(wrong ? NSSMTPD_COUNT_SEND_FAILED : NSSMTPD_COUNT_SENT, 1);
    if (wrong) {
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, x->r, "NS0066: %s: a script's mail from <%s> "
                      "was not sent: %s", x->id, x->entry.from, wrong);
    }
    else if (send->taken < n) {
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, x->r, "NS0069: %s: a script's mail from <%s> "
                      "was refused for %d of its %d recipients", x->id, x->from,
                      n - send->taken, n);
    }
    else {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, x->r, "NS0065: %s: a script's mail from <%s> to "
                      "%d recipients was taken, at %s: %s", x->id, x->from, n,
                      send->phase, smtp_reply_line(x->p, send->reply));
    }
}

static sending_t *start(request_rec *r, server_rec *s, nssmtpd_send_t *send)
{
    apr_pool_t *p;
    sending_t *x;

    apr_pool_create(&p, r->pool);
    x = apr_pcalloc(p, sizeof(*x));
    x->r = r;
    x->s = s;
    x->send = send;
    x->p = p;
    x->id = nssmtpd_new_id(p);
    x->rcpts = apr_array_make(p, send->rcpts->nelts, sizeof(nssmtpd_rcpt_t));
    x->groups = apr_array_make(p, 2, sizeof(group_t));
    x->entry.started = apr_time_now();
    x->entry.outcome = "SETUP_FAILURE";
    send->reply = NULL;
    send->phase = "arguments";
    send->results = apr_array_make(r->pool, send->rcpts->nelts, sizeof(nssmtpd_sent_t));
    send->taken = 0;
    return x;
}

const char *nssmtpd_send(request_rec *r, server_rec *s, nssmtpd_send_t *send)
{
    sending_t *x = start(r, s, send);
    const char *wrong = check(x);

    if (!wrong) {
        send_all(x);
        if (!send->taken) {
            wrong = apr_psprintf(r->pool, "nobody has taken the mail; at %s: %s", send->phase,
                                 smtp_reply_line(x->p, send->reply));
        }
    }
    tell(x, wrong);
    apr_pool_destroy(x->p);
    return wrong;
}
