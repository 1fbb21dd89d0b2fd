/* The server dialogue: assembles command lines, keeps the order of commands and the
 * state, and hands message data through the dot automaton. RFC 5321 2.3.8, 4.1.4.
 * What a verb means is verbs.c's; what is decided outside comes back by
 * smtp_dialogue_answer(). Called by the SMTP server in httpd, its tests and fuzzers.
 */
#include "smtp/dialogue.h"

#include <apr_strings.h>
#include <string.h>

#include "smtp/limits.h"
#include "smtp/verbs.h"

/* Commands that bring no mail nearer, before each further one is an error: enough for
 * any client that keeps its connection warm, an end to one that only does that. */
#define IDLE_COMMANDS_MAX 100

static void put(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    smtp_reply_put(d->out, reply);
    d->last_code = (short)reply->code;
    d->last = reply;
    if (reply->code == 421 || reply->code == 221) {
        d->state = SMTP_STATE_CLOSED;
    }
}

/* Every refusal counts but the one that clients are told to expect, and the last word. */
static int is_error(const smtp_reply_t *reply)
{
    return reply->code >= 400 && reply->code != 421 && strcmp(reply->enhanced, "4.5.3") != 0;
}

static void put_counted(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    if (is_error(reply) && ++d->errors > d->offer->max_errors) {
        reply = smtp_reply(SMTP_REPLY_TOO_MANY_ERRORS);
    }
    put(d, reply);
}

/* The third wrong password of a session is its last. */
static void put_auth(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    enum { FAILURES_MAX = 3 };

    put_counted(d, reply);
    if (reply->code == 535 && ++d->auth_failures == FAILURES_MAX
        && d->state != SMTP_STATE_CLOSED) {
        put(d, smtp_reply(SMTP_REPLY_TOO_MANY_FAILURES));
    }
}

void smtp_dialogue_greet(smtp_dialogue_t *d, const smtp_offer_t *offer, apr_bucket_brigade *out,
                         const smtp_reply_t *reply)
{
    char text[SMTP_DOMAIN_MAX + 8];
    smtp_reply_t greeting = { 220, "", text };

    d->offer = offer;
    d->out = out;
    d->state = d->need_helo ? SMTP_STATE_NEW : SMTP_STATE_READY;
    apr_snprintf(text, sizeof(text), "%s ESMTP", offer->hostname);
    if (reply && smtp_reply_is_positive(reply)) {
        greeting.text = reply->text;
    }
    else if (reply) {
        greeting = *reply;
        greeting.code = reply->code >= 500 ? 554 : 421;
        d->state = SMTP_STATE_BARRED;
    }
    put(d, &greeting);
    d->last = NULL; /* it was this function's */
}

void smtp_dialogue_close(smtp_dialogue_t *d, smtp_reply_e reply)
{
    d->event = SMTP_EVENT_MORE;
    put(d, smtp_reply(reply));
    d->state = SMTP_STATE_CLOSED;
}

/* Commands */

static const smtp_reply_t *out_of_order(const smtp_dialogue_t *d)
{
    switch (d->state) {
    case SMTP_STATE_NEW:
        return smtp_reply(SMTP_REPLY_NEED_HELO);
    case SMTP_STATE_READY:
        return smtp_reply(SMTP_REPLY_NEED_MAIL);
    case SMTP_STATE_BARRED:
        return smtp_reply(SMTP_REPLY_BARRED);
    default:
        if (!smtp_dialogue_is_verb(d, "DATA")) {
            return smtp_reply(SMTP_REPLY_NESTED_MAIL);
        }
        return smtp_reply(d->state == SMTP_STATE_MAIL ? SMTP_REPLY_NEED_RCPT
                                                      : SMTP_REPLY_NO_VALID_RCPT);
    }
}

static int is_auth_line(const smtp_dialogue_t *d, const char *line, apr_size_t n)
{
    return d->sasl.mechanism || (n >= 5 && smtp_span_is((smtp_span_t){ line, 5 }, "AUTH "));
}

/* RFC 4954 4: responses, and AUTH with a first one, are longer than other commands. */
static apr_size_t line_max(const smtp_dialogue_t *d, const char *line, apr_size_t n)
{
    apr_size_t max = d->offer->max_line;

    return d->can_auth && max < SMTP_AUTH_LINE_MAX && is_auth_line(d, line, n)
               ? SMTP_AUTH_LINE_MAX
               : max;
}

