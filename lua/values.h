/* What the functions of the library share: how they fail, texts that C can take, and memory
 * that Lua frees when an error throws past it. Nothing here knows of SMTP.
 */
#ifndef NSSMTPD_VALUES_H
#define NSSMTPD_VALUES_H

#include <apr_pools.h>
#include <lua.h>

/* nil and why: what a function returns that could not do its work. */
int nssmtpd_values_fail(lua_State *L, const char *why);

/* true, or, if why is not NULL, nil and why. */
int nssmtpd_values_done(lua_State *L, const char *why);

/* The argument as a C string; another type than string and number raises. NULL: a NUL is in
 * it, and nil and NSSMTPD_VALUES_NUL is what to return. As long-lived as the argument. */
const char *nssmtpd_values_text(lua_State *L, int arg);

#define NSSMTPD_VALUES_NUL "a NUL octet has no place here"

/* The string at the top of the stack, copied to p; it stays there. NULL: it is none, or a NUL
 * is in it. */
const char *nssmtpd_values_copy(lua_State *L, apr_pool_t *p);

/* Pushes a guard and returns n octets, at least one, or a pool of its own: they last until the
 * guard is dropped or collected. Raises when there is no memory. */
void *nssmtpd_values_octets(lua_State *L, size_t n);
apr_pool_t *nssmtpd_values_pool(lua_State *L);

/* Frees what the guard at that index holds. */
void nssmtpd_values_drop(lua_State *L, int guard);

/* t[name] of the table at the top of the stack. NULL: nothing is set. */
void nssmtpd_values_set(lua_State *L, const char *name, const char *value);
void nssmtpd_values_set_integer(lua_State *L, const char *name, lua_Integer value);

#endif
