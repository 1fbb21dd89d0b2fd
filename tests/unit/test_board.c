/* server/board.c: what readers see while sessions write, end, and die while they write. Shared
 * memory and slots are the test's own. t/lists.t has the same inside httpd.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include <apr_general.h>
#include <apr_thread_proc.h>
#include <stdlib.h>

#include "server/board.c"

static pid_t owners[4];

void *nssmtpd_shared_keep(server_rec *s, const char *name, apr_size_t size, int *is_new)
{
    (void)s, (void)name;
    *is_new = 1;
    return calloc(1, size);
}

apr_uint32_t nssmtpd_state_used(void)
{
    return 4;
}

pid_t nssmtpd_state_owner(int slot)
{
    return owners[slot];
}

const char *nssmtpd_phase_name(nssmtpd_phase_e phase)
{
    return phase == NSSMTPD_PHASE_RCPT ? "rcpt" : "other";
}

/* A session in slot 1 with a mail in hand. */
typedef struct fixture_t {
    apr_pool_t *p;
    conn_rec c;
    nssmtpd_session_t session;
    nssmtpd_mail_t mail;
} fixture_t;

static int set_up(void **state)
{
    fixture_t *f = calloc(1, sizeof(*f));

    apr_pool_create(&f->p, NULL);
    nssmtpd_board_create(NULL);
    memset(owners, 0, sizeof(owners));
    owners[1] = 4711;
    f->c.client_ip = "192.0.2.1";
    f->session.c = &f->c;
    f->session.slot = 1;
    f->session.mail = &f->mail;
    f->session.dialogue.helo = "helo.test";
    f->session.dialogue.state = SMTP_STATE_RCPT;
    f->mail.t.from = "from@b.test";
    f->mail.t.rcpts = apr_array_make(f->p, 1, sizeof(nssmtpd_rcpt_t));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture_t *f = *state;

    apr_pool_destroy(f->p);
    free(f);
    free(rows);
    return 0;
}

static const char *text_of(fixture_t *f, char c, int n)
{
    char *text = apr_palloc(f->p, n + 1);

    memset(text, c, n);
    text[n] = '\0';
    return text;
}

static void add_rcpt(fixture_t *f, const char *address, apr_uint32_t flags)
{
    nssmtpd_rcpt_t *rcpt = apr_array_push(f->mail.t.rcpts);

    memset(rcpt, 0, sizeof(*rcpt));
    rcpt->address = address;
    rcpt->flags = flags;
}

static const nssmtpd_session_info_t *only(fixture_t *f)
{
    const apr_array_header_t *sessions = nssmtpd_sessions(f->p);

    assert_int_equal(sessions->nelts, 1);
    return &APR_ARRAY_IDX(sessions, 0, nssmtpd_session_info_t);
}

static void a_session_is_shown(void **state)
{
    fixture_t *f = *state;
    const nssmtpd_session_info_t *info;

    assert_int_equal(nssmtpd_sessions(f->p)->nelts, 0);
    add_rcpt(f, "one@c.test", 0x5);
    add_rcpt(f, "two@c.test", 0x100001);
    nssmtpd_board_open(&f->session);
    info = only(f);
    assert_int_equal(info->id >> 32, getpid());
    assert_int_equal(info->pid, 4711);
    assert_string_equal(info->client, "192.0.2.1");
    assert_string_equal(info->helo, "helo.test");
    assert_string_equal(info->user, "");
    assert_string_equal(info->from, "from@b.test");
    assert_string_equal(info->phase, "rcpt");
    assert_int_equal(info->rcpt_count, 2);
    assert_string_equal(APR_ARRAY_IDX(info->rcpts, 1, nssmtpd_rcpt_t).address, "two@c.test");
    assert_int_equal(APR_ARRAY_IDX(info->rcpts, 1, nssmtpd_rcpt_t).flags, 0x100001);
    nssmtpd_board_close(&f->session);
    assert_int_equal(nssmtpd_sessions(f->p)->nelts, 0);
}