/* Of a line that is too long the beginning is there. A browser must not get past its
 * first line by asking for a long path. */
static const smtp_reply_t *run_long_command(smtp_dialogue_t *d, smtp_span_t line)
{
    const smtp_verb_t *verb;
    smtp_command_t cmd;

    smtp_command_parse(&cmd, (smtp_span_t){ line.p, d->offer->max_line });
    verb = smtp_verbs_find(cmd.verb);
    if (!verb || !(verb->flags & SMTP_VERB_FATAL)) {
        return smtp_reply(is_auth_line(d, line.p, line.n) ? SMTP_REPLY_AUTH_LINE_TOO_LONG
                                                          : SMTP_REPLY_LINE_TOO_LONG);
    }
    d->verb = verb;
    return verb->handler(d);
}

/* The reply that needs no decision from outside, or NULL. */
static const smtp_reply_t *run_command(smtp_dialogue_t *d, smtp_span_t line)
{
    smtp_command_t cmd;

    d->verb = NULL;
    d->argument = (smtp_span_t){ line.p, 0 };
    if (line.n > line_max(d, line.p, line.n)) {
        return run_long_command(d, line);
    }
    if (smtp_command_parse(&cmd, line) != SMTP_OK) {
        return smtp_reply(SMTP_REPLY_BAD_OCTET);
    }
    d->argument = cmd.args;
    if (!(d->verb = smtp_verbs_find(cmd.verb))) {
        return smtp_reply(d->state == SMTP_STATE_BARRED ? SMTP_REPLY_BARRED
                                                        : SMTP_REPLY_UNKNOWN_COMMAND);
    }
    if (d->need_tls && !d->has_tls && !(d->verb->flags & SMTP_VERB_CLEAR)) {
        return smtp_reply(SMTP_REPLY_NEED_TLS);
    }
    if (!(d->verb->states & d->state)) {
        return out_of_order(d);
    }
    if ((d->verb->flags & SMTP_VERB_BARE) && cmd.args.n) {
        return smtp_reply(SMTP_REPLY_NO_ARGUMENT);
    }
    if ((d->verb->flags & SMTP_VERB_IDLE) && ++d->idle_commands > IDLE_COMMANDS_MAX
        && ++d->errors > d->offer->max_errors) {
        return smtp_reply(SMTP_REPLY_TOO_MANY_COMMANDS);
    }
    if ((d->verb->flags & SMTP_VERB_ASCII) && !smtp_span_is_ascii(cmd.args)) { /* RFC 5321 2.4 */
        return smtp_reply(SMTP_REPLY_BAD_OCTET);
    }
    return d->verb->handler(d);
}

/* A line of an AUTH exchange; what it says goes nowhere but to the exchange. */
static const smtp_reply_t *run_response(smtp_dialogue_t *d, smtp_span_t line)
{
    const smtp_reply_t *reply;

    d->argument = (smtp_span_t){ line.p, 0 };
    if (line.n > SMTP_AUTH_LINE_MAX) {
        smtp_sasl_end(&d->sasl);
        return smtp_reply(SMTP_REPLY_AUTH_LINE_TOO_LONG);
    }
    if (!(reply = smtp_sasl_respond(&d->sasl, line, d->out->bucket_alloc))) {
        d->event = SMTP_EVENT_AUTH;
    }
    return reply;
}

static smtp_event_e take_command(smtp_dialogue_t *d, smtp_span_t line)
{
    const smtp_reply_t *reply = d->sasl.mechanism ? run_response(d, line) : run_command(d, line);

    if (reply) {
        put_auth(d, reply);
    }
    return d->event == SMTP_EVENT_MORE ? SMTP_EVENT_COMMAND : (smtp_event_e)d->event;
}

/* Lines */

static void free_line(smtp_dialogue_t *d)
{
    if (d->line) {
        explicit_bzero(d->line, d->line_len); /* it may hold a password */
        apr_bucket_free(d->line);
    }
    d->line = NULL;
    d->line_len = d->line_size = 0;
    d->line_done = 0;
}

