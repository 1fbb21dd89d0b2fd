/* smtp/client.c: what is sent to a relay, its replies in all cuts, and the judgement of every
 * step and code by a table (RFC 5321 4.2, RFC 2034).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <apr_general.h>
#include <apr_strings.h>

#include "smtp/client.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define NONE { 0, NULL, NULL }
#define IN(literal) literal, sizeof(literal) - 1

static apr_pool_t *pool;

typedef struct row_t {
    const char *in;
    size_t n;
    smtp_reply_t replies[3]; /* code 0 ends them */
    int bad;
} row_t;

static const row_t rows[] = {
    { IN("250 2.1.0 Ok\r\n"), { { 250, "2.1.0", "Ok" } }, 0 },
    { IN("250 Ok\r\n"), { { 250, "2.0.0", "Ok" } }, 0 },
    { IN("250 Ok\n"), { { 250, "2.0.0", "Ok" } }, 0 },
    { IN("250\r\n"), { { 250, "2.0.0", "" } }, 0 },
    { IN("250 \r\n"), { { 250, "2.0.0", "" } }, 0 },
    { IN("250"), { NONE }, 0 },
    { IN("250 Ok\r"), { NONE }, 0 },
    { IN("250-a\r\n"), { NONE }, 0 },
    { IN(""), { NONE }, 0 },
    { IN("250-a\r\n250-b\n250 c\r\n"), { { 250, "2.0.0", "a\nb\nc" } }, 0 },
    { IN("250-a\r\n250\r\n"), { { 250, "2.0.0", "a\n" } }, 0 },
    { IN("250-\r\n250 b\r\n"), { { 250, "2.0.0", "\nb" } }, 0 },
    { IN("550-5.1.1 No\r\n550 5.1.1 user\r\n"), { { 550, "5.1.1", "No\nuser" } }, 0 },
    { IN("550-5.1.1 No\r\n550-5.7.1 two\r\n550 three\r\n"),
      { { 550, "5.1.1", "No\ntwo\nthree" } }, 0 },
    { IN("550-No\r\n550 5.1.1 user\r\n"), { { 550, "5.0.0", "No\nuser" } }, 0 },
    { IN("550 5.1.1\r\n"), { { 550, "5.1.1", "" } }, 0 },
    { IN("450 5.1.1 No\r\n"), { { 450, "4.0.0", "5.1.1 No" } }, 0 },
    { IN("354 Go\r\n"), { { 354, "", "Go" } }, 0 },
    { IN("250 a\0b\rc\x80\xff\x1b[\t.\r\n"), { { 250, "2.0.0", "a?b?c???[?." } }, 0 },
    { IN("250 a\r\r\n"), { { 250, "2.0.0", "a?" } }, 0 },
    { IN("250 a\r\n550 b\r\n354 c\r\n"),
      { { 250, "2.0.0", "a" }, { 550, "5.0.0", "b" }, { 354, "", "c" } }, 0 },
    { IN("250-a\r\n251 b\r\n"), { NONE }, 1 },
    { IN("250 a\r\n250-a\r\n550 b\r\n"), { { 250, "2.0.0", "a" } }, 1 },
    { IN("\r\n"), { NONE }, 1 },
    { IN("25\r\n"), { NONE }, 1 },
    { IN("2500 x\r\n"), { NONE }, 1 },
    { IN("250_x\r\n"), { NONE }, 1 },
    { IN(" 250 x\r\n"), { NONE }, 1 },
    { IN("150 x\r\n"), { NONE }, 1 },
    { IN("650 x\r\n"), { NONE }, 1 },
    { IN("2x0 x\r\n"), { NONE }, 1 },
    { IN("25\0 x\r\n"), { NONE }, 1 },
    { IN("HTTP/1.1 400 Bad Request\r\n"), { NONE }, 1 },
};

