/* Spam and viruses for scripts: messages and data that a script has in hand, put to the scanners
 * of the host that it means. What SmtpdScanner lets follow from a verdict (action=, onerror=) is
 * for mail on its way; a script is told the verdict, or that there is none. Blocks like a scan.
 */
#include <apr_strings.h>
#include <string.h>

#include "lua/library.h"
#include "lua/requests.h"
#include "lua/values.h"
#include "mod_nssmtpd.h"
#include "smtp/lines.h"

/* What each function begins with; its memory goes with the guard. */
typedef struct question_t {
    nssmtpd_scan_job_t job;
    int guard;
} question_t;

static const char *check_scanner(const server_rec *s, apr_uint32_t kind)
{
    if (nssmtpd_scan_kinds(s) & kind) {
        return NULL;
    }
    return kind == NSSMTPD_FLAG_SPAMCHECK ? "no spam scanner is configured (SmtpdScanner)"
                                          : "no virus scanner is configured (SmtpdScanner)";
}

/* Returns what stands in the way, or NULL. */
static const char *open_question(lua_State *L, question_t *q, apr_uint32_t kind)
{
    request_rec *r = nssmtpd_requests_current(L);
    const char *why = NULL;
    server_rec *s = nssmtpd_requests_host(L, &why);

    if (!s) {
        return why ? why : "there is no SMTP host";
    }
    memset(q, 0, sizeof(*q));
    q->job.p = nssmtpd_values_pool(L);
    q->guard = lua_gettop(L);
    q->job.s = s;
    q->job.r = r;
    q->job.id = nssmtpd_new_id(q->job.p);
    q->job.from = q->job.helo = "";
    q->job.client = r->useragent_ip ? r->useragent_ip : "";
    q->job.user = r->user ? r->user : "";
    q->job.rcpts = apr_array_make(q->job.p, 1, sizeof(nssmtpd_rcpt_t));
    return check_scanner(s, kind);
}

static int close_question(lua_State *L, const question_t *q, int results)
{
    nssmtpd_values_drop(L, q->guard);
    return results;
}

static int fail_question(lua_State *L, const question_t *q, const char *why)
{
    nssmtpd_values_fail(L, why);
    return q->guard ? close_question(L, q, 2) : 2;
}

/* A script's message may have LF; scanners see what would be sent, which may be longer. */
static smtp_span_t make_canonical(apr_pool_t *p, smtp_span_t text)
{
    const char *at = text.p, *end = text.p + text.n;
    char *copy = apr_palloc(p, 2 * text.n + 2);
    smtp_lines_t lines;
    smtp_span_t run, out = { copy, 0 };

    smtp_lines_init(&lines);
    while (at < end) {
        smtp_lines_next(&lines, &at, end, &run);
        memcpy(copy + out.n, run.p, run.n);
        out.n += run.n;
    }
    run = smtp_lines_end(&lines);
    memcpy(copy + out.n, run.p, run.n);
    out.n += run.n;
    return out;
}

/* The one whose settings and whose training are meant. */
static const char *set_rcpt(nssmtpd_scan_job_t *job, const char *text)
{
    const char *at = text;
    smtp_address_t address;

    if (smtp_address_parse(&address, &at, text + strlen(text)) != SMTP_OK || *at) {
        return "this is no address";
    }
    APR_ARRAY_PUSH((apr_array_header_t *)job->rcpts, nssmtpd_rcpt_t) =
        nssmtpd_rcpt_make(job->p, &address);
    return NULL;
}

/* Of several scanners one that found something is enough; all must have looked to find nothing. */
static const char *unknown(const nssmtpd_scanned_t *found)
{
    return found->failed ? found->failed : found->reply ? found->reply->text : NULL;
}

