/* The table of relay steps, the reader of relay replies and the judgement on them.
 * RFC 5321 4.2 (replies), 4.5.3.2 (deadlines), RFC 2034 (enhanced codes). Called by
 * relay/upstream.c, the fuzzers and the unit tests.
 */
#include "smtp/client.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <string.h>

#include "smtp/chars.h"

static const smtp_step_t steps[SMTP_STEP_COUNT] = {
    [SMTP_STEP_GREETING] = { "greeting", NULL, 2, SMTP_WAIT_CONNECT, 1, 0 },
    [SMTP_STEP_EHLO] = { "EHLO", "EHLO %s\r\n", 2, SMTP_WAIT_CONNECT, 1, 0 },
    [SMTP_STEP_HELO] = { "HELO", "HELO %s\r\n", 2, SMTP_WAIT_CONNECT, 1, 0 },
    [SMTP_STEP_STARTTLS] = { "STARTTLS", "STARTTLS\r\n", 2, SMTP_WAIT_CONNECT, 1, 0 },
    [SMTP_STEP_AUTH] = { "AUTH", "AUTH PLAIN %s\r\n", 2, SMTP_WAIT_CONNECT, 1, 1 },
    [SMTP_STEP_LOGIN] = { "AUTH", "AUTH LOGIN\r\n", 3, SMTP_WAIT_CONNECT, 1, 1 },
    [SMTP_STEP_LOGIN_USER] = { "AUTH", "%s\r\n", 3, SMTP_WAIT_CONNECT, 1, 1 },
    [SMTP_STEP_LOGIN_PASSWORD] = { "AUTH", "%s\r\n", 2, SMTP_WAIT_CONNECT, 1, 1 },
    [SMTP_STEP_RSET] = { "RSET", "RSET\r\n", 2, SMTP_WAIT_RELAY, 1, 0 },
    [SMTP_STEP_MAIL] = { "MAIL", NULL, 2, SMTP_WAIT_RELAY, 0, 0 },
    [SMTP_STEP_RCPT] = { "RCPT", "RCPT TO:<%s>\r\n", 2, SMTP_WAIT_RELAY, 0, 0 },
    [SMTP_STEP_DATA] = { "DATA", "DATA\r\n", 3, SMTP_WAIT_RELAY, 0, 0 },
    [SMTP_STEP_DOT] = { "end of data", NULL, 2, SMTP_WAIT_DOT, 0, 0 },
    [SMTP_STEP_QUIT] = { "QUIT", "QUIT\r\n", 2, SMTP_WAIT_RELAY, 1, 0 },
};

const smtp_step_t *smtp_step(smtp_step_e step)
{
    return &steps[step];
}

void smtp_client_put(apr_bucket_brigade *bb, smtp_step_e step, const char *arg)
{
    const char *command = steps[step].command, *at = arg ? strstr(command, "%s") : NULL;

    if (!at) {
        apr_brigade_puts(bb, NULL, NULL, command);
        return;
    }
    apr_brigade_write(bb, NULL, NULL, command, at - command);
    apr_brigade_puts(bb, NULL, NULL, arg);
    apr_brigade_puts(bb, NULL, NULL, at + 2);
}

void smtp_client_put_mail(const smtp_client_t *cl, apr_bucket_brigade *bb, const char *from,
                          apr_int64_t size, int body_8bit)
{
    apr_brigade_putstrs(bb, NULL, NULL, "MAIL FROM:<", from, ">", NULL);
    if (size >= 0 && (cl->capabilities & SMTP_CAN_SIZE)) {
        apr_brigade_printf(bb, NULL, NULL, " SIZE=%" APR_INT64_T_FMT, size);
    }
    if (body_8bit && (cl->capabilities & SMTP_CAN_8BITMIME)) {
        apr_brigade_puts(bb, NULL, NULL, " BODY=8BITMIME");
    }
    apr_brigade_puts(bb, NULL, NULL, "\r\n");
}

/* Reading */

