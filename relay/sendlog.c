/* The log of what scripts send. Opened once for each start, before httpd gives up its rights;
 * children inherit the descriptor and write each line at once, so that lines of many of them
 * never mix. Called by send.c.
 *
 *   [dd/Mon/yyyy:HH:MM:SS +zzzz] pid:tid status outcome [host]:port secs.usecs octets sender RCPT:
 *   recipient ..
 */
#include "relay/sendlog.h"

#include <ap_mpm.h>
#include <apr_portable.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>
#include <util_time.h>

APLOG_USE_MODULE(nssmtpd);

enum {
    LINE_MAX_OCTETS = PIPE_BUF, /* what goes through a pipe in one piece */
    FIELD_MAX_OCTETS = 320,     /* of a text before it is escaped: any address fits */
    COUNT_OCTETS = 16           /* " +100000": so many more */
};

/* A host's log. Hosts with the same path or program share the file. */
typedef struct log_t {
    struct log_t *next;
    const server_rec *server;
    const char *where;
    apr_file_t *file;
} log_t;

static log_t *logs; /* made while httpd starts, read only afterwards */

/* Opening */

static apr_status_t forget(void *unused)
{
    (void)unused;
    logs = NULL;
    return APR_SUCCESS;
}

static apr_status_t open_path(apr_file_t **file, apr_pool_t *p, const char *where)
{
    const char *path = ap_server_root_relative(p, where);

    return path ? apr_file_open(file, path,
                                APR_FOPEN_WRITE | APR_FOPEN_APPEND | APR_FOPEN_CREATE
                                    | APR_FOPEN_LARGEFILE,
                                APR_FPROT_OS_DEFAULT, p)
                : APR_EBADPATH;
}

static apr_status_t open_program(apr_file_t **file, apr_pool_t *p, const char *program)
{
    piped_log *pl = ap_open_piped_log(p, program);

    *file = pl ? ap_piped_log_write_fd(pl) : NULL;
    return pl ? APR_SUCCESS : APR_EGENERAL;
}

static apr_status_t open_log(log_t *log, apr_pool_t *p)
{
    const log_t *other = logs;

    while (other && strcmp(other->where, log->where) != 0) {
        other = other->next;
    }
    if (other) {
        log->file = other->file;
        return APR_SUCCESS;
    }
    return *log->where == '|' ? open_program(&log->file, p, log->where + 1)
                              : open_path(&log->file, p, log->where);
}

static int add_log(apr_pool_t *p, server_rec *s, const char *where)
{
    log_t *log = apr_pcalloc(p, sizeof(*log));
    apr_status_t rv;

    log->server = s;
    log->where = where;
    if ((rv = open_log(log, p)) != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, rv, s, "NS0067: SmtpdSendLog: cannot open %s; make "
                     "its directory, or name another path or program", where);
        return !OK;
    }
    log->next = logs;
    logs = log;
    return OK;
}

int nssmtpd_sendlog_open(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    int rc = OK;

    (void)plog, (void)ptemp;
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG) {
        return OK; /* the first of two passes only checks */
    }
    apr_pool_cleanup_register(pconf, NULL, forget, apr_pool_cleanup_null);
    for (; s && rc == OK; s = s->next) {
        if (nssmtpd_is_host(s) && nssmtpd_send_log(s)) {
            rc = add_log(pconf, s, nssmtpd_send_log(s));
        }
    }
    return rc;
}

/* Judging */

/* host:port as the relay's steps or else the route have it; a path has no port. */
static void note_place(nssmtpd_sendlog_t *entry, apr_pool_t *p,
                       const nssmtpd_transaction_t *t)
{
    const char *place = apr_table_get(t->r->subprocess_env, "SMTP_RELAY"), *colon;

    place = place && strncmp(place, "smtp://", 7) == 0 ? place + 7 : t->route->url;
    colon = strrchr(place, ':');
    entry->host = apr_pstrdup(p, place);
    entry->port = 0;
    if (colon && colon[1] && strspn(colon + 1, "0123456789") == strlen(colon + 1)) {
        entry->host = apr_pstrmemdup(p, place, colon - place);
        entry->port = atoi(colon + 1);
    }
}

static const char *outcome_of(const nssmtpd_transaction_t *t, const smtp_reply_t *reply)
{
    static const struct {
        const char *step, *outcome;
    } rows[] = {
        { "connect", "CONNECT_FAILURE" }, { "greeting", "GREET_FAILURE" },
        { "EHLO", "SETUP_FAILURE" },      { "HELO", "SETUP_FAILURE" },
        { "STARTTLS", "SETUP_FAILURE" },  { "AUTH", "SETUP_FAILURE" }
    };
    apr_size_t i;

    if (smtp_reply_is_positive(reply)) {
        return "SUCCESS";
    }
    for (i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        if (t->step && strcmp(t->step, rows[i].step) == 0) {
            return rows[i].outcome;
        }
    }
    return reply == smtp_reply(SMTP_REPLY_RELAY_LOST) || reply == smtp_reply(SMTP_REPLY_LOCAL_FAULT)
               ? "IO_ERROR"
               : "STATUS_ERROR";
}

