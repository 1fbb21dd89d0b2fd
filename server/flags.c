/* The flags of sessions and recipients by name: in SmtpdFlags and for scripts. What a flag
 * does is done where it is asked; mod_nssmtpd.h has the values.
 */
#include "server/flags.h"

#include <apr_strings.h>
#include <httpd.h>

#include "mod_nssmtpd.h"

static const struct {
    const char *name;
    apr_uint32_t flag;
    int is_setting; /* it may stand in SmtpdFlags */
} rows[] = {
    { "verified", NSSMTPD_FLAG_VERIFIED, 0 },
    { "local", NSSMTPD_FLAG_LOCAL, 1 },
    { "relay", NSSMTPD_FLAG_RELAY, 0 },
    { "delivered", NSSMTPD_FLAG_DELIVERED, 0 },
    { "abort", NSSMTPD_FLAG_ABORT, 0 },
    { "viruscheck", NSSMTPD_FLAG_VIRUSCHECK, 1 },
    { "spamcheck", NSSMTPD_FLAG_SPAMCHECK, 1 },
    { "needdomain", NSSMTPD_FLAG_NEEDDOMAIN, 1 },
    { "segv", NSSMTPD_FLAG_SEGV, 1 },
    { "fastproxy", NSSMTPD_FLAG_FASTPROXY, 1 },
    { "resolve", NSSMTPD_FLAG_RESOLVE, 1 },
    { "needhelo", NSSMTPD_FLAG_NEEDHELO, 1 },
    { "gothelo", NSSMTPD_FLAG_GOTHELO, 0 },
    { "gotmail", NSSMTPD_FLAG_GOTMAIL, 0 },
    { "gotspam", NSSMTPD_FLAG_GOTSPAM, 0 },
    { "gotvirus", NSSMTPD_FLAG_GOTVIRUS, 0 }
};

enum { ROWS = sizeof(rows) / sizeof(*rows) };

apr_uint32_t nssmtpd_flag(const char *name)
{
    int i;

    for (i = 0; i < ROWS; i++) {
        if (strcasecmp(rows[i].name, name) == 0) {
            return rows[i].flag;
        }
    }
    return 0;
}

static const char *list_settings(apr_pool_t *p)
{
    const char *names = "none";
    int i;

    for (i = 0; i < ROWS; i++) {
        if (rows[i].is_setting) {
            names = apr_pstrcat(p, rows[i].name, ", ", names, NULL);
        }
    }
    return names;
}

const char *nssmtpd_flags_add(apr_pool_t *p, apr_int64_t *flags, const char *word)
{
    int i;

    if (strcasecmp(word, "none") == 0) {
        *flags = 0;
        return NULL;
    }
    for (i = 0; i < ROWS; i++) {
        if (rows[i].is_setting && strcasecmp(rows[i].name, word) == 0) {
            *flags |= rows[i].flag;
            return NULL;
        }
    }
    return apr_psprintf(p, "\"%s\" is not one of %s", word, list_settings(p));
}
