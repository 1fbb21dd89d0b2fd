/* Every sentence the server can say, and how a reply is put on the wire.
 * RFC 5321 4.2 (form), RFC 2034 (enhanced codes on every line that may carry one),
 * RFC 3463 (their values). Texts name the remedy where the client has one.
 */
#include "smtp/reply.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/limits.h"

static const smtp_reply_t replies[SMTP_REPLY_COUNT] = {
    [SMTP_REPLY_BYE] = { 221, "2.0.0", "Bye" },
    [SMTP_REPLY_OK] = { 250, "2.0.0", "Ok" },
    [SMTP_REPLY_RESET] = { 250, "2.0.0", "Reset" },
    [SMTP_REPLY_SENDER_OK] = { 250, "2.1.0", "Sender ok" },
    [SMTP_REPLY_RECIPIENT_OK] = { 250, "2.1.5", "Recipient ok" },
    [SMTP_REPLY_START_DATA] = { 354, "", "End data with <CR><LF>.<CR><LF>" },
    [SMTP_REPLY_ACCEPTED] = { 250, "2.0.0", "Message accepted" },
    [SMTP_REPLY_CANNOT_VERIFY] = { 252, "2.0.0", "Cannot verify, but will accept mail for it" },
    [SMTP_REPLY_START_TLS] = { 220, "2.0.0", "Ready to start TLS" },
    [SMTP_REPLY_AUTHENTICATED] = { 235, "2.7.0", "Authenticated" },
    [SMTP_REPLY_UNKNOWN_COMMAND] = { 500, "5.5.1", "Command not recognized" },
    [SMTP_REPLY_NOT_OFFERED] = { 502, "5.5.1", "Command not offered here" },
    [SMTP_REPLY_LINE_TOO_LONG] = { 500, "5.5.2", "Command line too long" },
    [SMTP_REPLY_BAD_OCTET] = { 500, "5.5.2", "Bare CR, bare LF, NUL or 8-bit octet in command" },
    [SMTP_REPLY_HELO_SYNTAX] = { 501, "5.5.2", "Syntax: EHLO or HELO, then your host name" },
    [SMTP_REPLY_MAIL_SYNTAX] = { 501, "5.5.2", "Syntax: MAIL FROM:<address> [parameters]" },
    [SMTP_REPLY_RCPT_SYNTAX] = { 501, "5.5.2", "Syntax: RCPT TO:<address> [parameters]" },
    [SMTP_REPLY_NO_ARGUMENT] = { 501, "5.5.2", "This command takes no argument" },
    [SMTP_REPLY_ARGUMENT_MISSING] = { 501, "5.5.2", "This command needs an argument" },
    [SMTP_REPLY_PARAM_VALUE] = { 501, "5.5.4", "Bad parameter value" },
    [SMTP_REPLY_PARAM_UNKNOWN] = { 555, "5.5.4", "Parameter not recognized" },
    [SMTP_REPLY_BAD_SENDER] = { 553, "5.1.7", "Bad sender address" },
    [SMTP_REPLY_BAD_RECIPIENT] = { 553, "5.1.3", "Bad recipient address" },
    [SMTP_REPLY_SENDER_DOMAIN] = { 553, "5.1.8", "Domain of the sender address takes no mail" },
    [SMTP_REPLY_BARRED] = { 503, "5.5.1", "No service for you here; say QUIT" },
    [SMTP_REPLY_NEED_HELO] = { 503, "5.5.1", "Say EHLO or HELO first" },
    [SMTP_REPLY_NEED_MAIL] = { 503, "5.5.1", "Say MAIL first" },
    [SMTP_REPLY_NEED_RCPT] = { 503, "5.5.1", "Say RCPT first" },
    [SMTP_REPLY_NESTED_MAIL] = { 503, "5.5.1", "A transaction is open; RSET ends it" },
    [SMTP_REPLY_NO_VALID_RCPT] = { 554, "5.5.1", "No recipient was accepted" },
    [SMTP_REPLY_TLS_ACTIVE] = { 503, "5.5.1", "TLS is already active" },
    [SMTP_REPLY_AUTH_DONE] = { 503, "5.5.1", "Already authenticated" },
    [SMTP_REPLY_NEED_TLS] = { 530, "5.7.0", "Say STARTTLS first" },
    [SMTP_REPLY_NEED_TLS_FOR_AUTH] = { 538, "5.7.11", "Say STARTTLS first: passwords need TLS" },
    [SMTP_REPLY_NEED_AUTH] = { 530, "5.7.0", "Authentication required" },
    [SMTP_REPLY_BEHIND_STARTTLS] = { 421, "4.7.0", "Commands behind STARTTLS are not taken" },
    [SMTP_REPLY_UNKNOWN_MECHANISM] = { 504, "5.5.4", "Authentication mechanism not offered" },
    [SMTP_REPLY_BAD_BASE64] = { 501, "5.5.2", "Cannot decode the response" },
    [SMTP_REPLY_AUTH_LINE_TOO_LONG] = { 500, "5.5.6", "Authentication line too long" },
    [SMTP_REPLY_AUTH_CANCELLED] = { 501, "5.7.0", "Authentication cancelled" },
    [SMTP_REPLY_BAD_CREDENTIALS] = { 535, "5.7.8", "Authentication failed" },
    [SMTP_REPLY_AUTH_FAULT] = { 454, "4.7.0", "Passwords cannot be checked now; try again later" },
    [SMTP_REPLY_AUTH_DELAYED] = { 454, "4.7.0", "Too soon after a failure; try again later" },
    [SMTP_REPLY_TOO_MANY_FAILURES] = { 421, "4.7.0", "Too many authentication failures" },
    [SMTP_REPLY_NOT_AUTHORIZED] = { 550, "5.7.1", "Not authorized" },
    [SMTP_REPLY_RELAY_DENIED] = { 550, "5.7.1", "Relaying denied" },
    [SMTP_REPLY_TOO_BIG] = { 552, "5.3.4", "Message exceeds the size limit" },
    [SMTP_REPLY_TOO_MANY_RCPTS] = { 452, "4.5.3", "Too many recipients; send another mail" },
    [SMTP_REPLY_OTHER_ROUTE] = { 452, "4.5.3", "Goes another way; send it in another mail" },
    [SMTP_REPLY_BARE_NEWLINE] = { 550, "5.6.0", "Message has a bare CR or LF; lines end in CRLF" },
    [SMTP_REPLY_HTTP_VERB] = { 421, "4.7.0", "This is an SMTP port, not HTTP" },
    [SMTP_REPLY_TOO_MANY_ERRORS] = { 421, "4.7.0", "Too many errors" },
    [SMTP_REPLY_TOO_MANY_COMMANDS] = { 421, "4.7.0", "Too many commands without a mail" },
    [SMTP_REPLY_TOO_MANY_CONNECTIONS] = { 421, "4.7.0", "Too many connections; try again later" },
    [SMTP_REPLY_TIMEOUT] = { 421, "4.4.2", "Timeout; closing connection" },
    [SMTP_REPLY_SHUTDOWN] = { 421, "4.3.2", "Server is restarting; try again" },
    [SMTP_REPLY_BUSY] = { 451, "4.3.2", "Server is busy; try again later" },
    [SMTP_REPLY_NEED_7BIT] = { 554, "5.6.3",
        "8-bit content, but the next server takes 7-bit only" },
    [SMTP_REPLY_RELAY_UNREACHABLE] = { 451, "4.4.1",
        "Next server cannot be reached; try again later" },
    [SMTP_REPLY_RELAY_LOST] = { 451, "4.4.2", "Next server was lost; try again later" },
    [SMTP_REPLY_RELAY_FAULT] = { 451, "4.3.5", "Fault at the next server; try again later" },
    [SMTP_REPLY_RELAY_CHANGED] = { 451, "4.4.0",
        "Next server has changed its mind; try again later" },
    [SMTP_REPLY_RELAY_INSECURE] = { 451, "4.7.0", "Next server offers no TLS that is good enough" },
    [SMTP_REPLY_RELAY_CREDENTIALS] = { 451, "4.7.0", "Next server does not let us in" },
    [SMTP_REPLY_NO_NAME] = { 554, "5.7.25", "Your address has no name that leads back to it" },
    [SMTP_REPLY_DNS_FAULT] = { 451, "4.4.3", "DNS gives no answer; try again later" },
    [SMTP_REPLY_DNS_FAULT_CLOSE] = { 421, "4.4.3", "DNS gives no answer; try again later" },
    [SMTP_REPLY_NO_RCPT_LEFT] = { 550, "5.7.1", "Refused for all recipients" },
    [SMTP_REPLY_LOOP] = { 554, "5.4.6", "Mail loop: too many Received fields" },
    [SMTP_REPLY_VIRUS] = { 554, "5.7.1", "Message has a virus" },
    [SMTP_REPLY_SPAM] = { 550, "5.7.1", "Message looks like spam" },
    [SMTP_REPLY_TOO_BIG_TO_SCAN] = { 552, "5.3.4", "Message is too large to be scanned" },
    [SMTP_REPLY_SCAN_LATER] = { 451, "4.7.1", "Not now; try again later" },
    [SMTP_REPLY_SCAN_FAULT] = { 451, "4.7.1", "Message cannot be scanned now; try again later" },
    [SMTP_REPLY_LOCAL_FAULT] = { 451, "4.3.0", "Local fault; try again later" },
    [SMTP_REPLY_CLIENT_GONE] = { 451, "4.4.2", "Client left before the end; nothing was sent" },
    [SMTP_REPLY_ABORTED] = { 451, "4.3.0", "Session was ended by a script; nothing was sent" },
};

