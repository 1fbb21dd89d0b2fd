/* Whole server sessions: the vectors of tests/dialogues/ against smtp/dialogue.c and verbs.c.
 * Each runs in one piece, octet by octet, and cut at every single place; replies, events and
 * content must come out the same each time. tests/dialogues/README says how a vector is written.
 * Pieces are copied and freed, so that ASan sees a look at octets that are gone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <apr_general.h>
#include <apr_strings.h>

#include "smtp/dialogue.h"
#include "tests/unit/vectors.h"

#define CONTENT_SHOWN 200 /* longer content is shown by length and hash */

/* One run of a vector. */
typedef struct run_t {
    const vector_t *v;
    apr_pool_t *p;
    smtp_dialogue_t d;
    apr_bucket_brigade *out;
    text_t content;
    text_t seen; /* the session as a vector would write it */
    int answered, over;
    size_t left;
} run_t;

static void add_escaped(text_t *t, const char *p, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        char octet[8] = { p[i], 0 };

        if (p[i] == '\r' || p[i] == '\n') {
            strcpy(octet, p[i] == '\r' ? "\\r" : "\\n");
        }
        else if (p[i] < ' ' || p[i] > '~' || p[i] == '\\') {
            snprintf(octet, sizeof(octet), "\\x%02x", (unsigned char)p[i]);
        }
        add_string(t, octet);
    }
}

/* FNV-1a, 32 bits. */
static unsigned hash(const char *p, size_t n)
{
    unsigned h = 2166136261u;

    for (; n; n--) {
        h = (h ^ (unsigned char)*p++) * 16777619u;
    }
    return h;
}

static void see_replies(run_t *run)
{
    char *text, *line, *eol;
    apr_size_t n;

    assert_int_equal(apr_brigade_pflatten(run->out, &text, &n, run->p), APR_SUCCESS);
    apr_brigade_cleanup(run->out);
    for (line = text; n; line = eol + 2) {
        eol = memchr(line, '\r', n);
        assert_true(eol && (apr_size_t)(eol - line) + 1 < n && eol[1] == '\n');
        add_string(&run->seen, "S: ");
        add_escaped(&run->seen, line, eol - line);
        add_string(&run->seen, "\n");
        n -= eol + 2 - line;
    }
}

static void see_content(run_t *run)
{
    char summary[64];

    add_string(&run->seen, "M: ");
    if (run->content.n > CONTENT_SHOWN) {
        snprintf(summary, sizeof(summary), "%lu octets %08x", (unsigned long)run->content.n,
                 hash(run->content.p, run->content.n));
        add_string(&run->seen, summary);
    }
    else {
        add_escaped(&run->seen, run->content.p, run->content.n);
    }
    add_string(&run->seen, "\n");
    run->content.n = 0;
}

static void see_span(run_t *run, const char *before, smtp_span_t span)
{
    add_string(&run->seen, before);
    add_escaped(&run->seen, span.p, span.n);
}

static void see_mail(run_t *run)
{
    static const char *const bodies[] = { "", " body=7BIT", " body=8BITMIME" };
    const smtp_mail_t *mail = &run->d.mail;
    char size[32] = "";

    see_span(run, "E: mail <", mail->from.text);
    if (mail->size >= 0) {
        snprintf(size, sizeof(size), " size=%lld", (long long)mail->size);
    }
    add_string(&run->seen, ">");
    add_string(&run->seen, size);
    add_string(&run->seen, bodies[mail->body]);
}

static void see_event(run_t *run, smtp_event_e event)
{
    const smtp_dialogue_t *d = &run->d;

    switch (event) {
    case SMTP_EVENT_HELO:
        see_span(run, smtp_dialogue_is_verb(d, "EHLO") ? "E: ehlo " : "E: helo ", d->argument);
        break;
    case SMTP_EVENT_STARTTLS:
        add_string(&run->seen, "E: starttls");
        break;
    case SMTP_EVENT_AUTH:
        see_span(run, d->sasl.is_nobody ? "E: nobody " : "E: auth ", (smtp_span_t){ d->sasl.user, strlen(d->sasl.user) });
        see_span(run, " ", (smtp_span_t){ d->sasl.password, strlen(d->sasl.password) });
        break;
    case SMTP_EVENT_MAIL:
        see_mail(run);
        break;
    case SMTP_EVENT_RCPT:
        see_span(run, "E: rcpt <", d->address.text);
        add_string(&run->seen, ">");
        break;
    case SMTP_EVENT_DATA:
        add_string(&run->seen, "E: data");
        break;
    default:
        see_content(run);
        add_string(&run->seen, "E: end");
        add_string(&run->seen, d->dot.bare_lf ? " bare-lf" : "");
        add_string(&run->seen, d->dot.bare_cr ? " bare-cr" : "");
    }
    add_string(&run->seen, "\n");
}

