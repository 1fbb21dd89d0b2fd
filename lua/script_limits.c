/* Stops a script that runs for too long, by a hook on its instructions, and one that takes
 * too much memory, by an allocator around Lua's own. Both ask whether the call that they were
 * set for still runs, since a state may live on and mod_lua allocates outside of any pcall,
 * where a refusal would end the process. Called before each call of a script.
 */
#include "lua/script_limits.h"

#include <lauxlib.h>
#include <stdlib.h>

#include "mod_nssmtpd.h"

/* Instructions between two looks at the clock: some microseconds. */
#define STEP 1000

/* Once the time is over, each instruction raises: a pcall can catch one error, but nothing
 * can run behind it. */
static void watch(lua_State *L, lua_Debug *frame)
{
    const nssmtpd_call_t *call = nssmtpd_call();

    (void)frame;
    if (!call || apr_time_now() < call->deadline) {
        if (lua_gethookcount(L) != STEP) {
            lua_sethook(L, watch, LUA_MASKCOUNT, STEP);
        }
        return;
    }
    lua_sethook(L, watch, LUA_MASKCOUNT, 1);
    luaL_error(L, "stopped: longer than SmtpdTimeout script=%d",
               (int)apr_time_sec(nssmtpd_timeout(call->r->server, NSSMTPD_TIMEOUT_SCRIPT)));
}

/* Filters of one message that may share a state. */
#define THREADS_MAX 8

/* A state's memory. Lives as long as the state's last octet, which may be freed long after
 * and by whoever closes it. */
typedef struct meter_t {
    lua_Alloc alloc;
    void *baton;
    size_t used, limit;
    apr_uint64_t serial; /* of the call that the limit is for */
    int count;
    lua_State *threads[THREADS_MAX]; /* that the call's functions run in: itself, or filters */
} meter_t;

/* A function of the call runs, and so something catches errors: not while mod_lua hands over a
 * filter's next bucket. */
static int is_running(const meter_t *meter)
{
    lua_Debug frame;
    int i;

    for (i = 0; i < meter->count; i++) {
        if (lua_status(meter->threads[i]) != LUA_YIELD
            && lua_getstack(meter->threads[i], 0, &frame)) {
            return 1;
        }
    }
    return 0;
}

static int is_refused(const meter_t *meter, size_t old, size_t size)
{
    const nssmtpd_call_t *call;

    if (size <= old || meter->used + (size - old) <= meter->limit) {
        return 0;
    }
    call = nssmtpd_call();
    return call && call->serial == meter->serial && is_running(meter);
}

static void *measure(void *baton, void *block, size_t old, size_t size)
{
    meter_t *meter = baton;
    void *made;

    if (is_refused(meter, block ? old : 0, size)) {
        return NULL;
    }
    made = meter->alloc(meter->baton, block, old, size);
    if (made || size == 0) {
        meter->used += size - (block ? old : 0); /* without a block, old is its kind */
        if (meter->used == 0) {
            free(meter);
        }
    }
    return made;
}

static meter_t *find_meter(lua_State *L)
{
    void *baton;

    return lua_getallocf(L, &baton) == measure ? baton : NULL;
}

static meter_t *make_meter(lua_State *L)
{
    meter_t *meter = calloc(1, sizeof(*meter));

    if (meter) {
        meter->alloc = lua_getallocf(L, &meter->baton);
        meter->used = (size_t)lua_gc(L, LUA_GCCOUNT, 0) * 1024 + lua_gc(L, LUA_GCCOUNTB, 0);
        lua_setallocf(L, measure, meter);
    }
    return meter;
}

static void add_thread(meter_t *meter, lua_State *L, apr_uint64_t serial)
{
    if (meter->serial != serial) {
        meter->serial = serial;
        meter->count = 0;
    }
    if (meter->count < THREADS_MAX) {
        meter->threads[meter->count++] = L;
    }
}

void nssmtpd_script_limits_apply(lua_State *L, request_rec *r)
{
    const nssmtpd_call_t *call = nssmtpd_call();
    meter_t *meter = find_meter(L);

    if (!call) {
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    lua_sethook(L, watch, LUA_MASKCOUNT, STEP);
    if (!meter) {
        meter = make_meter(L);
    }
    if (meter) {
        meter->limit = nssmtpd_script_memory(r->server);
        add_thread(meter, L, call->serial);
    }
}
