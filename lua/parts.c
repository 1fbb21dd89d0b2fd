/* The session handle's parts(): an iterator over the message's MIME parts for scripts. The
 * message is read into memory once for a call, and freed with the call; parts show it as it
 * was at the first parts() of the call. Finding them is mime.c's.
 */
#include "lua/handle.h"
#include "lua/message_api.h"
#include "lua/mime.h"
#include "lua/values.h"

#define MESSAGE "nssmtpd.message" /* its key in the call's pool */

/* A part whose octets may be gone: they are the call's. */
typedef struct part_ref_t {
    apr_uint64_t serial;
    nssmtpd_part_t part;
} part_ref_t;

typedef struct walk_t {
    apr_uint64_t serial;
    nssmtpd_mime_t mime;
} walk_t;

static void check_serial(lua_State *L, apr_uint64_t serial)
{
    const nssmtpd_call_t *call = nssmtpd_call();

    if (!call || call->serial != serial) {
        luaL_error(L, "this part is of a call that has ended");
    }
}

/* NULL, or why there is no message. */
static const char *load(nssmtpd_call_t *call, smtp_span_t **message)
{
    apr_pool_t *p = call->r->pool;
    void *known = NULL;
    apr_bucket_brigade *bb;
    apr_off_t body, size;
    const char *why;

    apr_pool_userdata_get(&known, MESSAGE, p);
    *message = known;
    if (known) {
        return NULL;
    }
    why = nssmtpd_message_api_open(call, &bb, &body, &size);
    if (!why) {
        *message = apr_palloc(p, sizeof(**message));
        (*message)->p = apr_palloc(p, size + 1);
        (*message)->n = size;
        why = nssmtpd_message_api_read(bb, (char *)(*message)->p, size);
    }
    if (!why) {
        apr_pool_userdata_setn(*message, MESSAGE, NULL, p);
    }
    return why;
}

/* Decoded outside of Lua's memory first, where it would stand twice. */
static int data(lua_State *L)
{
    const part_ref_t *ref = lua_touserdata(L, lua_upvalueindex(1));
    size_t n = (size_t)lua_tointeger(L, lua_upvalueindex(2));
    char *octets;

    check_serial(L, ref->serial);
    octets = nssmtpd_values_octets(L, n);
    nssmtpd_mime_decode(&ref->part, octets);
    lua_pushlstring(L, octets, n);
    nssmtpd_values_drop(L, -2);
    return 1;
}

static void push_part(lua_State *L, const part_ref_t *ref, int at)
{
    apr_size_t n = nssmtpd_mime_decode(&ref->part, NULL);

    lua_createtable(L, 0, 4);
    nssmtpd_values_set(L, "type", ref->part.type);
    nssmtpd_values_set(L, "name", *ref->part.name ? ref->part.name : NULL);
    nssmtpd_values_set_integer(L, "size", n);
    lua_pushvalue(L, at);
    lua_pushinteger(L, n);
    lua_pushcclosure(L, data, 2);
    lua_setfield(L, -2, "data");
}

static int next(lua_State *L)
{
    walk_t *walk = lua_touserdata(L, lua_upvalueindex(1));
    part_ref_t *ref;

    check_serial(L, walk->serial);
    ref = lua_newuserdata(L, sizeof(*ref));
    ref->serial = walk->serial;
    if (!nssmtpd_mime_next(&walk->mime, &ref->part)) {
        lua_pushnil(L);
        return 1;
    }
    push_part(L, ref, lua_gettop(L));
    return 1;
}

int nssmtpd_parts_walk(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    smtp_span_t *message;
    const char *why = load(call, &message);
    walk_t *walk;

    if (why) {
        return nssmtpd_values_fail(L, why);
    }
    walk = lua_newuserdata(L, sizeof(*walk));
    walk->serial = call->serial;
    nssmtpd_mime_begin(&walk->mime, *message);
    lua_pushcclosure(L, next, 1);
    return 1;
}
