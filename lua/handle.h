/* The session handle: what smtpd.session(r) gives to a script, good for one call.
 */
#ifndef NSSMTPD_HANDLE_H
#define NSSMTPD_HANDLE_H

#include <lauxlib.h>
#include <lua.h>

#include "mod_nssmtpd.h"

/* The call that the handle at index 1 is for. Raises if it is none, or of a call that has
 * ended. */
nssmtpd_call_t *nssmtpd_handle_call(lua_State *L);

/* The mail in hand; NULL: none, and nil and NSSMTPD_HANDLE_NO_MAIL is what to return. */
nssmtpd_transaction_t *nssmtpd_handle_mail(lua_State *L);

#define NSSMTPD_HANDLE_NO_MAIL "there is no mail in hand in this phase"

/* Methods, by files; see session_api.c. */
extern const luaL_Reg nssmtpd_envelope_api_rows[];
int nssmtpd_message_api_getbody(lua_State *L);
int nssmtpd_message_api_dump(lua_State *L);
int nssmtpd_parts_walk(lua_State *L);

#endif
