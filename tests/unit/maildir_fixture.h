/* relay/maildir.c on a real directory of each test, with stubs for the few functions of httpd it
 * calls. The calls that make a delivery durable are counted in their order instead of waiting
 * for a disk, and each can be made to fail. Included once, by the test of a program.
 */
#ifndef MAILDIR_FIXTURE_H
#define MAILDIR_FIXTURE_H

#include <apr_file_io.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <errno.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

/* s: a file is synced, d: a directory is, r: a file is moved, g: asked whether the client left */
static struct {
    char done[256];
    int n;
    int failing; /* this step fails; -1: none */
    int gone;
} steps;

static apr_status_t step(char kind)
{
    int at = steps.n++;

    if ((size_t)at < sizeof(steps.done) - 1) {
        steps.done[at] = kind;
    }
    return at == steps.failing ? EIO : APR_SUCCESS;
}

static int step_errno(char kind)
{
    apr_status_t rv = step(kind);

    errno = rv;
    return rv == APR_SUCCESS ? 0 : -1;
}

static apr_status_t step_rename(const char *from, const char *to, apr_pool_t *p)
{
    apr_status_t rv = step('r');

    return rv == APR_SUCCESS ? apr_file_rename(from, to, p) : rv;
}

#define fsync(fd) (assert_true((fd) >= 0), step_errno('d'))
#define apr_file_sync(file) (assert_non_null(file), step('s'))
#define apr_file_rename(from, to, p) step_rename(from, to, p)
#include "relay/mailpath.c"
#include "relay/maildir.c"

/* httpd */

module AP_MODULE_DECLARE_DATA nssmtpd_module;
static const struct ap_logconf log_level = { NULL, APLOG_INFO };
static char logged[1024];

void ap_log_rerror_(const char *file, int line, int index, int level, apr_status_t status,
                    const request_rec *r, const char *format, ...)
{
    va_list args;

    (void)file;
    (void)line;
    (void)index;
    (void)level;
    (void)status;
    (void)r;
    va_start(args, format);
    apr_vsnprintf(logged, sizeof(logged), format, args);
    va_end(args);
}

void ap_str_tolower(char *text)
{
    for (; *text; text++) {
        *text = apr_tolower(*text);
    }
}

char *ap_server_root_relative(apr_pool_t *p, const char *path)
{
    return apr_pstrcat(p, *path == '/' ? "" : "/root/", path, NULL);
}

const char *nssmtpd_hostname(const server_rec *s)
{
    (void)s;
    return "mx.example.org";
}

const apr_array_header_t *nssmtpd_rcpts_due(nssmtpd_transaction_t *t)
{
    return t->rcpts;
}

int nssmtpd_client_is_gone(nssmtpd_transaction_t *t)
{
    (void)t;
    step('g');
    return steps.gone;
}

/* A mail and a directory of its own for each test */

typedef struct mail_t {
    apr_pool_t *p;
    apr_bucket_alloc_t *ba;
    char root[64];
    server_rec server;
    request_rec r;
    nssmtpd_route_t route;
    nssmtpd_transaction_t t;
} mail_t;

static int set_up(void **state)
{
    mail_t *mail = calloc(1, sizeof(*mail));

    strcpy(mail->root, "/tmp/test_maildir.XXXXXX");
    if (!mkdtemp(mail->root)) {
        return -1;
    }
    apr_pool_create(&mail->p, NULL);
    mail->ba = apr_bucket_alloc_create(mail->p);
    mail->r.pool = mail->p;
    mail->r.server = &mail->server;
    mail->r.log = &log_level;
    mail->route.baton = apr_pstrcat(mail->p, mail->root, "/%d/%u", NULL);
    mail->t.r = &mail->r;
    mail->t.id = "ID-1";
    mail->t.from = "from@example.net";
    mail->t.route = &mail->route;
    mail->t.rcpts = apr_array_make(mail->p, 4, sizeof(nssmtpd_rcpt_t));
    mail->t.body = apr_brigade_create(mail->p, mail->ba);
    memset(&steps, 0, sizeof(steps));
    steps.failing = -1;
    logged[0] = '\0';
    *state = mail;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int tear_down(void **state)
{
    mail_t *mail = *state;

    nftw(mail->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    apr_pool_destroy(mail->p);
    free(mail);
    return 0;
}

static void add_rcpt(mail_t *mail, const char *local, const char *domain)
{
    nssmtpd_rcpt_t *to = apr_array_push(mail->t.rcpts);

    to->address = apr_pstrcat(mail->p, local, "@", domain, NULL);
    to->local = local;
    to->domain = domain;
}

static void add_body(mail_t *mail, const char *data, apr_size_t n)
{
    APR_BRIGADE_INSERT_TAIL(mail->t.body, apr_bucket_immortal_create(data, n, mail->ba));
}

static const smtp_reply_t *run(mail_t *mail)
{
    steps.n = 0;
    memset(steps.done, 0, sizeof(steps.done));
    return nssmtpd_maildir_delivery.deliver(&mail->t);
}

static struct {
    int files;
    char last[1024];
} found;

static int find_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type == FTW_F) {
        found.files++;
        apr_cpystrn(found.last, path, sizeof(found.last));
    }
    return 0;
}

/* How many files are below root/path; found.last is one of them. */
static int count_files(mail_t *mail, const char *path)
{
    memset(&found, 0, sizeof(found));
    nftw(apr_pstrcat(mail->p, mail->root, "/", path, NULL), find_file, 16, FTW_PHYS);
    return found.files;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
