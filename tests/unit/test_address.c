/* Paths, mailboxes and domains by the rows of three tables, and the lengths at their
 * limits. Each input is parsed in an allocation of exactly its size, so that the
 * address sanitizer sees an octet read beyond it. Covers smtp/address.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/address.h"
#include "smtp/limits.h"

#define IN(literal) literal, sizeof(literal) - 1
#define COUNT(table) (sizeof(table) / sizeof *(table))

static const struct {
    const char *in;
    size_t n;
    const char *text; /* NULL: SMTP_BAD */
    const char *local, *domain;
    size_t at; /* where the cursor stands then */
} paths[] = {
    /* the usual */
    {IN("<a@b>"), "a@b", "a", "b", 5},
    {IN("<Joe.User@Mail.Example.COM>"), "Joe.User@Mail.Example.COM", "Joe.User", "Mail.Example.COM",
     27},
    {IN("<a@b> SIZE=1"), "a@b", "a", "b", 6},
    {IN("<a@b>\t SIZE=1"), "a@b", "a", "b", 7},
    {IN(" \t<a@b>  "), "a@b", "a", "b", 9},
    {IN("<!#$%&'*+-/=?^_`{|}~9@b>"), "!#$%&'*+-/=?^_`{|}~9@b", "!#$%&'*+-/=?^_`{|}~9", "b", 24},
    /* the null path */
    {IN("<>"), "", "", "", 2},
    {IN("<> BODY=8BITMIME"), "", "", "", 3},
    {IN(" <>"), "", "", "", 3},
    {IN("< >"), NULL, NULL, NULL, 1},
    {IN("<"), NULL, NULL, NULL, 1},
    {IN(">"), NULL, NULL, NULL, 0},
    {IN(""), NULL, NULL, NULL, 0},
    {IN("  "), NULL, NULL, NULL, 2},
    {IN("<><"), NULL, NULL, NULL, 2},
    /* postmaster alone */
    {IN("<postmaster>"), "postmaster", "postmaster", "", 12},
    {IN("<PostMaster> X"), "PostMaster", "PostMaster", "", 13},
    {IN("POSTMASTER"), "POSTMASTER", "POSTMASTER", "", 10},
    {IN("postmaster X"), "postmaster", "postmaster", "", 11},
    {IN("<postmaster@b>"), "postmaster@b", "postmaster", "b", 14},
    {IN("<postmaster@>"), NULL, NULL, NULL, 12},
    {IN("<postmaste>"), NULL, NULL, NULL, 10},
    {IN("<postmaster.>"), NULL, NULL, NULL, 12},
    {IN("<\"postmaster\">"), NULL, NULL, NULL, 13},
    {IN("postmaster>"), NULL, NULL, NULL, 10},
    {IN("<abuse>"), NULL, NULL, NULL, 6},
    /* without brackets */
    {IN("a@b"), "a@b", "a", "b", 3},
    {IN("a@b SIZE=1"), "a@b", "a", "b", 4},
    {IN("\"a b\"@c X"), "\"a b\"@c", "\"a b\"", "c", 8},
    {IN("a@b>"), NULL, NULL, NULL, 3},
    {IN("<a@b"), NULL, NULL, NULL, 4},
    {IN("<a@b >"), NULL, NULL, NULL, 4},
    {IN("< a@b>"), NULL, NULL, NULL, 1},
    {IN("<a@b>x"), NULL, NULL, NULL, 5},
    {IN("<a@b>>"), NULL, NULL, NULL, 5},
    {IN("<<a@b>>"), NULL, NULL, NULL, 1},
    {IN("Joe <a@b>"), NULL, NULL, NULL, 3},
    {IN("a b@c"), NULL, NULL, NULL, 1},
    /* halves */
    {IN("<@>"), NULL, NULL, NULL, 2},
    {IN("<a@>"), NULL, NULL, NULL, 3},
    {IN("<@b>"), NULL, NULL, NULL, 3},
    {IN("<a>"), NULL, NULL, NULL, 2},
    {IN("@b"), NULL, NULL, NULL, 2},
    {IN("a@"), NULL, NULL, NULL, 2},
    {IN("<a@b@c>"), NULL, NULL, NULL, 4},
    /* dots of the local part */
    {IN("<a..b@c>"), "a..b@c", "a..b", "c", 8},
    {IN("<.a.@c>"), ".a.@c", ".a.", "c", 7},
    /* quoted local parts */
    {IN("<\"\"@b>"), "\"\"@b", "\"\"", "b", 6},
    {IN("<\"a b\"@c>"), "\"a b\"@c", "\"a b\"", "c", 9},
    {IN("<\"a\\\"b\\\\\"@c>"), "\"a\\\"b\\\\\"@c", "\"a\\\"b\\\\\"", "c", 12},
    {IN("<\"a@b>\"@c>"), "\"a@b>\"@c", "\"a@b>\"", "c", 10},
    {IN("<\"a\\ \"@c>"), "\"a\\ \"@c", "\"a\\ \"", "c", 9},
    {IN("<\"a@c>"), NULL, NULL, NULL, 6},
    {IN("<\"a\\"), NULL, NULL, NULL, 4},
    {IN("<\"a\\\"@c>"), NULL, NULL, NULL, 8},
    {IN("<\"a\".b@c>"), NULL, NULL, NULL, 4},
    {IN("<a\"b\"@c>"), NULL, NULL, NULL, 2},
    {IN("<\"a\tb\"@c>"), NULL, NULL, NULL, 3},
    {IN("<\"a\\\tb\"@c>"), NULL, NULL, NULL, 4},
    {IN("<\"a\\\x80\"@c>"), NULL, NULL, NULL, 4},
    /* octets that may stand nowhere */
    {IN("<a\0b@c>"), NULL, NULL, NULL, 2},
    {IN("<a@b\0>"), NULL, NULL, NULL, 4},
    {IN("<a@b\0.example>"), NULL, NULL, NULL, 4},
    {IN("<a\rX: y@c>"), NULL, NULL, NULL, 2},
    {IN("<a@b>\r"), NULL, NULL, NULL, 5},
    {IN("<a@b>\n"), NULL, NULL, NULL, 5},
    {IN("<a\x7f@c>"), NULL, NULL, NULL, 2},
    {IN("<\xc3\xa4@c>"), NULL, NULL, NULL, 1},
    {IN("<a@\xc3\xa4.example>"), NULL, NULL, NULL, 3},
    {IN("<\"\xc3\xa4\"@c>"), NULL, NULL, NULL, 2},
    {IN("<a(b)@c>"), NULL, NULL, NULL, 2},
    {IN("<a;b@c>"), NULL, NULL, NULL, 2},
    {IN("<${run{x}}@c>"), "${run{x}}@c", "${run{x}}", "c", 13},
    {IN("<$(x)@c>"), NULL, NULL, NULL, 2},
    /* domains */
    {IN("<a@b.>"), "a@b", "a", "b", 6},
    {IN("a@b. X"), "a@b", "a", "b", 5},
    {IN("a@b."), "a@b", "a", "b", 4},
    {IN("<a@b..>"), NULL, NULL, NULL, 5},
    {IN("<a@.b>"), NULL, NULL, NULL, 3},
    {IN("<a@b..c>"), NULL, NULL, NULL, 5},
    {IN("<a@_x._y_>"), "a@_x._y_", "a", "_x._y_", 10},
    {IN("<a@-b>"), NULL, NULL, NULL, 3},
    {IN("<a@b->"), NULL, NULL, NULL, 4},
    {IN("<a@b.-c>"), NULL, NULL, NULL, 5},
    {IN("<a@b-.c>"), NULL, NULL, NULL, 4},
    {IN("<a@->"), NULL, NULL, NULL, 3},
    {IN("<a@b--c>"), "a@b--c", "a", "b--c", 8},
    {IN("<a@b/c>"), NULL, NULL, NULL, 4},
    {IN("<a@b:25>"), NULL, NULL, NULL, 4},
    {IN("<a@192.0.2.1>"), NULL, NULL, NULL, 3},
    {IN("<a@192.0.2.1.>"), NULL, NULL, NULL, 3},
    {IN("<a@127>"), NULL, NULL, NULL, 3},
    {IN("<a@b.1>"), "a@b.1", "a", "b.1", 7},
    {IN("<a@1.b>"), "a@1.b", "a", "1.b", 7},
    {IN("<a@b.c1>"), "a@b.c1", "a", "b.c1", 8},
    {IN("<a@b.1c>"), "a@b.1c", "a", "b.1c", 8},
    /* literals */
    {IN("<a@[192.0.2.1]>"), "a@[192.0.2.1]", "a", "[192.0.2.1]", 15},
    {IN("<a@[IPv6:2001:db8::1]>"), "a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]", 22},
    {IN("<a@[192.0.2.1].>"), NULL, NULL, NULL, 14},
    {IN("<a@[192.0.2.256]>"), NULL, NULL, NULL, 4},
    {IN("<a@[192.0.2.1>"), NULL, NULL, NULL, 14},
    {IN("a@["), NULL, NULL, NULL, 3},
    {IN("<a@[192.0.2.1]x>"), NULL, NULL, NULL, 14},
    {IN("<a@[192.0.2.1\0]>"), NULL, NULL, NULL, 13},
    /* source routes */
    {IN("<@a.example,@b.example:user@c.example>"), "user@c.example", "user", "c.example", 38},
    {IN("<@a.:user@c>"), "user@c", "user", "c", 12},
    {IN("<@[192.0.2.1]:user@c>"), "user@c", "user", "c", 21},
    {IN("@a:b@c X"), "b@c", "b", "c", 7},
    {IN("<@a:postmaster>"), "postmaster", "postmaster", "", 15},
    {IN("<@a,b@c>"), NULL, NULL, NULL, 4},
    {IN("<@a@b:c@d>"), NULL, NULL, NULL, 3},
    {IN("<@a,:b@c>"), NULL, NULL, NULL, 4},
    {IN("<@:b@c>"), NULL, NULL, NULL, 2},
    {IN("<@a:>"), NULL, NULL, NULL, 4},
    {IN("<@-a:b@c>"), NULL, NULL, NULL, 2},
    {IN("<@a:@b:c@d>"), NULL, NULL, NULL, 4},
    {IN("<a:b@c>"), NULL, NULL, NULL, 2},
};

