/* relay/maildir.c: which octets arrive where, for one recipient and for many, and what a
 * maildir: URL may hold. test_maildir_failure.c has what goes wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <sys/resource.h>

#include "tests/unit/maildir_fixture.h"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

static char *read_file(mail_t *mail, const char *path, apr_size_t *n)
{
    apr_file_t *file;
    apr_finfo_t info;
    char *data;

    assert_int_equal(apr_file_open(&file, path, APR_FOPEN_READ, 0, mail->p), APR_SUCCESS);
    assert_int_equal(apr_file_info_get(&info, APR_FINFO_SIZE, file), APR_SUCCESS);
    data = apr_palloc(mail->p, info.size + 1);
    *n = info.size;
    assert_int_equal(apr_file_read_full(file, data, info.size, NULL), APR_SUCCESS);
    apr_file_close(file);
    return data;
}

/* The one copy in a Maildir has our two fields and then the text. */
static void check_copy(mail_t *mail, const char *maildir, const char *address, const char *text,
                       apr_size_t n)
{
    char *fields = apr_psprintf(mail->p, "Return-Path: <%s>\nDelivered-To: %s\n", mail->t.from,
                                address);
    apr_size_t head = strlen(fields), size;
    char *data;

    assert_int_equal(count_files(mail, apr_pstrcat(mail->p, maildir, "/new", NULL)), 1);
    data = read_file(mail, found.last, &size);
    assert_int_equal(size, head + n);
    assert_memory_equal(data, fields, head);
    assert_memory_equal(data + head, text, n);
    assert_int_equal(count_files(mail, maildir), 1);
}

/* Configuration */

static const struct {
    const char *url, *param, *baton, *wrong;
} urls[] = {
    { "maildir:/m/%d/%u", NULL, "/m/%d/%u", NULL },
    { "maildir:run/%u", NULL, "/root/run/%u", NULL },
    { "MailDir:/m/100%%", NULL, "/m/100%%", NULL },
    { "maildir:", NULL, NULL, "needs a path" },
    { "maildir:/m/%x", NULL, NULL, "\"%x\" is unknown" },
    { "maildir:/m/%U", NULL, NULL, "\"%U\" is unknown" },
    { "maildir:/m/%", NULL, NULL, "\"%\" is unknown" },
    { "maildir:/m/%%%", NULL, NULL, "\"%\" is unknown" },
    { "maildir:/m", "max=4", NULL, "\"max=4\"" },
};

static void urls_are_checked(void **state)
{
    mail_t *mail = *state;
    size_t i;

    for (i = 0; i < ROWS(urls); i++) {
        const char *params[] = { urls[i].param, NULL };
        nssmtpd_route_t route = { .url = urls[i].url, .params = params };
        const char *wrong = nssmtpd_maildir_delivery.configure(&route, &mail->server, mail->p,
                                                               mail->p);

        if (urls[i].wrong) {
            assert_non_null(wrong);
            assert_non_null(strstr(wrong, urls[i].wrong));
        }
        else {
            assert_null(wrong);
            assert_string_equal(route.baton, urls[i].baton);
        }
    }
}

/* Bytes */

static const char message[] = "A: b\r\n\r\n.dot\r\n\r\r\n\n\r\0\xff\r\n\r\nend\r";
static const char stored[] = "A: b\n\n.dot\n\r\n\n\r\0\xff\n\nend\r";

static void crlf_becomes_lf_wherever_it_is_cut(void **state)
{
    mail_t *mail = *state;
    apr_size_t n = sizeof(message) - 1, i, j;
    int round = 0;

    for (i = 0; i <= n; i++) {
        for (j = i; j <= n; j++) {
            char *local = apr_psprintf(mail->p, "u%d", round++);

            apr_array_clear(mail->t.rcpts);
            apr_brigade_cleanup(mail->t.body);
            add_rcpt(mail, local, "x");
            add_body(mail, message, i);
            add_body(mail, message + i, j - i);
            APR_BRIGADE_INSERT_TAIL(mail->t.body, apr_bucket_flush_create(mail->ba));
            add_body(mail, message + j, n - j);
            APR_BRIGADE_INSERT_TAIL(mail->t.body, apr_bucket_eos_create(mail->ba));
            assert_null(run(mail));
            check_copy(mail, apr_pstrcat(mail->p, "x/", local, NULL),
                       apr_pstrcat(mail->p, local, "@x", NULL), stored, sizeof(stored) - 1);
        }
    }
    assert_true(round > 100);
}

static void an_empty_message_and_a_null_path(void **state)
{
    mail_t *mail = *state;

    mail->t.from = "";
    add_rcpt(mail, "bob", "x");
    assert_null(run(mail));
    check_copy(mail, "x/bob", "bob@x", "", 0);
}

