/* Reads what a client sends: plaintext from the socket into a buffer that the child's sessions
 * share, anything else through httpd's filters. A connection's bucket allocator would keep the
 * block of its last read for as long as the session idles, or, with MaxMemFree, map and unmap
 * one for each command. Called by answers.c, session.c and connection.c.
 */
#include "server/input.h"

#include <apr_portable.h>
#include <apr_thread_mutex.h>
#include <errno.h>
#include <http_core.h>
#include <sys/socket.h>
#include <util_filter.h>

#define READ_AT_ONCE (64 * 1024)

/* A session has one while a thread works for it, or while octets wait in it. As many are made
 * as were ever needed at once, which is about as many as there are threads. */
typedef union buffer_t {
    union buffer_t *next; /* on the pile of those that nobody uses */
    char octets[64 * 1024];
} buffer_t;

static apr_thread_mutex_t *mutex;
static buffer_t *pile;
static APR_OPTIONAL_FN_TYPE(ap_logio_add_bytes_in) *count_input;

apr_status_t nssmtpd_input_init(apr_pool_t *p)
{
    pile = NULL;
    count_input = APR_RETRIEVE_OPTIONAL_FN(ap_logio_add_bytes_in);
    return apr_thread_mutex_create(&mutex, APR_THREAD_MUTEX_DEFAULT, p);
}

static char *take_buffer(void)
{
    buffer_t *buffer;

    apr_thread_mutex_lock(mutex);
    if ((buffer = pile)) {
        pile = buffer->next;
    }
    apr_thread_mutex_unlock(mutex);
    buffer = buffer ? buffer : ap_malloc(sizeof(*buffer));
    return buffer->octets;
}

static void give_buffer(buffer_t *buffer)
{
    apr_thread_mutex_lock(mutex);
    buffer->next = pile;
    pile = buffer;
    apr_thread_mutex_unlock(mutex);
}

/* mod_ssl gives octets of its own buffer; ours must stay where they are until they are
 * taken, so such buckets are copied to the heap. */
static apr_status_t keep_buckets(nssmtpd_session_t *session)
{
    apr_bucket *b;
    apr_status_t rv = APR_SUCCESS;

    for (b = APR_BRIGADE_FIRST(session->in);
         rv == APR_SUCCESS && b != APR_BRIGADE_SENTINEL(session->in); b = APR_BUCKET_NEXT(b)) {
        if (APR_BUCKET_IS_TRANSIENT(b)) {
            rv = apr_bucket_setaside(b, session->c->pool);
        }
    }
    return rv;
}

/* Plaintext with nobody in between but mod_logio, which counts, is read by ourselves: the core's
 * filter would look for more each time, into a block of memory that the session's allocator
 * keeps. But not once that filter was asked, since it may hold something back. */
static int is_direct(nssmtpd_session_t *session)
{
    const ap_filter_t *f = session->c->input_filters;

    if (count_input && strcmp(f->frec->name, "log_input_output") == 0) {
        f = f->next;
    }
    session->by_filters |= f->frec != ap_core_input_filter_handle;
    return !session->by_filters;
}

static apr_status_t read_socket(nssmtpd_session_t *session)
{
    char second[1024], *to = second;
    apr_size_t size = sizeof(second);
    apr_os_sock_t fd;
    ssize_t n;

    if (APR_BRIGADE_EMPTY(session->in)) {
        to = session->buffer = session->buffer ? session->buffer : take_buffer();
        size = sizeof(buffer_t);
    }
    apr_os_sock_get(&fd, session->socket);
    n = recv(fd, to, size, MSG_DONTWAIT);
    if (n <= 0) {
        return n == 0 ? APR_EOF : APR_FROM_OS_ERROR(errno);
    }
    session->drained = (apr_size_t)n < size;
    if (count_input) {
        count_input(session->c, n);
    }
    if (to == second) {
        return apr_brigade_write(session->in, NULL, NULL, second, n);
    }
    APR_BRIGADE_INSERT_TAIL(session->in,
                            apr_bucket_transient_create(to, n, session->in->bucket_alloc));
    return APR_SUCCESS;
}

apr_status_t nssmtpd_input_read(nssmtpd_session_t *session)
{
    apr_status_t rv;

    if (session->eof) {
        return APR_EOF;
    }
    if (is_direct(session)) {
        rv = read_socket(session);
        return APR_STATUS_IS_EAGAIN(rv) ? APR_EAGAIN : rv;
    }
    rv = ap_get_brigade(session->c->input_filters, session->in, AP_MODE_READBYTES,
                        APR_NONBLOCK_READ, READ_AT_ONCE);
    if (rv == APR_SUCCESS && APR_BRIGADE_EMPTY(session->in)) {
        return APR_EAGAIN; /* the core filter's way to say it */
    }
    if (APR_STATUS_IS_EAGAIN(rv)) {
        return APR_EAGAIN;
    }
    return rv == APR_SUCCESS ? keep_buckets(session) : rv;
}

void nssmtpd_input_rest(nssmtpd_session_t *session)
{
    if (session->buffer && (session->over || APR_BRIGADE_EMPTY(session->in))) {
        give_buffer((buffer_t *)session->buffer);
        session->buffer = NULL;
    }
}