/* Reads the row in a piece of first octets and pieces of each. */
static void read_pieces(const row_t *row, size_t first, size_t each)
{
    smtp_client_t cl;
    smtp_parse_e rc = SMTP_MORE;
    size_t at, n = first, seen = 0;

    memset(&cl, 0, sizeof(cl));
    for (at = 0; at < row->n && rc != SMTP_BAD; at += n, n = each) {
        n = n < row->n - at ? n : row->n - at;
        char *piece = malloc(n);
        const char *from = memcpy(piece, row->in + at, n);
        smtp_reply_t reply;

        while ((rc = smtp_client_read(&cl, pool, &from, piece + n, &reply)) == SMTP_OK) {
            assert_true(seen < COUNT(row->replies) && row->replies[seen].code);
            assert_int_equal(reply.code, row->replies[seen].code);
            assert_string_equal(reply.enhanced, row->replies[seen].enhanced);
            assert_string_equal(reply.text, row->replies[seen].text);
            seen++;
        }
        assert_true(rc == SMTP_BAD || from == piece + n);
        free(piece);
    }
    assert_int_equal(rc, row->bad ? SMTP_BAD : SMTP_MORE);
    assert_true(seen == COUNT(row->replies) || !row->replies[seen].code);
}

static void read_all_cuts(const row_t *row)
{
    size_t cut;

    read_pieces(row, row->n, row->n);
    read_pieces(row, 1, 1);
    for (cut = 1; cut < row->n; cut++) {
        read_pieces(row, cut, row->n);
    }
}

static void test_read(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(rows); i++) {
        read_all_cuts(&rows[i]);
    }
}

/* "250 xxx" of n octets before its CRLF. */
static smtp_parse_e read_long(size_t n, size_t piece, smtp_reply_t *reply)
{
    char *line = apr_palloc(pool, n + 2);
    const char *at = line, *end = line + n + 2;
    smtp_client_t cl;
    smtp_parse_e rc = SMTP_MORE;

    memset(&cl, 0, sizeof(cl));
    memset(line, 'x', n);
    memcpy(line, "250 ", 4);
    memcpy(line + n, "\r\n", 2);
    while (at < end && rc == SMTP_MORE) {
        rc = smtp_client_read(&cl, pool, &at, (size_t)(end - at) > piece ? at + piece : end, reply);
    }
    return rc;
}

static void test_long_lines(void **state)
{
    const size_t pieces[] = { 1, 7, 100000 };
    smtp_reply_t reply;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(pieces); i++) {
        assert_int_equal(read_long(SMTP_RELAY_LINE_MAX - 1, pieces[i], &reply), SMTP_OK);
        assert_int_equal(strlen(reply.text), SMTP_REPLY_LINE_MAX);
        assert_int_equal(read_long(SMTP_RELAY_LINE_MAX, pieces[i], &reply), SMTP_BAD);
        assert_int_equal(read_long(10 * SMTP_RELAY_LINE_MAX, pieces[i], &reply), SMTP_BAD);
    }
}

/* Line i of a reply ends in the letter that i gives, so that it shows which ones are kept. */
static smtp_parse_e read_lines(int n, smtp_reply_t *reply)
{
    enum { WIDTH = 7 };
    char *text = apr_palloc(pool, n * WIDTH + 1);
    const char *at = text;
    smtp_client_t cl;
    int i;

    memset(&cl, 0, sizeof(cl));
    for (i = 0; i < n; i++) {
        apr_snprintf(text + i * WIDTH, WIDTH + 1, "550%c%c\r\n", i < n - 1 ? '-' : ' ',
                     'a' + i % 26);
    }
    return smtp_client_read(&cl, pool, &at, text + n * WIDTH, reply);
}

static void test_many_lines(void **state)
{
    static const int numbers[] = { 1, 2, SMTP_REPLY_LINES_MAX - 1, SMTP_REPLY_LINES_MAX,
                                   SMTP_REPLY_LINES_MAX + 1, SMTP_RELAY_LINES_MAX - 1,
                                   SMTP_RELAY_LINES_MAX };
    smtp_reply_t reply;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(numbers); i++) {
        int kept = numbers[i] < SMTP_REPLY_LINES_MAX ? numbers[i] : SMTP_REPLY_LINES_MAX;

        assert_int_equal(read_lines(numbers[i], &reply), SMTP_OK);
        assert_int_equal(reply.code, 550);
        assert_int_equal(strlen(reply.text), 2 * kept - 1);
        assert_int_equal(reply.text[2 * kept - 2], 'a' + (kept - 1) % 26);
    }
    assert_int_equal(read_lines(SMTP_RELAY_LINES_MAX + 1, &reply), SMTP_BAD);
    assert_int_equal(read_lines(2 * SMTP_RELAY_LINES_MAX, &reply), SMTP_BAD);
}

