/* Which request a Lua state works for, so that smtpd.send() and the like need not be told.
 */
#ifndef NSSMTPD_REQUESTS_H
#define NSSMTPD_REQUESTS_H

#include <httpd.h>
#include <lua.h>

/* The state, or a coroutine of it, is about to be called for r. */
void nssmtpd_requests_enter(lua_State *L, request_rec *r);

/* The request that the calling script works for. NULL: it is only being loaded. */
request_rec *nssmtpd_requests_current(lua_State *L);

/* The SMTP host that it means: smtpd.use()'s, else its own, else the first. NULL: see *why. */
server_rec *nssmtpd_requests_host(lua_State *L, const char **why);

/* smtpd.use(): the host that r means from now on. */
void nssmtpd_requests_use(request_rec *r, server_rec *s);

#define NSSMTPD_REQUESTS_NONE "there is no request while a script is being loaded"

#endif
