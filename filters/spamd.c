/* SpamAssassin's spamd, protocol 1.5 as its spamd/PROTOCOL has it: a verb, fields and the message
 * go out, a status, fields and perhaps a body come back. SYMBOLS tells verdict, scores and rules
 * at once and leaves the message alone; TELL trains. No word of an answer is believed before
 * its form was checked. Called by scan.c.
 */
#include <apr_strings.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filters/peer.h"
#include "filters/builtin.h"
#include "filters/rules.h"
#include "filters/trace.h"
#include "filters/username.h"

#define DEFAULT_ADDRESS "127.0.0.1"

enum {
    DEFAULT_PORT = 783,
    PIECES = 3,       /* of a question: head, trace, message */
    HEAD_MAX = 8192,  /* octets of an answer's status and fields */
    PRODUCT_MAX = 120 /* octets of a version */
};

typedef struct answer_t {
    int code;           /* 0 is EX_OK; behind another there is nothing to read */
    char status[200];   /* its name, or what spamd says of it, as much as fits */
    char spam[64];      /* the field Spam; "": there is none */
    apr_int64_t length; /* of the body; -1: it goes on to the end */
    smtp_span_t body;
    int is_one_line;    /* no empty line stands behind its first one */
} answer_t;

typedef struct state_t {
    nssmtpd_peer_t peer;
} state_t;

/* Understanding an answer */

/* The lines before the empty one, as a string. There is none behind a failure, which is one
 * line, nor behind PONG. */
static smtp_parse_e take_head(smtp_span_t got, int is_over, char head[HEAD_MAX + 1],
                              answer_t *answer)
{
    const char *end = memmem(got.p, got.n, "\r\n\r\n", 4), *behind = end ? end + 4 : NULL;
    apr_size_t n;

    if (!end && is_over && (end = memchr(got.p, '\n', got.n))) {
        behind = end + 1;
        answer->is_one_line = 1;
    }
    n = end ? (apr_size_t)(end - got.p) : got.n;
    if (n > HEAD_MAX) {
        return SMTP_BAD;
    }
    if (!end) {
        return SMTP_MORE;
    }
    answer->body = (smtp_span_t){ behind, got.p + got.n - behind };
    memcpy(head, got.p, n);
    head[n] = '\0';
    return strlen(head) == n ? SMTP_OK : SMTP_BAD;
}

/* "SPAMD/1.1 0 EX_OK" */
static int read_status(const char *line, answer_t *answer)
{
    int at = 0;

    if (sscanf(line, "SPAMD/%*3u.%*3u %3d %n", &answer->code, &at) != 1 || !at || !line[at]) {
        return 0;
    }
    apr_cpystrn(answer->status, line + at, sizeof(answer->status));
    smtp_chars_make_printable(answer->status, strlen(answer->status));
    return 1;
}

static int read_length(const char *value, answer_t *answer)
{
    apr_size_t n = strspn(value, "0123456789");

    if (n == 0 || n > 8 || value[n]) {
        return 0;
    }
    answer->length = apr_atoi64(value);
    return answer->length <= NSSMTPD_PEER_ANSWER_MAX;
}

static int read_field(char *line, answer_t *answer)
{
    char *value = strchr(line, ':');

    if (!value) {
        return 0;
    }
    *value++ = '\0';
    value += strspn(value, " \t");
    if (strcasecmp(line, "Content-length") == 0) {
        return read_length(value, answer);
    }
    if (strcasecmp(line, "Spam") == 0) {
        apr_cpystrn(answer->spam, value, sizeof(answer->spam));
    }
    return 1;
}

static smtp_parse_e read_head(char *head, answer_t *answer)
{
    char *rest, *line = apr_strtok(head, "\r\n", &rest);

    if (!line || !read_status(line, answer)) {
        return SMTP_BAD;
    }
    answer->length = -1;
    while (answer->code == 0 && (line = apr_strtok(NULL, "\r\n", &rest))) {
        if (!read_field(line, answer)) {
            return SMTP_BAD;
        }
    }
    return SMTP_OK;
}