const smtp_reply_t *smtp_reply(smtp_reply_e id)
{
    return &replies[id];
}

const smtp_reply_t *smtp_reply_reword(apr_pool_t *p, smtp_reply_e id, const char *text)
{
    smtp_reply_t *reply = apr_pmemdup(p, &replies[id], sizeof(*reply));

    reply->text = apr_pstrdup(p, text);
    return reply;
}

static char *append(char *at, const char *end, const char *text, apr_size_t n)
{
    n = n > (apr_size_t)(end - at) ? (apr_size_t)(end - at) : n;
    memcpy(at, text, n);
    return at + n;
}

/* No printf: each command has a reply, and this is most of what it costs to make it. */
static void put_line(apr_bucket_brigade *bb, const smtp_reply_t *reply, smtp_span_t text, int last)
{
    char line[SMTP_REPLY_LINE_MAX];
    const char *end = line + sizeof(line) - 2;
    char *at = line;

    *at++ = (char)('0' + reply->code / 100);
    *at++ = (char)('0' + reply->code / 10 % 10);
    *at++ = (char)('0' + reply->code % 10);
    *at++ = last ? ' ' : '-';
    at = append(at, end, reply->enhanced, strlen(reply->enhanced));
    at = append(at, end, " ", *reply->enhanced && text.n);
    at = append(at, end, text.p, text.n);
    at = append(at, end + 2, "\r\n", 2);
    apr_brigade_write(bb, NULL, NULL, line, at - line);
}

