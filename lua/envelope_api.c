/* Methods of the session handle for the envelope: sender, recipients, flags, and the data that
 * scripts keep with them. What may be changed and what follows from it is the server's.
 */
#include <apr_strings.h>
#include <string.h>
#include <strings.h>

#include "lua/handle.h"
#include "lua/values.h"
#include "smtp/address.h"
#include "smtp/limits.h"

/* A script's own data: any octets. */

static void push_data(lua_State *L, smtp_span_t data)
{
    if (data.p) {
        lua_pushlstring(L, data.p, data.n);
    }
    else {
        lua_pushnil(L);
    }
}

/* nil drops what was there. The octets are the argument's own. */
static smtp_span_t check_data(lua_State *L, int arg)
{
    smtp_span_t data = { NULL, 0 };

    if (!lua_isnoneornil(L, arg)) {
        data.p = luaL_checklstring(L, arg, &data.n);
    }
    return data;
}

/* They live as long as the mail. Returns why not, or NULL. */
static const char *keep_data(nssmtpd_call_t *call, smtp_span_t *place, smtp_span_t data)
{
    const char *why = data.p ? nssmtpd_call_keep(call, data.n) : NULL;

    if (why) {
        return why;
    }
    if (data.p) {
        data.p = apr_pstrmemdup(call->t->r->pool, data.p, data.n);
    }
    *place = data;
    return NULL;
}

/* Flags: a name in any case, or bits. 0: *why. */
static apr_uint32_t check_flags(lua_State *L, int arg, const char **why)
{
    const char *name;
    lua_Integer bits;
    apr_uint32_t flag;

    if (lua_type(L, arg) == LUA_TNUMBER) {
        bits = luaL_checkinteger(L, arg);
        *why = "flags are 1 to 4294967295";
        return bits > 0 && bits <= 0xffffffffLL ? (apr_uint32_t)bits : 0;
    }
    name = nssmtpd_values_text(L, arg);
    flag = name ? nssmtpd_flag(name) : 0;
    *why = "there is no such flag";
    return flag;
}

/* Selectors */

static nssmtpd_rcpt_t *rcpt_at(const nssmtpd_transaction_t *t, int i)
{
    return &APR_ARRAY_IDX(t->rcpts, i, nssmtpd_rcpt_t);
}

/* A selecting address, taken apart as the server did a recipient's. */
typedef struct wanted_t {
    char local[SMTP_PATH_MAX];
    smtp_span_t domain;
} wanted_t;

static int parse_wanted(wanted_t *wanted, const char *text, size_t n)
{
    const char *at = text;
    smtp_address_t address;

    if (smtp_address_parse(&address, &at, text + n) == SMTP_OK && at == text + n) {
        wanted->domain = address.domain;
        smtp_address_unquote(&address, wanted->local, sizeof(wanted->local));
        return 1;
    }
    return 0;
}

static int is_wanted(const wanted_t *wanted, const nssmtpd_rcpt_t *rcpt)
{
    smtp_span_t domain = { rcpt->domain, strlen(rcpt->domain) };

    return smtp_span_equal(wanted->domain, domain)
           && (domain.n ? strcmp(wanted->local, rcpt->local) == 0
                        : strcasecmp(wanted->local, rcpt->local) == 0); /* postmaster */
}

/* The newest recipient of that address below the index `below`, or -1. */
static int find_address(const nssmtpd_transaction_t *t, const char *text, size_t n, int below)
{
    wanted_t wanted;

    if (!parse_wanted(&wanted, text, n)) {
        return -1;
    }
    while (--below >= 0 && !is_wanted(&wanted, rcpt_at(t, below))) {
    }
    return below;
}