/* Appends one line's text, without code and enhanced code, cut to what a reply of ours
 * may hold. */
static void add_text(smtp_client_t *cl, apr_pool_t *p, smtp_span_t text)
{
    apr_size_t need;

    if (text.n > SMTP_REPLY_LINE_MAX) {
        text.n = SMTP_REPLY_LINE_MAX;
    }
    need = cl->text_len + text.n + 2;
    if (need > cl->text_size) {
        char *larger = apr_palloc(p, need * 2);

        if (cl->text_len) {
            memcpy(larger, cl->text, cl->text_len);
        }
        cl->text = larger;
        cl->text_size = need * 2;
    }
    if (cl->lines > 1) {
        cl->text[cl->text_len++] = '\n';
    }
    memcpy(cl->text + cl->text_len, text.p, text.n);
    smtp_chars_make_printable(cl->text + cl->text_len, text.n);
    cl->text_len += text.n;
    cl->text[cl->text_len] = '\0';
}

/* Takes the complete line in cl->line: SMTP_OK is the last one of its reply. */
static smtp_parse_e take_line(smtp_client_t *cl, apr_pool_t *p)
{
    const char *line = cl->line;
    apr_size_t n = cl->line_len;
    int code;

    if (n && line[n - 1] == '\r') {
        n--;
    }
    if (n < 3 || line[0] < '2' || line[0] > '5' || !apr_isdigit(line[1]) || !apr_isdigit(line[2])
        || (n > 3 && line[3] != ' ' && line[3] != '-')) {
        return SMTP_BAD;
    }
    code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
    if ((cl->code && code != cl->code) || ++cl->lines > SMTP_RELAY_LINES_MAX) {
        return SMTP_BAD;
    }
    cl->code = code;
    if (cl->lines <= SMTP_REPLY_LINES_MAX) {
        add_text(cl, p, (smtp_span_t){ line + (n > 3 ? 4 : 3), n > 3 ? n - 4 : 0 });
    }
    return n > 3 && line[3] == '-' ? SMTP_MORE : SMTP_OK;
}

/* Drops the enhanced code from the beginning of every line of text; returns the first
 * line's, or the general one of the class. */
static const char *split_enhanced(apr_pool_t *p, char *text, int code)
{
    char *from = text, *to = text;
    apr_size_t n = smtp_reply_find_enhanced(text, code);
    const char *enhanced = code / 100 == 3 ? ""
                           : n             ? apr_pstrmemdup(p, text, n)
                                           : apr_psprintf(p, "%d.0.0", code / 100);

    for (;;) {
        n = smtp_reply_find_enhanced(from, code);
        from += n + (n && from[n] == ' ');
        while (*from && *from != '\n') {
            *to++ = *from++;
        }
        if (!*from) {
            *to = '\0';
            return enhanced;
        }
        *to++ = *from++;
    }
}

static void finish(smtp_client_t *cl, apr_pool_t *p, smtp_reply_t *reply)
{
    reply->code = cl->code;
    reply->enhanced = split_enhanced(p, cl->text, cl->code);
    reply->text = cl->text;
    cl->code = cl->lines = 0;
    cl->text = NULL;
    cl->text_len = cl->text_size = 0;
}

smtp_parse_e smtp_client_read(smtp_client_t *cl, apr_pool_t *p, const char **at, const char *end,
                              smtp_reply_t *reply)
{
    while (*at < end) {
        const char *lf = memchr(*at, '\n', end - *at);
        apr_size_t n = (lf ? lf : end) - *at;
        smtp_parse_e rc;

        if (n > sizeof(cl->line) - cl->line_len) {
            return SMTP_BAD;
        }
        memcpy(cl->line + cl->line_len, *at, n);
        cl->line_len += n;
        *at += n;
        if (!lf) {
            break;
        }
        (*at)++;
        rc = take_line(cl, p);
        cl->line_len = 0;
        if (rc == SMTP_OK) {
            finish(cl, p, reply);
        }
        if (rc != SMTP_MORE) {
            return rc;
        }
    }
    return SMTP_MORE;
}