static void answer(run_t *run, smtp_event_e event)
{
    const apr_array_header_t *answers = run->v->answers;
    const smtp_reply_t *reply = NULL;

    if (run->answered < answers->nelts) {
        reply = APR_ARRAY_IDX(answers, run->answered, const smtp_reply_t *);
    }
    run->answered++;
    smtp_dialogue_answer(&run->d, reply);
    if (event == SMTP_EVENT_STARTTLS && !reply) { /* what follows comes inside TLS */
        see_replies(run);
        run->d.has_tls = 1;
        smtp_dialogue_restart(&run->d, &run->v->offer);
    }
}

/* Returns 0 when the piece is used up. */
static int step(run_t *run, const char **at, const char *end)
{
    smtp_event_e event = smtp_dialogue_next(&run->d, at, end);

    switch (event) {
    case SMTP_EVENT_MORE:
        assert_ptr_equal(*at, end);
        return 0;
    case SMTP_EVENT_CLOSE:
        run->over = 1;
        return 0;
    case SMTP_EVENT_COMMAND:
        break;
    case SMTP_EVENT_CONTENT:
        add(&run->content, run->d.content.p, run->d.content.n);
        break;
    default:
        see_replies(run);
        see_event(run, event);
        answer(run, event);
    }
    see_replies(run);
    return 1;
}

static void feed(run_t *run, const char *p, size_t n)
{
    char *piece = malloc(n);
    const char *at = piece;

    assert_true(piece || !n);
    memcpy(piece, p, n);
    while (step(run, &at, piece + n)) {
        ;
    }
    run->left += piece + n - at;
    free(piece);
}

static void finish(run_t *run)
{
    char line[64] = "E: close\n";

    if (run->v->close >= 0) {
        smtp_dialogue_close(&run->d, run->v->close);
        see_replies(run);
        feed(run, "NOOP\r\n", 6);
        run->left -= 6;
    }
    if (run->content.n) {
        see_content(run);
    }
    if (run->left) {
        snprintf(line, sizeof(line), "E: close, %lu octets left\n", (unsigned long)run->left);
    }
    add_string(&run->seen, run->over ? line : "");
}

static int matches(const char *expected, const char *line, size_t n)
{
    size_t length = strlen(expected);

    if (length && expected[length - 1] == '*') {
        return n >= length - 1 && memcmp(expected, line, length - 1) == 0;
    }
    return n == length && memcmp(expected, line, n) == 0;
}

static void compare(const run_t *run, size_t first, size_t each)
{
    const vector_t *v = run->v;
    const char *line = run->seen.p;
    int i;

    for (i = 0; i <= v->expect->nelts; i++) {
        const char *expected = i < v->expect->nelts ? APR_ARRAY_IDX(v->expect, i, char *) : "";
        size_t n = strcspn(line, "\n");

        if (!matches(expected, line, n)) {
            fail_msg("%s:%d: %s: first piece %lu, then %lu each: expected \"%s\", saw \"%.*s\" "
                     "in\n%s", v->file, v->line, v->name, (unsigned long)first,
                     (unsigned long)each, expected, (int)n, line, run->seen.p);
        }
        line += n + (line[n] == '\n');
    }
}

