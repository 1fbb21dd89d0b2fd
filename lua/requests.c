/* The request of each Lua state: a slot in the state's registry, written before mod_lua calls
 * a function of it. The slot may outlive the request, but then only code at file scope can
 * run, when the script is loaded again; that is recognized and told that there is none.
 * Called by the hook and by functions of the library.
 */
#include "lua/requests.h"

#include "mod_nssmtpd.h"

typedef struct slot_t {
    request_rec *r;
} slot_t;

/* A request that is interrupted by another one in the same state. */
typedef struct outer_t {
    slot_t *slot;
    request_rec *r;
} outer_t;

static const char slot_key; /* its address is the key */

#define USED "nssmtpd.use"

static slot_t *find_slot(lua_State *L)
{
    slot_t *slot;

    lua_rawgetp(L, LUA_REGISTRYINDEX, &slot_key);
    slot = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return slot;
}

static slot_t *make_slot(lua_State *L)
{
    slot_t *slot = lua_newuserdata(L, sizeof(*slot));

    slot->r = NULL;
    lua_rawsetp(L, LUA_REGISTRYINDEX, &slot_key);
    return slot;
}

static lua_State *main_thread(lua_State *L)
{
    lua_State *found;

    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    found = lua_tothread(L, -1);
    lua_pop(L, 1);
    return found;
}

static apr_status_t leave(void *data)
{
    outer_t *outer = data;

    outer->slot->r = outer->r;
    return APR_SUCCESS;
}

/* A subrequest's script in a state whose own script still runs: the state surely outlives the
 * subrequest, whose end is the end of the interruption. */
static void interrupt(slot_t *slot, request_rec *r)
{
    outer_t *outer = apr_palloc(r->pool, sizeof(*outer));

    outer->slot = slot;
    outer->r = slot->r;
    apr_pool_cleanup_register(r->pool, outer, leave, apr_pool_cleanup_null);
}

void nssmtpd_requests_enter(lua_State *L, request_rec *r)
{
    slot_t *slot = find_slot(L);
    lua_Debug frame;

    if (!slot) {
        slot = make_slot(L);
    }
    if (slot->r && slot->r != r && lua_getstack(main_thread(L), 0, &frame)) {
        interrupt(slot, r);
    }
    slot->r = r;
}

/* The frame that everything else was called from: the script's function, or the script
 * itself when it is being loaded. 0: nothing runs in this thread. */
static int find_bottom(lua_State *L, lua_Debug *frame)
{
    int low = 0, high = 1;

    if (!lua_getstack(L, 0, frame)) {
        return 0;
    }
    while (lua_getstack(L, high, frame)) {
        low = high;
        high *= 2;
    }
    while (high - low > 1) {
        int middle = low + (high - low) / 2;

        if (lua_getstack(L, middle, frame)) {
            low = middle;
        }
        else {
            high = middle;
        }
    }
    return lua_getstack(L, low, frame);
}

static int is_loading(lua_State *L)
{
    lua_Debug frame;

    return find_bottom(L, &frame) && lua_getinfo(L, "S", &frame) && frame.what[0] == 'm';
}

request_rec *nssmtpd_requests_current(lua_State *L)
{
    slot_t *slot = find_slot(L);

    return slot && !is_loading(main_thread(L)) ? slot->r : NULL;
}

server_rec *nssmtpd_requests_host(lua_State *L, const char **why)
{
    request_rec *r = nssmtpd_requests_current(L);
    void *used = NULL;
    server_rec *s;

    if (!r) {
        *why = NSSMTPD_REQUESTS_NONE;
        return NULL;
    }
    apr_pool_userdata_get(&used, USED, r->pool);
    s = used ? used : nssmtpd_host_of(r);
    if (!s) {
        *why = "no virtual host has SmtpdEngine on";
    }
    return s;
}

void nssmtpd_requests_use(request_rec *r, server_rec *s)
{
    apr_pool_userdata_setn(s, USED, NULL, r->pool);
}
