/* Rules that a message has hit, in the words of a daemon that is not believed: the text that
 * comes out has no blanks, no line breaks and a limit. Called by spamd.c and rspamd.c.
 */
#include "filters/rules.h"

#include <apr_strings.h>

void nssmtpd_rules_add(nssmtpd_rules_t *rules, const char *name, apr_size_t n)
{
    apr_size_t i;

    if (n == 0 || n + 1 > NSSMTPD_RULES_MAX - rules->n) {
        return;
    }
    if (rules->n) {
        rules->text[rules->n++] = ',';
    }
    for (i = 0; i < n; i++) {
        int is_plain = smtp_char_is(name[i], SMTP_CHAR_LDH) || name[i] == '.';

        rules->text[rules->n++] = is_plain ? name[i] : '?';
    }
}

const char *nssmtpd_rules_text(const nssmtpd_rules_t *rules, apr_pool_t *p)
{
    return rules->n ? apr_pstrmemdup(p, rules->text, rules->n) : NULL;
}
