/* relay/submission.c without httpd: what a script's text becomes, when it is copied, and what
 * scanners may change of it. The clock and the host's name are made here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "relay/submission.c"

#define DATE "Date: Sat, 21 Nov 2026 06:26:44 +0000\r\n"
#define ID "Message-ID: <id-1@host.test>\r\n"
#define TEXT(literal) ((smtp_span_t){ literal, sizeof(literal) - 1 })

const char *nssmtpd_date_now(apr_pool_t *p)
{
    (void)p;
    return "Sat, 21 Nov 2026 06:26:44 +0000";
}

const char *nssmtpd_hostname(const server_rec *s)
{
    (void)s;
    return "host.test";
}

static apr_pool_t *pool;

static void check_message(const nssmtpd_submission_t *m, const char *want)
{
    char *all = apr_palloc(pool, m->length + 1);
    apr_size_t n = 0;

    for (int i = 0; i < m->pieces->nelts; i++) {
        n = put(all, n, APR_ARRAY_IDX(m->pieces, i, smtp_span_t));
    }
    all[n] = '\0';
    assert_int_equal(n, m->length);
    assert_string_equal(all, want);
}

static void check(smtp_span_t text, const char *want)
{
    nssmtpd_submission_t m;

    for (int in_one = 0; in_one < 2; in_one++) {
        nssmtpd_submission_make(&m, pool, NULL, "id-1", text, in_one);
        check_message(&m, want);
        assert_true(!in_one || m.pieces->nelts == 1);
    }
}

static void test_fields(void **state)
{
    (void)state;
    check(TEXT("A: b\n\nc"), DATE ID "A: b\r\n\r\nc\r\n");
    check(TEXT("A: b\r\n\r\nc\r\n"), DATE ID "A: b\r\n\r\nc\r\n");
    check(TEXT("date: x\n\n"), ID "date: x\r\n\r\n");
    check(TEXT("A: b\nMESSAGE-ID : x\n\n"), DATE "A: b\r\nMESSAGE-ID : x\r\n\r\n");
    check(TEXT("Date: x\nMessage-ID: y\n\n"), "Date: x\r\nMessage-ID: y\r\n\r\n");
    check(TEXT("Dates: x\nX-Message-ID: y\n\nDate: z\n"),
          DATE ID "Dates: x\r\nX-Message-ID: y\r\n\r\nDate: z\r\n");
}

static void test_no_header(void **state)
{
    (void)state;
    check(TEXT(""), DATE ID "\r\n");
    check(TEXT("hello\n"), DATE ID "\r\nhello\r\n");
    check(TEXT("\nhello\n"), DATE ID "\r\nhello\r\n");
    check(TEXT(" folded: x\n"), DATE ID "\r\n folded: x\r\n");
    check(TEXT("A: b\nhello\n"), DATE ID "A: b\r\nhello\r\n");
}

static void test_canonical_text_is_not_copied(void **state)
{
    smtp_span_t text = TEXT("A: b\r\n\r\n.c\r\n\xe4\r\n");
    nssmtpd_submission_t m;

    (void)state;
    nssmtpd_submission_make(&m, pool, NULL, "id-1", text, 0);
    assert_int_equal(m.pieces->nelts, 2);
    assert_ptr_equal(APR_ARRAY_IDX(m.pieces, 1, smtp_span_t).p, text.p);
    assert_int_equal(m.dots, 1);
    assert_true(m.is_8bit);
}

static nssmtpd_scanned_t found_with(const nssmtpd_field_t *add, int adds, const char *remove)
{
    nssmtpd_scanned_t found = { 0 };

    found.add = apr_array_make(pool, 2, sizeof(nssmtpd_field_t));
    for (int i = 0; i < adds; i++) {
        APR_ARRAY_PUSH(found.add, nssmtpd_field_t) = add[i];
    }
    if (remove) {
        found.remove = apr_array_make(pool, 1, sizeof(char *));
        APR_ARRAY_PUSH(found.remove, const char *) = remove;
    }
    return found;
}

static void check_marked(smtp_span_t text, const nssmtpd_scanned_t *found, const char *want)
{
    nssmtpd_submission_t m;

    nssmtpd_submission_make(&m, pool, NULL, "id-1", text, 1);
    nssmtpd_submission_mark(&m, pool, found);
    check_message(&m, want);
}

static void test_marks(void **state)
{
    static const nssmtpd_field_t add[] = { { "X-Spam", "Yes" }, { "X-Score", "7" } };
    nssmtpd_scanned_t found = found_with(add, 2, "x-spam");

    (void)state;
    check_marked(TEXT("X-Spam: No\n forged\nSubject: a\nX-SPAM: No\n\nX-Spam: body\n"), &found,
                 "X-Spam: Yes\r\nX-Score: 7\r\n" DATE ID "Subject: a\r\n\r\nX-Spam: body\r\n");
    found = found_with(NULL, 0, NULL);
    found.subject = "[SPAM] a";
    check_marked(TEXT("Subject: a\n b\nTo: c\nSubject: again\n\nd\n"), &found,
                 DATE ID "Subject: [SPAM] a\r\nTo: c\r\n\r\nd\r\n");
    check_marked(TEXT("To: c\n\nd\n"), &found,
                 "Subject: [SPAM] a\r\n" DATE ID "To: c\r\n\r\nd\r\n");
}

static void test_bad_marks_are_dropped(void **state)
{
    static const nssmtpd_field_t add[] = { { "X-A", "b\r\nBcc: me" }, { "X A", "b" }, { "", "b" },
                                           { ".x", "\xff" } };
    nssmtpd_scanned_t found = found_with(add, 4, NULL);
    nssmtpd_submission_t m;

    (void)state;
    nssmtpd_submission_make(&m, pool, NULL, "id-1", TEXT("A: b\n\n"), 1);
    nssmtpd_submission_mark(&m, pool, &found);
    check_message(&m, ".x: \xff\r\n" DATE ID "A: b\r\n\r\n");
    assert_int_equal(m.dots, 1);
    assert_true(m.is_8bit);
}

static int set_up(void **state)
{
    (void)state;
    apr_initialize();
    return apr_pool_create(&pool, NULL) == APR_SUCCESS ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    apr_pool_destroy(pool);
    apr_terminate();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_no_header),
        cmocka_unit_test(test_canonical_text_is_not_copied),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_bad_marks_are_dropped),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
