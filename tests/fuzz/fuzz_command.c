/* Fuzz target: one command line, read as the server reads it: verb, "FROM:" or "TO:",
 * path, parameters, numbers. What must hold for any octets is asserted on the way.
 * Covers smtp/command.c and smtp/params.c; the path alone is fuzz_address.c's.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/address.h"
#include "smtp/command.h"
#include "smtp/params.h"

/* Not assert(): it must hold in a build with NDEBUG too. */
#define HOLDS(condition) ((condition) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void within(smtp_span_t span, const char *start, const char *end)
{
    HOLDS(span.p >= start && span.p <= end && span.n <= (size_t)(end - span.p));
}

static void all_of(smtp_span_t span, int classes)
{
    const char *at = span.p;

    HOLDS(smtp_chars_skip(&at, span.p + span.n, classes) == span.n);
}

static void check_number(smtp_span_t value)
{
    apr_int64_t number = -1;
    smtp_parse_e result = smtp_params_number(value, &number);

    HOLDS(result == SMTP_OK ? number >= 0 && value.n <= 20 : number == -1);
}

static void check_param(const smtp_param_t *param, const char *start, const char *at)
{
    within(param->key, start, at);
    HOLDS(param->key.n > 0);
    all_of(param->key, SMTP_CHAR_KEY);
    if (!param->value.p) {
        HOLDS(param->key.p + param->key.n == at);
        return;
    }
    within(param->value, start, at);
    HOLDS(param->value.n > 0 && param->value.p == param->key.p + param->key.n + 1);
    HOLDS(param->value.p + param->value.n == at);
    all_of(param->value, SMTP_CHAR_VALUE);
    check_number(param->value);
}

static void check_params(const char *at, const char *end)
{
    smtp_param_t param;
    smtp_parse_e result;
    const char *start = at;

    while ((result = smtp_params_next(&param, &at, end)) == SMTP_OK) {
        HOLDS(at > start && at <= end);
        check_param(&param, start, at);
        start = at;
    }
    HOLDS(at >= start && at <= end);
    HOLDS((result == SMTP_MORE) == (at == end && (at == start || smtp_char_is_blank(at[-1])))
          || result == SMTP_BAD);
}

static void check_args(smtp_span_t args)
{
    const char *at = args.p;
    const char *end = args.p + args.n;
    smtp_address_t a;

    if (smtp_command_take(&at, end, "FROM:") || smtp_command_take(&at, end, "TO:")) {
        HOLDS(at[-1] == ':' && at <= end);
    }
    if (smtp_address_parse(&a, &at, end) == SMTP_OK) {
        check_params(at, end);
    }
    check_params(args.p, end);
}

static void check_command(const smtp_command_t *cmd, smtp_span_t line)
{
    const char *end = line.p + line.n;
    const char *behind = cmd->args.p + cmd->args.n;

    within(cmd->verb, line.p, end);
    within(cmd->args, line.p, end);
    HOLDS(cmd->verb.p == line.p);
    HOLDS(cmd->args.p >= cmd->verb.p + cmd->verb.n);
    smtp_chars_skip_blanks(&behind, end);
    HOLDS(behind == end);
    HOLDS(cmd->args.n == 0 || !smtp_char_is_blank(cmd->args.p[cmd->args.n - 1]));
    HOLDS(cmd->verb.n == 0 || cmd->args.n == 0 || smtp_char_is_blank(cmd->args.p[-1]));
    HOLDS(!memchr(line.p, '\r', line.n) && !memchr(line.p, '\n', line.n)
          && !memchr(line.p, '\0', line.n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    smtp_span_t line = {size ? (const char *)data : "", size};
    smtp_command_t cmd;

    if (smtp_command_parse(&cmd, line) == SMTP_OK) {
        check_command(&cmd, line);
        check_args(cmd.args);
    }
    else {
        HOLDS(cmd.verb.n == 0 && cmd.args.n == 0);
    }
    check_params(line.p, line.p + line.n);
    return 0;
}