/* Capabilities */

static const struct {
    const char *keyword;
    unsigned capability;
} capabilities[] = {
    { "PIPELINING", SMTP_CAN_PIPELINING },
    { "SIZE", SMTP_CAN_SIZE },
    { "8BITMIME", SMTP_CAN_8BITMIME },
    { "STARTTLS", SMTP_CAN_STARTTLS },
    { NULL, 0 }
}, mechanisms[] = {
    { "PLAIN", SMTP_CAN_AUTH_PLAIN },
    { "LOGIN", SMTP_CAN_AUTH_LOGIN },
    { NULL, 0 }
};

/* The mechanisms behind "AUTH", or behind "AUTH=" as before RFC 2554. */
static unsigned take_mechanisms(const char *at)
{
    unsigned taken = 0;

    while (*at == ' ' || *at == '=') {
        smtp_span_t word = { at + 1, strcspn(at + 1, " \n") };
        int i;

        for (i = 0; mechanisms[i].keyword; i++) {
            if (smtp_span_is(word, mechanisms[i].keyword)) {
                taken |= mechanisms[i].capability;
            }
        }
        at = word.p + word.n;
    }
    return taken;
}

/* A keyword ends at a blank; only AUTH may be the old "AUTH=" as well. */
static int is_auth(smtp_span_t word)
{
    return word.n >= 4 && smtp_span_is((smtp_span_t){ word.p, 4 }, "AUTH")
           && (word.n == 4 || word.p[4] == '=');
}

void smtp_client_take_capabilities(smtp_client_t *cl, const smtp_reply_t *reply)
{
    const char *line = reply ? strchr(reply->text, '\n') : NULL;

    cl->capabilities = 0;
    for (; line; line = strchr(line + 1, '\n')) {
        smtp_span_t word = { line + 1, strcspn(line + 1, " \n") };
        int i;

        if (is_auth(word)) {
            cl->capabilities |= take_mechanisms(word.p + 4);
        }
        for (i = 0; capabilities[i].keyword; i++) {
            if (smtp_span_is(word, capabilities[i].keyword)) {
                cl->capabilities |= capabilities[i].capability;
            }
        }
    }
}

/* Judgement */

/* 5yz codes that speak of the session, not of the mail: what the relay thinks of us is
 * no reason to bounce somebody's mail. */
static int is_about_session(int code)
{
    static const short codes[] = { 500, 501, 502, 503, 504, 521, 523,
                                   524, 530, 534, 535, 538, 555 };
    apr_size_t i;

    for (i = 0; i < sizeof(codes) / sizeof(*codes); i++) {
        if (code == codes[i]) {
            return 1;
        }
    }
    return 0;
}

/* 550 to 554 and 556 are known to every client; another 5yz keeps its meaning as 554. */
static int refusal_code(int code)
{
    return code < 500 || (code >= 550 && code <= 554) || code == 556 ? code : 554;
}

smtp_verdict_e smtp_client_judge(smtp_step_e step, const smtp_reply_t *reply, apr_pool_t *p,
                                 const smtp_reply_t **to_client)
{
    int code = reply->code;
    smtp_reply_t *own;

    *to_client = reply;
    if (code / 100 == steps[step].expect) {
        return SMTP_VERDICT_TAKEN;
    }
    if (code == 421) {
        *to_client = smtp_reply(SMTP_REPLY_RELAY_LOST);
        return SMTP_VERDICT_FAULT;
    }
    if (code < 400 || (code >= 500 && (steps[step].ours || is_about_session(code)))) {
        *to_client = smtp_reply(SMTP_REPLY_RELAY_FAULT);
        return SMTP_VERDICT_FAULT;
    }
    own = apr_pmemdup(p, reply, sizeof(*reply));
    own->code = refusal_code(code);
    *to_client = own;
    return SMTP_VERDICT_REFUSED;
}
