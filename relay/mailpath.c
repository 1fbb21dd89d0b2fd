/* The names of Maildirs and of the files in them: the place where an address, which anybody may
 * write, becomes part of a path. Makes nothing on disk. Called by maildir.c. RFC 5321 4.1.2
 * says what an address may hold: any printable octet, quoted.
 */
#include "relay/mailpath.h"

#include <apr_atomic.h>
#include <apr_strings.h>
#include <string.h>
#include <unistd.h>

enum {
    PIECE_MAX = 120, /* octets of %u or %d in one name: two of them fit into NAME_MAX */
    HOST_MAX = 100   /* octets of the host in a file's name */
};

static int is_safe(char ch)
{
    return smtp_char_is(ch, SMTP_CHAR_LDH) || ch == '.' || ch == '+' || ch == '=';
}

/* What may stand in a path for an address's part; mailpath.h says how. '@' is not among the
 * safe ones, so that /%u@%d is as good as /%d/%u. */
static const char *make_safe(apr_pool_t *p, const char *part)
{
    apr_size_t size = 3 * strlen(part);
    char *safe = apr_palloc(p, size + 2 * (size / PIECE_MAX) + 4), *out = safe, *piece = safe;

    if (!*part) {
        return "%00";
    }
    for (; *part; part++) {
        if (out - piece >= PIECE_MAX) {
            memcpy(out, "%/", 2);
            piece = out += 2;
        }
        if (!is_safe(*part) || (*part == '.' && out == piece)) {
            out += apr_snprintf(out, 4, "%%%02x", (unsigned char)*part);
        }
        else {
            *out++ = *part;
        }
    }
    *out = '\0';
    return safe;
}

static const char *lower(apr_pool_t *p, const char *name)
{
    char *copy = apr_pstrdup(p, name);

    ap_str_tolower(copy);
    return copy;
}

const char *nssmtpd_mailpath_expand(const nssmtpd_transaction_t *t, const char *path,
                                    const nssmtpd_rcpt_t *rcpt)
{
    apr_pool_t *p = t->r->pool;
    const char *domain = *rcpt->domain ? rcpt->domain : lower(p, nssmtpd_hostname(t->r->server));
    const char *local = strcasecmp(rcpt->local, "postmaster") == 0 ? "postmaster" : rcpt->local;
    const char *percent, *made = "";

    for (; (percent = strchr(path, '%')); path = percent + 2) {
        made = apr_pstrcat(p, made, apr_pstrmemdup(p, path, percent - path),
                           percent[1] == 'u' ? make_safe(p, local)
                           : percent[1] == 'd' ? make_safe(p, domain) : "%", NULL);
    }
    return apr_pstrcat(p, made, path, NULL);
}

/* Time, process and a counter of it make the name unique on this host, the host's name
 * among those that share the directory. */
const char *nssmtpd_mailpath_unique(const nssmtpd_transaction_t *t)
{
    static apr_uint32_t counter;
    apr_time_t now = apr_time_now();
    const char *from = nssmtpd_hostname(t->r->server);
    char host[HOST_MAX + 4], *out = host;

    for (; *from && out - host < HOST_MAX; from++) {
        if (smtp_char_is(*from, SMTP_CHAR_LDH) || *from == '.') {
            *out++ = *from;
        }
        else { /* ':' begins the flags, ',' the size: both are written as Maildirs do it */
            out += apr_snprintf(out, 5, "\\%03o", (unsigned char)*from);
        }
    }
    return apr_psprintf(t->r->pool, "%" APR_TIME_T_FMT ".M%06dP%" APR_PID_T_FMT "Q%u.%.*s",
                        apr_time_sec(now), (int)apr_time_usec(now), getpid(),
                        apr_atomic_inc32(&counter), (int)(out - host), host);
}
