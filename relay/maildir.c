/* Delivery into Maildirs, one per recipient: all copies are written to tmp and synced, then
 * all are moved to new, then the directories are synced; only after that the mail is
 * accepted. What fails before takes back everything, so that the client's next try makes no
 * duplicate. Creates the directories it needs. RFC 5321 4.4 (Return-Path at final delivery).
 */
#include "relay/maildir.h"

#include <apr_strings.h>
#include <errno.h>
#include <fcntl.h>
#include <http_config.h>
#include <http_log.h>
#include <string.h>
#include <unistd.h>

#include "relay/mailpath.h"

APLOG_USE_MODULE(nssmtpd);

enum {
    WRITTEN_AT_ONCE = 16, /* copies: each has a descriptor open */
    BUFFER_SIZE = 16 * 1024
};

/* One recipient's copy of the mail. */
typedef struct copy_t {
    const char *directory; /* the Maildir */
    const char *name;      /* unique, without the directory */
    const char *path;      /* the file as it is now; NULL: there is none */
    apr_file_t *file;      /* NULL: not open */
    apr_off_t length;
} copy_t;

/* Turns the message's CRLF into LF on its way to several files. */
typedef struct writer_t {
    const nssmtpd_transaction_t *t;
    copy_t *copies;
    int n;
    apr_status_t status; /* the first failure; nothing is written after it */
    int has_cr;          /* the last octet was a CR that is not written yet */
    apr_size_t used;
    char buffer[BUFFER_SIZE];
} writer_t;

static apr_status_t failed(const nssmtpd_transaction_t *t, apr_status_t rv, const char *action,
                           const char *path)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, rv, t->r, "NS0030: %s: cannot %s %s", t->id, action,
                  path);
    return rv;
}

/* Directories */

static apr_status_t sync_directory(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    apr_status_t rv = APR_SUCCESS;

    if (fd < 0) {
        return errno;
    }
    if (fsync(fd) != 0 && errno != EINVAL) { /* a file system that knows no such thing */
        rv = errno;
    }
    close(fd);
    return rv;
}

/* With its parents. They are synced, or a mail could be lost together with its directory. */
static apr_status_t make_directory(const char *path, apr_pool_t *p)
{
    const apr_fileperms_t mode = APR_FPROT_UREAD | APR_FPROT_UWRITE | APR_FPROT_UEXECUTE;
    const char *parent = apr_pstrmemdup(p, path, strrchr(path, '/') - path);
    apr_status_t rv = apr_dir_make(path, mode, p);

    if (APR_STATUS_IS_ENOENT(rv) && *parent && (rv = make_directory(parent, p)) == APR_SUCCESS) {
        rv = apr_dir_make(path, mode, p);
    }
    if (APR_STATUS_IS_EEXIST(rv)) {
        return APR_SUCCESS;
    }
    return rv == APR_SUCCESS ? sync_directory(*parent ? parent : "/") : rv;
}

static apr_status_t make_maildir(const nssmtpd_transaction_t *t, const char *directory)
{
    static const char *const names[] = { "/new", "/cur", "/tmp" };
    apr_status_t rv = APR_SUCCESS;
    int i;

    for (i = 0; i < 3 && rv == APR_SUCCESS; i++) {
        const char *path = apr_pstrcat(t->r->pool, directory, names[i], NULL);

        if ((rv = make_directory(path, t->r->pool)) != APR_SUCCESS) {
            failed(t, rv, "make the directory", path);
        }
    }
    return rv;
}

/* Writing */

static apr_status_t write_copy(const nssmtpd_transaction_t *t, copy_t *copy, const char *data,
                               apr_size_t n)
{
    apr_status_t rv = apr_file_write_full(copy->file, data, n, NULL);

    copy->length += n;
    return rv == APR_SUCCESS ? rv : failed(t, rv, "write", copy->path);
}

static apr_status_t open_copy(const nssmtpd_transaction_t *t, copy_t *copy,
                              const nssmtpd_rcpt_t *rcpt)
{
    apr_pool_t *p = t->r->pool;
    const char *path, *fields;
    apr_status_t rv;

    copy->directory = nssmtpd_mailpath_expand(t, t->route->baton, rcpt);
    copy->name = nssmtpd_mailpath_unique(t);
    path = apr_pstrcat(p, copy->directory, "/tmp/", copy->name, NULL);
    if ((rv = make_maildir(t, copy->directory)) != APR_SUCCESS) {
        return rv;
    }
    rv = apr_file_open(&copy->file, path,
                       APR_FOPEN_WRITE | APR_FOPEN_CREATE | APR_FOPEN_EXCL | APR_FOPEN_BINARY,
                       APR_FPROT_UREAD | APR_FPROT_UWRITE, p);
    if (rv != APR_SUCCESS) {
        copy->file = NULL;
        return failed(t, rv, "make the file", path);
    }
    copy->path = path;
    fields = apr_psprintf(p, "Return-Path: <%s>\nDelivered-To: %s\n", t->from, rcpt->address);
    return write_copy(t, copy, fields, strlen(fields));
}