static const struct {
    const char *text; /* NULL: HELO */
    unsigned can;
} capabilities[] = {
    { "mx\nPIPELINING\nSIZE 1000\n8BITMIME", 7 },
    { "mx\npipelining\nsize", SMTP_CAN_PIPELINING | SMTP_CAN_SIZE },
    { "PIPELINING\nHELP", 0 },
    { "mx\nPIPELININGX\nSIZE=5\n8BITMIME2\nX 8BITMIME", 0 },
    { "mx\nPIPELINING=1\nSTARTTLS=", 0 },
    { "mx\nSTARTTLS", SMTP_CAN_STARTTLS },
    { "mx\nstarttls now", SMTP_CAN_STARTTLS },
    { "STARTTLS", 0 },
    { "mx\nSTARTTLSX\nXSTARTTLS", 0 },
    { "mx\nAUTH PLAIN", SMTP_CAN_AUTH_PLAIN },
    { "mx\nAUTH PLAIN LOGIN", SMTP_CAN_AUTH_PLAIN | SMTP_CAN_AUTH_LOGIN },
    { "mx\nauth login CRAM-MD5", SMTP_CAN_AUTH_LOGIN },
    { "mx\nAUTH  LOGIN ", SMTP_CAN_AUTH_LOGIN },
    { "mx\nAUTH=PLAIN", SMTP_CAN_AUTH_PLAIN },
    { "mx\nAUTH=LOGIN PLAIN\n8BITMIME", SMTP_CAN_AUTH_PLAIN | SMTP_CAN_AUTH_LOGIN
                                        | SMTP_CAN_8BITMIME },
    { "mx\nAUTH PLAIN\nAUTH=LOGIN", SMTP_CAN_AUTH_PLAIN | SMTP_CAN_AUTH_LOGIN },
    { "mx\nAUTH\nPLAIN\nLOGIN", 0 },
    { "mx\nAUTH=\nAUTH ", 0 },
    { "mx\nAUTH PLAINX LOGIN-X XPLAIN", 0 },
    { "mx\nAUTHPLAIN\nXAUTH PLAIN\nAUTHX PLAIN\nAUT", 0 },
    { "AUTH PLAIN", 0 },
    { "mx", 0 },
    { "mx\n\n8BITMIME", SMTP_CAN_8BITMIME },
    { "mx\n", 0 },
    { NULL, 0 },
};

static void test_capabilities(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(capabilities); i++) {
        smtp_reply_t reply = { 250, "", capabilities[i].text };
        smtp_client_t cl;

        memset(&cl, 0, sizeof(cl));
        cl.capabilities = ~0u; /* what was announced before is forgotten */
        smtp_client_take_capabilities(&cl, reply.text ? &reply : NULL);
        assert_int_equal(cl.capabilities, capabilities[i].can);
    }
}

/* What the reply to each of some steps becomes. */
#define MAIL_STEPS (1 << SMTP_STEP_MAIL | 1 << SMTP_STEP_RCPT | 1 << SMTP_STEP_DOT)
#define DATA (1 << SMTP_STEP_DATA)
#define SESSION_STEPS                                                                            \
    (1 << SMTP_STEP_GREETING | 1 << SMTP_STEP_EHLO | 1 << SMTP_STEP_HELO | 1 << SMTP_STEP_RSET   \
     | 1 << SMTP_STEP_STARTTLS | 1 << SMTP_STEP_AUTH | 1 << SMTP_STEP_LOGIN_PASSWORD               \
     | 1 << SMTP_STEP_QUIT)