/* SMTP_OK: it is whole; SMTP_MORE: not yet. */
static smtp_parse_e read_answer(smtp_span_t got, int is_over, answer_t *answer)
{
    char head[HEAD_MAX + 1];
    smtp_parse_e rc = take_head(got, is_over, head, answer);

    if (rc == SMTP_OK) {
        rc = read_head(head, answer);
    }
    if (rc != SMTP_OK || answer->code != 0) {
        return rc;
    }
    if (answer->is_one_line && answer->body.n) {
        return SMTP_MORE;
    }
    if (answer->length < 0) {
        return is_over ? SMTP_OK : SMTP_MORE;
    }
    if ((apr_int64_t)answer->body.n < answer->length) {
        return SMTP_MORE;
    }
    answer->body.n = answer->length;
    return SMTP_OK;
}

/* A number as spamd writes it: no hexadecimal, no infinity, nothing behind it. */
static int read_number(const char *text, double *number)
{
    char *end;

    *number = strtod(text, &end);
    return end > text && !*end;
}

/* "True ; 7.4 / 5.0" */
static int read_spam(const char *value, int *is_spam, double *score, double *threshold)
{
    char word[8], first[16], second[16];
    int at = 0;

    if (sscanf(value, "%7[A-Za-z] ; %15[0-9.-] / %15[0-9.-] %n", word, first, second, &at) != 3
        || !at || value[at] || !read_number(first, score) || !read_number(second, threshold)) {
        return 0;
    }
    *is_spam = strcasecmp(word, "True") == 0 || strcasecmp(word, "Yes") == 0;
    return *is_spam || strcasecmp(word, "False") == 0 || strcasecmp(word, "No") == 0;
}

static const char *read_rules(apr_pool_t *p, smtp_span_t body)
{
    nssmtpd_rules_t rules = { .n = 0 };
    const char *at = body.p, *end = body.p + body.n;

    while (at < end) {
        const char *name = at;

        while (at < end && !strchr(",\r\n", *at)) {
            at++;
        }
        nssmtpd_rules_add(&rules, name, at - name);
        at++;
    }
    return nssmtpd_rules_text(&rules, p);
}

/* Asking */

static const char *configure(nssmtpd_scan_conf_t *conf, server_rec *s, apr_pool_t *pconf,
                             apr_pool_t *ptemp)
{
    const nssmtpd_peer_address_t *address;
    const char *wrong;

    (void)s;
    if (conf->params->nelts) {
        const char *word = APR_ARRAY_IDX(conf->params, 0, const char *);

        return apr_psprintf(ptemp, "%.*s= is none of its keys", (int)strcspn(word, "="), word);
    }
    wrong = nssmtpd_peer_parse(pconf, conf->address ? conf->address : DEFAULT_ADDRESS,
                               DEFAULT_PORT, &address);
    conf->baton = (void *)address;
    return wrong;
}

static struct iovec piece(const char *text, apr_size_t n)
{
    return (struct iovec){ (void *)text, n };
}

/* Fills the pieces of a question about a message; fields end in CRLF. */
static void ask_about(struct iovec *pieces, const nssmtpd_scan_conf_t *conf,
                      const nssmtpd_scan_job_t *job, const char *verb, const char *fields)
{
    const char *trace = nssmtpd_trace_make(job), *user = nssmtpd_username_make(conf, job), *head;
    apr_size_t traced = strlen(trace);

    head = apr_psprintf(job->p,
                        "%s SPAMC/1.5\r\nContent-length: %" APR_SIZE_T_FMT "\r\n%s%s%s%s\r\n", verb,
                        traced + job->message.n, user ? "User: " : "", user ? user : "",
                        user ? "\r\n" : "", fields);
    pieces[0] = piece(head, strlen(head));
    pieces[1] = piece(trace, traced);
    pieces[2] = piece(job->message.p, job->message.n);
}

static void start(nssmtpd_scan_t *scan)
{
    state_t *state = apr_pcalloc(scan->p, sizeof(*state));
    struct iovec pieces[PIECES];

    scan->state = state;
    ask_about(pieces, scan->conf, scan->job, "SYMBOLS", "");
    nssmtpd_peer_start(&state->peer, scan, scan->conf->baton, pieces, PIECES);
}

static void judge(nssmtpd_scan_t *scan, const answer_t *answer)
{
    int is_spam;

    if (answer->code != 0) {
        nssmtpd_peer_fail(scan, scan->conf->baton, answer->status);
        return;
    }
    if (!read_spam(answer->spam, &is_spam, &scan->score, &scan->threshold)) {
        nssmtpd_peer_fail(scan, scan->conf->baton, "the answer has no verdict");
        return;
    }
    scan->verdict = is_spam ? NSSMTPD_VERDICT_BAD : NSSMTPD_VERDICT_CLEAN;
    scan->found = read_rules(scan->p, answer->body);
}

