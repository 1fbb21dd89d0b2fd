/* server/names.c and server/resolver.c on domains: verdicts, reasons, deadlines, the next server,
 * and many threads. test_names_host.c has the names of addresses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <apr_thread_proc.h>
#include <dirent.h>

#include "tests/unit/names_fixture.h"

#define LABEL_63 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk"

static const char zone[] =
    "mx.test MX 10 mail.test\n"
    "xn--bcher-kva.test MX 10 mail.test\n"
    "null.test MX 0 .\n"
    "null.test A 192.0.2.1\n"
    "mixed.test MX 0 .\n"
    "mixed.test MX 10 mail.test\n"
    "mail.test A 192.0.2.200\n"
    "mail.test A 192.0.2.1\n"
    "mail.test AAAA 2001:db8::1\n"
    "a.test A 192.0.2.1\n"
    "v6.test AAAA 2001:db8::1\n"
    "text.test TXT hello\n"
    "alias.test CNAME mx.test\n"
    "chain.test CNAME link.test\n"
    "link.test CNAME v6.test\n"
    "loose.test CNAME gone.test\n"
    "blank.test CNAME text.test\n"
    "servfail.test * !servfail\n"
    "refused.test * !refused\n"
    "notimp.test * !notimp\n"
    "formerr.test * !formerr\n"
    "old.test MX 10 mail.test\n"
    "old.test * !noedns\n"
    "noise.test MX 10 mail.test\n"
    "noise.test * !noise\n"
    "malformed.test * !malformed\n"
    "odd.test MX 10 a\\010b\\255.test\n"
    "odd_a.test A 192.0.2.1\n"
    "_odd.a_.test CNAME odd_a.test\n"
    "hang.test * !tcpsilent\n"
    "silent.test * !silent\n"
    "late.test A !silent\n"
    "half.test MX !servfail\n"
    "half.test A 192.0.2.1\n"
    "lame4.test A !servfail\n"
    "lame4.test AAAA 2001:db8::1\n"
    "lame.test A !servfail\n";

static const char broken_zone[] =
    "mx.test * !servfail\n"
    "a.test * !refused\n"
    "v6.test * !silent\n"
    "servfail.test * !refused\n";

static int set_up(void **state)
{
    char *text = malloc(64 * 1024);
    int n = sprintf(text, "%s", zone);

    (void)state;
    for (int i = 0; i < 100; i++) { /* more than a datagram holds */
        n += sprintf(text + n, "big.test MX 10 mail-%d.test\nhang.test MX 10 mail-%d.test\n", i, i);
    }
    start_servers(text, broken_zone);
    free(text);
    return 0;
}

/* Domains */

static const struct {
    const char *domain;
    nssmtpd_names_e verdict;
    const char *why;
} domains[] = {
    { "mx.test", YES, "mx.test has an MX" },
    { "MX.Test", YES, "MX.Test has an MX" },
    { "mx.test.", YES, "mx.test has an MX" },
    { "xn--bcher-kva.test", YES, "xn--bcher-kva.test has an MX" },
    { "a.test", YES, "a.test has no MX, but an address" },
    { "v6.test", YES, "v6.test has no MX, but an address" },
    { "alias.test", YES, "alias.test has an MX" },
    { "chain.test", YES, "chain.test has no MX, but an address" },
    { "big.test", YES, "big.test has an MX" },
    { "old.test", YES, "old.test has an MX" },
    { "noise.test", YES, "noise.test has an MX" },
    { "mixed.test", YES, "mixed.test has an MX" },
    { "lame4.test", YES, "lame4.test has no MX, but an address" },
    { "odd.test", YES, "odd.test has an MX" },
    { "odd_a.test", YES, "odd_a.test has no MX, but an address" },
    { "_odd.a_.test", YES, "_odd.a_.test has no MX, but an address" },
    { "null.test", NO, "null.test takes no mail (null MX)" },
    { "text.test", NO, "text.test has no MX and no address" },
    { "blank.test", NO, "blank.test has no MX and no address" },
    { "gone.test", NO, "gone.test does not exist" },
    { "loose.test", NO, "loose.test does not exist" },
    { "servfail.test", UNKNOWN, "MX of servfail.test: the name server cannot find out (SERVFAIL)" },
    { "refused.test", UNKNOWN, "MX of refused.test: the name server refuses to answer (REFUSED)" },
    { "notimp.test", UNKNOWN,
      "MX of notimp.test: the name server does not know such questions (NOTIMP)" },
    { "formerr.test", UNKNOWN,
      "MX of formerr.test: the name server does not understand the question (FORMERR)" },
    { "malformed.test", UNKNOWN, "MX of malformed.test: the name server's answer is malformed" },
    { "half.test", UNKNOWN, "MX of half.test: the name server cannot find out (SERVFAIL)" },
    { "lame.test", UNKNOWN, "address of lame.test: the name server cannot find out (SERVFAIL)" },
};