/* Memory for the line in hand, of which n more octets come; returns its size. An AUTH line
 * shows itself by its first octets only. */
static apr_size_t grow_line(smtp_dialogue_t *d, const char *data, apr_size_t n)
{
    char head[5], *line;
    apr_size_t had = d->line_len < sizeof(head) ? d->line_len : sizeof(head);
    apr_size_t more = n < sizeof(head) - had ? n : sizeof(head) - had;
    apr_size_t size;

    if (had) {
        memcpy(head, d->line, had);
    }
    memcpy(head + had, data, more);
    size = line_max(d, head, had + more) + 2;

    if (d->line && d->line_size >= size) {
        return d->line_size;
    }
    line = apr_bucket_alloc(size, d->out->bucket_alloc);
    if (d->line) {
        memcpy(line, d->line, d->line_len);
        apr_bucket_free(d->line);
    }
    d->line = line;
    d->line_size = size;
    return size;
}

/* Keeps a part of a line until the rest comes. One octet beyond the longest line and
 * its CR suffices to know that it is too long; behind that only the last one matters. */
static void keep(smtp_dialogue_t *d, const char *data, apr_size_t n)
{
    apr_size_t size, fits;

    if (!n) {
        return;
    }
    size = grow_line(d, data, n);
    fits = n < size - d->line_len ? n : size - d->line_len;
    memcpy(d->line + d->line_len, data, fits);
    d->line_len += fits;
    if (fits < n) {
        d->line[size - 1] = data[n - 1];
    }
}

/* 1 if the LF at lf ends the line: a CR stands before it, here or in what was kept. */
static int ends_line(const smtp_dialogue_t *d, const char *start, const char *lf)
{
    if (lf > start) {
        return lf[-1] == '\r';
    }
    return d->line_len && d->line[d->line_len - 1] == '\r';
}

/* Cuts the next line at *at; 0: it is not complete yet, and what there is was kept. */
static int next_line(smtp_dialogue_t *d, const char **at, const char *end, smtp_span_t *line)
{
    const char *start = *at, *lf = start;

    for (; (lf = memchr(lf, '\n', end - lf)); lf++) {
        if (ends_line(d, start, lf)) {
            break;
        }
    }
    if (!lf) {
        keep(d, start, end - start);
        *at = end;
        return 0;
    }
    *at = lf + 1;
    if (!d->line) {
        line->p = start;
        line->n = lf - start - 1;
        return 1;
    }
    keep(d, start, lf - start);
    d->line_done = 1;
    line->p = d->line;
    line->n = d->line_len - 1;
    return 1;
}

static smtp_event_e next_command(smtp_dialogue_t *d, const char **at, const char *end)
{
    smtp_span_t line;

    return next_line(d, at, end, &line) ? take_command(d, line) : SMTP_EVENT_MORE;
}

/* Message data */

static smtp_event_e next_content(smtp_dialogue_t *d, const char **at, const char *end)
{
    do {
        if (smtp_dot_next(&d->dot, at, end, &d->content) == SMTP_OK) {
            d->event = SMTP_EVENT_END;
            break;
        }
    } while (d->content.n == 0 && *at < end);
    if (d->content.n) {
        return SMTP_EVENT_CONTENT;
    }
    return (smtp_event_e)d->event;
}

smtp_event_e smtp_dialogue_next(smtp_dialogue_t *d, const char **at, const char *end)
{
    if (d->state == SMTP_STATE_CLOSED) {
        return SMTP_EVENT_CLOSE;
    }
    if (d->event != SMTP_EVENT_MORE) { /* the end behind the last content */
        return (smtp_event_e)d->event;
    }
    if (d->line_done) {
        free_line(d); /* nothing of it is used any more: an idle session holds no line */
    }
    if (*at == end) {
        return SMTP_EVENT_MORE;
    }
    if (d->state == SMTP_STATE_DATA) {
        return next_content(d, at, end);
    }
    return next_command(d, at, end);
}

/* Answers */

static void free_helo(smtp_dialogue_t *d)
{
    if (d->helo) {
        apr_bucket_free(d->helo);
    }
    d->helo = NULL;
}