static void flush(writer_t *w)
{
    int i;

    for (i = 0; i < w->n && w->status == APR_SUCCESS; i++) {
        w->status = write_copy(w->t, &w->copies[i], w->buffer, w->used);
    }
    w->used = 0;
}

static void put(writer_t *w, const char *data, apr_size_t n)
{
    while (n > 0) {
        apr_size_t room = sizeof(w->buffer) - w->used, taken = n < room ? n : room;

        memcpy(w->buffer + w->used, data, taken);
        w->used += taken;
        data += taken;
        n -= taken;
        if (w->used == sizeof(w->buffer)) {
            flush(w);
        }
    }
}

/* A CR waits for the octet behind it, which may be in the next piece. */
static void put_lines(writer_t *w, const char *data, apr_size_t n)
{
    while (n > 0) {
        const char *cr = memchr(data, '\r', n);
        apr_size_t run = cr ? (apr_size_t)(cr - data) : n;

        if (w->has_cr && *data != '\n') {
            put(w, "\r", 1);
        }
        w->has_cr = cr != NULL;
        put(w, data, run);
        data += run + w->has_cr;
        n -= run + w->has_cr;
    }
}

/* Reads copies of the buckets: the originals would turn into memory, piece by piece, and
 * the message is needed again for further recipients. */
static void put_bucket(writer_t *w, const apr_bucket *original, apr_bucket_brigade *bb)
{
    apr_bucket *b;
    apr_status_t rv = apr_bucket_copy((apr_bucket *)original, &b);

    if (rv == APR_SUCCESS) {
        APR_BRIGADE_INSERT_TAIL(bb, b);
    }
    while (rv == APR_SUCCESS && w->status == APR_SUCCESS && !APR_BRIGADE_EMPTY(bb)) {
        const char *data;
        apr_size_t n;

        b = APR_BRIGADE_FIRST(bb);
        if ((rv = apr_bucket_read(b, &data, &n, APR_BLOCK_READ)) == APR_SUCCESS) {
            put_lines(w, data, n);
            apr_bucket_delete(b);
        }
    }
    apr_brigade_cleanup(bb);
    if (rv != APR_SUCCESS) {
        w->status = failed(w->t, rv, "read", "the message from the spool");
    }
}

static apr_status_t write_body(writer_t *w)
{
    const nssmtpd_transaction_t *t = w->t;
    apr_bucket_brigade *bb = apr_brigade_create(t->r->pool, t->body->bucket_alloc);
    const apr_bucket *b;

    for (b = APR_BRIGADE_FIRST(t->body);
         b != APR_BRIGADE_SENTINEL(t->body) && w->status == APR_SUCCESS; b = APR_BUCKET_NEXT(b)) {
        if (!APR_BUCKET_IS_METADATA(b)) {
            put_bucket(w, b, bb);
        }
    }
    if (w->has_cr) {
        put(w, "\r", 1);
        w->has_cr = 0;
    }
    flush(w);
    apr_brigade_destroy(bb);
    return w->status;
}

static apr_status_t close_copy(const nssmtpd_transaction_t *t, copy_t *copy)
{
    apr_file_t *file = copy->file;
    apr_status_t rv = apr_file_sync(file), closed;

    copy->file = NULL;
    closed = apr_file_close(file);
    rv = rv == APR_SUCCESS ? closed : rv;
    return rv == APR_SUCCESS ? rv : failed(t, rv, "sync", copy->path);
}

/* Some copies, from nothing to a synced file in tmp. */
static apr_status_t write_copies(writer_t *w, const nssmtpd_rcpt_t *rcpts)
{
    apr_status_t rv = APR_SUCCESS;
    int i;

    for (i = 0; i < w->n && rv == APR_SUCCESS; i++) {
        rv = open_copy(w->t, &w->copies[i], &rcpts[i]);
    }
    if (rv == APR_SUCCESS) {
        rv = write_body(w);
    }
    for (i = 0; i < w->n && rv == APR_SUCCESS; i++) {
        rv = close_copy(w->t, &w->copies[i]);
    }
    return rv;
}

/* Delivering */

