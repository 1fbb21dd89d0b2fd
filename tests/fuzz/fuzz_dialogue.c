/* Fuzz target: a server session. The first six octets choose limits, answers and cuts, the
 * rest comes from a client. Fed whole, cut at random and octet by octet, the session must be the
 * same, and each of its steps must be in order by a model that knows only the answers given.
 * Covers smtp/dialogue.c, verbs.c and reply.c; whole sessions are in tests/dialogues.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <apr_general.h>

#include "smtp/dialogue.h"
#include "smtp/limits.h"

/* Not assert(): it must hold in a build with NDEBUG too. */
#define HOLDS(condition) ((condition) ? (void)0 : abort())

#define SETTINGS 6

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct session_t {
    apr_pool_t *p;
    apr_bucket_brigade *out;
    smtp_dialogue_t d;
    smtp_offer_t offer;
    uint32_t random;          /* for the answers; never for the cuts */
    char *seen;               /* replies, events and content, one behind the other */
    size_t seen_n, seen_size;
    int accepted;             /* recipients; -1: there is no transaction */
    int in_data, over;
    int authenticated, auth_failures;
} session_t;

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 16;
}

static void see(session_t *s, const char *p, size_t n)
{
    if (s->seen_n + n > s->seen_size) {
        s->seen_size = 2 * (s->seen_n + n);
        s->seen = realloc(s->seen, s->seen_size);
        HOLDS(s->seen);
    }
    if (n) {
        memcpy(s->seen + s->seen_n, p, n);
    }
    s->seen_n += n;
}

static void see_span(session_t *s, smtp_span_t span)
{
    see(s, "<", 1);
    see(s, span.p, span.n);
    see(s, ">", 1);
}

/* One line of a reply, maybe of the last one that was said; returns 1 if it is the last one of its reply. */
static int check_line(const session_t *s, const char *line, size_t n, int is_last)
{
    const char *at = line;

    HOLDS(n >= 6 && n <= SMTP_REPLY_LINE_MAX);
    HOLDS(smtp_chars_skip(&at, line + n - 2, SMTP_CHAR_TEXT) == n - 2);
    HOLDS(memcmp(at, "\r\n", 2) == 0);
    HOLDS(!is_last || strtol(line, NULL, 10) == s->d.last_code);
    HOLDS(line[3] == '-' || line[3] == ' ');
    return line[3] == ' ';
}

/* Since it was asked last, exactly so many replies were said. */
static void check_replies(session_t *s, int expected)
{
    apr_size_t n;
    char *text, *line;
    int replies = 0;

    HOLDS(apr_brigade_pflatten(s->out, &text, &n, s->p) == APR_SUCCESS);
    apr_brigade_cleanup(s->out);
    see(s, text, n);
    for (line = text; line < text + n;) {
        char *lf = memchr(line, '\n', text + n - line);

        HOLDS(lf);
        replies += check_line(s, line, lf + 1 - line, replies == expected - 1);
        line = lf + 1;
    }
    HOLDS(replies == expected);
    HOLDS(n == 0 || replies > 0);
}

static int may_auth(const smtp_dialogue_t *d)
{
    return d->can_auth && (d->has_tls || d->auth_in_clear) && !d->authenticated;
}

static size_t line_max(const session_t *s)
{
    return s->d.can_auth && s->offer.max_line < SMTP_AUTH_LINE_MAX ? SMTP_AUTH_LINE_MAX
                                                                   : s->offer.max_line;
}

static void check_state(const session_t *s)
{
    const smtp_dialogue_t *d = &s->d;

    HOLDS(((d->state & SMTP_STATES_TRANSACTION) != 0) == (s->accepted >= 0 && !s->over));
    HOLDS((d->state == SMTP_STATE_DATA) == (s->in_data && !s->over));
    HOLDS((d->state & (d->state - 1)) == 0);
    HOLDS((d->state == SMTP_STATE_CLOSED) == s->over);
    HOLDS(d->line_len <= line_max(s) + 2 && (d->line || !d->line_len));
    HOLDS(d->authenticated == s->authenticated && s->auth_failures <= 3);
    HOLDS(!d->sasl.mechanism || (may_auth(d) && d->state == SMTP_STATE_READY) || s->over);
    HOLDS(d->sasl.mechanism || (!d->sasl.user && !d->sasl.password));
    HOLDS(!d->helo || strlen(d->helo) <= SMTP_DOMAIN_MAX);
}

