/* Scanner "rspamd": rspamd's worker over HTTP, POST /checkv2 with the envelope in header fields
 * and the message as the body, and its controller for learning. What the answer says of the
 * message is rspamdresult.c's. Called by scan.c.
 */
#include <apr_env.h>
#include <apr_file_io.h>
#include <apr_strings.h>
#include <string.h>

#include "filters/http.h"
#include "filters/peer.h"
#include "filters/builtin.h"
#include "filters/rspamdresult.h"
#include "filters/trace.h"
#include "filters/username.h"

#define DEFAULT_ADDRESS "127.0.0.1"

enum {
    PORT = 11333,
    CONTROLLER_PORT = 11334,
    PIECES = 2,             /* of a question: head, message */
    VALUE_MAX = 1024,       /* octets of a field's value */
    RCPTS_MAX = 48 * 1024,  /* octets of recipients; rspamd's parser takes heads of 80K */
    PASSWORD_MAX = 256,
    ALREADY_LEARNT = 208
};

typedef struct rspamd_t {
    const nssmtpd_peer_address_t *address, *controller;
    const char *password;   /* of the controller; NULL: it asks for none */
    nssmtpd_rspamdresult_wishes_t wishes;
} rspamd_t;

/* Configuration */

/* A password's words: "env:NAME", "file:PATH" or itself. It is in no message. */
static const char *read_password(apr_pool_t *p, const char *words, const char **password)
{
    char line[PASSWORD_MAX];
    apr_file_t *file;
    char *value;

    *password = words;
    if (strncmp(words, "env:", 4) == 0) {
        *password = apr_env_get(&value, words + 4, p) == APR_SUCCESS ? value : "";
    }
    else if (strncmp(words, "file:", 5) == 0) {
        *password = "";
        if (apr_file_open(&file, words + 5, APR_READ, APR_OS_DEFAULT, p) == APR_SUCCESS) {
            if (apr_file_gets(line, sizeof(line), file) == APR_SUCCESS) {
                line[strcspn(line, "\r\n")] = '\0';
                *password = apr_pstrdup(p, line);
            }
            apr_file_close(file);
        }
    }
    if (!**password || strlen(*password) >= PASSWORD_MAX || strpbrk(*password, "\r\n")) {
        return "password= is to be the controller's password, env:NAME or file:PATH, and not "
               "empty";
    }
    return NULL;
}

static const char *read_wish(const char *word, nssmtpd_verdict_e *wish)
{
    static const struct {
        const char *word;
        nssmtpd_verdict_e verdict;
    } rows[] = {
        { "reject", NSSMTPD_VERDICT_BAD },
        { "tag", NSSMTPD_VERDICT_TAG },
        { "accept", NSSMTPD_VERDICT_CLEAN }
    };
    apr_size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (strcasecmp(rows[i].word, word) == 0) {
            *wish = rows[i].verdict;
            return NULL;
        }
    }
    return "quarantine= and discard= are reject, tag or accept";
}

static const char *set_key(apr_pool_t *p, rspamd_t *rspamd, const char *word)
{
    const char *value = strchr(word, '=') + 1;

    if (strncasecmp(word, "controller=", value - word) == 0) {
        return nssmtpd_peer_parse(p, value, CONTROLLER_PORT, &rspamd->controller);
    }
    if (strncasecmp(word, "password=", value - word) == 0) {
        return read_password(p, value, &rspamd->password);
    }
    if (strncasecmp(word, "quarantine=", value - word) == 0) {
        return read_wish(value, &rspamd->wishes.quarantine);
    }
    if (strncasecmp(word, "discard=", value - word) == 0) {
        return read_wish(value, &rspamd->wishes.discard);
    }
    return apr_psprintf(p, "%.*s= is none of its keys", (int)(value - word - 1), word);
}

/* "host" as it stands in a URL. */
static const char *url_host(apr_pool_t *p, const nssmtpd_peer_address_t *address)
{
    return strchr(address->host, ':') ? apr_pstrcat(p, "[", address->host, "]", NULL)
                                      : address->host;
}

static const char *configure(nssmtpd_scan_conf_t *conf, server_rec *s, apr_pool_t *pconf,
                             apr_pool_t *ptemp)
{
    rspamd_t *rspamd = apr_pcalloc(pconf, sizeof(*rspamd));
    const char *wrong = nssmtpd_peer_parse(pconf, conf->address ? conf->address : DEFAULT_ADDRESS,
                                           PORT, &rspamd->address);
    int i;

    (void)s, (void)ptemp;
    conf->baton = rspamd;
    rspamd->wishes.quarantine = NSSMTPD_VERDICT_TAG;
    rspamd->wishes.discard = NSSMTPD_VERDICT_BAD;
    for (i = 0; !wrong && i < conf->params->nelts; i++) {
        wrong = set_key(pconf, rspamd, APR_ARRAY_IDX(conf->params, i, const char *));
    }
    if (!wrong && !rspamd->controller) {
        wrong = nssmtpd_peer_parse(pconf, url_host(pconf, rspamd->address), CONTROLLER_PORT,
                                   &rspamd->controller);
    }
    return wrong;
}

