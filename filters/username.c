/* What SmtpdScanner user= stands for in a mail. A recipient's address is a stranger's choice
 * and goes to a daemon that may open files by it, so little of ASCII is let through.
 */
#include "filters/username.h"

#include <apr_strings.h>
#include <string.h>

static const char *meaning(char letter, const nssmtpd_rcpt_t *rcpt)
{
    switch (letter) {
    case 'u':
        return rcpt->local;
    case 'd':
        return rcpt->domain;
    case 'r':
        return rcpt->address;
    default:
        return "%";
    }
}

static char safe(char ch, int is_first)
{
    if (smtp_char_is(ch, SMTP_CHAR_LDH)) {
        return is_first && ch == '-' ? '_' : ch;
    }
    return ch && strchr(is_first ? "@+=" : "@.+=", ch) ? ch : '_';
}

const char *nssmtpd_username_make(const nssmtpd_scan_conf_t *conf, const nssmtpd_scan_job_t *job)
{
    char name[NSSMTPD_USERNAME_MAX + 1];
    const char *from;
    apr_size_t n = 0;

    if (!conf->user || (strchr(conf->user, '%') && (!job->rcpts || job->rcpts->nelts == 0))) {
        return NULL;
    }
    for (from = conf->user; *from && n < NSSMTPD_USERNAME_MAX; from++) {
        char one[2] = { *from, '\0' };
        const char *text = one;

        if (*from == '%' && from[1]) {
            text = meaning(*++from, &APR_ARRAY_IDX(job->rcpts, 0, nssmtpd_rcpt_t));
        }
        for (; *text && n < NSSMTPD_USERNAME_MAX; text++, n++) {
            name[n] = safe(*text, n == 0);
        }
    }
    return n ? apr_pstrmemdup(job->p, name, n) : NULL;
}