static void keep_helo(smtp_dialogue_t *d)
{
    free_helo(d);
    d->helo = apr_bucket_alloc(d->argument.n + 1, d->out->bucket_alloc);
    memcpy(d->helo, d->argument.p, d->argument.n);
    d->helo[d->argument.n] = '\0';
}

static void answer_helo(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    if (reply && !smtp_reply_is_positive(reply)) {
        put_counted(d, reply);
        return;
    }
    keep_helo(d);
    d->extended = smtp_dialogue_is_verb(d, "EHLO");
    d->state = SMTP_STATE_READY; /* RFC 5321 4.1.4: as if RSET had been said */
    if (reply && !d->extended) {
        put(d, reply);
        return;
    }
    smtp_verbs_put_capabilities(d, reply);
    d->last_code = 250;
}

/* 220 was said: TLS begins behind it. Anything else leaves all as it was. */
static void answer_starttls(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    if (!reply) {
        smtp_reply_put(d->out, smtp_reply(SMTP_REPLY_START_TLS));
        d->state = SMTP_STATE_NEW;
        return;
    }
    put_counted(d, reply);
}

static void answer_auth(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    reply = smtp_sasl_answer(&d->sasl, reply);
    d->authenticated = smtp_reply_is_positive(reply);
    put_auth(d, reply);
}

static void answer_mail(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    reply = reply ? reply : smtp_reply(SMTP_REPLY_SENDER_OK);
    if (smtp_reply_is_positive(reply)) {
        d->state = SMTP_STATE_MAIL;
        d->rcpts = d->rcpt_commands = 0;
    }
    put_counted(d, reply);
}

static void answer_rcpt(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    reply = reply ? reply : smtp_reply(SMTP_REPLY_RECIPIENT_OK);
    if (smtp_reply_is_positive(reply)) {
        d->state = SMTP_STATE_RCPT;
        d->rcpts++;
    }
    else if (d->state == SMTP_STATE_MAIL) {
        d->state = SMTP_STATE_REFUSED;
    }
    put_counted(d, reply);
}

static void answer_data(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    reply = reply ? reply : smtp_reply(SMTP_REPLY_START_DATA);
    if (smtp_reply_is_positive(reply)) {
        d->state = SMTP_STATE_DATA;
        smtp_dot_init(&d->dot, d->normalize);
    }
    else {
        d->state = SMTP_STATE_READY;
    }
    put_counted(d, reply);
}

static void answer_end(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    reply = reply ? reply : smtp_reply(SMTP_REPLY_ACCEPTED);
    d->state = SMTP_STATE_READY;
    if (smtp_reply_is_positive(reply)) {
        d->errors = d->idle_commands = 0;
    }
    d->errors += is_error(reply); /* but what is said of a mail is always said */
    put(d, reply);
}

static void (*const answers[])(smtp_dialogue_t *d, const smtp_reply_t *reply) = {
    [SMTP_EVENT_HELO] = answer_helo,
    [SMTP_EVENT_STARTTLS] = answer_starttls,
    [SMTP_EVENT_AUTH] = answer_auth,
    [SMTP_EVENT_MAIL] = answer_mail,
    [SMTP_EVENT_RCPT] = answer_rcpt,
    [SMTP_EVENT_DATA] = answer_data,
    [SMTP_EVENT_END] = answer_end
};

void smtp_dialogue_answer(smtp_dialogue_t *d, const smtp_reply_t *reply)
{
    int event = d->event;

    d->event = SMTP_EVENT_MORE;
    answers[event](d, reply);
}

void smtp_dialogue_restart(smtp_dialogue_t *d, const smtp_offer_t *offer)
{
    smtp_dialogue_end(d);
    d->offer = offer;
    d->state = SMTP_STATE_NEW;
    d->extended = d->authenticated = 0;
}

void smtp_dialogue_end(smtp_dialogue_t *d)
{
    free_line(d);
    free_helo(d);
    smtp_sasl_end(&d->sasl);
}

int smtp_dialogue_ends_in_quit(const char *data, apr_size_t n)
{
    static const char quit[] = "QUIT\r\n";
    const smtp_span_t tail = { data + n - (n < 6 ? n : 6), n < 6 ? n : 6 };

    return smtp_span_is(tail, quit) && (n == 6 || (n > 7 && memcmp(data + n - 8, "\r\n", 2) == 0));
}