/* Its index in t->rcpts, or -1. */
static int find_rcpt(lua_State *L, int arg, const nssmtpd_transaction_t *t)
{
    lua_Integer i;
    size_t n;
    const char *text;

    if (lua_type(L, arg) == LUA_TNUMBER) {
        i = luaL_checkinteger(L, arg);
        i = i < 0 ? t->rcpts->nelts + i : i - 1;
        return i >= 0 && i < t->rcpts->nelts ? (int)i : -1;
    }
    text = luaL_checklstring(L, arg, &n);
    return find_address(t, text, n, t->rcpts->nelts);
}

/* A recipient's index, where there is one; else what to return is pushed already. */
static int select_rcpt(lua_State *L, int arg, nssmtpd_transaction_t **t)
{
    int i;

    *t = nssmtpd_handle_mail(L);
    if (!*t) {
        nssmtpd_values_fail(L, NSSMTPD_HANDLE_NO_MAIL);
        return -1;
    }
    i = find_rcpt(L, arg, *t);
    if (i < 0) {
        nssmtpd_values_fail(L, "there is no such recipient");
    }
    return i;
}

/* Sender */

static int getfrom(lua_State *L)
{
    const nssmtpd_transaction_t *t = nssmtpd_handle_mail(L);

    if (!t) {
        return nssmtpd_values_fail(L, NSSMTPD_HANDLE_NO_MAIL);
    }
    lua_pushstring(L, t->from);
    return 1;
}

static int setfrom(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    const char *address = nssmtpd_values_text(L, 2);

    return nssmtpd_values_done(L, address ? nssmtpd_call_set_from(call, address)
                                          : NSSMTPD_VALUES_NUL);
}

static int getfromdata(lua_State *L)
{
    const nssmtpd_transaction_t *t = nssmtpd_handle_mail(L);

    if (!t) {
        return nssmtpd_values_fail(L, NSSMTPD_HANDLE_NO_MAIL);
    }
    push_data(L, t->from_data);
    return 1;
}

static int setfromdata(lua_State *L)
{
    nssmtpd_transaction_t *t = nssmtpd_handle_mail(L);
    smtp_span_t data = check_data(L, 2);

    if (!t) {
        return nssmtpd_values_fail(L, NSSMTPD_HANDLE_NO_MAIL);
    }
    return nssmtpd_values_done(L, keep_data(nssmtpd_handle_call(L), &t->from_data, data));
}

/* Recipients */

static void push_rcpt(lua_State *L, nssmtpd_transaction_t *t, const nssmtpd_rcpt_t *rcpt)
{
    lua_createtable(L, 0, 5);
    nssmtpd_values_set(L, "address", rcpt->address);
    nssmtpd_values_set_integer(L, "flags", rcpt->flags);
    lua_pushnumber(L, rcpt->score);
    lua_setfield(L, -2, "score");
    push_data(L, rcpt->data);
    lua_setfield(L, -2, "data");
    nssmtpd_values_set(L, "route", t->route ? t->route->url : NULL);
}