static void step(nssmtpd_scan_t *scan)
{
    nssmtpd_peer_t *peer = &((state_t *)scan->state)->peer;
    answer_t answer = { 0 };

    if (!nssmtpd_peer_step(peer, scan)) {
        return;
    }
    switch (read_answer((smtp_span_t){ peer->answer, peer->length }, peer->is_over,
                        &answer)) {
    case SMTP_OK:
        judge(scan, &answer);
        nssmtpd_peer_conclude(peer, scan);
        break;
    case SMTP_BAD:
        nssmtpd_peer_fail(scan, scan->conf->baton, "the answer is not spamd's");
        break;
    case SMTP_MORE:
        if (peer->is_over) {
            nssmtpd_peer_fail(scan, scan->conf->baton,
                              peer->length ? "closed the connection in the middle of the answer"
                                           : "closed the connection without an answer");
        }
    }
}

/* Version and training, which may wait */

static const char *ask(const nssmtpd_scan_conf_t *conf, apr_pool_t *p, const struct iovec *pieces,
                       int count, answer_t *answer)
{
    const nssmtpd_peer_address_t *address = conf->baton;
    smtp_span_t got;
    const char *why = nssmtpd_peer_ask(p, address, pieces, count, conf->timeout, &got);

    if (why) {
        return why;
    }
    *answer = (answer_t){ 0 };
    if (read_answer(got, 1, answer) != SMTP_OK) {
        return apr_pstrcat(p, address->text, ": the answer is not spamd's", NULL);
    }
    return answer->code ? apr_pstrcat(p, address->text, ": ", answer->status, NULL) : NULL;
}

/* "X-Spam-Checker-Version: SpamAssassin 4.0.1 (2024-03-25) on host", which an administrator may
 * have taken out; the protocol itself knows no product. */
static const char *product(apr_pool_t *p, smtp_span_t body)
{
    static const char field[] = "X-Spam-Checker-Version: ";
    const char *at = body.n ? memmem(body.p, body.n, field, sizeof(field) - 1) : NULL;
    char *text, *end;
    apr_size_t n;

    if (!at) {
        return "SpamAssassin";
    }
    at += sizeof(field) - 1;
    n = body.p + body.n - at;
    text = apr_pstrndup(p, at, n < PRODUCT_MAX ? n : PRODUCT_MAX);
    text[strcspn(text, "\r\n")] = '\0';
    end = strstr(text, " on ");
    if (end) {
        *end = '\0';
    }
    smtp_chars_make_printable(text, strlen(text));
    return text;
}

static const char *version(const nssmtpd_scan_conf_t *conf, apr_pool_t *p, const char **why)
{
    static const char ping[] = "PING SPAMC/1.5\r\n\r\n";
    static const char headers[] = "HEADERS SPAMC/1.5\r\nContent-length: 21\r\n\r\n"
                                  "Subject: version?\r\n\r\n";
    struct iovec question = piece(ping, sizeof(ping) - 1);
    answer_t answer = { 0 };

    *why = ask(conf, p, &question, 1, &answer);
    if (!*why && strcmp(answer.status, "PONG") != 0) {
        *why = "the answer to PING is not PONG";
    }
    if (!*why) {
        question = piece(headers, sizeof(headers) - 1);
        *why = ask(conf, p, &question, 1, &answer);
    }
    return *why ? NULL : product(p, answer.body);
}

static const char *train(const nssmtpd_scan_conf_t *conf, const nssmtpd_scan_job_t *job,
                         int is_spam)
{
    struct iovec pieces[PIECES];
    answer_t answer = { 0 };

    ask_about(pieces, conf, job, "TELL",
              is_spam ? "Message-class: spam\r\nSet: local\r\n"
                      : "Message-class: ham\r\nSet: local\r\n");
    return ask(conf, job->p, pieces, PIECES, &answer);
}

const nssmtpd_scanner_t nssmtpd_spamd_scanner = {
    .is_spam = 1,
    .configure = configure,
    .start = start,
    .step = step,
    .end = nssmtpd_peer_end,
    .version = version,
    .train = train
};
