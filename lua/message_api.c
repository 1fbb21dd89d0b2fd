/* The session handle's getbody and dump: the whole message as a string and as a file. Read from
 * the spool bucket by bucket, so that a large one is in memory no more often than asked for.
 */
#include "lua/message_api.h"

#include <apr_file_io.h>
#include <apr_strings.h>
#include <string.h>

#include "lua/handle.h"
#include "lua/values.h"

const char *nssmtpd_message_api_open(nssmtpd_call_t *call, apr_bucket_brigade **bb,
                                     apr_off_t *body, apr_off_t *size)
{
    *bb = apr_brigade_create(call->r->pool, call->r->connection->bucket_alloc);
    return nssmtpd_call_message(call, *bb, body, size);
}

/* Passes the octets to take, which returns something but APR_SUCCESS to stop. */
static apr_status_t each_piece(apr_bucket_brigade *bb,
                               apr_status_t (*take)(void *, const char *, apr_size_t),
                               void *baton)
{
    apr_status_t rv = APR_SUCCESS;

    while (rv == APR_SUCCESS && !APR_BRIGADE_EMPTY(bb)) {
        apr_bucket *b = APR_BRIGADE_FIRST(bb);
        const char *data;
        apr_size_t n;

        if (!APR_BUCKET_IS_METADATA(b)) {
            rv = apr_bucket_read(b, &data, &n, APR_BLOCK_READ);
            if (rv == APR_SUCCESS) {
                rv = take(baton, data, n);
            }
        }
        apr_bucket_delete(b);
    }
    return rv;
}

static apr_status_t copy(void *baton, const char *data, apr_size_t n)
{
    smtp_span_t *room = baton;

    if (n > room->n) {
        return APR_ENOSPC;
    }
    memcpy((char *)room->p, data, n);
    room->p += n;
    room->n -= n;
    return APR_SUCCESS;
}

const char *nssmtpd_message_api_read(apr_bucket_brigade *bb, char *buf, apr_size_t n)
{
    smtp_span_t room = { buf, n };

    return each_piece(bb, copy, &room) == APR_SUCCESS && room.n == 0
               ? NULL
               : "the message cannot be read back from the spool";
}

/* Not by luaL_Buffer, which would have the message twice in the script's memory. */
int nssmtpd_message_api_getbody(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    apr_bucket_brigade *bb;
    apr_off_t body, size;
    const char *why = nssmtpd_message_api_open(call, &bb, &body, &size);
    char *octets;

    if (why) {
        return nssmtpd_values_fail(L, why);
    }
    octets = nssmtpd_values_octets(L, size);
    why = nssmtpd_message_api_read(bb, octets, size);
    if (why) {
        return nssmtpd_values_fail(L, why);
    }
    lua_pushlstring(L, octets, size);
    nssmtpd_values_drop(L, -2);
    lua_pushinteger(L, body);
    lua_pushinteger(L, size);
    return 3;
}

static apr_status_t write_out(void *file, const char *data, apr_size_t n)
{
    return apr_file_write_full(file, data, n, NULL);
}

/* Whole or not at all, for those who watch the directory; for nobody else's eyes. */
static apr_status_t write_file(apr_bucket_brigade *bb, const char *path, apr_pool_t *p)
{
    char *name = apr_pstrcat(p, path, ".XXXXXX", NULL);
    apr_status_t rv, closed;
    apr_finfo_t info;
    apr_file_t *file;

    if (apr_stat(&info, path, APR_FINFO_TYPE | APR_FINFO_LINK, p) == APR_SUCCESS
        && info.filetype != APR_REG) {
        return APR_EEXIST;
    }
    rv = apr_file_mktemp(&file, name,
                         APR_FOPEN_CREATE | APR_FOPEN_EXCL | APR_FOPEN_WRITE | APR_FOPEN_BINARY, p);
    if (rv != APR_SUCCESS) {
        return rv;
    }
    rv = each_piece(bb, write_out, file);
    closed = apr_file_close(file);
    rv = rv == APR_SUCCESS ? closed : rv;
    rv = rv == APR_SUCCESS ? apr_file_rename(name, path, p) : rv;
    if (rv != APR_SUCCESS) {
        apr_file_remove(name, p);
    }
    return rv;
}

int nssmtpd_message_api_dump(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    const char *path = nssmtpd_values_text(L, 2), *why;
    apr_bucket_brigade *bb;
    apr_off_t body, size;
    apr_status_t rv;
    char text[120];

    if (!path) {
        return nssmtpd_values_fail(L, NSSMTPD_VALUES_NUL);
    }
    why = nssmtpd_message_api_open(call, &bb, &body, &size);
    if (why) {
        return nssmtpd_values_fail(L, why);
    }
    rv = write_file(bb, path, call->r->pool);
    return nssmtpd_values_done(L, rv == APR_SUCCESS ? NULL
                                                    : apr_strerror(rv, text, sizeof(text)));
}
