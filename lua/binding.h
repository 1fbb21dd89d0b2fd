/* How mod_nssmtpd.c joins mod_lua. Its header is not installed with httpd; the hook's type is
 * as APR_OPTIONAL_HOOK(ap_lua, lua_request, ..) names it.
 */
#ifndef NSSMTPD_BINDING_H
#define NSSMTPD_BINDING_H

#include <httpd.h>
#include <lua.h>

typedef int ap_lua_HOOK_lua_request_t(lua_State *L, request_rec *r);

/* Hook lua_request: mod_lua is about to call the function below the top of L's stack. Gives
 * it the global smtpd. */
int nssmtpd_binding_request(lua_State *L, request_rec *r);

#endif
