/* The library smtpd: the table of its functions, and those that are no more than a question to
 * the server. Sending, lists, scanners and the session handle have files of their own.
 * Called by scripts of phases and of HTTP requests alike.
 */
#include <apr_strings.h>
#include <string.h>

#include "lua/library.h"
#include "lua/requests.h"
#include "lua/values.h"
#include "mod_nssmtpd.h"
#include "smtp/encode.h"
#include "smtp/mailbox.h"

/* Texts and addresses */

static int recode(lua_State *L, int is_decode)
{
    const char *name = nssmtpd_values_text(L, 1), *out;
    const smtp_encoding_t *encoding = name ? smtp_encode_find(name) : NULL;
    apr_size_t n, outlen;
    const char *in = luaL_checklstring(L, 2, &n);
    apr_pool_t *p;

    if (!encoding) {
        return nssmtpd_values_fail(L, "the encodings are base64, hex and qprint");
    }
    p = nssmtpd_values_pool(L);
    if ((is_decode ? encoding->decode : encoding->encode)(p, in, n, &out, &outlen)) {
        nssmtpd_values_drop(L, -1);
        lua_pushnil(L);
        lua_pushfstring(L, "this is no %s", encoding->name);
        return 2;
    }
    lua_pushlstring(L, out, outlen);
    nssmtpd_values_drop(L, -2);
    return 1;
}

static int encode(lua_State *L)
{
    return recode(L, 0);
}

static int decode(lua_State *L)
{
    return recode(L, 1);
}

static int checkemail(lua_State *L)
{
    char mailbox[SMTP_PATH_MAX];
    smtp_span_t list;

    list.p = luaL_checklstring(L, 1, &list.n);
    if (smtp_mailbox_first(list, mailbox) == SMTP_OK) {
        lua_pushstring(L, mailbox);
    }
    else {
        lua_pushnil(L);
    }
    return 1;
}

static int checkdomain(lua_State *L)
{
    const char *domain = nssmtpd_values_text(L, 1), *why = NULL;
    server_rec *s;
    int takes;

    if (!domain) {
        return nssmtpd_values_fail(L, NSSMTPD_VALUES_NUL);
    }
    s = nssmtpd_requests_host(L, &why);
    if (!s) {
        return nssmtpd_values_fail(L, why);
    }
    takes = nssmtpd_domain_takes_mail(s, nssmtpd_requests_current(L)->pool, domain, &why);
    if (takes < 0) {
        return nssmtpd_values_fail(L, why);
    }
    lua_pushboolean(L, takes);
    return 1;
}

/* What the server is */

static int flag(lua_State *L)
{
    const char *name = nssmtpd_values_text(L, 1);
    apr_uint32_t value = name ? nssmtpd_flag(name) : 0;

    if (!value) {
        return nssmtpd_values_fail(L, "there is no such flag");
    }
    lua_pushinteger(L, value);
    return 1;
}

static const char *tell_version(const server_rec *s, apr_pool_t *p)
{
    (void)s, (void)p;
    return NSSMTPD_VERSION;
}

static const char *tell_server(const server_rec *s, apr_pool_t *p)
{
    (void)p;
    return nssmtpd_hostname(s);
}

static const char *tell_relay(const server_rec *s, apr_pool_t *p)
{
    (void)p;
    return nssmtpd_relay_url(s);
}

static const char *tell_address(const server_rec *s, apr_pool_t *p)
{
    const server_addr_rec *addr = s->addrs;
    const char *name = addr && strcmp(addr->virthost, "_default_") != 0 ? addr->virthost : "*";

    return apr_psprintf(p, strchr(name, ':') && *name != '[' ? "[%s]:%u" : "%s:%u", name,
                        addr ? (unsigned)addr->host_port : (unsigned)s->port);
}

static int info(lua_State *L)
{
    static const struct {
        const char *name;
        const char *(*tell)(const server_rec *s, apr_pool_t *p);
    } rows[] = {
        { "version", tell_version },
        { "server", tell_server },
        { "relay", tell_relay },
        { "address", tell_address }
    };
    const char *name = nssmtpd_values_text(L, 1), *why;
    server_rec *s;
    size_t i;

    for (i = 0; name && i < sizeof(rows) / sizeof(*rows); i++) {
        if (strcmp(name, rows[i].name) != 0) {
            continue;
        }
        s = nssmtpd_requests_host(L, &why);
        if (!s && rows[i].tell != tell_version) {
            return nssmtpd_values_fail(L, why);
        }
        lua_pushstring(L, rows[i].tell(s, s ? nssmtpd_requests_current(L)->pool : NULL));
        return 1;
    }
    return nssmtpd_values_fail(L, "there is version, server, relay and address");
}