static const smtp_reply_t *choose_answer(session_t *s)
{
    static const smtp_reply_t answers[] = {
        { 550, "5.1.1", "No" },          { 451, "4.3.0", "Later" }, { 452, "4.5.3", "Not now" },
        { 421, "4.7.0", "Go\nwith God" }, { 250, "2.0.0", "Fine" },  { 354, "", "Come" },
        { 535, "5.7.8", "Who?" },        { 535, "5.7.8", "Who?" },  { 454, "4.7.0", "Not now" },
    };
    uint32_t i = next_random(&s->random) % 24;

    return i < sizeof(answers) / sizeof(*answers) ? &answers[i] : NULL;
}

/* What an event must find, before its answer. */
static void check_event(session_t *s, smtp_event_e event)
{
    const smtp_dialogue_t *d = &s->d;

    HOLDS(s->in_data == (event == SMTP_EVENT_END));
    HOLDS(!d->need_tls || d->has_tls || event == SMTP_EVENT_HELO || event == SMTP_EVENT_STARTTLS);
    switch (event) {
    case SMTP_EVENT_STARTTLS:
        HOLDS(d->can_tls && !d->has_tls);
        break;
    case SMTP_EVENT_AUTH:
        HOLDS(may_auth(d) && s->accepted < 0);
        HOLDS(d->sasl.is_nobody || (*d->sasl.user && *d->sasl.password));
        see(s, d->sasl.user, d->sasl.user_size);
        see(s, d->sasl.password, d->sasl.password_size);
        break;
    case SMTP_EVENT_HELO:
        HOLDS(d->argument.n > 0 && d->argument.n <= SMTP_DOMAIN_MAX);
        break;
    case SMTP_EVENT_MAIL:
        HOLDS(s->accepted < 0 && (d->helo || !d->need_helo));
        HOLDS(d->mail.size >= -1 && (!s->offer.max_size || d->mail.size <= s->offer.max_size));
        see_span(s, d->mail.from.text);
        break;
    case SMTP_EVENT_RCPT:
        HOLDS(s->accepted >= 0 && s->accepted < s->offer.max_rcpts && d->address.text.n > 0);
        see_span(s, d->address.text);
        break;
    default:
        HOLDS(s->accepted > 0);
    }
}

/* What the answer makes of the model. */
static void follow(session_t *s, smtp_event_e event, int positive)
{
    if (event == SMTP_EVENT_RCPT) {
        s->accepted += positive;
    }
    else if (event == SMTP_EVENT_DATA) {
        s->in_data = positive;
        s->accepted = positive ? s->accepted : -1;
    }
    else if (event == SMTP_EVENT_MAIL) {
        s->accepted = positive ? 0 : -1;
    }
    else if (event == SMTP_EVENT_AUTH) {
        s->authenticated = positive;
    }
    else if (event == SMTP_EVENT_STARTTLS) {
        ; /* follow_tls() */
    }
    else if (positive || event == SMTP_EVENT_END) {
        s->accepted = -1;
        s->in_data = 0;
    }
}

/* TLS is on: nothing of before counts. */
static void follow_tls(session_t *s)
{
    HOLDS(s->d.last_code != 421);
    s->d.has_tls = 1;
    smtp_dialogue_restart(&s->d, &s->offer);
    s->accepted = -1;
    s->authenticated = 0;
    HOLDS(!s->d.helo && !s->d.line && s->d.state == SMTP_STATE_NEW);
}

/* The third refused password is answered, and then the session closed: one reply more. */
static int count_replies(session_t *s, smtp_event_e event, const smtp_reply_t *reply)
{
    int refused = event == SMTP_EVENT_AUTH && reply && reply->code == 535;
    int had_enough = s->d.errors > s->offer.max_errors; /* that closes it with one */

    s->auth_failures += refused && !had_enough;
    HOLDS(!refused || s->auth_failures < 3 || s->over);
    return 1 + (refused && !had_enough && s->auth_failures == 3);
}

static void answer(session_t *s, smtp_event_e event)
{
    const smtp_reply_t *reply = choose_answer(s);
    int is_nobody = event == SMTP_EVENT_AUTH && s->d.sasl.is_nobody;

    check_replies(s, 0);
    check_event(s, event);
    see(s, (const char[]){ (char)event }, 1);
    HOLDS(smtp_dialogue_next(&s->d, &(const char *){ NULL }, NULL) == event); /* until answered */
    smtp_dialogue_answer(&s->d, reply);
    if (is_nobody && (!reply || smtp_reply_is_positive(reply))) {
        reply = smtp_reply(SMTP_REPLY_BAD_CREDENTIALS);
    }
    if (event == SMTP_EVENT_STARTTLS && !reply) {
        see(s, "T", 1);
        s->d.last_code = 220;
        check_replies(s, 1);
        follow_tls(s);
        return;
    }
    HOLDS(reply == NULL || s->d.last_code == reply->code || s->d.last_code == 421);
    s->over = s->d.last_code == 421;
    follow(s, event, !reply || smtp_reply_is_positive(reply));
    check_replies(s, count_replies(s, event, reply));
}