/* Rows that we say because nobody else has said anything. */
static int was_heard(const smtp_reply_t *reply)
{
    return reply != smtp_reply(SMTP_REPLY_RELAY_LOST)
           && reply != smtp_reply(SMTP_REPLY_RELAY_UNREACHABLE)
           && reply != smtp_reply(SMTP_REPLY_BUSY) && reply != smtp_reply(SMTP_REPLY_LOCAL_FAULT);
}

void nssmtpd_sendlog_judge(nssmtpd_sendlog_t *entry, apr_pool_t *p,
                           const nssmtpd_transaction_t *t, const smtp_reply_t *reply)
{
    entry->outcome = outcome_of(t, reply);
    entry->status = was_heard(reply) ? reply->code : 0;
    note_place(entry, p, t);
}

/* Writing */

/* A field is one word: what is not printable ASCII, a blank, a quote and a backslash are \xHH,
 * so that no text can end its field or its line. Nothing at all is "<>". */
static const char *escape(apr_pool_t *p, const char *text)
{
    apr_size_t n = strnlen(text, FIELD_MAX_OCTETS);
    char *safe = apr_palloc(p, 4 * n + 1), *out = safe;
    const char *end = text + n;

    for (; text < end; text++) {
        if (*text > ' ' && *text < 127 && *text != '"' && *text != '\\') {
            *out++ = *text;
        }
        else {
            out += apr_snprintf(out, 5, "\\x%02x", (unsigned char)*text);
        }
    }
    *out = '\0';
    return n ? safe : "<>";
}

static const char *date(apr_pool_t *p)
{
    char *text = apr_palloc(p, 32);
    apr_time_exp_t now;
    int minutes;

    ap_explode_recent_localtime(&now, apr_time_now());
    minutes = now.tm_gmtoff / 60;
    apr_snprintf(text, 32, "%02d/%s/%d:%02d:%02d:%02d %c%02d%02d", now.tm_mday,
                 apr_month_snames[now.tm_mon], now.tm_year + 1900, now.tm_hour, now.tm_min,
                 now.tm_sec, minutes < 0 ? '-' : '+', abs(minutes) / 60, abs(minutes) % 60);
    return text;
}

/* All but the recipients. */
static apr_size_t put_fields(char *line, apr_pool_t *p, const nssmtpd_sendlog_t *entry)
{
    apr_time_t taken = apr_time_now() - entry->started;
    apr_os_thread_t thread = apr_os_thread_current();

    return apr_snprintf(line, LINE_MAX_OCTETS,
                        "[%s] %" APR_PID_T_FMT ":%pT %03d %s [%s]:%d %" APR_TIME_T_FMT
                        ".%06d %" APR_OFF_T_FMT " %s RCPT:",
                        date(p), getpid(), &thread, entry->status, entry->outcome,
                        entry->host ? escape(p, entry->host) : "-", entry->port,
                        apr_time_sec(taken), (int)apr_time_usec(taken), entry->octets,
                        escape(p, entry->from));
}

/* As many recipients as fit, and how many did not. */
static apr_size_t put_rcpts(char *line, apr_size_t used, apr_pool_t *p,
                            const apr_array_header_t *rcpts)
{
    int i;

    for (i = 0; i < rcpts->nelts; i++) {
        const char *rcpt = escape(p, APR_ARRAY_IDX(rcpts, i, const char *));
        apr_size_t n = strlen(rcpt);

        if (used + n + COUNT_OCTETS > LINE_MAX_OCTETS) {
            return used + apr_snprintf(line + used, COUNT_OCTETS, " +%d", rcpts->nelts - i);
        }
        line[used] = ' ';
        memcpy(line + used + 1, rcpt, n);
        used += n + 1;
    }
    return used;
}

void nssmtpd_sendlog_write(apr_pool_t *p, server_rec *s, const nssmtpd_sendlog_t *entry)
{
    const log_t *log = logs;
    apr_size_t n;
    apr_status_t rv;
    char *line;

    while (log && log->server != s) {
        log = log->next;
    }
    if (!log) {
        return;
    }
    line = apr_palloc(p, LINE_MAX_OCTETS);
    n = put_rcpts(line, put_fields(line, p, entry), p, entry->rcpts);
    line[n++] = '\n';
    if ((rv = apr_file_write(log->file, line, &n)) != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_ERR, rv, s, "NS0068: SmtpdSendLog: cannot write to %s",
                     log->where);
    }
}