static void the_file_is_named_with_its_size(void **state)
{
    mail_t *mail = *state;
    struct stat st;

    add_rcpt(mail, "bob", "x");
    add_body(mail, message, sizeof(message) - 1);
    assert_null(run(mail));
    assert_int_equal(count_files(mail, "x/bob/new"), 1);
    assert_int_equal(stat(found.last, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, atol(strstr(found.last, ",S=") + 3));
    assert_int_equal(stat(apr_pstrcat(mail->p, mail->root, "/x", NULL), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(apr_pstrcat(mail->p, mail->root, "/x/bob/cur", NULL), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
}

/* 5 MiB in a file: two pieces of a mapped one, and many of one that is not mapped. */
static void a_file_is_read_for_each_batch(void **state)
{
    enum { LINES = 5 * 1024, LINE = 1024, RCPTS = WRITTEN_AT_ONCE + 2 };
    mail_t *mail = *state;
    char *text = apr_palloc(mail->p, LINES * (LINE - 1)), line[LINE];
    apr_file_t *file;
    int i, mapped;

    assert_int_equal(apr_file_open(&file, apr_pstrcat(mail->p, mail->root, "/spool", NULL),
                                   APR_FOPEN_CREATE | APR_FOPEN_READ | APR_FOPEN_WRITE,
                                   APR_FPROT_OS_DEFAULT, mail->p), APR_SUCCESS);
    for (i = 0; i < LINES; i++) {
        memset(line, 'a' + i % 26, LINE - 2);
        memcpy(text + i * (LINE - 1), line, LINE - 2);
        text[(i + 1) * (LINE - 1) - 1] = '\n';
        memcpy(line + LINE - 2, "\r\n", 2);
        apr_file_write_full(file, line, LINE, NULL);
    }
    for (mapped = 0; mapped < 2; mapped++) {
        apr_bucket *b = apr_brigade_insert_file(mail->t.body, file, 0, LINES * LINE, mail->p);

        apr_bucket_file_enable_mmap(b, mapped);
        for (i = 0; i < RCPTS; i++) {
            add_rcpt(mail, apr_psprintf(mail->p, "%d-%d", mapped, i), "x");
        }
        assert_null(run(mail));
        assert_ptr_equal(APR_BRIGADE_FIRST(mail->t.body), b);
        assert_ptr_equal(APR_BRIGADE_LAST(mail->t.body), b);
        assert_true(APR_BUCKET_IS_FILE(b) && b->length == LINES * LINE);
        for (i = 0; i < RCPTS; i += RCPTS - 1) {
            const nssmtpd_rcpt_t *to = &APR_ARRAY_IDX(mail->t.rcpts, i, nssmtpd_rcpt_t);

            check_copy(mail, apr_pstrcat(mail->p, "x/", to->local, NULL), to->address, text,
                       LINES * (LINE - 1));
        }
        apr_array_clear(mail->t.rcpts);
        apr_brigade_cleanup(mail->t.body);
    }
}

/* Recipients */

static void each_recipient_has_a_copy(void **state)
{
    mail_t *mail = *state;

    add_rcpt(mail, "bob", "x");
    add_rcpt(mail, "eve", "x");
    add_rcpt(mail, "../eve", "x");
    add_rcpt(mail, "bob", "y");
    add_body(mail, "a\r\n", 3);
    assert_null(run(mail));
    check_copy(mail, "x/bob", "bob@x", "a\n", 2);
    check_copy(mail, "x/eve", "eve@x", "a\n", 2);
    check_copy(mail, "x/%2e.%2feve", "../eve@x", "a\n", 2);
    check_copy(mail, "y/bob", "bob@y", "a\n", 2);
    assert_int_equal(count_files(mail, ""), 4);
}

static void one_named_twice_has_two(void **state)
{
    mail_t *mail = *state;

    add_rcpt(mail, "bob", "x");
    add_rcpt(mail, "bob", "x");
    assert_null(run(mail));
    assert_int_equal(count_files(mail, "x/bob/new"), 2);
}

static void descriptors_do_not_grow_with_recipients(void **state)
{
    mail_t *mail = *state;
    struct rlimit before, few;
    int i, free_one = dup(0);
    const smtp_reply_t *reply;

    close(free_one);
    for (i = 0; i < 100; i++) {
        add_rcpt(mail, apr_itoa(mail->p, i), "x");
    }
    getrlimit(RLIMIT_NOFILE, &before);
    few = before;
    few.rlim_cur = free_one + 20;
    setrlimit(RLIMIT_NOFILE, &few);
    reply = run(mail);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_null(reply);
    assert_int_equal(count_files(mail, "x"), 100);
    i = dup(0);
    assert_int_equal(i, free_one);
    close(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(urls_are_checked),
        TEST(crlf_becomes_lf_wherever_it_is_cut),
        TEST(an_empty_message_and_a_null_path),
        TEST(the_file_is_named_with_its_size),
        TEST(a_file_is_read_for_each_batch),
        TEST(each_recipient_has_a_copy),
        TEST(one_named_twice_has_two),
        TEST(descriptors_do_not_grow_with_recipients),
    };
    int failed_tests;

    apr_initialize();
    failed_tests = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed_tests;
}
