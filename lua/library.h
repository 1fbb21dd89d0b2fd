/* The library: tables of functions, and who has them. DESIGN section 4 'Lua' is the contract
 * of each.
 */
#ifndef NSSMTPD_LIBRARY_H
#define NSSMTPD_LIBRARY_H

#include <lauxlib.h>
#include <lua.h>

/* Pushes a new table smtpd. */
void nssmtpd_library_push(lua_State *L);

/* Its functions, by files */
int nssmtpd_session_api_open(lua_State *L);

int nssmtpd_send_api_send(lua_State *L);

extern const luaL_Reg nssmtpd_lists_api_rows[];

int nssmtpd_scan_api_checkspam(lua_State *L);
int nssmtpd_scan_api_checkvirus(lua_State *L);
int nssmtpd_scan_api_trainspam(lua_State *L);
int nssmtpd_scan_api_spamversion(lua_State *L);
int nssmtpd_scan_api_virusversion(lua_State *L);


#endif
