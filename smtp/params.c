/* The list of parameters behind a path, one at a time (RFC 5321 4.1.1.11, 4.1.2).
 * Not the decoder of values: xtext, BODY's words and the like are verbs.c's, which
 * calls this for MAIL and RCPT once the path is taken.
 */
#include <stddef.h>

#include "smtp/params.h"

#define DIGITS_MAX 20 /* size-value, RFC 1870 3 */

/* esmtp-keyword: letters, digits, hyphens, and no hyphen first. */
static smtp_parse_e take_key(smtp_span_t *key, const char **at, const char *end)
{
    key->p = *at;
    if (**at == '-') {
        return SMTP_BAD;
    }
    key->n = smtp_chars_skip(at, end, SMTP_CHAR_KEY);
    return key->n > 0 ? SMTP_OK : SMTP_BAD;
}

static smtp_parse_e take_value(smtp_span_t *value, const char **at, const char *end)
{
    value->p = *at;
    value->n = smtp_chars_skip(at, end, SMTP_CHAR_VALUE);
    return value->n > 0 ? SMTP_OK : SMTP_BAD;
}

smtp_parse_e smtp_params_next(smtp_param_t *param, const char **at, const char *end)
{
    param->key = param->value = (smtp_span_t){NULL, 0};
    smtp_chars_skip_blanks(at, end);
    if (*at == end) {
        return SMTP_MORE;
    }
    if (take_key(&param->key, at, end) != SMTP_OK) {
        return SMTP_BAD;
    }
    if (*at < end && **at == '=') {
        ++*at;
        if (take_value(&param->value, at, end) != SMTP_OK) {
            return SMTP_BAD;
        }
    }
    return *at == end || smtp_char_is_blank(**at) ? SMTP_OK : SMTP_BAD;
}

smtp_parse_e smtp_params_number(smtp_span_t value, apr_int64_t *number)
{
    apr_int64_t sum = 0;
    apr_size_t i;

    if (value.n == 0 || value.n > DIGITS_MAX) {
        return SMTP_BAD;
    }
    for (i = 0; i < value.n; ++i) {
        int digit = value.p[i] - '0';

        if (digit < 0 || digit > 9) {
            return SMTP_BAD;
        }
        /* Saturates: a wrapped SIZE would slip past the limit it is compared with. */
        sum = sum > (APR_INT64_MAX - digit) / 10 ? APR_INT64_MAX : sum * 10 + digit;
    }
    *number = sum;
    return SMTP_OK;
}