/* The input in a piece of first octets, then pieces of each. */
static void run_pieces(const vector_t *v, size_t first, size_t each)
{
    run_t run = { .v = v };
    apr_bucket_alloc_t *ba;
    size_t at, n = first;

    apr_pool_create(&run.p, NULL);
    ba = apr_bucket_alloc_create(run.p);
    run.out = apr_brigade_create(run.p, ba);
    run.d.normalize = v->normalize;
    run.d.need_helo = v->need_helo;
    run.d.can_tls = v->can_tls;
    run.d.need_tls = v->need_tls;
    run.d.has_tls = v->has_tls;
    run.d.can_auth = v->can_auth;
    run.d.auth_in_clear = v->auth_in_clear;
    smtp_dialogue_greet(&run.d, &v->offer, run.out, NULL);
    see_replies(&run);
    for (at = 0; at < v->input.n; at += n, n = each) {
        n = n < v->input.n - at ? n : v->input.n - at;
        feed(&run, v->input.p + at, n);
    }
    finish(&run);
    compare(&run, first, each);
    smtp_dialogue_end(&run.d);
    smtp_dialogue_end(&run.d);
    assert_null(run.d.line);
    assert_null(run.d.helo);
    assert_true(!run.d.sasl.mechanism && !run.d.sasl.user && !run.d.sasl.password);
    apr_pool_destroy(run.p);
    free(run.content.p);
    free(run.seen.p);
}

static void test_vector(void **state)
{
    const vector_t *v = *state;
    size_t cut;

    run_pieces(v, v->input.n, v->input.n);
    run_pieces(v, 1, 1);
    for (cut = 1; cut < v->input.n; cut++) {
        run_pieces(v, cut, v->input.n);
    }
}

/* smtp_dialogue_ends_in_quit() */

#define ROW(literal, is) { literal, sizeof(literal) - 1, is }

static const struct {
    const char *data;
    size_t n;
    int is;
} quits[] = {
    ROW("QUIT\r\n", 1),
    ROW("quit\r\n", 1),
    ROW("NOOP\r\nQuIt\r\n", 1),
    ROW("\r\nQUIT\r\n", 1),
    ROW("", 0),
    ROW("\n", 0),
    ROW("UIT\r\n", 0),
    ROW("QUIT", 0),
    ROW("QUIT\n", 0),
    ROW("QUIT\r", 0),
    ROW("QUIT\n\r", 0),
    ROW("QUIT\r\n\r\n", 0),
    ROW("QUIT\r\nNOOP\r\n", 0),
    ROW("XQUIT\r\n", 0),
    ROW(" QUIT\r\n", 0),
    ROW("QUIT x\r\n", 0),
    ROW("\nQUIT\r\n", 0),
    ROW("NOOP\nQUIT\r\n", 0),
    ROW("\rQUIT\r\n", 0),
    ROW("QUI\0\r\n", 0),
};

static void test_ends_in_quit(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(quits) / sizeof(*quits); i++) {
        char *data = malloc(quits[i].n);

        memcpy(data, quits[i].data, quits[i].n);
        if (smtp_dialogue_ends_in_quit(data, quits[i].n) != quits[i].is) {
            fail_msg("row %lu: not %d", (unsigned long)i, quits[i].is);
        }
        free(data);
    }
}

/* The tests are the vectors, so main makes the list. */

int main(void)
{
    apr_array_header_t *vectors;
    struct CMUnitTest *tests;
    int i, count, failed;

    apr_initialize();
    apr_pool_create(&pool, NULL);
    vectors = apr_array_make(pool, 64, sizeof(vector_t));
    read_directory(vectors);
    tests = apr_pcalloc(pool, (vectors->nelts + 1) * sizeof(*tests));
    for (i = 0; i < vectors->nelts; i++) {
        vector_t *v = &APR_ARRAY_IDX(vectors, i, vector_t);

        tests[i] = (struct CMUnitTest){ apr_psprintf(pool, "%s: %s", strrchr(v->file, '/') + 1,
                                                     v->name),
                                        test_vector, NULL, NULL, v };
    }
    tests[i] = (struct CMUnitTest)cmocka_unit_test(test_ends_in_quit);
    count = vectors->nelts;
    failed = _cmocka_run_group_tests("dialogues", tests, count + 1, NULL, NULL);
    for (i = 0; i < vectors->nelts; i++) {
        free(APR_ARRAY_IDX(vectors, i, vector_t).input.p);
    }
    apr_pool_destroy(pool);
    apr_terminate();
    return failed + (count == 0);
}