static void long_names_are_cut(void **state)
{
    fixture_t *f = *state;
    const nssmtpd_session_info_t *info;
    int i;

    f->session.dialogue.helo = (char *)text_of(f, 'h', 4000);
    f->session.user = (char *)text_of(f, 'u', 4000);
    f->mail.t.from = text_of(f, 'f', 4000);
    for (i = 0; i < 100; i++) {
        add_rcpt(f, text_of(f, 'r', i), i);
    }
    nssmtpd_board_open(&f->session);
    info = only(f);
    assert_string_equal(info->helo, text_of(f, 'h', PART_MAX));
    assert_string_equal(info->user, text_of(f, 'u', PART_MAX));
    assert_string_equal(info->from, text_of(f, 'f', PART_MAX));
    assert_int_equal(info->rcpt_count, 100);
    assert_in_range(info->rcpts->nelts, 5, 50);
    for (i = 0; i < info->rcpts->nelts; i++) {
        const nssmtpd_rcpt_t *rcpt = &APR_ARRAY_IDX(info->rcpts, i, nssmtpd_rcpt_t);

        assert_string_equal(rcpt->address, text_of(f, 'r', i));
        assert_int_equal(rcpt->flags, i);
    }
}

/* It has died while it wrote: nobody sees the half, and the next owner of the slot is seen. */
static void a_dead_writer_is_not_shown(void **state)
{
    fixture_t *f = *state;
    apr_uint64_t id;

    nssmtpd_board_open(&f->session);
    id = only(f)->id;
    begin(&rows[1]);
    memset(rows[1].text, 'x', sizeof(rows[1].text));
    assert_int_equal(nssmtpd_sessions(f->p)->nelts, 0);
    nssmtpd_board_reap(4711);
    assert_int_equal(nssmtpd_sessions(f->p)->nelts, 0);
    nssmtpd_board_open(&f->session);
    assert_string_equal(only(f)->helo, "helo.test");
    assert_true(only(f)->id != id);
}

static void others_are_not_reaped(void **state)
{
    fixture_t *f = *state;

    nssmtpd_board_open(&f->session);
    nssmtpd_board_reap(4712);
    only(f);
    nssmtpd_board_reap(4711);
    assert_int_equal(nssmtpd_sessions(f->p)->nelts, 0);
}

/* A session writes one of two contents after the other: no reader sees a mixture. */

static volatile int stop;

static void *APR_THREAD_FUNC write_on(apr_thread_t *thread, void *baton)
{
    fixture_t *f = baton;
    char helo[2][190], from[2][190];
    int i;

    (void)thread;
    for (i = 0; i < 2; i++) {
        memset(helo[i], 'a' + i, sizeof(helo[i]));
        memset(from[i], 'a' + i, sizeof(from[i]));
        helo[i][sizeof(helo[i]) - 1 - 80 * i] = from[i][sizeof(from[i]) - 1 - 50 * i] = '\0';
    }
    for (i = 0; !stop; i = !i) {
        f->session.dialogue.helo = helo[i];
        f->mail.t.from = from[i];
        nssmtpd_board_write(&f->session);
    }
    return NULL;
}

static void readers_see_no_mixture(void **state)
{
    enum { READS = 20000 };
    fixture_t *f = *state;
    apr_thread_t *thread;
    apr_status_t rv;
    int i, seen = 0;

    stop = 0;
    nssmtpd_board_open(&f->session);
    assert_int_equal(apr_thread_create(&thread, NULL, write_on, f, f->p), APR_SUCCESS);
    for (i = 0; i < READS || seen == 0; i++) {
        row_t row;
        apr_size_t at;

        if (!copy(&row, &rows[1])) {
            continue;
        }
        at = strlen(row.text) + 1; /* behind the client */
        if (row.text[at] != 'h') { /* its first content is another */
            const char *helo = row.text + at, *from = helo + strlen(helo) + 2;

            seen++;
            assert_int_equal(strspn(helo, "a") == strlen(helo), strspn(from, "a") == strlen(from));
            assert_int_equal(strlen(helo), *helo == 'a' ? 189 : 109);
            assert_int_equal(strlen(from), *helo == 'a' ? 189 : 139);
        }
    }
    stop = 1;
    apr_thread_join(&rv, thread);
}

static void a_row_is_small(void **state)
{
    (void)state;
    assert_in_range(sizeof(row_t), 1, 1024);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_session_is_shown),
        TEST(long_names_are_cut),
        TEST(a_dead_writer_is_not_shown),
        TEST(others_are_not_reaped),
        TEST(readers_see_no_mixture),
        TEST(a_row_is_small)
    };

    apr_initialize();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
