/* smtp/reply.c: the wire form of replies, the table's own consistency, and enhanced codes at
 * the beginning of a text (RFC 5321 4.2, RFC 2034, RFC 3463).
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

#include "smtp/limits.h"
#include "smtp/reply.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

static apr_pool_t *pool;

static char *wire(const smtp_reply_t *reply)
{
    apr_bucket_brigade *bb = apr_brigade_create(pool, apr_bucket_alloc_create(pool));
    char *text;
    apr_size_t n;

    smtp_reply_put(bb, reply);
    assert_int_equal(apr_brigade_pflatten(bb, &text, &n, pool), APR_SUCCESS);
    text = apr_pstrmemdup(pool, text, n);
    assert_int_equal(strlen(text), n);
    return text;
}

static const struct {
    smtp_reply_t reply;
    const char *wire, *line;
} forms[] = {
    { { 250, "2.1.5", "Recipient ok" }, "250 2.1.5 Recipient ok\r\n", "250 2.1.5 Recipient ok" },
    { { 220, "", "mx ESMTP" }, "220 mx ESMTP\r\n", "220 mx ESMTP" },
    { { 550, "5.7.1", "a\nb\nc" }, "550-5.7.1 a\r\n550-5.7.1 b\r\n550 5.7.1 c\r\n", "550 5.7.1 a" },
    { { 250, "", "mx\nHELP" }, "250-mx\r\n250 HELP\r\n", "250 mx" },
    { { 550, "5.7.1", "a\n\nb" }, "550-5.7.1 a\r\n550-5.7.1\r\n550 5.7.1 b\r\n", "550 5.7.1 a" },
    { { 550, "5.7.1", "" }, "550 5.7.1\r\n", NULL },
    { { 354, "", "" }, "354 \r\n", NULL },
    { { 250, "2.0.0", "100% %s %n" }, "250 2.0.0 100% %s %n\r\n", "250 2.0.0 100% %s %n" },
};

static void test_forms(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(forms); i++) {
        assert_string_equal(wire(&forms[i].reply), forms[i].wire);
        if (forms[i].line) {
            assert_string_equal(smtp_reply_line(pool, &forms[i].reply), forms[i].line);
        }
    }
}

static char *repeat(char ch, size_t n)
{
    char *text = apr_palloc(pool, n + 1);

    memset(text, ch, n);
    text[n] = '\0';
    return text;
}

/* A line has 512 octets at most, with its codes and CRLF. */
static void test_long_lines(void **state)
{
    const size_t fits = SMTP_REPLY_LINE_MAX - strlen("250 2.0.0 \r\n");
    size_t n;

    (void)state;
    for (n = fits - 2; n < fits + 600; n++) {
        smtp_reply_t reply = { 250, "2.0.0", repeat('x', n) };
        char *text = wire(&reply);

        assert_int_equal(strlen(text), 12 + (n < fits ? n : fits));
        assert_string_equal(text + strlen(text) - 3, "x\r\n");
        reply.text = apr_pstrcat(pool, reply.text, "\nb", NULL);
        text = wire(&reply);
        assert_string_equal(strchr(text, '\n') + 1, "250 2.0.0 b\r\n");
    }
}

static void test_many_lines(void **state)
{
    int n;

    (void)state;
    for (n = SMTP_REPLY_LINES_MAX - 1; n < SMTP_REPLY_LINES_MAX + 3; n++) {
        smtp_reply_t reply = { 550, "5.0.0", repeat('\n', n - 1) };
        const char *at = wire(&reply);
        int lines;

        for (lines = 1; at[3] == '-'; lines++) {
            at = strchr(at, '\n') + 1;
        }
        assert_string_equal(at, "550 5.0.0\r\n");
        assert_int_equal(lines, n < SMTP_REPLY_LINES_MAX ? n : SMTP_REPLY_LINES_MAX);
    }
}

/* Every row is complete, fits on one line and has an enhanced code of its class. */
static void test_table(void **state)
{
    int id;

    (void)state;
    for (id = 0; id < SMTP_REPLY_COUNT; id++) {
        const smtp_reply_t *reply = smtp_reply(id);

        if (!reply->text || !*reply->text || strchr(reply->text, '\n') || !reply->enhanced) {
            fail_msg("row %d is incomplete", id);
        }
        assert_in_range(reply->code, 200, 599);
        assert_int_equal(strlen(reply->enhanced),
                         reply->code == 354 ? 0 : smtp_reply_find_enhanced(reply->enhanced,
                                                                           reply->code));
        assert_true(reply->code == 354 || *reply->enhanced);
        assert_true(strlen(wire(reply)) < 80);
        assert_int_equal(smtp_reply_is_positive(reply), reply->code < 400);
    }
}

static void test_reword(void **state)
{
    char text[] = "No such user";
    const smtp_reply_t *reply = smtp_reply_reword(pool, SMTP_REPLY_RELAY_DENIED, text);

    (void)state;
    text[0] = 'X';
    assert_string_equal(wire(reply), "550 5.7.1 No such user\r\n");
    assert_string_equal(wire(smtp_reply(SMTP_REPLY_RELAY_DENIED)), "550 5.7.1 Relaying denied\r\n");
}

static const struct {
    const char *text;
    int code;
    size_t n;
} enhanced[] = {
    { "5.7.1 no", 550, 5 },     { "5.7.1", 550, 5 },        { "5.7.1\nb", 550, 5 },
    { "2.0.0 ok", 250, 5 },     { "4.999.999 x", 450, 9 },  { "4.30.5 x", 451, 6 },
    { "5.7.1 no", 450, 0 },     { "4.7.1 no", 550, 0 },     { "2.0.0 ok", 354, 0 },
    { "5.7.1x no", 550, 0 },    { "5.7.1: no", 550, 0 },    { "5.7.", 550, 0 },
    { "5.7", 550, 0 },          { "5..1 x", 550, 0 },       { "5.", 550, 0 },
    { "5", 550, 0 },            { "", 550, 0 },             { " 5.7.1 x", 550, 0 },
    { "5.1234.1 x", 550, 0 },   { "5.1.1234 x", 550, 0 },   { "5.7.1.2 x", 550, 0 },
    { "55.7.1 x", 550, 0 },     { "#5.7.1 x", 550, 0 },     { "5.7.1-x", 550, 0 },
};

static void test_find_enhanced(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(enhanced); i++) {
        if (smtp_reply_find_enhanced(enhanced[i].text, enhanced[i].code) != enhanced[i].n) {
            fail_msg("%d \"%s\": not %lu", enhanced[i].code, enhanced[i].text,
                     (unsigned long)enhanced[i].n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),      cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_many_lines), cmocka_unit_test(test_table),
        cmocka_unit_test(test_reword),     cmocka_unit_test(test_find_enhanced),
    };
    int failed;

    apr_initialize();
    apr_pool_create(&pool, NULL);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_pool_destroy(pool);
    apr_terminate();
    return failed;
}