static const struct {
    const char *in;
    size_t n;
    smtp_parse_e result;
} mailboxes[] = {
    {IN("a@b"), SMTP_OK},         {IN("\"a b\"@c"), SMTP_OK}, {IN("a@[192.0.2.1]"), SMTP_OK},
    {IN("a@b."), SMTP_OK},        {IN(""), SMTP_BAD},         {IN("<a@b>"), SMTP_BAD},
    {IN(" a@b"), SMTP_BAD},       {IN("a@b "), SMTP_BAD},     {IN("@r:a@b"), SMTP_BAD},
    {IN("postmaster"), SMTP_BAD}, {IN("a"), SMTP_BAD},        {IN("a@b\0"), SMTP_BAD},
    {IN("a@b\r\n"), SMTP_BAD},    {IN("a@b,c@d"), SMTP_BAD},  {IN("a@127.1"), SMTP_BAD},
}, domains[] = {
    {IN("a"), SMTP_OK},
    {IN("mail.example.com"), SMTP_OK},
    {IN("mail.example.com."), SMTP_OK},
    {IN("my_host"), SMTP_OK},
    {IN(""), SMTP_BAD},
    {IN("."), SMTP_BAD},
    {IN(".a"), SMTP_BAD},
    {IN("a.."), SMTP_BAD},
    {IN("a b"), SMTP_BAD},
    {IN("a\0b"), SMTP_BAD},
    {IN("a-"), SMTP_BAD},
    {IN("-a"), SMTP_BAD},
    {IN("-"), SMTP_BAD},
    {IN("b\xfc"
        "cher.example"), SMTP_BAD},
    {IN("[0.0.0.0]"), SMTP_OK},
    {IN("[255.255.255.255]"), SMTP_OK},
    {IN("[256.1.1.1]"), SMTP_BAD},
    {IN("[1.2.3]"), SMTP_BAD},
    {IN("[1.2.3.4.5]"), SMTP_BAD},
    {IN("[1.2.3.]"), SMTP_BAD},
    {IN("[ 1.2.3.4]"), SMTP_BAD},
    {IN("[1.2.3.4"), SMTP_BAD},
    {IN("[1.2.3.4]]"), SMTP_BAD},
    {IN("[1.2.3.4\\]"), SMTP_BAD},
    {IN("[]"), SMTP_BAD},
    {IN("["), SMTP_BAD},
    {IN("[IPv6:::1]"), SMTP_OK},
    {IN("[ipV6:2001:DB8::192.0.2.1]"), SMTP_OK},
    {IN("[IPv6:1:2:3:4:5:6:7:8]"), SMTP_OK},
    {IN("[IPv6:1:2:3:4:5:6:7:8:9]"), SMTP_BAD},
    {IN("[IPv6:1::2::3]"), SMTP_BAD},
    {IN("[IPv6:12345::]"), SMTP_BAD},
    {IN("[IPv6:192.0.2.1]"), SMTP_BAD},
    {IN("[IPv6:]"), SMTP_BAD},
    {IN("[IPv6:fe80::1%eth0]"), SMTP_BAD},
    {IN("[IPv6:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]"), SMTP_BAD},
    {IN("[::1]"), SMTP_BAD},
    {IN("[X-tag:a!b]"), SMTP_BAD},
    {IN("[IPv4:192.0.2.1]"), SMTP_BAD},
    {IN("[ta_g:a]"), SMTP_BAD},
    {IN("[tag:]"), SMTP_BAD},
    {IN("[tag:a b]"), SMTP_BAD},
    {IN("[tag:a[b]"), SMTP_BAD},
};

