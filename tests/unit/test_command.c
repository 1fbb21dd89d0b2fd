/* Command lines by the rows of two tables, and the character classes against lists of
 * the characters that the RFCs name. Covers smtp/command.c and smtp/chars.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/command.h"

#define IN(literal) literal, sizeof(literal) - 1
#define COUNT(table) (sizeof(table) / sizeof *(table))

static const struct {
    const char *in;
    size_t n;
    const char *verb; /* NULL: SMTP_BAD */
    const char *args;
} lines[] = {
    {IN("QUIT"), "QUIT", ""},
    {IN("quit  \t"), "quit", ""},
    {IN("EHLO mail.example.com"), "EHLO", "mail.example.com"},
    {IN("Mail \t FROM:<a@b>  SIZE=1 "), "Mail", "FROM:<a@b>  SIZE=1"},
    {IN("NOOP\tx"), "NOOP", "x"},
    {IN("GET / HTTP/1.1"), "GET", "/ HTTP/1.1"},
    {IN(""), "", ""},
    {IN("   "), "", ""},
    {IN(" QUIT"), "", " QUIT"},
    {IN("QUIT2 x "), "", "QUIT2 x"},
    {IN("MAIL:x"), "", "MAIL:x"},
    {IN("X-FOO"), "", "X-FOO"},
    {IN("QUIT\x80"), "", "QUIT\x80"},
    {IN("DATA\x01"), "", "DATA\x01"},
    {IN("EHLO b\xfc"
        "cher"), "EHLO",
     "b\xfc"
     "cher"},
    {IN("."), "", "."},
    {IN("Host: x"), "", "Host: x"},
    {IN("@A[`{"), "", "@A[`{"},
    {IN("QUIT\r"), NULL, NULL},
    {IN("QUIT\n"), NULL, NULL},
    {IN("QUIT\0"), NULL, NULL},
    {IN("\0"), NULL, NULL},
    {IN("MAIL FROM:<a\rX: y@b>"), NULL, NULL},
    {IN("NOOP x\nQUIT"), NULL, NULL},
    {IN("RCPT TO:<a@evil.example\0@b>"), NULL, NULL},
};

static const struct {
    const char *in;
    size_t n;
    const char *keyword;
    int taken;
} keywords[] = {
    {IN("FROM:<a@b>"), "FROM:", 1}, {IN("from:"), "FROM:", 1},   {IN("fRoM: x"), "FROM:", 1},
    {IN("FROM"), "FROM:", 0},       {IN("FROM :x"), "FROM:", 0}, {IN(" FROM:"), "FROM:", 0},
    {IN("TO:<a@b>"), "FROM:", 0},   {IN(""), "FROM:", 0},        {IN("TO\0x"), "TO:", 0},
    {IN("TO\x1a"), "TO:", 0},
};

static const char digits[] = "0123456789";
static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/* Each class as letters, digits, and the others it has; or as all of 33..126 but some. */
static const struct {
    int class;
    int all_but;
    const char *others;
} classes[] = {
    {SMTP_CHAR_ATEXT, 0, "!#$%&'*+-/=?^_`{|}~"},
    {SMTP_CHAR_LDH, 0, "-_"},
    {SMTP_CHAR_KEY, 0, "-"},
    {SMTP_CHAR_QTEXT, 1, "\"\\"},
    {SMTP_CHAR_DTEXT, 1, "[\\]"},
    {SMTP_CHAR_VALUE, 1, "="},
    {SMTP_CHAR_FTEXT, 1, ":"},
    {SMTP_CHAR_TEXT, 1, ""},
};

/* The octets in an allocation of exactly their size. */
static char *exact(const char *in, size_t n)
{
    char *copy = malloc(n);

    assert_non_null(copy);
    return memcpy(copy, in, n);
}

static int same(smtp_span_t span, const char *want)
{
    return span.p && span.n == strlen(want) && memcmp(span.p, want, span.n) == 0;
}

