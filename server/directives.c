/* The directives: one row each, with where the value goes, its default and its range, and
 * what understands its words. Checks that need all of the configuration are in check.c.
 * RFC 5321 4.5.3 gives the defaults' reasons where it has any.
 */
#include "server/directives.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <errno.h>
#include <http_core.h>
#include <http_log.h>
#include <stdlib.h>

#include "server/flags.h"
#include "server/names.h"
#include "server/tls.h"

APLOG_USE_MODULE(nssmtpd);

extern module AP_MODULE_DECLARE_DATA nssmtpd_module;

/* A word of key=value arguments, or a flag, with its number. */
typedef struct word_t {
    const char *name;
    nssmtpd_number_t number;
} word_t;

#define AT(field) APR_OFFSETOF(nssmtpd_config_t, field)
#define DAY 86400

static apr_int64_t *number_at(nssmtpd_config_t *conf, const nssmtpd_number_t *number)
{
    return (apr_int64_t *)((char *)conf + number->offset);
}

/* Parses digits with K, M or G behind them. */
static const char *parse_number(cmd_parms *cmd, const char *arg, const nssmtpd_number_t *range,
                                apr_int64_t *value)
{
    static const char units[] = "KMG";
    const char *unit;
    char *end;

    errno = 0;
    *value = apr_strtoi64(arg, &end, 10);
    if (errno == ERANGE) {
        *value = -1;
    }
    if (end > arg && *end && (unit = strchr(units, apr_toupper(*end)))) {
        int shift = 10 * (unit - units + 1);

        *value = *value > APR_INT64_MAX >> shift ? -1 : *value << shift;
        end++;
    }
    if (end == arg || *end || *value < range->min || *value > range->max) {
        return apr_psprintf(cmd->pool, "%s: \"%s\" is not a number from %" APR_INT64_T_FMT
                            " to %" APR_INT64_T_FMT, cmd->cmd->name, arg, range->min, range->max);
    }
    return NULL;
}

static nssmtpd_config_t *conf_of(cmd_parms *cmd)
{
    return ap_get_module_config(cmd->server->module_config, &nssmtpd_module);
}

static const char *set_number(cmd_parms *cmd, void *dconf, const char *arg)
{
    const nssmtpd_number_t *number = cmd->info;

    (void)dconf;
    return parse_number(cmd, arg, number, number_at(conf_of(cmd), number));
}

static const char *set_flag(cmd_parms *cmd, void *dconf, int on)
{
    (void)dconf;
    *number_at(conf_of(cmd), cmd->info) = on;
    return NULL;
}

/* key=value arguments; a table of word_t is the directive's info. */
static const char *set_words(cmd_parms *cmd, void *dconf, const char *arg)
{
    const word_t *word;
    const char *value = strchr(arg, '=');

    (void)dconf;
    for (word = cmd->info; value && word->name; word++) {
        if (strlen(word->name) == (apr_size_t)(value - arg)
            && strncasecmp(word->name, arg, value - arg) == 0) {
            return parse_number(cmd, value + 1, &word->number,
                                number_at(conf_of(cmd), &word->number));
        }
    }
    return apr_psprintf(cmd->pool, "%s: \"%s\" is not one of its key=value arguments",
                        cmd->cmd->name, arg);
}

static const char *set_hostname(cmd_parms *cmd, void *dconf, const char *arg)
{
    (void)dconf;
    if (smtp_address_check_domain((smtp_span_t){ arg, strlen(arg) }) != SMTP_OK) {
        return apr_psprintf(cmd->pool, "SmtpdHostname: \"%s\" is no domain name", arg);
    }
    conf_of(cmd)->hostname = arg;
    return NULL;
}

static const char *set_relay(cmd_parms *cmd, void *dconf, int argc, char *const argv[])
{
    nssmtpd_config_t *conf = conf_of(cmd);
    const char **params;
    int i;

    (void)dconf;
    if (argc < 1) {
        return "SmtpdRelay: needs a URL, such as smtp://127.0.0.1:25 or maildir:/var/mail/%d/%u";
    }
    params = apr_pcalloc(cmd->pool, argc * sizeof(*params));
    for (i = 1; i < argc; i++) {
        params[i - 1] = argv[i];
    }
    conf->relay = apr_pcalloc(cmd->pool, sizeof(*conf->relay));
    conf->relay->url = argv[0];
    conf->relay->params = params;
    return NULL;
}

