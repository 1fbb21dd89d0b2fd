/* server/lists.c: the words of the lists of relay permission, what they match, and which of
 * them mean the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <apr_general.h>
#include <apr_lib.h>

#include "server/lists.c"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

void ap_str_tolower(char *text)
{
    for (; *text; text++) {
        *text = apr_tolower(*text);
    }
}

static apr_pool_t *p;

static int set_up(void **state)
{
    (void)state;
    return apr_pool_create(&p, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    apr_pool_destroy(p);
    return 0;
}

static const struct {
    const char *word, *name, *url, *wrong;
} domain_words[] = {
    { "a.test", "a.test", "", NULL },
    { "A.Test.", "a.test", "", NULL },
    { "a.test:h", "a.test", "h", NULL },
    { "a.test.:[::1]:25", "a.test", "[::1]:25", NULL },
    { "a.test=plain://u:p@h", "a.test", "plain://u:p@h", NULL },
    { "", NULL, NULL, "domain name" },
    { ":h", NULL, NULL, "domain name" },
    { "a..test", NULL, NULL, "domain name" },
    { "[10.0.0.1]", NULL, NULL, "domain name" },
    { "a.test:", NULL, NULL, "no route behind the ':'" },
    { "a.test=", NULL, NULL, "no route behind the '='" }
};

static void domains_are_parsed(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < ROWS(domain_words); i++) {
        nssmtpd_domain_t domain;
        const char *wrong = nssmtpd_lists_parse_domain(p, &domain, domain_words[i].word);

        if (domain_words[i].wrong) {
            assert_non_null(wrong);
            assert_non_null(strstr(wrong, domain_words[i].wrong));
            continue;
        }
        assert_null(wrong);
        assert_string_equal(domain.word, domain_words[i].word);
        assert_string_equal(domain.name, domain_words[i].name);
        assert_string_equal(domain.url, domain_words[i].url);
        assert_int_equal(domain.route != NULL, *domain.url != '\0');
    }
}

static void the_most_specific_domain_is_found(void **state)
{
    static const char *const words[] = { "test=x", "b.test=y", "a.b.test=z", "test=w" };
    static const struct {
        const char *domain, *url;
    } rows[] = {
        { "test", "w" }, { "c.test", "w" }, { "b.test", "y" }, { "c.b.test", "y" },
        { "x.a.b.test", "z" }, { "ab.test", "w" }, { "tes", NULL }, { "", NULL },
        { "other.example", NULL }
    };
    apr_array_header_t *domains = apr_array_make(p, 4, sizeof(nssmtpd_domain_t));
    nssmtpd_domains_t *index;
    size_t i;

    (void)state;
    for (i = 0; i < ROWS(words); i++) {
        assert_null(nssmtpd_lists_parse_domain(p, apr_array_push(domains), words[i]));
    }
    index = nssmtpd_lists_index(p, domains);
    for (i = 0; i < ROWS(rows); i++) {
        const nssmtpd_domain_t *found = nssmtpd_lists_find(index, rows[i].domain);

        assert_int_equal(found != NULL, rows[i].url != NULL);
        if (found) {
            assert_string_equal(found->url, rows[i].url);
        }
    }
}

static const struct {
    const char *word, *in, *out; /* an address it has, and one it has not; NULL: it is no word */
} client_words[] = {
    { "10.1.2.3", "10.1.2.3", "10.1.2.4" },
    { "10.0.0.0/8", "10.255.0.1", "11.0.0.0" },
    { "10.1.2.3/255.255.255.0", "10.1.2.255", "10.1.3.0" },
    { "::1", "::1", "::2" },
    { "2001:db8::/32", "2001:db8:ffff::1", "2001:db9::" },
    { "name.test\t10.0.0.1,2001:db8::1", "2001:db8::1", "10.0.0.2" },
    { "10.1", NULL, NULL },
    { "10.0.0.0/33", NULL, NULL },
    { "10.0.0.0/x", NULL, NULL },
    { "::1/129", NULL, NULL },
    { "name.test/24", NULL, NULL },
    { "name.test\tx", NULL, NULL },
    { "", NULL, NULL }
};