void smtp_reply_put(apr_bucket_brigade *bb, const smtp_reply_t *reply)
{
    const char *line = reply->text;
    int lines;

    for (lines = 1;; lines++) {
        const char *eol = strchr(line, '\n');
        int last = !eol || lines == SMTP_REPLY_LINES_MAX;
        smtp_span_t text = { line, eol ? (apr_size_t)(eol - line) : strlen(line) };

        put_line(bb, reply, text, last);
        if (last) {
            return;
        }
        line = eol + 1;
    }
}

const char *smtp_reply_line(apr_pool_t *p, const smtp_reply_t *reply)
{
    return apr_psprintf(p, "%03d %s%s%.*s", reply->code, reply->enhanced,
                        *reply->enhanced ? " " : "", (int)strcspn(reply->text, "\n"),
                        reply->text);
}

static const char *skip_digits(const char *text)
{
    const char *at = text;

    while (apr_isdigit(*at) && at - text < 3) {
        at++;
    }
    return at > text && !apr_isdigit(*at) ? at : NULL;
}

apr_size_t smtp_reply_find_enhanced(const char *text, int code)
{
    const char *at;

    if (*text != '0' + code / 100 || text[1] != '.' || !(at = skip_digits(text + 2))
        || *at != '.' || !(at = skip_digits(at + 1)) || (*at && *at != ' ' && *at != '\n')) {
        return 0;
    }
    return at - text;
}

/* A line's text behind code and enhanced code, where they stand in it. */
static const char *skip_codes(const char *line, const char *code)
{
    apr_size_t n;

    if (strncmp(line, code, 3) == 0 && (!line[3] || line[3] == ' ' || line[3] == '-')) {
        line += line[3] ? 4 : 3;
        n = smtp_reply_find_enhanced(line, atoi(code));
        line += n;
        line += n && *line == ' ';
    }
    return line;
}

/* One line with printable octets only. */
static char *clean(apr_pool_t *p, const char *line, apr_size_t n)
{
    char *text = apr_pstrmemdup(p, line, n), *at;

    for (at = text; at < text + n; at++) {
        if (*at < ' ' || *at > '~') {
            *at = '?';
        }
    }
    return text;
}

smtp_parse_e smtp_reply_parse(apr_pool_t *p, smtp_span_t text, smtp_reply_t *reply)
{
    const char *at = text.p, *end = text.p + text.n, *all = NULL;
    char code[4] = "";
    apr_size_t n;

    if (text.n < 3 || *at < '2' || *at > '5' || at[1] < '0' || at[1] > '5' || !apr_isdigit(at[2])
        || (text.n > 3 && !strchr(" -\r\n", at[3]))) {
        return SMTP_BAD;
    }
    memcpy(code, at, 3);
    reply->code = atoi(code);
    reply->enhanced = "";
    while (at < end) {
        const char *lf = memchr(at, '\n', end - at), *stop = lf ? lf : end, *line;

        line = clean(p, at, stop - at - (stop > at && stop[-1] == '\r'));
        if (!all && strlen(line) > 4 && (n = smtp_reply_find_enhanced(line + 4, reply->code))) {
            reply->enhanced = apr_pstrmemdup(p, line + 4, n);
        }
        line = skip_codes(line, code);
        all = all ? apr_pstrcat(p, all, "\n", line, NULL) : line;
        at = lf ? lf + 1 : end;
    }
    if (!*reply->enhanced && *code != '3') {
        reply->enhanced = *code == '2' ? "2.0.0" : *code == '4' ? "4.7.1" : "5.7.1";
    }
    reply->text = all && *all ? all : "Ok";
    return SMTP_OK;
}