static const char *add_domain(cmd_parms *cmd, void *dconf, const char *arg)
{
    nssmtpd_config_t *conf = conf_of(cmd);
    nssmtpd_domain_t domain;
    const char *wrong = nssmtpd_lists_parse_domain(cmd->pool, &domain, arg);

    (void)dconf;
    if (wrong) {
        return apr_pstrcat(cmd->pool, "SmtpdRelayDomains: ", wrong, NULL);
    }
    if (!conf->domains) {
        conf->domains = apr_array_make(cmd->pool, 4, sizeof(nssmtpd_domain_t));
    }
    APR_ARRAY_PUSH(conf->domains, nssmtpd_domain_t) = domain;
    return NULL;
}

static const char *add_trusted(cmd_parms *cmd, void *dconf, const char *arg)
{
    nssmtpd_config_t *conf = conf_of(cmd);
    nssmtpd_client_t client;
    const char *wrong;

    (void)dconf;
    if (!conf->trusted) {
        conf->trusted = apr_array_make(cmd->pool, 4, sizeof(client));
    }
    if (strcasecmp(arg, "none") == 0) {
        apr_array_clear(conf->trusted);
        return NULL;
    }
    wrong = nssmtpd_lists_parse_client(cmd->pool, &client, arg);
    if (wrong) {
        return apr_pstrcat(cmd->pool, "SmtpdTrustedClients: ", wrong, NULL);
    }
    APR_ARRAY_PUSH(conf->trusted, nssmtpd_client_t) = client;
    if (client.is_name) {
        /* No server: a virtual host has no log yet. */
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, NULL,
                     "NS0001: SmtpdTrustedClients: %s is looked up once, now; an address "
                     "does not change unseen", arg);
    }
    return NULL;
}

static const char *add_name_server(cmd_parms *cmd, void *dconf, const char *arg)
{
    nssmtpd_config_t *conf = conf_of(cmd);
    const char *wrong;

    (void)dconf;
    if (!conf->name_servers) {
        conf->name_servers = apr_array_make(cmd->pool, 2, sizeof(const char *));
    }
    wrong = nssmtpd_names_parse_server(cmd->pool, conf->name_servers, arg);
    return wrong ? apr_pstrcat(cmd->pool, "SmtpdNameServer: ", wrong, NULL) : NULL;
}

static const char *add_flag(cmd_parms *cmd, void *dconf, const char *arg)
{
    nssmtpd_config_t *conf = conf_of(cmd);
    const char *wrong;

    (void)dconf;
    if (conf->flags == NSSMTPD_UNSET) {
        conf->flags = 0;
    }
    wrong = nssmtpd_flags_add(cmd->pool, &conf->flags, arg);
    return wrong ? apr_pstrcat(cmd->pool, "SmtpdFlags: ", wrong, NULL) : NULL;
}

static const char *set_bare_newline(cmd_parms *cmd, void *dconf, const char *arg)
{
    nssmtpd_config_t *conf = conf_of(cmd);
    apr_int64_t *where = &conf->bare_newline;
    const char *word = arg;

    (void)dconf;
    if (strncasecmp(word, "trusted=", 8) == 0) {
        where = &conf->bare_newline_trusted;
        word += 8;
    }
    if (strcasecmp(word, "reject") == 0) {
        *where = NSSMTPD_NEWLINE_REJECT;
    }
    else if (strcasecmp(word, "normalize") == 0) {
        *where = NSSMTPD_NEWLINE_NORMALIZE;
    }
    else {
        return apr_psprintf(cmd->pool, "SmtpdBareNewline: \"%s\" is neither reject nor "
                            "normalize, with or without trusted= before it", arg);
    }
    return NULL;
}