static apr_status_t write_all(nssmtpd_transaction_t *t, const apr_array_header_t *due,
                              copy_t *copies)
{
    const nssmtpd_rcpt_t *rcpts = (const nssmtpd_rcpt_t *)due->elts;
    writer_t *w = apr_pcalloc(t->r->pool, sizeof(*w));
    apr_status_t rv = APR_SUCCESS;
    int i, n = due->nelts;

    w->t = t;
    for (i = 0; i < n && rv == APR_SUCCESS; i += WRITTEN_AT_ONCE) {
        w->copies = copies + i;
        w->n = n - i < WRITTEN_AT_ONCE ? n - i : WRITTEN_AT_ONCE;
        rv = write_copies(w, rcpts + i);
    }
    return rv;
}

static apr_status_t move_copy(const nssmtpd_transaction_t *t, copy_t *copy)
{
    const char *path = apr_psprintf(t->r->pool, "%s/new/%s,S=%" APR_OFF_T_FMT, copy->directory,
                                    copy->name, copy->length);
    apr_status_t rv = apr_file_rename(copy->path, path, t->r->pool);

    if (rv != APR_SUCCESS) {
        return failed(t, rv, "move a file from tmp to", path);
    }
    copy->path = path;
    return rv;
}

static apr_status_t move_all(const nssmtpd_transaction_t *t, copy_t *copies, int n)
{
    apr_status_t rv = APR_SUCCESS;
    int i;

    for (i = 0; i < n && rv == APR_SUCCESS; i++) {
        rv = move_copy(t, &copies[i]);
    }
    for (i = 0; i < n && rv == APR_SUCCESS; i++) {
        const char *path = apr_pstrcat(t->r->pool, copies[i].directory, "/new", NULL);

        if (i > 0 && strcmp(copies[i].directory, copies[i - 1].directory) == 0) {
            continue;
        }
        if ((rv = sync_directory(path)) != APR_SUCCESS) {
            failed(t, rv, "sync the directory", path);
        }
    }
    return rv;
}

static void take_back(const nssmtpd_transaction_t *t, copy_t *copies, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        apr_status_t rv = APR_SUCCESS;

        if (copies[i].file) {
            apr_file_close(copies[i].file);
        }
        if (copies[i].path) {
            rv = apr_file_remove(copies[i].path, t->r->pool);
        }
        if (rv != APR_SUCCESS) {
            ap_log_rerror(APLOG_MARK, APLOG_ERR, rv, t->r,
                          "NS0031: %s: cannot remove %s; the mail was not accepted, so this copy "
                          "of it may become a duplicate", t->id, copies[i].path);
        }
    }
}

static const smtp_reply_t *deliver(nssmtpd_transaction_t *t)
{
    const apr_array_header_t *due = nssmtpd_rcpts_due(t);
    int n = due->nelts;
    copy_t *copies = apr_pcalloc(t->r->pool, n * sizeof(*copies));
    const smtp_reply_t *refusal = NULL;

    if (write_all(t, due, copies) != APR_SUCCESS) {
        refusal = smtp_reply(SMTP_REPLY_LOCAL_FAULT);
    }
    else if (nssmtpd_client_is_gone(t)) {
        refusal = smtp_reply(SMTP_REPLY_CLIENT_GONE);
    }
    else if (move_all(t, copies, n) != APR_SUCCESS) {
        refusal = smtp_reply(SMTP_REPLY_LOCAL_FAULT);
    }
    if (refusal) {
        take_back(t, copies, n);
    }
    return refusal;
}

/* The rest of the provider */

static const char *configure(nssmtpd_route_t *route, server_rec *s, apr_pool_t *pconf,
                             apr_pool_t *ptemp)
{
    const char *path = strchr(route->url, ':'), *percent;

    (void)s;
    if (!path || !*++path) {
        return "maildir: needs a path, such as maildir:/var/mail/%d/%u";
    }
    if (route->params && route->params[0]) {
        return apr_psprintf(ptemp, "%s takes no parameters, but \"%s\" stands behind it",
                            route->url, route->params[0]);
    }
    for (percent = path; (percent = strchr(percent, '%')); percent += 2) {
        if (!percent[1] || !strchr("du%", percent[1])) {
            return apr_psprintf(ptemp, "%s: \"%.2s\" is unknown; there are %%d (domain), %%u "
                                "(local part) and %%%% (a percent sign)", route->url, percent);
        }
    }
    if (!(route->baton = ap_server_root_relative(pconf, path))) {
        return apr_psprintf(ptemp, "%s: is no usable path", route->url);
    }
    return NULL;
}

static const smtp_reply_t *rcpt(nssmtpd_transaction_t *t, const nssmtpd_rcpt_t *recipient)
{
    (void)t;
    (void)recipient;
    return NULL;
}

static void do_nothing(nssmtpd_transaction_t *t)
{
    (void)t;
}

const nssmtpd_delivery_t nssmtpd_maildir_delivery = {
    .configure = configure,
    .rcpt = rcpt,
    .deliver = deliver,
    .idle = do_nothing,
    .restart = do_nothing,
    .end = do_nothing,
    .blocks = 1
};