static int use(lua_State *L)
{
    const char *name = nssmtpd_values_text(L, 1);
    request_rec *r = nssmtpd_requests_current(L);
    server_rec *s;

    if (!r) {
        return nssmtpd_values_fail(L, NSSMTPD_REQUESTS_NONE);
    }
    s = name ? nssmtpd_host_find(name) : NULL;
    if (!s) {
        return nssmtpd_values_fail(L, "there is no such SMTP host; it is named name:port");
    }
    nssmtpd_requests_use(r, s);
    return nssmtpd_values_done(L, NULL);
}

/* What goes on */

static void push_recipients(lua_State *L, const apr_array_header_t *rcpts)
{
    int i, n = rcpts ? rcpts->nelts : 0;

    lua_createtable(L, n, 0);
    for (i = 0; i < n; i++) {
        const nssmtpd_rcpt_t *rcpt = &APR_ARRAY_IDX(rcpts, i, nssmtpd_rcpt_t);

        lua_createtable(L, 0, 2);
        nssmtpd_values_set(L, "address", rcpt->address);
        nssmtpd_values_set_integer(L, "flags", rcpt->flags);
        lua_rawseti(L, -2, i + 1);
    }
}

static void push_session(lua_State *L, const nssmtpd_session_info_t *session, apr_time_t now)
{
    lua_createtable(L, 0, 12);
    nssmtpd_values_set_integer(L, "id", (lua_Integer)session->id);
    nssmtpd_values_set_integer(L, "child", session->pid);
    nssmtpd_values_set(L, "client", session->client);
    nssmtpd_values_set(L, "helo", session->helo);
    nssmtpd_values_set(L, "user", session->user);
    nssmtpd_values_set(L, "from", session->from);
    nssmtpd_values_set(L, "phase", session->phase);
    lua_pushboolean(L, session->is_tls);
    lua_setfield(L, -2, "tls");
    push_recipients(L, session->rcpts);
    lua_setfield(L, -2, "rcpts");
    nssmtpd_values_set_integer(L, "rcpt_count", session->rcpt_count);
    lua_pushnumber(L, (lua_Number)(now - session->started) / APR_USEC_PER_SEC);
    lua_setfield(L, -2, "age");
    nssmtpd_values_set_integer(L, "bytes", session->bytes);
}

static int sessions(lua_State *L)
{
    apr_pool_t *p = nssmtpd_values_pool(L);
    const apr_array_header_t *list = nssmtpd_sessions(p);
    apr_time_t now = apr_time_now();
    int i;

    lua_createtable(L, list->nelts, 0);
    for (i = 0; i < list->nelts; i++) {
        push_session(L, &APR_ARRAY_IDX(list, i, nssmtpd_session_info_t), now);
        lua_rawseti(L, -2, i + 1);
    }
    nssmtpd_values_drop(L, -2);
    return 1;
}

static int counters(lua_State *L)
{
    int i;

    lua_createtable(L, 0, NSSMTPD_COUNTER_COUNT);
    for (i = 0; i < NSSMTPD_COUNTER_COUNT; i++) {
        nssmtpd_values_set_integer(L, nssmtpd_counter_name(i), (lua_Integer)nssmtpd_counter(i));
    }
    return 1;
}

/* The table */

static const luaL_Reg rows[] = {
    { "send", nssmtpd_send_api_send },
    { "session", nssmtpd_session_api_open },
    { "encode", encode },
    { "decode", decode },
    { "checkemail", checkemail },
    { "checkdomain", checkdomain },
    { "checkspam", nssmtpd_scan_api_checkspam },
    { "checkvirus", nssmtpd_scan_api_checkvirus },
    { "trainspam", nssmtpd_scan_api_trainspam },
    { "spamversion", nssmtpd_scan_api_spamversion },
    { "virusversion", nssmtpd_scan_api_virusversion },
    { "flag", flag },
    { "info", info },
    { "sessions", sessions },
    { "counters", counters },
    { "use", use },
    { NULL, NULL }
};

/* smtpd.relay, smtpd.locals and smtpd["local"]: the same functions, which find the list that
 * they are for behind them. */
static void push_list(lua_State *L, nssmtpd_list_e list)
{
    lua_newtable(L);
    lua_pushinteger(L, list);
    luaL_setfuncs(L, nssmtpd_lists_api_rows, 1);
}

void nssmtpd_library_push(lua_State *L)
{
    luaL_newlib(L, rows);
    push_list(L, NSSMTPD_LIST_RELAY);
    lua_setfield(L, -2, "relay");
    push_list(L, NSSMTPD_LIST_LOCALS);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "locals");
    lua_setfield(L, -2, "local");
}