static void take_command(session_t *s)
{
    if (!smtp_dialogue_is_verb(&s->d, "AUTH")) { /* of a response there is no argument */
        see_span(s, s->d.argument);
    }
    check_replies(s, 1);
    s->over = s->d.last_code == 421 || s->d.last_code == 221;
    if (smtp_dialogue_is_verb(&s->d, "RSET") && s->d.last_code == 250) {
        s->accepted = -1;
    }
    HOLDS(!s->in_data);
}

/* Returns 0 when the piece is used up or the session over. */
static int step(session_t *s, const char **at, const char *end)
{
    const char *before = *at;
    smtp_event_e event = smtp_dialogue_next(&s->d, at, end);

    HOLDS(*at >= before && *at <= end);
    HOLDS((event == SMTP_EVENT_CLOSE) == s->over);
    if (event == SMTP_EVENT_CLOSE || event == SMTP_EVENT_MORE) {
        HOLDS(*at == (event == SMTP_EVENT_CLOSE ? before : end));
        HOLDS(s->over || s->d.line_len || !s->d.line); /* an idle session holds no line */
        check_replies(s, 0);
        return 0;
    }
    if (event == SMTP_EVENT_COMMAND) {
        take_command(s);
    }
    else if (event == SMTP_EVENT_CONTENT) {
        HOLDS(s->in_data && s->d.content.n > 0);
        see(s, s->d.content.p, s->d.content.n);
        check_replies(s, 0);
    }
    else {
        answer(s, event);
    }
    check_state(s);
    return 1;
}

/* The piece is copied, so that a look at what is gone shows. */
static void feed(session_t *s, const uint8_t *p, size_t n)
{
    char *piece = malloc(n);
    const char *at = piece;

    HOLDS(piece);
    memcpy(piece, p, n);
    while (step(s, &at, piece + n)) {
        ;
    }
    free(piece);
}

static void start(session_t *s, const uint8_t *settings)
{
    memset(s, 0, sizeof(*s));
    apr_pool_create(&s->p, NULL);
    s->out = apr_brigade_create(s->p, apr_bucket_alloc_create(s->p));
    s->offer.hostname = "mx.example.com";
    s->offer.max_line = 12 + settings[0] % 64 * 8;
    s->offer.max_size = settings[1] % 4 * 1000;
    s->offer.max_errors = settings[2];
    s->offer.max_rcpts = 1 + settings[1] / 4;
    s->d.normalize = settings[3];
    s->d.need_helo = settings[3] / 2;
    s->d.can_tls = settings[3] / 4;
    s->d.need_tls = settings[3] / 8;
    s->d.has_tls = settings[3] / 16;
    s->d.can_auth = settings[3] / 32;
    s->d.auth_in_clear = settings[3] / 64;
    s->random = settings[4];
    s->accepted = -1;
    smtp_dialogue_greet(&s->d, &s->offer, s->out, NULL);
    check_replies(s, 1);
}

/* Pieces of 1 to most octets. */
static void run(session_t *s, const uint8_t *data, size_t size, size_t most)
{
    uint32_t cuts = data[5];
    size_t at, n;

    start(s, data);
    for (at = SETTINGS; at < size; at += n) {
        n = 1 + next_random(&cuts) % most;
        n = most == size || n > size - at ? size - at : n;
        feed(s, data + at, n);
    }
}

static void end(session_t *s)
{
    smtp_dialogue_end(&s->d);
    HOLDS(!s->d.line && !s->d.helo && !s->d.sasl.user && !s->d.sasl.password);
    apr_pool_destroy(s->p);
    free(s->seen);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int initialized;
    const size_t most[] = { size, 40, 1 };
    session_t whole = { 0 };
    int i;

    if (size < SETTINGS) {
        return 0;
    }
    if (!initialized) {
        initialized = apr_initialize() == APR_SUCCESS;
    }
    for (i = 0; i < 3; i++) {
        session_t s;

        run(&s, data, size, most[i]);
        if (i == 0) {
            whole = s;
            continue;
        }
        HOLDS(s.seen_n == whole.seen_n && memcmp(s.seen, whole.seen, s.seen_n) == 0);
        end(&s);
    }
    end(&whole);
    return 0;
}