/* The word's place in the list, a NULL behind it. -1: it is not there. */
static int place_of(const char *word, const char *const words[])
{
    int i;

    for (i = 0; words[i]; i++) {
        if (strcasecmp(word, words[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static const char *set_relay_tls(cmd_parms *cmd, void *dconf, const char *arg)
{
    static const char *const words[] = { "none", "may", "encrypt", "verify", NULL };
    int place = place_of(arg, words);

    (void)dconf;
    conf_of(cmd)->relay_tls = place;
    return place < 0 ? apr_psprintf(cmd->pool, "SmtpdRelayTLS: \"%s\" is none of none, may, "
                                    "encrypt and verify", arg)
                     : NULL;
}

static const char *set_credentials(cmd_parms *cmd, void *dconf, const char *arg)
{
    static const char *const kinds[] = { "env:", "file:", "exec:", NULL };
    int i;

    (void)dconf;
    for (i = 0; kinds[i]; i++) {
        if (strncasecmp(arg, kinds[i], strlen(kinds[i])) == 0 && arg[strlen(kinds[i])]) {
            conf_of(cmd)->relay_credentials = arg;
            return NULL;
        }
    }
    return "SmtpdRelayCredentials: needs env:NAME, file:PATH or exec:PATH; what it was given is "
           "not repeated here, it may be a password";
}

static const char *set_send_log(cmd_parms *cmd, void *dconf, const char *arg)
{
    (void)dconf;
    conf_of(cmd)->send_log = arg;
    return arg[strspn(arg, "| ")] ? NULL : "SmtpdSendLog: needs a path, or a program behind a '|'";
}

static const char *set_tls(cmd_parms *cmd, void *dconf, const char *arg)
{
    static const char *const words[] = { "off", "starttls", "immediate", NULL };
    nssmtpd_config_t *conf = conf_of(cmd);
    int place = place_of(arg, words);

    (void)dconf;
    if (place >= 0) {
        conf->tls = place;
        return NULL;
    }
    if (strcasecmp(arg, "required") == 0) {
        conf->tls_required = 1;
        return NULL;
    }
    return apr_psprintf(cmd->pool, "SmtpdTLS: \"%s\" is none of off, starttls, immediate and "
                        "required", arg);
}

static const char *add_provider(cmd_parms *cmd, void *dconf, const char *arg)
{
    nssmtpd_config_t *conf = conf_of(cmd);

    (void)dconf;
    if (!conf->auth_providers) {
        conf->auth_providers = apr_array_make(cmd->pool, 2, sizeof(const char *));
    }
    APR_ARRAY_PUSH(conf->auth_providers, const char *) = arg;
    return NULL;
}

static const char *set_max_connections(cmd_parms *cmd, void *dconf, const char *total,
                                       const char *per_address)
{
    static const nssmtpd_number_t range = { 0, 0, 0, APR_INT32_MAX, 0 };
    nssmtpd_config_t *conf = conf_of(cmd);
    const char *wrong = parse_number(cmd, total, &range, &conf->max_connections);

    (void)dconf;
    if (!wrong && per_address) {
        wrong = parse_number(cmd, per_address, &range, &conf->max_connections_per_address);
    }
    return wrong;
}

static const char *set_spool(cmd_parms *cmd, void *dconf, const char *arg)
{
    if (strncasecmp(arg, "directory=", 10) == 0 && arg[10]) {
        conf_of(cmd)->spool_directory = ap_server_root_relative(cmd->pool, arg + 10);
        return NULL;
    }
    return set_words(cmd, dconf, arg);
}

static const char *add_scanner(cmd_parms *cmd, void *dconf, int argc, char *const argv[])
{
    const char *wrong = nssmtpd_scanners_add(cmd->pool, &conf_of(cmd)->scanners, argc, argv);

    (void)dconf;
    return wrong ? apr_pstrcat(cmd->pool, "SmtpdScanner: ", wrong, NULL) : NULL;
}

static const nssmtpd_number_t engine = { AT(engine), 0, 0, 1, 1 };
static const nssmtpd_number_t auth_plaintext = { AT(auth_plaintext), 0, 0, 1, 0 };
static const nssmtpd_number_t received = { AT(received), 1, 0, 1, 0 };
static const nssmtpd_number_t max_message_size = { AT(max_message_size), 50 << 20, 0,
                                                   APR_INT64_MAX, 0 };
static const nssmtpd_number_t max_recipients = { AT(max_recipients), 100, 1, 1000000, 0 };
static const nssmtpd_number_t max_line = { AT(max_line), 4096, 512, 65536, 0 };
static const nssmtpd_number_t max_errors = { AT(max_errors), 20, 1, 1000000, 0 };
static const nssmtpd_number_t script_memory = { AT(script_memory), 64 << 20, 1 << 20,
                                                (apr_int64_t)1 << 40, 0 };
static const nssmtpd_number_t max_busy = { AT(max_busy), 0, 1, 1000000, 0 };

static const word_t timeouts[] = {
    { "command", { AT(timeout[NSSMTPD_TIMEOUT_COMMAND]), 300, 1, DAY, 0 } },
    { "data", { AT(timeout[NSSMTPD_TIMEOUT_DATA]), 300, 1, DAY, 0 } },
    { "connect", { AT(timeout[NSSMTPD_TIMEOUT_CONNECT]), 30, 1, DAY, 0 } },
    { "relay", { AT(timeout[NSSMTPD_TIMEOUT_RELAY]), 300, 1, DAY, 0 } },
    { "dot", { AT(timeout[NSSMTPD_TIMEOUT_DOT]), 600, 1, DAY, 0 } },
    { "scan", { AT(timeout[NSSMTPD_TIMEOUT_SCAN]), 60, 1, DAY, 0 } },
    { "script", { AT(timeout[NSSMTPD_TIMEOUT_SCRIPT]), 30, 1, DAY, 0 } },
    { NULL, { 0, 0, 0, 0, 0 } }
};

static const word_t spool_words[] = {
    { "memory", { AT(spool_memory), 128 << 10, 0, 1 << 30, 0 } },
    { NULL, { 0, 0, 0, 0, 0 } }
};

/* Numbers that are set by words of their own. */
static const nssmtpd_number_t others[] = {
    { AT(flags), NSSMTPD_FLAG_NEEDHELO, 0, 0, 0 },
    { AT(tls), NSSMTPD_UNSET, 0, 0, 1 },
    { AT(relay_tls), NSSMTPD_RELAY_TLS_UNSET, 0, 0, 0 },
    { AT(tls_required), 0, 0, 0, 1 },
    { AT(bare_newline), NSSMTPD_NEWLINE_REJECT, 0, 0, 0 },
    { AT(bare_newline_trusted), NSSMTPD_NEWLINE_NORMALIZE, 0, 0, 0 },
    { AT(max_connections), 0, 0, 0, 0 },
    { AT(max_connections_per_address), 50, 0, 0, 0 }
};

const command_rec nssmtpd_commands[] = {
    AP_INIT_FLAG("SmtpdEngine", set_flag, (void *)&engine, RSRC_CONF,
                 "on: this virtual host speaks SMTP"),
    AP_INIT_TAKE1("SmtpdHostname", set_hostname, NULL, RSRC_CONF,
                  "name in the greeting, in EHLO and in Received (ServerName)"),
    AP_INIT_ITERATE("SmtpdTLS", set_tls, NULL, RSRC_CONF,
                    "off, starttls or immediate, and required: nothing without TLS "
                    "(starttls where SSLEngine is on)"),
    AP_INIT_ITERATE("SmtpdAuthProvider", add_provider, NULL, RSRC_CONF,
                    "authn providers (file, dbm, dbd, ldap, socache ..) that know the users"),
    AP_INIT_FLAG("SmtpdAuthPlaintext", set_flag, (void *)&auth_plaintext, RSRC_CONF,
                 "on: AUTH without TLS (off)"),
    AP_INIT_TAKE_ARGV("SmtpdRelay", set_relay, NULL, RSRC_CONF,
                      "URL of the default delivery, then key=value parameters of its worker"),
    AP_INIT_TAKE1("SmtpdRelayTLS", set_relay_tls, NULL, RSRC_CONF,
                  "none, may, encrypt (any certificate) or verify (may; verify with credentials)"),
    AP_INIT_TAKE1("SmtpdRelayCredentials", set_credentials, NULL, RSRC_CONF,
                  "env:NAME, file:PATH or exec:PATH that has user:password for SmtpdRelay"),
    AP_INIT_ITERATE("SmtpdRelayDomains", add_domain, NULL, RSRC_CONF,
                    "recipient domains taken from anybody: domain[:host[:port]] or domain=URL"),
    AP_INIT_ITERATE("SmtpdTrustedClients", add_trusted, NULL, RSRC_CONF,
                    "addresses and networks that may send to any domain, or none "
                    "(127.0.0.0/8 ::1)"),
    AP_INIT_ITERATE("SmtpdFlags", add_flag, NULL, RSRC_CONF,
                    "flags of every session, such as needdomain, or none (needhelo)"),
    AP_INIT_ITERATE("SmtpdBareNewline", set_bare_newline, NULL, RSRC_CONF,
                    "reject or normalize bare LF in messages, trusted= for trusted clients "
                    "(reject trusted=normalize)"),
    AP_INIT_TAKE1("SmtpdMaxMessageSize", set_number, (void *)&max_message_size, RSRC_CONF,
                  "octets of a message, K, M and G understood; 0 is no limit (50M)"),
    AP_INIT_TAKE1("SmtpdMaxRecipients", set_number, (void *)&max_recipients, RSRC_CONF,
                  "accepted recipients of one mail (100)"),
    AP_INIT_TAKE1("SmtpdMaxLine", set_number, (void *)&max_line, RSRC_CONF,
                  "octets of a command line (4096)"),
    AP_INIT_TAKE1("SmtpdMaxErrors", set_number, (void *)&max_errors, RSRC_CONF,
                  "refused commands of a session without a mail between them (20)"),
    AP_INIT_TAKE12("SmtpdMaxConnections", set_max_connections, NULL, RSRC_CONF,
                   "connections at once, and from one address; 0 is no limit (0 50)"),
    AP_INIT_TAKE1("SmtpdMaxBusy", set_number, (void *)&max_busy, RSRC_CONF,
                  "threads of a child in blocking work (75 % of ThreadsPerChild)"),
    AP_INIT_TAKE1("SmtpdScriptMemory", set_number, (void *)&script_memory, RSRC_CONF,
                  "octets that a Lua state may use in a phase, K, M and G understood (64M)"),
    AP_INIT_ITERATE("SmtpdTimeout", set_words, (void *)timeouts, RSRC_CONF,
                    "command= data= connect= relay= dot= scan= script= seconds "
                    "(300 300 30 300 600 60 30)"),
    AP_INIT_ITERATE("SmtpdSpool", set_spool, (void *)spool_words, RSRC_CONF,
                    "memory=octets of a message before a file, directory=of that file "
                    "(128K, DefaultRuntimeDir)"),
    AP_INIT_ITERATE("SmtpdNameServer", add_name_server, NULL, RSRC_CONF,
                    "addresses of name servers, ip, ip:port or [ipv6]:port (resolv.conf)"),
    AP_INIT_TAKE1("SmtpdSendLog", set_send_log, NULL, RSRC_CONF,
                  "path, or \"|program\", for a line per mail that a script sends (none)"),
    AP_INIT_TAKE_ARGV("SmtpdScanner", add_scanner, NULL, RSRC_CONF,
                      "a scanner for spam or viruses: name [address] [key=value ..] (none)"),
    AP_INIT_FLAG("SmtpdReceived", set_flag, (void *)&received, RSRC_CONF,
                 "off: add no Received field (on)"),
    { NULL, { NULL }, NULL, 0, TAKE1, NULL }
};

typedef void visit_t(const nssmtpd_number_t *number, apr_int64_t *value, const apr_int64_t *outer);

static void visit_at(visit_t *visit, const nssmtpd_number_t *number, nssmtpd_config_t *conf,
                     nssmtpd_config_t *base)
{
    visit(number, number_at(conf, number), base ? number_at(base, number) : NULL);
}

void nssmtpd_directives_each(visit_t *visit, nssmtpd_config_t *conf, nssmtpd_config_t *base)
{
    const command_rec *cmd;
    const word_t *word;
    apr_size_t i;

    for (cmd = nssmtpd_commands; cmd->name; cmd++) {
        if (cmd->AP_TAKE1 == set_words || cmd->AP_TAKE1 == set_spool) {
            for (word = cmd->cmd_data; word->name; word++) {
                visit_at(visit, &word->number, conf, base);
            }
        }
        else if (cmd->cmd_data) {
            visit_at(visit, cmd->cmd_data, conf, base);
        }
    }
    for (i = 0; i < sizeof(others) / sizeof(*others); i++) {
        visit_at(visit, &others[i], conf, base);
    }
}