/* A question's head */

typedef struct head_t {
    apr_pool_t *p;
    apr_array_header_t *words; /* of const char * */
    apr_size_t length;
} head_t;

static void put(head_t *head, const char *text)
{
    APR_ARRAY_PUSH(head->words, const char *) = text;
    head->length += strlen(text);
}

/* A field; none if it has no value. */
static void put_field(head_t *head, const char *name, const char *value)
{
    if (value && *value) {
        put(head, name);
        put(head, ": ");
        put(head, nssmtpd_http_value(head->p, value, VALUE_MAX));
        put(head, "\r\n");
    }
}

static void put_path(head_t *head, const char *name, const char *path)
{
    put_field(head, name, apr_pstrcat(head->p, "<", path, ">", NULL));
}

static void begin(head_t *head, apr_pool_t *p, const char *method, const char *path,
                  const nssmtpd_peer_address_t *address)
{
    head->p = p;
    head->words = apr_array_make(p, 64, sizeof(const char *));
    head->length = 0;
    put(head, apr_pstrcat(p, method, " ", path, " HTTP/1.1\r\n", NULL));
    put_field(head, "Host", url_host(p, address));
    put_field(head, "Connection", "close");
}

static void put_envelope(head_t *head, const nssmtpd_scan_conf_t *conf,
                         const nssmtpd_scan_job_t *job)
{
    int i;

    put_field(head, "Queue-Id", job->id);
    put_field(head, "MTA-Name", nssmtpd_hostname(job->s));
    put_field(head, "IP", job->client);
    put_field(head, "Hostname", nssmtpd_trace_client_name(job));
    put_field(head, "Helo", job->helo);
    put_field(head, "User", job->user);
    put_field(head, "Deliver-To", nssmtpd_username_make(conf, job));
    if (*job->from || *job->client) { /* "<>" is a sender too, where there is a mail */
        put_path(head, "From", job->from);
    }
    for (i = 0; job->rcpts && i < job->rcpts->nelts && head->length < RCPTS_MAX; i++) {
        put_path(head, "Rcpt", APR_ARRAY_IDX(job->rcpts, i, nssmtpd_rcpt_t).address);
    }
}

static struct iovec piece(const char *text, apr_size_t n)
{
    return (struct iovec){ (void *)text, n };
}

/* Fills the pieces of a question: the head's end and the body. */
static void finish(head_t *head, smtp_span_t body, struct iovec pieces[PIECES])
{
    const char *text;

    put_field(head, "Content-Length", apr_psprintf(head->p, "%" APR_SIZE_T_FMT, body.n));
    put(head, "\r\n");
    text = apr_array_pstrcat(head->p, head->words, '\0');
    pieces[0] = piece(text, head->length);
    pieces[1] = piece(body.p, body.n);
}

/* Scanning */

static void start(nssmtpd_scan_t *scan)
{
    const rspamd_t *rspamd = scan->conf->baton;
    nssmtpd_peer_t *peer = apr_pcalloc(scan->p, sizeof(*peer));
    struct iovec pieces[PIECES];
    head_t head;

    scan->state = peer;
    begin(&head, scan->p, "POST", "/checkv2", rspamd->address);
    put_envelope(&head, scan->conf, scan->job);
    finish(&head, scan->job->message, pieces);
    nssmtpd_peer_start(peer, scan, rspamd->address, pieces, PIECES);
}

/* An answer that is not 200, in words. */
static const char *refusal(apr_pool_t *p, const nssmtpd_http_answer_t *answer)
{
    const char *error = nssmtpd_rspamdresult_error(p, answer->body);

    return apr_psprintf(p, "answered %d%s%s", answer->status, *error ? ": " : "", error);
}

static void judge(nssmtpd_scan_t *scan, const nssmtpd_http_answer_t *answer)
{
    const rspamd_t *rspamd = scan->conf->baton;
    const char *wrong;

    if (answer->status == HTTP_REQUEST_ENTITY_TOO_LARGE) {
        scan->verdict = NSSMTPD_VERDICT_TOO_LARGE;
        scan->why = "more than rspamd takes";
        return;
    }
    wrong = answer->status == HTTP_OK
                ? nssmtpd_rspamdresult_read(scan, answer->body, &rspamd->wishes)
                : refusal(scan->p, answer);
    if (wrong) {
        nssmtpd_peer_fail(scan, rspamd->address, wrong);
    }
}