static const struct {
    const char *in;
    size_t n;
    const char *plain;
    int routed;
} locals[] = {
    {IN("a@b"), "a", 0},
    {IN("A.b+c@d"), "A.b+c", 0},
    {IN("\"a b\"@c"), "a b", 0},
    {IN("\"\"@c"), "", 0},
    {IN("\"a\\\"\\\\\\b\"@c"), "a\"\\b", 0},
    {IN("\"../x\"@c"), "../x", 0},
    {IN("a%b@c"), "a%b", 1},
    {IN("a!b@c"), "a!b", 1},
    {IN("\"a@b\"@c"), "a@b", 1},
    {IN("\"a\\@b\"@c"), "a@b", 1},
    {IN("\"a%b\"@c"), "a%b", 1},
    {IN("a@b-c"), "a", 0},
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

static void check_path(size_t row)
{
    char *in = exact(paths[row].in, paths[row].n);
    const char *at = in;
    const char *want = paths[row].text;
    smtp_address_t a;
    smtp_parse_e result = smtp_address_parse(&a, &at, in + paths[row].n);

    if (result != (want ? SMTP_OK : SMTP_BAD) || (size_t)(at - in) != paths[row].at) {
        fail_msg("\"%s\" gave %d at %d", paths[row].in, result, (int)(at - in));
    }
    if (!same(a.text, want ? want : "") || !same(a.local, want ? paths[row].local : "")
        || !same(a.domain, want ? paths[row].domain : "")) {
        fail_msg("\"%s\" gave \"%.*s\", \"%.*s\", \"%.*s\"", paths[row].in, (int)a.text.n,
                 a.text.p, (int)a.local.n, a.local.p, (int)a.domain.n, a.domain.p);
    }
    free(in);
}

static void test_paths(void **state)
{
    size_t row;

    (void)state;
    for (row = 0; row < COUNT(paths); ++row) {
        check_path(row);
    }
}

/* A path that needs its bracket is bad at any cut; no cut leads out of the input. */
static void test_cut_paths(void **state)
{
    size_t row, n;

    (void)state;
    for (row = 0; row < COUNT(paths); ++row) {
        for (n = 0; n < paths[row].n; ++n) {
            char *in = exact(paths[row].in, n);
            const char *at = in;
            smtp_address_t a;
            smtp_parse_e result = smtp_address_parse(&a, &at, in + n);

            assert_in_range(at - in, 0, n);
            if (n > 0 && in[0] == '<' && !memchr(in, '>', n)) {
                assert_int_equal(result, SMTP_BAD);
            }
            free(in);
        }
    }
}

static void test_mailboxes(void **state)
{
    size_t row;

    (void)state;
    for (row = 0; row < COUNT(mailboxes); ++row) {
        char *in = exact(mailboxes[row].in, mailboxes[row].n);
        smtp_address_t a;
        smtp_parse_e result = smtp_address_parse_mailbox(&a, (smtp_span_t){in, mailboxes[row].n});

        if (result != mailboxes[row].result || (result == SMTP_OK) != (a.text.n > 0)) {
            fail_msg("\"%s\" gave %d, %d octets", mailboxes[row].in, result, (int)a.text.n);
        }
        free(in);
    }
}

static void test_domains(void **state)
{
    size_t row;

    (void)state;
    for (row = 0; row < COUNT(domains); ++row) {
        char *in = exact(domains[row].in, domains[row].n);
        smtp_parse_e result = smtp_address_check_domain((smtp_span_t){in, domains[row].n});

        if (result != domains[row].result) {
            fail_msg("\"%s\" gave %d", domains[row].in, result);
        }
        free(in);
    }
}

static void test_locals(void **state)
{
    char plain[SMTP_PATH_MAX];
    smtp_address_t a;
    size_t row;

    (void)state;
    for (row = 0; row < COUNT(locals); ++row) {
        smtp_span_t in = {locals[row].in, locals[row].n};

        assert_int_equal(smtp_address_parse_mailbox(&a, in), SMTP_OK);
        assert_int_equal(smtp_address_unquote(&a, plain, sizeof plain), strlen(locals[row].plain));
        assert_string_equal(plain, locals[row].plain);
        assert_int_equal(smtp_address_is_routed(&a), locals[row].routed);
    }
}

static void test_unquote_into_little_room(void **state)
{
    char plain[4] = "xxx";
    smtp_address_t a;

    (void)state;
    assert_int_equal(smtp_address_parse_mailbox(&a, (smtp_span_t){IN("\"a\\b c\"@d")}), SMTP_OK);
    assert_int_equal(smtp_address_unquote(&a, plain, 0), 0);
    assert_string_equal(plain, "xxx");
    assert_int_equal(smtp_address_unquote(&a, plain, 1), 0);
    assert_string_equal(plain, "");
    assert_int_equal(smtp_address_unquote(&a, plain, 3), 2);
    assert_string_equal(plain, "ab");
}

/* Parses "<local@b>" or "local@b" of path octets; the cursor where it was refused. */
static size_t parse_long(int brackets, size_t path, const char *behind, smtp_parse_e want)
{
    size_t local = path - strlen("@b") - (brackets ? strlen("<>") : 0);
    size_t room = path + strlen(behind) + 1;
    char *in = malloc(room);
    const char *at = in;
    size_t stood;
    smtp_address_t a;

    assert_non_null(in);
    snprintf(in, room, "%s%0*d@b%s%s", brackets ? "<" : "", (int)local, 0, brackets ? ">" : "",
             behind);
    assert_int_equal(strlen(in), room - 1);
    assert_int_equal(smtp_address_parse(&a, &at, in + room - 1), want);
    assert_int_equal(a.local.n, want == SMTP_OK ? local : 0);
    stood = (size_t)(at - in);
    free(in);
    return stood;
}

static void test_length_of_path(void **state)
{
    (void)state;
    parse_long(1, SMTP_USUAL_PATH_MAX, "", SMTP_OK);
    parse_long(1, SMTP_USUAL_PATH_MAX, " SIZE=1", SMTP_OK);
    assert_int_equal(parse_long(1, SMTP_USUAL_PATH_MAX + 1, "", SMTP_BAD), SMTP_USUAL_PATH_MAX);
    parse_long(0, SMTP_USUAL_PATH_MAX - 2, "", SMTP_OK);
    parse_long(0, SMTP_USUAL_PATH_MAX - 2, " SIZE=1", SMTP_OK);
    assert_int_equal(parse_long(0, SMTP_USUAL_PATH_MAX - 2, ".", SMTP_BAD), SMTP_USUAL_PATH_MAX - 2);
    assert_int_equal(parse_long(0, SMTP_USUAL_PATH_MAX - 1, "", SMTP_BAD), SMTP_USUAL_PATH_MAX - 2);
    assert_int_equal(parse_long(1, 8192, "", SMTP_BAD), SMTP_PATH_MAX);
}

static void test_length_of_mailbox(void **state)
{
    char in[SMTP_USUAL_PATH_MAX];
    smtp_address_t a;

    (void)state;
    snprintf(in, sizeof in, "%0*d@b", SMTP_USUAL_PATH_MAX - 3, 0);
    assert_int_equal(smtp_address_parse_mailbox(&a, (smtp_span_t){in + 1, SMTP_USUAL_PATH_MAX - 2}),
                     SMTP_OK);
    assert_int_equal(smtp_address_parse_mailbox(&a, (smtp_span_t){in, SMTP_USUAL_PATH_MAX - 1}),
                     SMTP_BAD);
}

/* The longest local part that any server must take, before the longest domain. */
static void test_longest_of_both(void **state)
{
    char in[SMTP_PATH_MAX + 8];
    smtp_address_t a;
    int local;

    (void)state;
    for (local = SMTP_LOCAL_MIN; local <= SMTP_LOCAL_MIN + 1; local++) {
        int n = snprintf(in, sizeof in, "<%0*d@", local, 0), i;
        const char *at = in;

        for (i = 0; i < SMTP_DOMAIN_MAX; i++) {
            in[n++] = i % 4 == 3 ? '.' : 'a';
        }
        in[n++] = '>';
        assert_int_equal(smtp_address_parse(&a, &at, in + n),
                         local == SMTP_LOCAL_MIN ? SMTP_OK : SMTP_BAD);
        assert_int_equal(a.domain.n, local == SMTP_LOCAL_MIN ? SMTP_DOMAIN_MAX : 0);
    }
}

static smtp_parse_e check_labels(size_t n, size_t label, const char *behind)
{
    char name[SMTP_DOMAIN_MAX + 8];
    size_t i;

    assert_in_range(n + strlen(behind), 0, sizeof name);
    for (i = 0; i < n; ++i) {
        name[i] = i % (label + 1) == label ? '.' : 'a';
    }
    memcpy(name + n, behind, strlen(behind));
    return smtp_address_check_domain((smtp_span_t){name, n + strlen(behind)});
}

static void test_length_of_domain(void **state)
{
    (void)state;
    assert_int_equal(check_labels(SMTP_LABEL_MAX, SMTP_LABEL_MAX, ""), SMTP_OK);
    assert_int_equal(check_labels(SMTP_LABEL_MAX, SMTP_LABEL_MAX, "a"), SMTP_BAD);
    assert_int_equal(check_labels(SMTP_LABEL_MAX, SMTP_LABEL_MAX, ".b"), SMTP_OK);
    assert_int_equal(check_labels(SMTP_DOMAIN_MAX, SMTP_LABEL_MAX, ""), SMTP_OK);
    assert_int_equal(check_labels(SMTP_DOMAIN_MAX, SMTP_LABEL_MAX, "."), SMTP_OK);
    assert_int_equal(check_labels(SMTP_DOMAIN_MAX, 50, "a"), SMTP_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),          cmocka_unit_test(test_cut_paths),
        cmocka_unit_test(test_mailboxes),      cmocka_unit_test(test_domains),
        cmocka_unit_test(test_locals),         cmocka_unit_test(test_unquote_into_little_room),
        cmocka_unit_test(test_length_of_path), cmocka_unit_test(test_length_of_mailbox),
        cmocka_unit_test(test_longest_of_both),
        cmocka_unit_test(test_length_of_domain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
