/* The first cut through a command line: verb and arguments (RFC 5321 2.4, 4.1.1).
 * Not the line splitter, which is the dialogue's, and not the table of verbs.
 * Called by the server dialogue for each line, and by the verbs for "FROM:", "TO:".
 */
#include <string.h>

#include "smtp/command.h"

/* Refused before anything is read from the line: some other program takes each of
 * these for the end of it (RFC 5321 2.3.8). */
static int is_forbidden(char ch)
{
    return ch == '\0' || ch == '\r' || ch == '\n';
}

static int is_letter(char ch)
{
    return (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z');
}

/* The letters at the line's begin, or nothing if the word goes on behind them. */
static apr_size_t verb_length(const char *line, const char *end)
{
    const char *at = line;

    while (at < end && is_letter(*at)) {
        ++at;
    }
    return at == end || smtp_char_is_blank(*at) ? (apr_size_t)(at - line) : 0;
}

smtp_parse_e smtp_command_parse(smtp_command_t *cmd, smtp_span_t line)
{
    const char *at;
    const char *end = line.p + line.n;

    cmd->verb = cmd->args = (smtp_span_t){line.p, 0};
    for (at = line.p; at < end; ++at) {
        if (is_forbidden(*at)) {
            return SMTP_BAD;
        }
    }
    cmd->verb.n = verb_length(line.p, end);
    at = line.p + cmd->verb.n;
    while (end > at && smtp_char_is_blank(end[-1])) {
        --end;
    }
    if (cmd->verb.n > 0) {
        smtp_chars_skip_blanks(&at, end);
    }
    cmd->args = (smtp_span_t){at, (apr_size_t)(end - at)};
    return SMTP_OK;
}

int smtp_command_take(const char **at, const char *end, const char *keyword)
{
    apr_size_t n = strlen(keyword);

    if ((apr_size_t)(end - *at) < n || !smtp_span_is((smtp_span_t){*at, n}, keyword)) {
        return 0;
    }
    *at += n;
    return 1;
}
