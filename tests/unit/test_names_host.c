/* server/names.c on the names of addresses: only one that leads back is one, whatever a stranger
 * writes into the reverse zone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/names_fixture.h"

static const char zone[] =
    "mail.test A 192.0.2.200\n"
    "mail.test A 192.0.2.1\n"
    "mail.test AAAA 2001:db8::1\n"
    "v6.test AAAA 2001:db8::1\n"
    "lame.test A !servfail\n"
    "1.2.0.192.in-addr.arpa PTR mail.test\n"
    "2.2.0.192.in-addr.arpa PTR liar.test\n"
    "liar.test A 192.0.2.99\n"
    "4.2.0.192.in-addr.arpa PTR liar.test\n"
    "4.2.0.192.in-addr.arpa PTR Four.test\n"
    "four.test A 192.0.2.4\n"
    "5.2.0.192.in-addr.arpa PTR gone.test\n"
    "6.2.0.192.in-addr.arpa * !servfail\n"
    "7.2.0.192.in-addr.arpa PTR lame.test\n"
    "8.2.0.192.in-addr.arpa PTR a\\010b\\255.test\n"
    "9.2.0.192.in-addr.arpa CNAME 9.net.test\n"
    "9.net.test PTR nine.test\n"
    "nine.test A 192.0.2.9\n"
    "10.2.0.192.in-addr.arpa * !silent\n"
    "11.2.0.192.in-addr.arpa PTR v6.test\n"
    "12.2.0.192.in-addr.arpa TXT hello\n"
    "13.2.0.192.in-addr.arpa PTR lame.test\n"
    "13.2.0.192.in-addr.arpa PTR liar.test\n"
    "13.2.0.192.in-addr.arpa PTR thirteen.test\n"
    "thirteen.test A 192.0.2.13\n"
    "twenty.test A 192.0.2.20\n"
    "14.2.0.192.in-addr.arpa PTR .\n"
    "17.2.0.192.in-addr.arpa PTR lame.test\n"
    "17.2.0.192.in-addr.arpa PTR liar.test\n"
    "15.2.0.192.in-addr.arpa PTR 127.0.0.1\n"
    "16.2.0.192.in-addr.arpa * !malformed\n"
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR mail.test\n"
    "f.e.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR mail.test\n";

static int set_up(void **state)
{
    char *text = malloc(128 * 1024);
    int n = sprintf(text, "%s", zone);

    (void)state;
    for (int i = 0; i < 1000; i++) { /* more names than are tried; the last ones are right */
        n += sprintf(text + n, "20.2.0.192.in-addr.arpa PTR %s.test\n",
                     i < REVERSE_NAMES_MAX ? "liar" : "twenty");
    }
    start_servers(text, "1.2.0.192.in-addr.arpa * !servfail\n");
    free(text);
    return 0;
}

static const struct {
    const char *ip;
    nssmtpd_names_e verdict;
    const char *name, *why;
} hosts[] = {
    { "192.0.2.1", YES, "mail.test", "192.0.2.1 is mail.test" },
    { "::ffff:192.0.2.1", YES, "mail.test", "192.0.2.1 is mail.test" },
    { "2001:db8::1", YES, "mail.test", "2001:db8::1 is mail.test" },
    { "192.0.2.4", YES, "Four.test", "192.0.2.4 is Four.test" },
    { "192.0.2.9", YES, "nine.test", "192.0.2.9 is nine.test" },             /* RFC 2317 */
    { "192.0.2.13", YES, "thirteen.test", "192.0.2.13 is thirteen.test" },
    { "2001:db8::ef", NO, NULL,
      "2001:db8::ef calls itself mail.test, but that name does not lead back to it" },
    { "192.0.2.2", NO, NULL,
      "192.0.2.2 calls itself liar.test, but that name does not lead back to it" },
    { "192.0.2.5", NO, NULL,
      "192.0.2.5 calls itself gone.test, but that name does not lead back to it" },
    { "192.0.2.11", NO, NULL,
      "192.0.2.11 calls itself v6.test, but that name does not lead back to it" },
    { "192.0.2.20", NO, NULL,
      "192.0.2.20 calls itself liar.test, but that name does not lead back to it" },
    { "192.0.2.3", NO, NULL, "192.0.2.3 has no name" },
    { "192.0.2.12", NO, NULL, "192.0.2.12 has no name" },
    { "2001:db8::2", NO, NULL, "2001:db8::2 has no name" },
    { "192.0.2.8", NO, NULL, "192.0.2.8 has a name that is not valid" },
    { "192.0.2.14", NO, NULL, "192.0.2.14 has a name that is not valid" },
    { "192.0.2.15", NO, NULL,
      "192.0.2.15 calls itself 127.0.0.1, but that name does not lead back to it" },
    { "192.0.2.6", UNKNOWN, NULL,
      "name of 192.0.2.6: the name server cannot find out (SERVFAIL)" },
    { "192.0.2.7", UNKNOWN, NULL,
      "address of lame.test: the name server cannot find out (SERVFAIL)" },
    { "192.0.2.17", UNKNOWN, NULL,
      "address of lame.test: the name server cannot find out (SERVFAIL)" },
    { "192.0.2.16", NO, NULL, "192.0.2.16 has a name that is not valid" },
};

static nssmtpd_names_e judge_ip(const apr_array_header_t *servers, apr_interval_time_t timeout,
                                const char *ip, const char **name, const char **why)
{
    apr_sockaddr_t *sa;

    assert_int_equal(apr_sockaddr_info_get(&sa, ip, APR_UNSPEC, 25, 0, pool), APR_SUCCESS);
    return nssmtpd_names_host(pool, servers, timeout, sa, name, why);
}

static void test_hosts(void **state)
{
    const char *name, *why;

    (void)state;
    for (apr_size_t i = 0; i < ROWS(hosts); i++) {
        nssmtpd_names_e verdict = judge_ip(good, PLENTY, hosts[i].ip, &name, &why);

        assert_string_equal(why, hosts[i].why);
        assert_int_equal(verdict, hosts[i].verdict);
        assert_string_equal(name ? name : "none", hosts[i].name ? hosts[i].name : "none");
    }
}

static void test_host_servers(void **state)
{
    const char *name, *why;
    apr_time_t start = apr_time_now();

    (void)state;
    assert_int_equal(judge_ip(good, SHORT, "192.0.2.10", &name, &why), UNKNOWN);
    assert_string_equal(why, "name of 192.0.2.10: no name server answered in time");
    assert_null(name);
    assert_true(apr_time_now() - start < TOO_LONG);
    assert_int_equal(judge_ip(closed, PLENTY, "192.0.2.1", &name, &why), UNKNOWN);
    assert_null(name);
    assert_int_equal(judge_ip(apr_array_append(pool, broken, good), PLENTY, "192.0.2.1", &name,
                              &why), YES);
    assert_string_equal(name, "mail.test");
}

static void test_unix_socket(void **state)
{
    apr_sockaddr_t sa = { .family = AF_UNIX };
    const char *name = "", *why;

    (void)state;
    assert_int_equal(nssmtpd_names_host(pool, closed, PLENTY, &sa, &name, &why), NO);
    assert_null(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_host_servers),
        cmocka_unit_test(test_unix_socket),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
