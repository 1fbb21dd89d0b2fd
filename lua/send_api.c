/* smtpd.send(): arguments and results. The mail itself is sent by the server's nssmtpd_send(),
 * which says how and checks addresses.
 */
#include <string.h>

#include "lua/library.h"
#include "lua/requests.h"
#include "lua/values.h"
#include "mod_nssmtpd.h"

/* Recipients: one string or an array of strings. NULL: one of them holds a NUL octet. */
static const apr_array_header_t *take_recipients(lua_State *L, int arg, apr_pool_t *p)
{
    apr_array_header_t *rcpts;
    const char *rcpt;
    lua_Integer i, n;

    if (lua_type(L, arg) == LUA_TSTRING) {
        rcpts = apr_array_make(p, 1, sizeof(const char *));
        lua_pushvalue(L, arg);
        rcpt = nssmtpd_values_copy(L, p);
        APR_ARRAY_PUSH(rcpts, const char *) = rcpt;
        return rcpt ? rcpts : NULL;
    }
    luaL_checktype(L, arg, LUA_TTABLE);
    n = luaL_len(L, arg);
    rcpts = apr_array_make(p, 8, sizeof(const char *));
    for (i = 1; i <= n; i++) {
        luaL_argcheck(L, lua_rawgeti(L, arg, i) == LUA_TSTRING, arg, "array of strings expected");
        rcpt = nssmtpd_values_copy(L, p);
        lua_pop(L, 1);
        if (!rcpt) {
            return NULL;
        }
        APR_ARRAY_PUSH(rcpts, const char *) = rcpt;
    }
    return rcpts;
}

/* code and reply into the table at the top; a recipient that was never named has 0 and "". */
static void set_reply(lua_State *L, const smtp_reply_t *reply, apr_pool_t *p)
{
    nssmtpd_values_set_integer(L, "code", reply ? reply->code : 0);
    nssmtpd_values_set(L, "reply", reply ? smtp_reply_line(p, reply) : "");
}

static void push_result(lua_State *L, const nssmtpd_send_t *send, apr_pool_t *p)
{
    int i, n = send->results ? send->results->nelts : 0;

    lua_createtable(L, 0, 4);
    set_reply(L, send->reply, p);
    lua_createtable(L, n, 0);
    for (i = 0; i < n; i++) {
        const nssmtpd_sent_t *sent = &APR_ARRAY_IDX(send->results, i, nssmtpd_sent_t);

        lua_createtable(L, 0, 3);
        nssmtpd_values_set(L, "address", sent->address);
        set_reply(L, sent->reply, p);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "rcpts");
}

/* Checks the types of all arguments first: a wrong one raises whatever else is the case. */
static const char *take_arguments(lua_State *L, nssmtpd_send_t *send)
{
    lua_Integer port = luaL_optinteger(L, 5, 0);

    luaL_checkstring(L, 1);
    if (lua_type(L, 2) != LUA_TSTRING) {
        luaL_checktype(L, 2, LUA_TTABLE);
    }
    luaL_checktype(L, 3, LUA_TSTRING);
    send->message.p = lua_tolstring(L, 3, &send->message.n);
    send->from = nssmtpd_values_text(L, 1);
    if (!send->from) {
        return NSSMTPD_VALUES_NUL;
    }
    if (!lua_isnoneornil(L, 4)) {
        send->host = nssmtpd_values_text(L, 4);
        if (!send->host || !*send->host) {
            return "the host has no name";
        }
    }
    if (port < 0 || port > 65535) {
        return "a port is 1 to 65535";
    }
    send->port = (int)port;
    return NULL;
}

int nssmtpd_send_api_send(lua_State *L)
{
    nssmtpd_send_t send;
    const char *why, *none;
    request_rec *r;
    server_rec *s;

    memset(&send, 0, sizeof(send));
    why = take_arguments(L, &send);
    s = nssmtpd_requests_host(L, &none);
    if (why || !s) {
        return nssmtpd_values_fail(L, why ? why : none);
    }
    r = nssmtpd_requests_current(L);
    send.rcpts = take_recipients(L, 2, r->pool);
    if (!send.rcpts || send.rcpts->nelts == 0) {
        return nssmtpd_values_fail(L, send.rcpts ? "there is no recipient" : NSSMTPD_VALUES_NUL);
    }
    why = nssmtpd_send(r, s, &send);
    nssmtpd_values_done(L, why);
    push_result(L, &send, r->pool);
    if (!why) {
        return 2;
    }
    nssmtpd_values_set(L, "phase", send.phase ? send.phase : "");
    return 3;
}
