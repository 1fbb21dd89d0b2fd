/* Values on their way between Lua and C. A Lua error is a longjmp: what must not be lost by one
 * hangs on a userdata whose __gc frees it. Called by all of lua/.
 */
#include "lua/values.h"

#include <apr_strings.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#define GUARD "nssmtpd.guard"

typedef struct guard_t {
    void *octets;
    apr_pool_t *pool;
} guard_t;

int nssmtpd_values_fail(lua_State *L, const char *why)
{
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

int nssmtpd_values_done(lua_State *L, const char *why)
{
    if (why) {
        return nssmtpd_values_fail(L, why);
    }
    lua_pushboolean(L, 1);
    return 1;
}

const char *nssmtpd_values_text(lua_State *L, int arg)
{
    size_t n;
    const char *text = luaL_checklstring(L, arg, &n);

    return strlen(text) == n ? text : NULL;
}

const char *nssmtpd_values_copy(lua_State *L, apr_pool_t *p)
{
    size_t n;
    const char *text;

    if (lua_type(L, -1) != LUA_TSTRING) {
        return NULL;
    }
    text = lua_tolstring(L, -1, &n);
    return strlen(text) == n ? apr_pstrmemdup(p, text, n) : NULL;
}

static int collect(lua_State *L)
{
    guard_t *guard = lua_touserdata(L, 1);

    free(guard->octets);
    guard->octets = NULL;
    if (guard->pool) {
        apr_pool_destroy(guard->pool);
        guard->pool = NULL;
    }
    return 0;
}

static guard_t *push_guard(lua_State *L)
{
    guard_t *guard = lua_newuserdata(L, sizeof(*guard));

    memset(guard, 0, sizeof(*guard));
    if (luaL_newmetatable(L, GUARD)) {
        lua_pushcfunction(L, collect);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return guard;
}

void *nssmtpd_values_octets(lua_State *L, size_t n)
{
    guard_t *guard = push_guard(L);

    guard->octets = malloc(n ? n : 1);
    if (!guard->octets) {
        luaL_error(L, "not enough memory");
    }
    return guard->octets;
}

/* An allocator of its own, or large blocks would stay with the process. */
apr_pool_t *nssmtpd_values_pool(lua_State *L)
{
    guard_t *guard = push_guard(L);

    if (apr_pool_create_unmanaged_ex(&guard->pool, NULL, NULL) != APR_SUCCESS) {
        guard->pool = NULL;
        luaL_error(L, "not enough memory");
    }
    return guard->pool;
}

void nssmtpd_values_drop(lua_State *L, int guard)
{
    lua_pushcfunction(L, collect);
    lua_pushvalue(L, guard < 0 ? guard - 1 : guard);
    lua_call(L, 1, 0);
}

void nssmtpd_values_set(lua_State *L, const char *name, const char *value)
{
    if (value) {
        lua_pushstring(L, value);
        lua_setfield(L, -2, name);
    }
}

void nssmtpd_values_set_integer(lua_State *L, const char *name, lua_Integer value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}