static int has(const nssmtpd_client_t *client, const char *ip)
{
    apr_array_header_t *clients = apr_array_make(p, 1, sizeof(*client));
    apr_sockaddr_t *addr;

    APR_ARRAY_PUSH(clients, nssmtpd_client_t) = *client;
    assert_int_equal(apr_sockaddr_info_get(&addr, ip, APR_UNSPEC, 0, 0, p), APR_SUCCESS);
    return nssmtpd_lists_has_client(clients, addr);
}

static void clients_are_parsed(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < ROWS(client_words); i++) {
        nssmtpd_client_t client;
        const char *wrong = nssmtpd_lists_parse_client(p, &client, client_words[i].word);

        assert_int_equal(wrong != NULL, client_words[i].in == NULL);
        if (!wrong) {
            assert_string_equal(client.text, client_words[i].word);
            assert_int_equal(client.is_name, strchr(client.text, '\t') != NULL);
            assert_true(has(&client, client_words[i].in));
            assert_false(has(&client, client_words[i].out));
        }
    }
}

/* What is kept of a name must be enough to parse it again without asking anybody. */
static void a_name_keeps_its_addresses(void **state)
{
    nssmtpd_client_t client, again;

    (void)state;
    assert_null(nssmtpd_lists_parse_client(p, &client, "localhost"));
    assert_int_equal(client.is_name, 1);
    assert_string_equal(client.word, "localhost");
    assert_int_equal(strncmp(client.text, "localhost\t", 10), 0);
    assert_null(nssmtpd_lists_parse_client(p, &again, client.text));
    assert_string_equal(again.word, "localhost");
    assert_int_equal(again.subnets->nelts, client.subnets->nelts);
    assert_true(has(&again, "127.0.0.1"));
}

static const struct {
    nssmtpd_list_e list;
    const char *a, *b;
    int same;
} keys[] = {
    { NSSMTPD_LIST_RELAY, "a.test", "A.TEST.:host:25", 1 },
    { NSSMTPD_LIST_RELAY, "a.test", "b.a.test", 0 },
    { NSSMTPD_LIST_LOCALS, "10.0.0.0/8", "10.1.2.3/255.0.0.0", 1 },
    { NSSMTPD_LIST_LOCALS, "10.0.0.1", "10.0.0.1/32", 1 },
    { NSSMTPD_LIST_LOCALS, "10.0.0.0/8", "10.0.0.0/9", 0 },
    { NSSMTPD_LIST_LOCALS, "10.0.0.0/31", "10.0.0.1/31", 1 },
    { NSSMTPD_LIST_LOCALS, "10.0.0.0", "10.0.0.0/8", 0 },
    { NSSMTPD_LIST_LOCALS, "::1", "0:0::1/128", 1 },
    { NSSMTPD_LIST_LOCALS, "2001:DB8::/33", "2001:db8:7fff::/33", 1 },
    { NSSMTPD_LIST_LOCALS, "2001:db8::/33", "2001:db8:8000::/33", 0 },
    { NSSMTPD_LIST_LOCALS, "Name.test", "name.TEST\t10.0.0.1", 1 },
    { NSSMTPD_LIST_LOCALS, "name.test\t10.0.0.1", "10.0.0.1", 0 },
    { NSSMTPD_LIST_LOCALS, "name.test\t10.0.0.1", "other.test\t10.0.0.1", 0 }
};

static void keys_say_what_is_the_same(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < ROWS(keys); i++) {
        int same = strcmp(nssmtpd_lists_key(p, keys[i].list, keys[i].a),
                          nssmtpd_lists_key(p, keys[i].list, keys[i].b)) == 0;

        if (same != keys[i].same) {
            fail_msg("%s and %s", keys[i].a, keys[i].b);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(domains_are_parsed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_most_specific_domain_is_found, set_up, tear_down),
        cmocka_unit_test_setup_teardown(clients_are_parsed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_name_keeps_its_addresses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(keys_say_what_is_the_same, set_up, tear_down)
    };

    apr_initialize();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