int nssmtpd_scan_api_checkspam(lua_State *L)
{
    size_t n;
    const char *text = luaL_checklstring(L, 1, &n), *why;
    const char *email = lua_isnoneornil(L, 2) ? "" : nssmtpd_values_text(L, 2);
    nssmtpd_scanned_t found;
    question_t q = { { 0 }, 0 };

    if (!email) {
        return nssmtpd_values_fail(L, NSSMTPD_VALUES_NUL);
    }
    why = open_question(L, &q, NSSMTPD_FLAG_SPAMCHECK);
    if (!why && *email) {
        why = set_rcpt(&q.job, email);
    }
    if (why) {
        return fail_question(L, &q, why);
    }
    q.job.message = make_canonical(q.job.p, (smtp_span_t){ text, n });
    nssmtpd_scan(&q.job, NSSMTPD_FLAG_SPAMCHECK, 0, &found);
    if (!found.is_spam && (why = unknown(&found))) {
        return fail_question(L, &q, why);
    }
    lua_pushstring(L, found.is_spam ? "Spam" : "Innocent");
    lua_pushnumber(L, found.has_score ? found.score : 0);
    lua_pushstring(L, found.signature); /* or nil */
    return close_question(L, &q, 3);
}

static int begins_with_name(const char *at, const char *end)
{
    const char *name = at;

    while (at < end && smtp_char_is(*at, SMTP_CHAR_FTEXT)) {
        at++;
    }
    return at > name && at < end && *at == ':';
}

/* Lines of a header up to an empty one: a mail, whose parts are looked into. What else a script
 * has, an attachment's data for example, is known by its own first octets. */
static int is_mail(smtp_span_t data)
{
    const char *line = data.p, *end = data.p + data.n, *next;

    while ((next = memchr(line, '\n', end - line))) {
        if (next == line || (next == line + 1 && *line == '\r')) {
            return line > data.p;
        }
        if (!begins_with_name(line, next)
            && (line == data.p || (*line != ' ' && *line != '\t'))) {
            return 0;
        }
        line = next + 1;
    }
    return 0;
}

int nssmtpd_scan_api_checkvirus(lua_State *L)
{
    nssmtpd_scanned_t found;
    question_t q = { { 0 }, 0 };
    const char *why;
    smtp_span_t data;

    data.p = luaL_checklstring(L, 1, &data.n);
    why = open_question(L, &q, NSSMTPD_FLAG_VIRUSCHECK);
    if (why) {
        return fail_question(L, &q, why);
    }
    q.job.message = data;
    q.job.is_file = data.n > 0 && !is_mail(data);
    nssmtpd_scan(&q.job, NSSMTPD_FLAG_VIRUSCHECK, 0, &found);
    if (!found.virus && (why = unknown(&found))) {
        return fail_question(L, &q, why);
    }
    lua_pushstring(L, found.virus ? found.virus : "");
    return close_question(L, &q, 1);
}

/* Signature, mode and source are DSPAM's; they are checked and nobody needs them yet. */
int nssmtpd_scan_api_trainspam(lua_State *L)
{
    lua_Integer is_spam = luaL_checkinteger(L, 1);
    const char *email = nssmtpd_values_text(L, 2), *why;
    question_t q = { { 0 }, 0 };
    smtp_span_t text;
    int arg;

    text.p = luaL_checklstring(L, 3, &text.n);
    for (arg = 4; arg <= 6; arg++) {
        luaL_optstring(L, arg, NULL);
    }
    if (!email || (is_spam != 0 && is_spam != 1)) {
        return nssmtpd_values_fail(L, email ? "it is 1 for spam or 0 for none"
                                            : NSSMTPD_VALUES_NUL);
    }
    why = open_question(L, &q, NSSMTPD_FLAG_SPAMCHECK);
    if (!why && !(why = set_rcpt(&q.job, email))) {
        q.job.message = make_canonical(q.job.p, text);
        why = nssmtpd_scan_train(&q.job, (int)is_spam);
    }
    if (why) {
        return fail_question(L, &q, why);
    }
    nssmtpd_values_done(L, NULL);
    return close_question(L, &q, 1);
}

static int tell_version(lua_State *L, apr_uint32_t kind)
{
    question_t q = { { 0 }, 0 };
    const char *version, *why = open_question(L, &q, kind);

    if (why) {
        return fail_question(L, &q, why);
    }
    version = nssmtpd_scan_version(q.job.s, kind, q.job.p, &why);
    if (!version) {
        return fail_question(L, &q, why ? why : "no scanner says its version");
    }
    lua_pushstring(L, version);
    return close_question(L, &q, 1);
}

int nssmtpd_scan_api_spamversion(lua_State *L)
{
    return tell_version(L, NSSMTPD_FLAG_SPAMCHECK);
}

int nssmtpd_scan_api_virusversion(lua_State *L)
{
    return tell_version(L, NSSMTPD_FLAG_VIRUSCHECK);
}