#define LOGIN (1 << SMTP_STEP_LOGIN | 1 << SMTP_STEP_LOGIN_USER) /* 3yz lets us go on */
#define ALL (MAIL_STEPS | DATA | SESSION_STEPS)
#define TWO (ALL & ~DATA)
#define ABOUT_MAIL (MAIL_STEPS | DATA)

static const struct {
    int code, steps, heard; /* heard 0: taken; below 0: a fault, minus the row of ours */
} judgements[] = {
    { 220, TWO, 0 },
    { 250, TWO, 0 },
    { 251, TWO, 0 },
    { 250, DATA, -SMTP_REPLY_RELAY_FAULT },
    { 235, SESSION_STEPS, 0 },
    { 354, DATA, 0 },
    { 334, LOGIN, 0 },
    { 235, LOGIN, -SMTP_REPLY_RELAY_FAULT },
    { 334, SESSION_STEPS, -SMTP_REPLY_RELAY_FAULT },
    { 421, LOGIN, -SMTP_REPLY_RELAY_LOST },
    { 454, LOGIN, 454 },
    { 535, LOGIN, -SMTP_REPLY_RELAY_FAULT },
    { 550, LOGIN, -SMTP_REPLY_RELAY_FAULT },
    { 354, TWO, -SMTP_REPLY_RELAY_FAULT },
    { 421, ALL, -SMTP_REPLY_RELAY_LOST },
    { 450, ALL, 450 },
    { 451, ALL, 451 },
    { 452, ALL, 452 },
    { 454, ALL, 454 },
    { 500, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 501, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 502, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 503, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 504, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 521, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 523, ALL, -SMTP_REPLY_RELAY_FAULT }, /* RFC 5248: for X.7.10 and X.7.11 */
    { 524, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 530, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 534, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 535, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 538, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 555, ALL, -SMTP_REPLY_RELAY_FAULT },
    { 550, SESSION_STEPS, -SMTP_REPLY_RELAY_FAULT },
    { 554, SESSION_STEPS, -SMTP_REPLY_RELAY_FAULT },
    { 556, SESSION_STEPS, -SMTP_REPLY_RELAY_FAULT },
    { 550, ABOUT_MAIL, 550 },
    { 551, ABOUT_MAIL, 551 },
    { 552, ABOUT_MAIL, 552 },
    { 553, ABOUT_MAIL, 553 },
    { 554, ABOUT_MAIL, 554 },
    { 556, ABOUT_MAIL, 556 },
    { 571, ABOUT_MAIL, 554 },
    { 505, ABOUT_MAIL, 554 },
};

static void judge(smtp_step_e step, int code, int want)
{
    char enhanced[] = { '0' + code / 100, '.', '7', '.', '1', '\0' };
    const smtp_reply_t reply = { code, enhanced, "a\nb" };
    const smtp_reply_t *heard = NULL;
    smtp_verdict_e verdict = smtp_client_judge(step, &reply, pool, &heard);

    assert_non_null(heard);
    assert_int_equal(verdict, want == 0  ? SMTP_VERDICT_TAKEN
                              : want < 0 ? SMTP_VERDICT_FAULT
                                         : SMTP_VERDICT_REFUSED);
    if (want < 0) {
        assert_ptr_equal(heard, smtp_reply(-want));
        return;
    }
    assert_int_equal(heard->code, want ? want : code);
    assert_string_equal(heard->enhanced, enhanced);
    assert_string_equal(heard->text, "a\nb");
}

static void test_judge(void **state)
{
    size_t i;
    smtp_step_e step;

    (void)state;
    for (i = 0; i < COUNT(judgements); i++) {
        for (step = 0; step < SMTP_STEP_COUNT; step++) {
            if (judgements[i].steps & 1 << step) {
                judge(step, judgements[i].code, judgements[i].heard);
            }
        }
    }
    assert_int_equal(smtp_reply(SMTP_REPLY_RELAY_FAULT)->code, 451);
    assert_string_equal(smtp_reply(SMTP_REPLY_RELAY_FAULT)->enhanced, "4.3.5");
    assert_int_equal(smtp_reply(SMTP_REPLY_RELAY_LOST)->code, 451);
    assert_string_equal(smtp_reply(SMTP_REPLY_RELAY_LOST)->enhanced, "4.4.2");
}