static void test_lines(void **state)
{
    size_t row;

    (void)state;
    for (row = 0; row < COUNT(lines); ++row) {
        char *in = exact(lines[row].in, lines[row].n);
        const char *verb = lines[row].verb;
        smtp_command_t cmd;
        smtp_parse_e result = smtp_command_parse(&cmd, (smtp_span_t){in, lines[row].n});

        if (result != (verb ? SMTP_OK : SMTP_BAD) || !same(cmd.verb, verb ? verb : "")
            || !same(cmd.args, verb ? lines[row].args : "")) {
            fail_msg("\"%s\" gave %d \"%.*s\" \"%.*s\"", lines[row].in, result, (int)cmd.verb.n,
                     cmd.verb.p, (int)cmd.args.n, cmd.args.p);
        }
        free(in);
    }
}

static void test_keywords(void **state)
{
    size_t row;

    (void)state;
    for (row = 0; row < COUNT(keywords); ++row) {
        char *in = exact(keywords[row].in, keywords[row].n);
        const char *at = in;
        int taken = smtp_command_take(&at, in + keywords[row].n, keywords[row].keyword);

        assert_int_equal(taken, keywords[row].taken);
        assert_int_equal(at - in, taken ? strlen(keywords[row].keyword) : 0);
        free(in);
    }
}

static int in_class(size_t row, int ch)
{
    int listed = ch && strchr(classes[row].others, ch);

    if (classes[row].all_but) {
        int blank = ch == ' ' && (classes[row].class & (SMTP_CHAR_QTEXT | SMTP_CHAR_TEXT));

        return blank || (ch >= 33 && ch <= 126 && !listed);
    }
    return listed || (ch && (strchr(digits, ch) || strchr(letters, ch)));
}

static void test_classes(void **state)
{
    size_t row;
    int ch;

    (void)state;
    for (row = 0; row < COUNT(classes); ++row) {
        for (ch = 0; ch < 256; ++ch) {
            if (!smtp_char_is((char)ch, classes[row].class) != !in_class(row, ch)) {
                fail_msg("octet %d, class 0x%02x", ch, (unsigned)classes[row].class);
            }
        }
    }
    for (ch = 0; ch < 256; ++ch) {
        assert_int_equal(smtp_char_is_blank((char)ch), ch == ' ' || ch == '\t');
    }
}

static void test_skip(void **state)
{
    const char in[] = "ab-1 \t x";
    const char *at = in;

    (void)state;
    assert_int_equal(smtp_chars_skip(&at, in + 3, SMTP_CHAR_KEY), 3);
    assert_int_equal(smtp_chars_skip(&at, in + 8, SMTP_CHAR_KEY), 1);
    assert_int_equal(smtp_chars_skip(&at, in + 8, SMTP_CHAR_KEY), 0);
    smtp_chars_skip_blanks(&at, in + 6);
    assert_ptr_equal(at, in + 6);
    smtp_chars_skip_blanks(&at, in + 8);
    assert_ptr_equal(at, in + 7);
}

static void test_spans(void **state)
{
    (void)state;
    assert_true(smtp_span_is((smtp_span_t){IN("eHlO")}, "EHLO"));
    assert_false(smtp_span_is((smtp_span_t){IN("EHL")}, "EHLO"));
    assert_false(smtp_span_is((smtp_span_t){IN("EHLOX")}, "EHLO"));
    assert_false(smtp_span_is((smtp_span_t){IN("EHLO\0")}, "EHLO"));
    assert_true(smtp_span_is((smtp_span_t){IN("")}, ""));
    assert_true(smtp_span_equal((smtp_span_t){IN("A.b")}, (smtp_span_t){IN("a.B")}));
    assert_false(smtp_span_equal((smtp_span_t){IN("a\0b")}, (smtp_span_t){IN("a\0c")}));
    assert_false(smtp_span_equal((smtp_span_t){IN("[")}, (smtp_span_t){IN("{")}));
    assert_false(smtp_span_equal((smtp_span_t){IN("@")}, (smtp_span_t){IN("`")}));
    assert_false(smtp_span_equal((smtp_span_t){IN("\xc4")}, (smtp_span_t){IN("\xe4")}));
}

static void test_make_printable(void **state)
{
    char text[] = "a b\r\n\t\0\x7f\x80\xff~!";

    (void)state;
    smtp_chars_make_printable(text, sizeof text - 2);
    assert_memory_equal(text, "a b???????~!", sizeof text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines), cmocka_unit_test(test_keywords),
        cmocka_unit_test(test_classes), cmocka_unit_test(test_skip),
        cmocka_unit_test(test_spans), cmocka_unit_test(test_make_printable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
