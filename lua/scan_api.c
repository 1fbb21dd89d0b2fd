/* Spam and viruses for scripts. There is no scanner to ask yet, and that is what they hear;
 * arguments are checked all the same, so that a script which is wrong is wrong at once.
 */
#include "lua/library.h"
#include "lua/values.h"

static int no_scanner(lua_State *L)
{
    return nssmtpd_values_fail(L, "no scanner is configured (SmtpdScanner)");
}

int nssmtpd_scan_api_checkspam(lua_State *L)
{
    luaL_checkstring(L, 1);
    luaL_optstring(L, 2, NULL);
    return no_scanner(L);
}

int nssmtpd_scan_api_checkvirus(lua_State *L)
{
    luaL_checkstring(L, 1);
    return no_scanner(L);
}

int nssmtpd_scan_api_trainspam(lua_State *L)
{
    int arg;

    luaL_checkinteger(L, 1);
    luaL_checkstring(L, 2);
    luaL_checkstring(L, 3);
    for (arg = 4; arg <= 6; arg++) {
        luaL_optstring(L, arg, NULL);
    }
    return no_scanner(L);
}

int nssmtpd_scan_api_spamversion(lua_State *L)
{
    return no_scanner(L);
}

int nssmtpd_scan_api_virusversion(lua_State *L)
{
    return no_scanner(L);
}
