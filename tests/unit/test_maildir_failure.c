/* relay/maildir.c: nothing is accepted before it is on disk, and whatever fails before leaves no
 * file behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/maildir_fixture.h"

static void add_three(mail_t *mail)
{
    add_rcpt(mail, "a", "x");
    add_rcpt(mail, "b", "x");
    add_rcpt(mail, "c", "x");
    add_body(mail, "a\r\n", 3);
}

static void check_refused(mail_t *mail, const smtp_reply_t *reply, int files, const char *why)
{
    assert_ptr_equal(reply, smtp_reply(SMTP_REPLY_LOCAL_FAULT));
    assert_int_equal(count_files(mail, ""), files);
    if (why) {
        assert_memory_equal(logged, "NS0030: ID-1: cannot ", 21);
        assert_non_null(strstr(logged, why));
    }
}

static void all_is_synced_before_the_answer(void **state)
{
    mail_t *mail = *state;

    add_three(mail);
    add_rcpt(mail, "c", "x");
    assert_null(run(mail));
    /* made: x, and each Maildir with the three in it */
    assert_string_equal(steps.done, "ddddd" "dddd" "dddd" "ssss" "g" "rrrr" "ddd");
    assert_null(run(mail));
    assert_string_equal(steps.done, "ssss" "g" "rrrr" "ddd");
}

/* Each step of a delivery into directories that are not there yet, one after the other. */
static void whatever_fails_leaves_nothing(void **state)
{
    static const char plan[] = "ddddd" "dddd" "sss" "g" "rrr" "dd";
    mail_t *mail = *state;
    int n = strlen(plan);

    for (steps.failing = 0; steps.failing <= n; steps.failing++) {
        const char *domain = apr_psprintf(mail->p, "x%d", steps.failing);

        if (plan[steps.failing] != 'g') {
            const smtp_reply_t *reply;

            apr_array_clear(mail->t.rcpts);
            add_rcpt(mail, "a", domain);
            add_rcpt(mail, "b", domain);
            add_rcpt(mail, "b", domain);
            reply = run(mail);
            if (steps.failing == n) { /* beyond the last one: so the plan is complete */
                assert_null(reply);
                assert_string_equal(steps.done, plan);
                assert_int_equal(count_files(mail, ""), 3);
            }
            else {
                check_refused(mail, reply, 0, domain);
                assert_int_equal(steps.n, steps.failing + 1);
            }
        }
    }
}

static void a_client_that_left_gets_nothing_delivered(void **state)
{
    mail_t *mail = *state;

    add_three(mail);
    steps.gone = 1;
    assert_ptr_equal(run(mail), smtp_reply(SMTP_REPLY_CLIENT_GONE));
    assert_int_equal(count_files(mail, ""), 0);
    assert_null(strchr(steps.done, 'r'));
    assert_string_equal(logged, "");
}

static void put_file(mail_t *mail, const char *path)
{
    FILE *file = fopen(apr_pstrcat(mail->p, mail->root, path, NULL), "w");

    assert_non_null(file);
    fclose(file);
}

static void a_file_where_the_second_maildir_should_be(void **state)
{
    mail_t *mail = *state;

    mkdir(apr_pstrcat(mail->p, mail->root, "/x", NULL), 0700);
    put_file(mail, "/x/b");
    add_three(mail);
    check_refused(mail, run(mail), 1, "make the directory ");
}

static void a_file_where_the_second_new_should_be(void **state)
{
    mail_t *mail = *state;

    mkdir(apr_pstrcat(mail->p, mail->root, "/x", NULL), 0700);
    mkdir(apr_pstrcat(mail->p, mail->root, "/x/b", NULL), 0700);
    put_file(mail, "/x/b/new");
    add_three(mail);
    check_refused(mail, run(mail), 1, "/x/b/new/");
    assert_string_equal(strchr(steps.done, 'g'), "grr"); /* a's was there, and was taken back */
}

static void a_name_that_is_a_link_is_not_followed(void **state)
{
    mail_t *mail = *state;

    put_file(mail, "/victim");
    mkdir(apr_pstrcat(mail->p, mail->root, "/x", NULL), 0700);
    assert_int_equal(symlink("/nowhere/at/all", apr_pstrcat(mail->p, mail->root, "/x/a", NULL)), 0);
    add_three(mail);
    check_refused(mail, run(mail), 1, "/x/a/");
}

static void a_full_file_system(void **state)
{
    mail_t *mail = *state;
    struct rlimit before, small;
    const smtp_reply_t *reply;
    char *data = apr_pcalloc(mail->p, 100000);

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    add_three(mail);
    add_body(mail, data, 100000);
    small = before;
    small.rlim_cur = 50000;
    setrlimit(RLIMIT_FSIZE, &small);
    reply = run(mail);
    setrlimit(RLIMIT_FSIZE, &before);
    check_refused(mail, reply, 0, "write ");
    assert_null(run(mail));
    assert_int_equal(count_files(mail, ""), 3);
}

static apr_status_t refuse_read(apr_bucket *b, const char **data, apr_size_t *n,
                                apr_read_type_e block)
{
    (void)b;
    (void)block;
    *data = NULL;
    *n = 0;
    return EIO;
}

static void a_spool_that_cannot_be_read(void **state)
{
    static apr_bucket_type_t broken;
    mail_t *mail = *state;

    add_three(mail);
    broken = apr_bucket_type_immortal;
    broken.read = refuse_read;
    add_body(mail, "b", 1);
    APR_BRIGADE_LAST(mail->t.body)->type = &broken;
    check_refused(mail, run(mail), 0, "read the message");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_is_synced_before_the_answer),
        TEST(whatever_fails_leaves_nothing),
        TEST(a_client_that_left_gets_nothing_delivered),
        TEST(a_file_where_the_second_maildir_should_be),
        TEST(a_file_where_the_second_new_should_be),
        TEST(a_name_that_is_a_link_is_not_followed),
        TEST(a_full_file_system),
        TEST(a_spool_that_cannot_be_read),
    };
    int failed_tests;

    apr_initialize();
    failed_tests = cmocka_run_group_tests(tests, NULL, NULL);
    apr_terminate();
    return failed_tests;
}
