/* relay/mailpath.c: what hostile addresses become in a path.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <apr_lib.h>
#include <apr_tables.h>

#include "relay/mailpath.c"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))
#define X10 "XXXXXXXXXX"
#define X120 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10

static const char *hostname = "mx.example.org";

const char *nssmtpd_hostname(const server_rec *s)
{
    (void)s;
    return hostname;
}

void ap_str_tolower(char *text)
{
    for (; *text; text++) {
        *text = apr_tolower(*text);
    }
}

typedef struct mail_t {
    apr_pool_t *p;
    request_rec r;
    nssmtpd_transaction_t t;
} mail_t;

static int set_up(void **state)
{
    mail_t *mail = calloc(1, sizeof(*mail));

    apr_pool_create(&mail->p, NULL);
    mail->r.pool = mail->p;
    mail->t.r = &mail->r;
    *state = mail;
    return 0;
}

static int tear_down(void **state)
{
    mail_t *mail = *state;

    apr_pool_destroy(mail->p);
    free(mail);
    return 0;
}

static const struct {
    const char *local, *domain, *path;
} addresses[] = {
    { "bob", "example.org", "/m/example.org/bob" },
    { "Bob", "example.org", "/m/example.org/Bob" },
    { "bob+tag_a=b-c.d", "example.org", "/m/example.org/bob+tag_a=b-c.d" },
    { "", "example.org", "/m/example.org/%00" },
    { ".", "example.org", "/m/example.org/%2e" },
    { "..", "example.org", "/m/example.org/%2e." },
    { "...", "example.org", "/m/example.org/%2e.." },
    { ".bob", "example.org", "/m/example.org/%2ebob" },
    { "%2e", "example.org", "/m/example.org/%252e" },
    { "%", "example.org", "/m/example.org/%25" },
    { "%00", "example.org", "/m/example.org/%2500" },
    { "%u", "example.org", "/m/example.org/%25u" },
    { "../../etc/x", "example.org", "/m/example.org/%2e.%2f..%2fetc%2fx" },
    { "/etc/x", "example.org", "/m/example.org/%2fetc%2fx" },
    { "a/b", "example.org", "/m/example.org/a%2fb" },
    { "a\\b", "example.org", "/m/example.org/a%5cb" },
    { "a b", "example.org", "/m/example.org/a%20b" },
    { "a@b", "example.org", "/m/example.org/a%40b" },
    { "a:b", "example.org", "/m/example.org/a%3ab" },
    { "~root", "example.org", "/m/example.org/%7eroot" },
    { "$(id)`'\"", "example.org", "/m/example.org/%24%28id%29%60%27%22" },
    { "a\r\nb\t\x01\x7f", "example.org", "/m/example.org/a%0d%0ab%09%01%7f" },
    { "\xc3\xa9\xff", "example.org", "/m/example.org/%c3%a9%ff" },
    { X120, "example.org", "/m/example.org/" X120 },
    { X120 "y", "example.org", "/m/example.org/" X120 "%/y" },
    { X120 "..", "example.org", "/m/example.org/" X120 "%/%2e." },
    { X120 "/", "example.org", "/m/example.org/" X120 "%/%2f" },
    { X120 X120, "example.org", "/m/example.org/" X120 "%/" X120 },
    { "bob", "[127.0.0.1]", "/m/%5b127.0.0.1%5d/bob" },
    { "bob", "[ipv6:::1]", "/m/%5bipv6%3a%3a%3a1%5d/bob" },
    { "bob", "..", "/m/%2e./bob" },
    { "postmaster", "", "/m/mx.example.org/postmaster" },
    { "PostMaster", "example.org", "/m/example.org/postmaster" },
};

static const char *expand(mail_t *mail, const char *path, const char *local, const char *domain)
{
    nssmtpd_rcpt_t to = { .address = "", .local = local, .domain = domain };

    return nssmtpd_mailpath_expand(&mail->t, path, &to);
}

static void names_are_safe(void **state)
{
    mail_t *mail = *state;
    size_t i, j;

    for (i = 0; i < ROWS(addresses); i++) {
        assert_string_equal(expand(mail, "/m/%d/%u", addresses[i].local, addresses[i].domain),
                            addresses[i].path);
        for (j = 0; j < i; j++) {
            assert_string_not_equal(addresses[i].path, addresses[j].path);
        }
    }
    hostname = "MX.Example.ORG";
    assert_string_equal(expand(mail, "%d", "POSTMASTER", ""), "mx.example.org");
    hostname = "mx.example.org";
}

/* Any octet, alone or behind another one: no two alike, and nothing but safe characters. */
static void octets_stay_apart(void **state)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "._+=-%";
    mail_t *mail = *state;
    apr_table_t *seen = apr_table_make(mail->p, 512);
    apr_pool_t *p = mail->p;
    int i;

    for (i = 2; i < 512; i++) {
        char local[] = { i < 256 ? 'a' : i, i < 256 ? i : '\0', '\0' };
        const char *name;

        if (i != 256) { /* NUL: the empty one is in the table above */
            name = apr_pstrcat(p, "_", expand(mail, "%u", local, "x"), NULL);
            assert_int_equal(strspn(name, safe), strlen(name));
            assert_int_not_equal(name[1], '.');
            /* apr_table_t ignores case; letters are written as they are */
            if (!apr_isalpha(local[i < 256])) {
                assert_null(apr_table_get(seen, name));
                apr_table_setn(seen, name, "");
            }
        }
    }
}

static void templates_are_expanded(void **state)
{
    mail_t *mail = *state;

    assert_string_equal(expand(mail, "/m/%u@%d/Maildir", "a@b", "c"), "/m/a%40b@c/Maildir");
    assert_string_equal(expand(mail, "/m/all", "a", "b"), "/m/all");
    assert_string_equal(expand(mail, "/m/100%%/%u%u", "a", "b"), "/m/100%/aa");
}

static void file_names_are_unique(void **state)
{
    mail_t *mail = *state;
    const char *first = nssmtpd_mailpath_unique(&mail->t), *name;
    int i;

    for (i = 0; i < 100; i++) {
        assert_string_not_equal(first, nssmtpd_mailpath_unique(&mail->t));
    }
    assert_string_equal(strchr(strchr(first, '.') + 1, '.'), ".mx.example.org");
    hostname = "[IPv6:::1]/a,b";
    name = nssmtpd_mailpath_unique(&mail->t);
    assert_non_null(strstr(name, ".\\133IPv6\\072\\072\\0721\\135\\057a\\054b"));
    hostname = ":::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::";
    assert_in_range(strlen(nssmtpd_mailpath_unique(&mail->t)), 100, 200);
    hostname = "mx.example.org";
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_safe),
        cmocka_unit_test(octets_stay_apart),
        cmocka_unit_test(templates_are_expanded),
        cmocka_unit_test(file_names_are_unique),
    };
    int failed_tests;

    apr_initialize();
    failed_tests = cmocka_run_group_tests(tests, set_up, tear_down);
    apr_terminate();
    return failed_tests;
}