/* Why an answer is none, NULL: it is whole. */
static const char *read_answer(apr_pool_t *p, smtp_span_t got, int is_over, int *is_whole,
                               nssmtpd_http_answer_t *answer)
{
    smtp_parse_e rc = nssmtpd_http_parse(p, got, is_over, answer);

    *is_whole = rc == SMTP_OK;
    if (rc == SMTP_BAD) {
        return "the answer is no HTTP";
    }
    if (rc == SMTP_MORE && is_over) {
        return got.n ? "closed the connection in the middle of the answer"
                     : "closed the connection without an answer";
    }
    return NULL;
}

static void step(nssmtpd_scan_t *scan)
{
    const rspamd_t *rspamd = scan->conf->baton;
    nssmtpd_peer_t *peer = scan->state;
    nssmtpd_http_answer_t answer = { 0 };
    const char *wrong;
    int is_whole;

    if (!nssmtpd_peer_step(peer, scan)) {
        return;
    }
    wrong = read_answer(scan->p, (smtp_span_t){ peer->answer, peer->length }, peer->is_over,
                        &is_whole, &answer);
    if (wrong) {
        nssmtpd_peer_fail(scan, rspamd->address, wrong);
    }
    else if (is_whole) {
        judge(scan, &answer);
        nssmtpd_peer_conclude(peer, scan);
    }
}

/* Version and learning, which may wait */

static const char *ask(const nssmtpd_scan_conf_t *conf, const nssmtpd_peer_address_t *address,
                       apr_pool_t *p, const struct iovec pieces[PIECES],
                       nssmtpd_http_answer_t *answer)
{
    smtp_span_t got;
    int is_whole;
    const char *why = nssmtpd_peer_ask(p, address, pieces, PIECES, conf->timeout, &got);

    if (why) {
        return why;
    }
    why = read_answer(p, got, 1, &is_whole, answer);
    return why ? apr_pstrcat(p, address->text, ": ", why, NULL) : NULL;
}

/* /ping costs nothing and asks for no password; who answers is in the field Server. */
static const char *version(const nssmtpd_scan_conf_t *conf, apr_pool_t *p, const char **why)
{
    static const char product[] = "rspamd/";
    const rspamd_t *rspamd = conf->baton;
    nssmtpd_http_answer_t answer = { 0 };
    struct iovec pieces[PIECES];
    head_t head;

    begin(&head, p, "GET", "/ping", rspamd->address);
    finish(&head, (smtp_span_t){ "", 0 }, pieces);
    *why = ask(conf, rspamd->address, p, pieces, &answer);
    if (!*why && (answer.status != HTTP_OK || answer.body.n < 4
                  || memcmp(answer.body.p, "pong", 4) != 0)) {
        *why = apr_pstrcat(p, rspamd->address->text, ": this is not rspamd", NULL);
    }
    if (*why) {
        return NULL;
    }
    smtp_chars_make_printable(answer.server, strlen(answer.server));
    return strncmp(answer.server, product, sizeof(product) - 1) == 0
               ? apr_pstrcat(p, "rspamd ", answer.server + sizeof(product) - 1, NULL)
               : "rspamd";
}

static const char *train(const nssmtpd_scan_conf_t *conf, const nssmtpd_scan_job_t *job,
                         int is_spam)
{
    const rspamd_t *rspamd = conf->baton;
    nssmtpd_http_answer_t answer = { 0 };
    struct iovec pieces[PIECES];
    const char *why;
    head_t head;

    begin(&head, job->p, "POST", is_spam ? "/learnspam" : "/learnham", rspamd->controller);
    put_envelope(&head, conf, job);
    put_field(&head, "Password", rspamd->password);
    finish(&head, job->message, pieces);
    why = ask(conf, rspamd->controller, job->p, pieces, &answer);
    if (!why && answer.status != HTTP_OK && answer.status != ALREADY_LEARNT) {
        why = apr_pstrcat(job->p, rspamd->controller->text, ": ", refusal(job->p, &answer), NULL);
    }
    return why;
}

const nssmtpd_scanner_t nssmtpd_rspamd_scanner = {
    .is_spam = 1,
    .configure = configure,
    .start = start,
    .step = step,
    .end = nssmtpd_peer_end,
    .version = version,
    .train = train
};
