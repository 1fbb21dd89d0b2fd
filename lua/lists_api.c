/* smtpd.relay and smtpd.locals: the lists of a host at run time. What a word means and how all
 * children come to know it is the server's. The list is the functions' upvalue.
 */
#include "lua/library.h"
#include "lua/requests.h"
#include "lua/values.h"
#include "mod_nssmtpd.h"

/* What each function begins with. */
typedef struct list_t {
    server_rec *s; /* NULL: *why */
    const char *why;
    apr_pool_t *p;
    nssmtpd_list_e which;
} list_t;

static list_t open_list(lua_State *L)
{
    list_t list = { NULL, NULL, NULL, lua_tointeger(L, lua_upvalueindex(1)) };

    list.s = nssmtpd_requests_host(L, &list.why);
    if (list.s) {
        list.p = nssmtpd_requests_current(L)->pool;
    }
    return list;
}

static int change(lua_State *L, const char *(*by)(server_rec *, nssmtpd_list_e, apr_pool_t *,
                                                  const char *))
{
    const char *word = nssmtpd_values_text(L, 1);
    list_t list = open_list(L);

    if (!word || !list.s) {
        return nssmtpd_values_fail(L, word ? list.why : NSSMTPD_VALUES_NUL);
    }
    return nssmtpd_values_done(L, by(list.s, list.which, list.p, word));
}

static int add(lua_State *L)
{
    return change(L, nssmtpd_list_add);
}

static int del(lua_State *L)
{
    return change(L, nssmtpd_list_delete);
}

static int set(lua_State *L)
{
    int i, n = lua_gettop(L);
    apr_array_header_t *words;
    const char *word;
    list_t list;

    for (i = 1; i <= n; i++) {
        luaL_checkstring(L, i);
    }
    list = open_list(L);
    if (!list.s) {
        return nssmtpd_values_fail(L, list.why);
    }
    words = apr_array_make(list.p, n ? n : 1, sizeof(const char *));
    for (i = 1; i <= n; i++) {
        word = nssmtpd_values_text(L, i);
        if (!word) {
            return nssmtpd_values_fail(L, NSSMTPD_VALUES_NUL);
        }
        APR_ARRAY_PUSH(words, const char *) = word;
    }
    return nssmtpd_values_done(L, nssmtpd_list_set(list.s, list.which, list.p, words));
}

static int clear(lua_State *L)
{
    lua_settop(L, 0);
    return set(L);
}

static int get(lua_State *L)
{
    list_t list = open_list(L);
    const apr_array_header_t *words;
    int i;

    if (!list.s) {
        return nssmtpd_values_fail(L, list.why);
    }
    words = nssmtpd_list_get(list.s, list.which, list.p);
    lua_createtable(L, words->nelts, 0);
    for (i = 0; i < words->nelts; i++) {
        lua_pushstring(L, APR_ARRAY_IDX(words, i, const char *));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int check(lua_State *L)
{
    const char *word = nssmtpd_values_text(L, 1);
    list_t list = open_list(L);

    if (!list.s) {
        return nssmtpd_values_fail(L, list.why);
    }
    if (list.which == NSSMTPD_LIST_LOCALS) {
        lua_pushboolean(L, word && nssmtpd_list_trusts(list.s, list.p, word));
    }
    else {
        lua_pushstring(L, word ? nssmtpd_list_route(list.s, list.p, word) : NULL); /* or nil */
    }
    return 1;
}

const luaL_Reg nssmtpd_lists_api_rows[] = {
    { "add", add },
    { "del", del },
    { "set", set },
    { "clear", clear },
    { "get", get },
    { "check", check },
    { NULL, NULL }
};