static nssmtpd_names_e judge(const apr_array_header_t *servers, apr_interval_time_t timeout,
                             const char *domain, const char **why)
{
    return nssmtpd_names_domain(pool, servers, timeout, domain, why);
}

static void test_domains(void **state)
{
    const char *why;

    (void)state;
    for (apr_size_t i = 0; i < ROWS(domains); i++) {
        nssmtpd_names_e verdict = judge(good, PLENTY, domains[i].domain, &why);

        assert_string_equal(why, domains[i].why);
        assert_int_equal(verdict, domains[i].verdict);
    }
}

/* A server that does not exist: whoever asked it would say UNKNOWN. */
static void test_without_dns(void **state)
{
    static const char *const literals[] = { "[127.0.0.1]", "[IPv6:::1]", "[IPv6:2001:db8::1]" };
    static const char *const invalid[] = {
        "", ".", "a..test", ".test", "-a.test", "a b.test", "b\xc3\xbc" "cher.test", "a.test\n",
        "a\\.test", "[127.0.0.1", "[", "[]", "[300.1.1.1]", "a@b.test", LABEL_63 "l.test",
        LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_63, /* 255 characters: 257 on the wire */
        LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_63
    };
    const char *why;

    (void)state;
    for (apr_size_t i = 0; i < ROWS(literals); i++) {
        assert_int_equal(judge(closed, PLENTY, literals[i], &why), YES);
        assert_string_equal(why, "an address literal needs no DNS");
    }
    for (apr_size_t i = 0; i < ROWS(invalid); i++) {
        assert_int_equal(judge(closed, PLENTY, invalid[i], &why), NO);
        assert_string_equal(why, "it is no valid domain name");
    }
}

static void test_longest_name(void **state)
{
    const char *name = LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_63, *why;

    (void)state;
    assert_int_equal(judge(good, PLENTY, name + 2, &why), NO);
    assert_string_equal(why, apr_psprintf(pool, "%s does not exist", name + 2));
}

/* Deadlines */

static const struct {
    const char *domain, *why;
    apr_interval_time_t least; /* must be waited for a reply; c-ares asks over TCP only once */
} slow[] = {
    { "silent.test", "MX of silent.test: no name server answered in time", SHORT },
    { "late.test", "address of late.test: no name server answered in time", SHORT },
    { "hang.test", "MX of hang.test: no name server answered in time", SHORT / 5 },
};

static void test_deadline(void **state)
{
    const char *why;

    (void)state;
    for (apr_size_t i = 0; i < ROWS(slow); i++) {
        apr_time_t start = apr_time_now();

        assert_int_equal(judge(good, SHORT, slow[i].domain, &why), UNKNOWN);
        assert_string_equal(why, slow[i].why);
        assert_true(apr_time_now() - start >= slow[i].least);
        assert_true(apr_time_now() - start < TOO_LONG);
    }
    assert_int_equal(judge(good, 0, "mx.test", &why), UNKNOWN);
}

/* Servers */