static int getrcpt(lua_State *L)
{
    nssmtpd_transaction_t *t;
    int i;

    if (!lua_isnoneornil(L, 2)) {
        i = select_rcpt(L, 2, &t);
        if (i < 0) {
            return 2;
        }
        push_rcpt(L, t, rcpt_at(t, i));
        return 1;
    }
    t = nssmtpd_handle_mail(L);
    lua_newtable(L);
    for (i = 0; t && i < t->rcpts->nelts; i++) {
        push_rcpt(L, t, rcpt_at(t, i));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int addrcpt(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    const char *address = nssmtpd_values_text(L, 2), *why = NULL;
    apr_uint32_t flags = 0;
    smtp_span_t data = check_data(L, 4);
    int is_none = lua_type(L, 3) == LUA_TNUMBER && lua_tonumber(L, 3) == 0;

    if (!lua_isnoneornil(L, 3) && !is_none && !(flags = check_flags(L, 3, &why))) {
        return nssmtpd_values_fail(L, why);
    }
    return nssmtpd_values_done(L, address ? nssmtpd_call_add_rcpt(call, address, flags, data)
                                          : NSSMTPD_VALUES_NUL);
}

/* An address drops all recipients who have it. */
static int delrcpt(lua_State *L)
{
    nssmtpd_transaction_t *t;
    int i = select_rcpt(L, 2, &t);
    const char *why = NULL, *address;
    size_t n;

    if (i < 0) {
        return 2;
    }
    why = nssmtpd_call_delete_rcpt(nssmtpd_handle_call(L), i);
    if (lua_type(L, 2) == LUA_TSTRING) {
        address = lua_tolstring(L, 2, &n);
        while (!why && (i = find_address(t, address, n, i)) >= 0) {
            why = nssmtpd_call_delete_rcpt(nssmtpd_handle_call(L), i);
        }
    }
    return nssmtpd_values_done(L, why);
}

static int getrcptdata(lua_State *L)
{
    nssmtpd_transaction_t *t;
    int i = select_rcpt(L, 2, &t);

    if (i < 0) {
        return 2;
    }
    push_data(L, rcpt_at(t, i)->data);
    return 1;
}

static int setrcptdata(lua_State *L)
{
    nssmtpd_transaction_t *t;
    smtp_span_t data = check_data(L, 3);
    int i = select_rcpt(L, 2, &t);

    if (i < 0) {
        return 2;
    }
    return nssmtpd_values_done(L, keep_data(nssmtpd_handle_call(L), &rcpt_at(t, i)->data, data));
}

/* Flags: the session's word, or with a selector a recipient's. */

static int change_session_flags(lua_State *L, int is_set)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    const char *why;
    apr_uint32_t bits = check_flags(L, 2, &why), flags = nssmtpd_call_flags(call);

    if (bits) {
        why = nssmtpd_call_set_flags(call, is_set ? flags | bits : flags & ~bits);
    }
    if (why) {
        return nssmtpd_values_fail(L, why);
    }
    lua_pushinteger(L, nssmtpd_call_flags(call));
    return 1;
}

/* Without `verified` there is no recipient any more, hence the word before. */
static int change_rcpt_flags(lua_State *L, int is_set)
{
    nssmtpd_transaction_t *t;
    const char *why;
    apr_uint32_t bits = check_flags(L, 3, &why), flags;
    int i = select_rcpt(L, 2, &t);

    if (i < 0) {
        return 2;
    }
    flags = rcpt_at(t, i)->flags;
    flags = is_set ? flags | bits : flags & ~bits;
    if (bits) {
        why = nssmtpd_call_set_rcpt_flags(nssmtpd_handle_call(L), i, flags);
    }
    if (why) {
        return nssmtpd_values_fail(L, why);
    }
    lua_pushinteger(L, flags);
    return 1;
}

static int setflag(lua_State *L)
{
    return lua_gettop(L) > 2 ? change_rcpt_flags(L, 1) : change_session_flags(L, 1);
}

static int unsetflag(lua_State *L)
{
    return lua_gettop(L) > 2 ? change_rcpt_flags(L, 0) : change_session_flags(L, 0);
}

static int getflag(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_handle_call(L);
    nssmtpd_transaction_t *t;
    int i;

    if (lua_isnoneornil(L, 2)) {
        lua_pushinteger(L, nssmtpd_call_flags(call));
        return 1;
    }
    i = select_rcpt(L, 2, &t);
    if (i < 0) {
        return 2;
    }
    lua_pushinteger(L, rcpt_at(t, i)->flags);
    return 1;
}

const luaL_Reg nssmtpd_envelope_api_rows[] = {
    { "getfrom", getfrom },
    { "setfrom", setfrom },
    { "getfromdata", getfromdata },
    { "setfromdata", setfromdata },
    { "getrcpt", getrcpt },
    { "addrcpt", addrcpt },
    { "delrcpt", delrcpt },
    { "getrcptdata", getrcptdata },
    { "setrcptdata", setrcptdata },
    { "setflag", setflag },
    { "unsetflag", unsetflag },
    { "getflag", getflag },
    { NULL, NULL }
};
