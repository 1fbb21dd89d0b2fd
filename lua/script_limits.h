/* Limits of scripts in phases: time and memory. Scripts of HTTP requests have none of ours.
 */
#ifndef NSSMTPD_SCRIPT_LIMITS_H
#define NSSMTPD_SCRIPT_LIMITS_H

#include <httpd.h>
#include <lua.h>

/* The state, or a coroutine of it, is about to be called for r: in a phase its instructions
 * are counted and its memory measured, until the call has ended. Touches nothing of the state
 * later than that. Not covered: a C function that takes long, __gc functions, and code at
 * file scope. */
void nssmtpd_script_limits_apply(lua_State *L, request_rec *r);

#endif