static void test_next_server(void **state)
{
    const apr_array_header_t *both = apr_array_append(pool, broken, good);
    const apr_array_header_t *dead = apr_array_append(pool, closed, good);
    const char *why;

    (void)state;
    assert_int_equal(judge(both, PLENTY, "mx.test", &why), YES);                 /* SERVFAIL */
    assert_int_equal(judge(both, PLENTY, "a.test", &why), YES);                  /* REFUSED */
    assert_int_equal(judge(both, apr_time_from_sec(2), "v6.test", &why), YES);   /* silence */
    assert_int_equal(judge(dead, PLENTY, "mx.test", &why), YES);                 /* not there */
    assert_int_equal(judge(both, PLENTY, "servfail.test", &why), UNKNOWN);
    assert_string_equal(why, "MX of servfail.test: the name server cannot find out (SERVFAIL)");
}

static void test_no_server(void **state)
{
    const char *why;
    apr_time_t start = apr_time_now();

    (void)state;
    assert_int_equal(judge(closed, PLENTY, "mx.test", &why), UNKNOWN);
    assert_string_equal(why, "MX of mx.test: no name server can be reached");
    assert_true(apr_time_now() - start < TOO_LONG);
}

static const struct {
    const char *word, *server; /* NULL: refused */
} words[] = {
    { "192.0.2.1", "192.0.2.1:53" },
    { "192.0.2.1:5353", "192.0.2.1:5353" },
    { "::1", "[::1]:53" },
    { "[::1]", "[::1]:53" },
    { "[2001:db8::1]:65535", "[2001:db8::1]:65535" },
    { "", NULL }, { " ", NULL }, { "53", NULL }, { ":53", NULL }, { "192.0.2", NULL },
    { "300.1.1.1", NULL }, { "192.0.2.1:", NULL }, { "192.0.2.1:0", NULL },
    { "192.0.2.1:65536", NULL }, { "192.0.2.1:x", NULL }, { "192.0.2.1,192.0.2.2", NULL },
    { "192.0.2.1:53,192.0.2.2", NULL }, { "[192.0.2.1]:53", NULL }, { "[::1", NULL },
    { "[::1]53", NULL }, { "fe80::1%lo", NULL }, { "[fe80::1%lo]:53", NULL },
    { "localhost", NULL }, { "ns.test:53", NULL }
};

static void test_parse_server(void **state)
{
    (void)state;
    for (apr_size_t i = 0; i < ROWS(words); i++) {
        apr_array_header_t *servers = apr_array_make(pool, 1, sizeof(const char *));
        const char *wrong = nssmtpd_names_parse_server(pool, servers, words[i].word);

        if (words[i].server) {
            assert_null(wrong);
            assert_string_equal(APR_ARRAY_IDX(servers, 0, const char *), words[i].server);
        }
        else {
            assert_string_equal(wrong, apr_psprintf(pool, "\"%s\" is no address of a name server; "
                                                    "write ip, ip:port or [ipv6]:port",
                                                    words[i].word));
            assert_int_equal(servers->nelts, 0);
        }
    }
}

/* Many at once, and what is left behind */

static int count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(dir);
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n;
}

static void *APR_THREAD_FUNC ask_all(apr_thread_t *thread, void *baton)
{
    apr_pool_t *p = apr_thread_pool_get(thread);
    int *wrong = baton;
    const char *why;

    for (apr_size_t i = 0; i < 4 * ROWS(domains); i++) {
        apr_size_t row = i % ROWS(domains);
        nssmtpd_names_e verdict = nssmtpd_names_domain(p, good, PLENTY, domains[row].domain, &why);

        *wrong += verdict != domains[row].verdict || strcmp(why, domains[row].why) != 0;
    }
    return NULL;
}

static void test_threads(void **state)
{
    apr_thread_t *threads[8];
    int wrong[8] = { 0 }, before = count_descriptors();
    apr_status_t rv;

    (void)state;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(apr_thread_create(&threads[i], NULL, ask_all, &wrong[i], pool),
                         APR_SUCCESS);
    }
    for (int i = 0; i < 8; i++) {
        apr_thread_join(&rv, threads[i]);
        assert_int_equal(wrong[i], 0);
    }
    assert_int_equal(count_descriptors(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_domains),      cmocka_unit_test(test_without_dns),
        cmocka_unit_test(test_longest_name), cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_next_server),  cmocka_unit_test(test_no_server),
        cmocka_unit_test(test_parse_server), cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
