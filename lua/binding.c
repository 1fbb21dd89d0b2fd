/* Joins mod_lua: before each call of a script it is given the library as the global smtpd, the
 * limits of its phase, and a stack without leftovers. `require "mod_nssmtpd"` gives the same
 * library to code at file scope. Not the library itself: that is tools_api.c's and
 * session_api.c's.
 */
#include <lauxlib.h>
#include <lualib.h>

#include "lua/library.h"
#include "lua/script_limits.h"
#include "lua/binding.h"
#include "lua/requests.h"
#include "mod_nssmtpd.h"

static const char library_key; /* its address is the key in the registry */

/* It would end httpd's child with all that goes on in it; without its hook, debug.sethook
 * lets a script run for ever. */
static void take_away(lua_State *L, const char *table, const char *name)
{
    lua_pushglobaltable(L);
    lua_pushstring(L, table);
    if (lua_rawget(L, -2) == LUA_TTABLE) {
        lua_pushstring(L, name);
        lua_pushnil(L);
        lua_rawset(L, -3);
    }
    lua_pop(L, 2);
}

/* The value at the top. No metamethod of a script may run: its error would find no pcall. */
static void set_global(lua_State *L, const char *name)
{
    lua_pushglobaltable(L);
    lua_insert(L, -2);
    lua_pushstring(L, name);
    lua_insert(L, -2);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

/* Pushes the library; every state has one. */
static void push_library(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &library_key) == LUA_TTABLE) {
        return;
    }
    lua_pop(L, 1);
    nssmtpd_library_push(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &library_key);

    luaL_getsubtable(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_pushliteral(L, "mod_nssmtpd");
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    take_away(L, LUA_OSLIBNAME, "exit");
    take_away(L, LUA_DBLIBNAME, "sethook");
}

/* A filter's coroutine, which mod_lua keeps nowhere but on this stack, and only while it is
 * suspended does it come back to it. */
static int is_filter(lua_State *L, int at)
{
    return lua_type(L, at) == LUA_TTHREAD && lua_status(lua_tothread(L, at)) == LUA_YIELD;
}

/* Filters of requests that broke off never end. */
#define FILTERS_KEPT 50

/* mod_lua leaves a slot of the stack behind with each call; a million of them crash a state
 * that lives long. The function and its argument are moved down to where they began. */
static void cut_stack(lua_State *L)
{
    int top = lua_gettop(L), kept = 0, i;
    lua_Debug frame;

    if (top < 3 || lua_type(L, top - 1) != LUA_TFUNCTION || lua_getstack(L, 0, &frame)) {
        return; /* nothing to cut, or the stack of a script that still runs */
    }
    for (i = top - 2; i > 0; i--) {
        if (kept < FILTERS_KEPT && is_filter(L, i)) {
            kept++;
        }
        else {
            lua_remove(L, i);
        }
    }
}

/* mod_lua crashes of an error that is no text. A filter that fails before its first yield is to
 * it one that does not want to filter, and behind the last octet it does not ask. */
static int end_guarded(lua_State *L, int status, lua_KContext unused)
{
    nssmtpd_call_t *call = nssmtpd_call();

    (void)unused;
    if (status == LUA_OK || status == LUA_YIELD) {
        return lua_gettop(L);
    }
    if (lua_type(L, -1) != LUA_TSTRING) {
        lua_pushfstring(L, "an error that is a %s", luaL_typename(L, -1));
    }
    if (call) {
        nssmtpd_call_fail(call, lua_tostring(L, -1));
    }
    return lua_error(L);
}

static int run_guarded(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    return end_guarded(L, lua_pcallk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, 0, end_guarded), 0);
}

static int nothing(lua_State *L)
{
    (void)L;
    return 0;
}

/* A script that has no function error for the phase of that name has Lua's own in its place. */
static void skip_own_error(lua_State *L, nssmtpd_call_t *call)
{
    if (call->phase == NSSMTPD_PHASE_ERROR && lua_iscfunction(L, -2)) {
        nssmtpd_call_miss(call);
        lua_pushcfunction(L, nothing);
        lua_replace(L, -3);
    }
}

/* On the stack are the function that is about to be called and its argument. */
static void guard(lua_State *L)
{
    nssmtpd_call_t *call = nssmtpd_call();

    if (call && lua_type(L, -2) == LUA_TFUNCTION) {
        skip_own_error(L, call);
        lua_pushvalue(L, -2);
        lua_pushcclosure(L, run_guarded, 1);
        lua_replace(L, -3);
    }
}

int nssmtpd_binding_request(lua_State *L, request_rec *r)
{
    int is_main;

    if (!lua_checkstack(L, LUA_MINSTACK)) {
        return OK;
    }
    is_main = lua_pushthread(L);
    lua_pop(L, 1);
    if (is_main) {
        cut_stack(L);
    }
    guard(L);
    nssmtpd_requests_enter(L, r);
    push_library(L);
    set_global(L, "smtpd");
    nssmtpd_script_limits_apply(L, r);
    return OK;
}

/* Found by package.cpath, for `require "mod_nssmtpd"`; the name is Lua's. */
__attribute__((visibility("default"))) int luaopen_mod_nssmtpd(lua_State *L)
{
    push_library(L);
    return 1;
}
