/* smtpd.session(r): the handle and the table of its methods, and those that speak of the reply
 * and of header fields. Envelope and message have files of their own. Called by scripts of
 * phases only; a handle that a script keeps is refused by its serial once the call is over.
 */
#include <string.h>
#include <strings.h>

#include "lua/handle.h"
#include "lua/library.h"
#include "lua/values.h"

#define HANDLE "nssmtpd.session"

typedef struct handle_t {
    apr_uint64_t serial;
} handle_t;

nssmtpd_call_t *nssmtpd_handle_call(lua_State *L)
{
    const handle_t *handle = luaL_checkudata(L, 1, HANDLE);
    nssmtpd_call_t *call = nssmtpd_call();

    if (!call || call->serial != handle->serial) {
        luaL_error(L, "this session handle is of a call that has ended");
    }
    return call;
}

nssmtpd_transaction_t *nssmtpd_handle_mail(lua_State *L)
{
    return nssmtpd_handle_call(L)->t;
}

/* Reply and command */

static int setreply(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    size_t n;
    const char *text = luaL_checklstring(L, 2, &n);

    return nssmtpd_values_done(L, nssmtpd_call_set_reply(call, text, n));
}

static int get_line(lua_State *L)
{
    const nssmtpd_call_t *call = nssmtpd_handle_call(L);

    lua_pushstring(L, call->line ? call->line : "");
    return 1;
}

/* Header fields */

static int gethdr(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    const char *name = luaL_checkstring(L, 2), *value = NULL;
    const apr_array_header_t *fields = nssmtpd_call_fields(call);
    int i;

    for (i = fields->nelts - 1; i >= 0 && !value; i--) {
        const nssmtpd_field_t *field = &APR_ARRAY_IDX(fields, i, nssmtpd_field_t);

        if (strcasecmp(field->name, name) == 0) {
            value = field->value;
        }
    }
    lua_pushstring(L, value); /* or nil */
    return 1;
}

static void push_field(lua_State *L, const nssmtpd_field_t *field)
{
    lua_createtable(L, 2, 2);
    lua_pushstring(L, field->name);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, 1);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, field->value);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, 2);
    lua_setfield(L, -2, "value");
}

static int gethdrs(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    const char *name = luaL_optstring(L, 2, NULL);
    const apr_array_header_t *fields = nssmtpd_call_fields(call);
    int i, n = 0;

    lua_newtable(L);
    for (i = 0; i < fields->nelts; i++) {
        const nssmtpd_field_t *field = &APR_ARRAY_IDX(fields, i, nssmtpd_field_t);

        if (!name) {
            push_field(L, field);
        }
        else if (strcasecmp(field->name, name) == 0) {
            lua_pushstring(L, field->value);
        }
        else {
            continue;
        }
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

static int change_field(lua_State *L, const char *(*by)(nssmtpd_call_t *, const char *,
                                                        const char *))
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    const char *name = nssmtpd_values_text(L, 2), *value = nssmtpd_values_text(L, 3);

    return nssmtpd_values_done(L, name && value ? by(call, name, value) : NSSMTPD_VALUES_NUL);
}

static int addhdr(lua_State *L)
{
    return change_field(L, nssmtpd_call_add_field);
}

static int sethdr(lua_State *L)
{
    return change_field(L, nssmtpd_call_set_field);
}

static int delhdr(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    const char *name = nssmtpd_values_text(L, 2);

    return nssmtpd_values_done(L, name ? nssmtpd_call_delete_field(call, name)
                                       : NSSMTPD_VALUES_NUL);
}

/* The handle */

static const luaL_Reg rows[] = {
    { "setreply", setreply },
    { "getline", get_line },
    { "gethdr", gethdr },
    { "gethdrs", gethdrs },
    { "addhdr", addhdr },
    { "sethdr", sethdr },
    { "delhdr", delhdr },
    { "getbody", nssmtpd_message_api_getbody },
    { "dump", nssmtpd_message_api_dump },
    { "parts", nssmtpd_parts_walk },
    { NULL, NULL }
};

static void set_methods(lua_State *L)
{
    if (luaL_newmetatable(L, HANDLE)) {
        luaL_newlib(L, rows);
        luaL_setfuncs(L, nssmtpd_envelope_api_rows, 0);
        lua_setfield(L, -2, "__index");
    }
    lua_setmetatable(L, -2);
}

/* r is compared, never looked into: a script may have kept it for longer than it lived. */
int nssmtpd_session_api_open(lua_State *L)
{
    const request_rec *const *r = luaL_checkudata(L, 1, "Apache2.Request");
    const nssmtpd_call_t *call = nssmtpd_call();
    handle_t *handle;

    if (!call || call->r != *r) {
        return nssmtpd_values_fail(L, "this request is no phase of an SMTP session");
    }
    handle = lua_newuserdata(L, sizeof(*handle));
    handle->serial = call->serial;
    set_methods(L);
    return 1;
}