static const char *flat(apr_bucket_brigade *bb)
{
    char *text;
    apr_size_t n;

    assert_int_equal(apr_brigade_pflatten(bb, &text, &n, pool), APR_SUCCESS);
    apr_brigade_cleanup(bb);
    return apr_pstrmemdup(pool, text, n);
}

static const struct {
    smtp_step_e step;
    const char *arg, *wire;
} commands[] = {
    { SMTP_STEP_EHLO, "mx.example.com", "EHLO mx.example.com\r\n" },
    { SMTP_STEP_HELO, "mx.example.com", "HELO mx.example.com\r\n" },
    { SMTP_STEP_STARTTLS, NULL, "STARTTLS\r\n" },
    { SMTP_STEP_AUTH, "AHUAcA==", "AUTH PLAIN AHUAcA==\r\n" },
    { SMTP_STEP_LOGIN, NULL, "AUTH LOGIN\r\n" },
    { SMTP_STEP_LOGIN_USER, "dQ==", "dQ==\r\n" },
    { SMTP_STEP_LOGIN_PASSWORD, "cA==", "cA==\r\n" },
    { SMTP_STEP_RSET, NULL, "RSET\r\n" },
    { SMTP_STEP_RCPT, "b%s%n@y.example", "RCPT TO:<b%s%n@y.example>\r\n" },
    { SMTP_STEP_DATA, NULL, "DATA\r\n" },
    { SMTP_STEP_QUIT, NULL, "QUIT\r\n" },
};

static const struct {
    unsigned can;
    const char *from;
    apr_int64_t size;
    int body_8bit;
    const char *wire;
} mails[] = {
    { 0, "", 10, 1, "MAIL FROM:<>\r\n" },
    { 7, "", -1, 0, "MAIL FROM:<>\r\n" },
    { 7, "a%d@x", 0, 1, "MAIL FROM:<a%d@x> SIZE=0 BODY=8BITMIME\r\n" },
    { SMTP_CAN_SIZE, "a@x", 5000000000, 1, "MAIL FROM:<a@x> SIZE=5000000000\r\n" },
    { SMTP_CAN_8BITMIME, "a@x", 5, 1, "MAIL FROM:<a@x> BODY=8BITMIME\r\n" },
    { SMTP_CAN_PIPELINING, "a@x", 5, 1, "MAIL FROM:<a@x>\r\n" },
};

static void test_put(void **state)
{
    apr_bucket_brigade *bb = apr_brigade_create(pool, apr_bucket_alloc_create(pool));
    smtp_client_t cl;
    size_t i;

    (void)state;
    memset(&cl, 0, sizeof(cl));
    for (i = 0; i < COUNT(commands); i++) {
        smtp_client_put(bb, commands[i].step, commands[i].arg);
        assert_string_equal(flat(bb), commands[i].wire);
    }
    for (i = 0; i < COUNT(mails); i++) {
        cl.capabilities = mails[i].can;
        smtp_client_put_mail(&cl, bb, mails[i].from, mails[i].size, mails[i].body_8bit);
        assert_string_equal(flat(bb), mails[i].wire);
    }
}

/* What carries credentials must be known as such to whoever logs. */
static void test_secrets(void **state)
{
    const unsigned secrets = 1 << SMTP_STEP_AUTH | 1 << SMTP_STEP_LOGIN | 1 << SMTP_STEP_LOGIN_USER
                             | 1 << SMTP_STEP_LOGIN_PASSWORD;
    smtp_step_e step;

    (void)state;
    for (step = 0; step < SMTP_STEP_COUNT; step++) {
        assert_int_equal(smtp_step(step)->secret, secrets >> step & 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),       cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_many_lines), cmocka_unit_test(test_capabilities),
        cmocka_unit_test(test_judge),      cmocka_unit_test(test_put),
        cmocka_unit_test(test_secrets),
    };
    int failed;

    apr_initialize();
    apr_pool_create(&pool, NULL);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_pool_destroy(pool);
    apr_terminate();
    return failed;
}
