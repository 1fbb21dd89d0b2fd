/* The verb table and what each verb makes of its arguments. RFC 5321 4.1 (commands),
 * 1870 (SIZE), 6152 (8BITMIME), 2920 (PIPELINING), 2034 (ENHANCEDSTATUSCODES),
 * 3207 (STARTTLS), 4954 (AUTH).
 * A verb is a row and a function; so is a parameter, and a capability is a row.
 */
#include "smtp/verbs.h"

#include <apr_strings.h>
#include <string.h>

#include "smtp/limits.h"
#include "smtp/params.h"

#define ANY (SMTP_STATE_NEW | SMTP_STATE_READY | SMTP_STATES_TRANSACTION)

static const smtp_reply_t *verb_helo(smtp_dialogue_t *d)
{
    const char *at = d->argument.p, *end = at + d->argument.n;

    if (d->argument.n == 0 || d->argument.n > SMTP_DOMAIN_MAX) {
        return smtp_reply(SMTP_REPLY_HELO_SYNTAX);
    }
    /* RFC 5321 4.1.4: a name that is no domain is no reason to refuse. */
    if (smtp_chars_skip(&at, end, SMTP_CHAR_TEXT) != d->argument.n) {
        return smtp_reply(SMTP_REPLY_HELO_SYNTAX);
    }
    d->event = SMTP_EVENT_HELO;
    return NULL;
}

static const smtp_reply_t *param_size(smtp_dialogue_t *d, smtp_span_t value)
{
    if (d->mail.size >= 0 || smtp_params_number(value, &d->mail.size) != SMTP_OK) {
        return smtp_reply(SMTP_REPLY_PARAM_VALUE);
    }
    if (d->offer->max_size && d->mail.size > d->offer->max_size) {
        return smtp_reply(SMTP_REPLY_TOO_BIG);
    }
    return NULL;
}

static const smtp_reply_t *param_body(smtp_dialogue_t *d, smtp_span_t value)
{
    if (d->mail.body != SMTP_BODY_UNSAID) {
        return smtp_reply(SMTP_REPLY_PARAM_VALUE);
    }
    if (smtp_span_is(value, "8BITMIME")) {
        d->mail.body = SMTP_BODY_8BITMIME;
    }
    else if (smtp_span_is(value, "7BIT")) {
        d->mail.body = SMTP_BODY_7BIT;
    }
    else {
        return smtp_reply(SMTP_REPLY_PARAM_VALUE);
    }
    return NULL;
}

typedef struct param_row_t {
    const char *key;
    const smtp_reply_t *(*take)(smtp_dialogue_t *d, smtp_span_t value); /* NULL reply: fine */
} param_row_t;

/* RFC 4954 5: an address in xtext or "<>". Who submitted the mail elsewhere is nobody's
 * word here, so it is taken and dropped. */
static const smtp_reply_t *param_auth(smtp_dialogue_t *d, smtp_span_t value)
{
    if (!d->can_auth) {
        return smtp_reply(SMTP_REPLY_PARAM_UNKNOWN);
    }
    return value.p && value.n ? NULL : smtp_reply(SMTP_REPLY_PARAM_VALUE);
}

static const param_row_t mail_params[] = {
    { "SIZE", param_size },
    { "BODY", param_body },
    { "AUTH", param_auth },
    { NULL, NULL }
};

static const param_row_t rcpt_params[] = {
    { NULL, NULL }
};

static const smtp_reply_t *take_params(smtp_dialogue_t *d, const param_row_t *rows, const char *at,
                                       const char *end)
{
    smtp_param_t param;
    smtp_parse_e rc;

    while ((rc = smtp_params_next(&param, &at, end)) == SMTP_OK) {
        const param_row_t *row = rows;
        const smtp_reply_t *reply;

        while (row->key && !smtp_span_is(param.key, row->key)) {
            row++;
        }
        if (!row->key) {
            return smtp_reply(SMTP_REPLY_PARAM_UNKNOWN);
        }
        if ((reply = row->take(d, param.value))) {
            return reply;
        }
    }
    return rc == SMTP_MORE ? NULL : smtp_reply(SMTP_REPLY_PARAM_VALUE);
}

static const smtp_reply_t *verb_mail(smtp_dialogue_t *d)
{
    const char *at = d->argument.p, *end = at + d->argument.n;
    const smtp_reply_t *reply;

    if (d->errors > d->offer->max_errors) { /* the last was a message's, whose reply was said */
        return smtp_reply(SMTP_REPLY_TOO_MANY_ERRORS);
    }
    memset(&d->mail, 0, sizeof(d->mail));
    d->mail.size = -1;
    if (!smtp_command_take(&at, end, "FROM:") || at == end) {
        return smtp_reply(SMTP_REPLY_MAIL_SYNTAX);
    }
    if (smtp_address_parse(&d->mail.from, &at, end) != SMTP_OK) {
        return smtp_reply(SMTP_REPLY_BAD_SENDER);
    }
    if ((reply = take_params(d, mail_params, at, end))) {
        return reply;
    }
    d->event = SMTP_EVENT_MAIL;
    return NULL;
}

/* RFC 5321 4.5.3.1.10 wants 452 for too many recipients, and clients go on with those
 * that were taken; but who goes on naming more is no mailer. */
static int too_many_rcpt_commands(smtp_dialogue_t *d)
{
    return ++d->rcpt_commands > d->offer->max_rcpts + 1000;
}

static const smtp_reply_t *verb_rcpt(smtp_dialogue_t *d)
{
    const char *at = d->argument.p, *end = at + d->argument.n;
    const smtp_reply_t *reply;

    if (too_many_rcpt_commands(d)) {
        return smtp_reply(SMTP_REPLY_TOO_MANY_COMMANDS);
    }
    if (!smtp_command_take(&at, end, "TO:") || at == end) {
        return smtp_reply(SMTP_REPLY_RCPT_SYNTAX);
    }
    if (smtp_address_parse(&d->address, &at, end) != SMTP_OK || d->address.text.n == 0) {
        return smtp_reply(SMTP_REPLY_BAD_RECIPIENT);
    }
    if ((reply = take_params(d, rcpt_params, at, end))) {
        return reply;
    }
    if (d->rcpts >= d->offer->max_rcpts) {
        return smtp_reply(SMTP_REPLY_TOO_MANY_RCPTS);
    }
    d->event = SMTP_EVENT_RCPT;
    return NULL;
}

static const smtp_reply_t *verb_data(smtp_dialogue_t *d)
{
    d->event = SMTP_EVENT_DATA;
    return NULL;
}

static const smtp_reply_t *verb_rset(smtp_dialogue_t *d)
{
    if (d->state & SMTP_STATES_TRANSACTION) {
        d->state = SMTP_STATE_READY;
    }
    return smtp_reply(SMTP_REPLY_RESET);
}

static const smtp_reply_t *verb_noop(smtp_dialogue_t *d)
{
    (void)d;
    return smtp_reply(SMTP_REPLY_OK);
}

static const smtp_reply_t *verb_vrfy(smtp_dialogue_t *d)
{
    return smtp_reply(d->argument.n ? SMTP_REPLY_CANNOT_VERIFY : SMTP_REPLY_ARGUMENT_MISSING);
}

static const smtp_reply_t *verb_quit(smtp_dialogue_t *d)
{
    d->state = SMTP_STATE_CLOSED;
    return smtp_reply(SMTP_REPLY_BYE);
}

static const smtp_reply_t *verb_not_offered(smtp_dialogue_t *d)
{
    (void)d;
    return smtp_reply(SMTP_REPLY_NOT_OFFERED);
}

static const smtp_reply_t *verb_starttls(smtp_dialogue_t *d)
{
    if (d->has_tls) {
        return smtp_reply(SMTP_REPLY_TLS_ACTIVE);
    }
    if (!d->can_tls) {
        return smtp_reply(SMTP_REPLY_NOT_OFFERED);
    }
    d->event = SMTP_EVENT_STARTTLS;
    return NULL;
}

static int may_auth(const smtp_dialogue_t *d)
{
    return d->can_auth && (d->has_tls || d->auth_in_clear);
}

static const smtp_reply_t *verb_auth(smtp_dialogue_t *d)
{
    const smtp_reply_t *reply;

    if (!d->can_auth) {
        return smtp_reply(SMTP_REPLY_NOT_OFFERED);
    }
    if (d->authenticated) {
        return smtp_reply(SMTP_REPLY_AUTH_DONE);
    }
    if (!may_auth(d)) {
        return smtp_reply(SMTP_REPLY_NEED_TLS_FOR_AUTH);
    }
    if (d->state != SMTP_STATE_READY) {
        return smtp_reply(d->state == SMTP_STATE_NEW ? SMTP_REPLY_NEED_HELO
                                                     : SMTP_REPLY_NESTED_MAIL);
    }
    if (!d->argument.n) {
        return smtp_reply(SMTP_REPLY_ARGUMENT_MISSING);
    }
    if (!(reply = smtp_sasl_start(&d->sasl, d->argument, d->out->bucket_alloc))) {
        d->event = SMTP_EVENT_AUTH;
    }
    return reply;
}

/* A browser that is made to speak to this port must not get a command through: ALPACA. */
static const smtp_reply_t *verb_http(smtp_dialogue_t *d)
{
    (void)d;
    return smtp_reply(SMTP_REPLY_HTTP_VERB);
}

static const smtp_reply_t *verb_help(smtp_dialogue_t *d);

static const smtp_verb_t verbs[] = {
    { "EHLO", ANY, SMTP_VERB_IDLE | SMTP_VERB_CLEAR, verb_helo },
    { "HELO", ANY, SMTP_VERB_IDLE | SMTP_VERB_CLEAR, verb_helo },
    { "STARTTLS", ANY, SMTP_VERB_BARE | SMTP_VERB_CLEAR, verb_starttls },
    { "AUTH", ANY, 0, verb_auth },
    { "MAIL", SMTP_STATE_READY, 0, verb_mail },
    { "RCPT", SMTP_STATE_MAIL | SMTP_STATE_REFUSED | SMTP_STATE_RCPT, 0, verb_rcpt },
    { "DATA", SMTP_STATE_RCPT, SMTP_VERB_BARE, verb_data },
    { "RSET", ANY, SMTP_VERB_IDLE | SMTP_VERB_BARE | SMTP_VERB_CLEAR, verb_rset },
    { "NOOP", ANY, SMTP_VERB_IDLE | SMTP_VERB_CLEAR | SMTP_VERB_ASCII, verb_noop },
    { "VRFY", ANY, SMTP_VERB_IDLE | SMTP_VERB_ASCII, verb_vrfy },
    { "HELP", ANY, SMTP_VERB_IDLE | SMTP_VERB_ASCII, verb_help },
    { "QUIT", ANY | SMTP_STATE_BARRED, SMTP_VERB_CLEAR, verb_quit },
    { "EXPN", ANY, SMTP_VERB_IDLE, verb_not_offered },
    { "BDAT", ANY, 0, verb_not_offered },
    { "ETRN", ANY, 0, verb_not_offered },
    { "TURN", ANY, 0, verb_not_offered },
    { "SEND", ANY, 0, verb_not_offered },
    { "SOML", ANY, 0, verb_not_offered },
    { "SAML", ANY, 0, verb_not_offered },
    { "GET", ANY | SMTP_STATE_BARRED, SMTP_VERB_FATAL | SMTP_VERB_CLEAR, verb_http },
    { "POST", ANY | SMTP_STATE_BARRED, SMTP_VERB_FATAL | SMTP_VERB_CLEAR, verb_http },
    { "PUT", ANY | SMTP_STATE_BARRED, SMTP_VERB_FATAL | SMTP_VERB_CLEAR, verb_http },
    { "HEAD", ANY | SMTP_STATE_BARRED, SMTP_VERB_FATAL | SMTP_VERB_CLEAR, verb_http },
    { "OPTIONS", ANY | SMTP_STATE_BARRED, SMTP_VERB_FATAL | SMTP_VERB_CLEAR, verb_http },
    { "CONNECT", ANY | SMTP_STATE_BARRED, SMTP_VERB_FATAL | SMTP_VERB_CLEAR, verb_http },
    { NULL, 0, 0, NULL }
};

static const smtp_reply_t *verb_help(smtp_dialogue_t *d)
{
    char text[SMTP_REPLY_LINE_MAX] = "Commands:";
    const smtp_reply_t help = { 214, "2.0.0", text };
    apr_size_t n = strlen(text);
    const smtp_verb_t *verb;

    for (verb = verbs; verb->name; verb++) {
        if (verb->handler != verb_not_offered && verb->handler != verb_http) {
            n += apr_snprintf(text + n, sizeof(text) - n, " %s", verb->name);
        }
    }
    smtp_reply_put(d->out, &help);
    d->last_code = 214;
    return NULL;
}

const smtp_verb_t *smtp_verbs_find(smtp_span_t word)
{
    const smtp_verb_t *verb;

    for (verb = verbs; verb->name; verb++) {
        if (smtp_span_is(word, verb->name)) {
            return verb;
        }
    }
    return NULL;
}

int smtp_dialogue_is_verb(const smtp_dialogue_t *d, const char *name)
{
    return d->verb && strcmp(d->verb->name, name) == 0;
}

typedef struct capability_t {
    const char *keyword;
    int (*when)(const smtp_dialogue_t *d);           /* NULL: always */
    apr_int64_t (*number)(const smtp_dialogue_t *d); /* what follows it; NULL: nothing */
    const char *words;                               /* likewise */
} capability_t;

static int may_starttls(const smtp_dialogue_t *d)
{
    return d->can_tls && !d->has_tls;
}

static apr_int64_t max_size(const smtp_dialogue_t *d)
{
    return d->offer->max_size;
}

static const capability_t capabilities[] = {
    { "PIPELINING", NULL, NULL, NULL },
    { "SIZE", NULL, max_size, NULL },
    { "STARTTLS", may_starttls, NULL, NULL },
    { "AUTH", may_auth, NULL, smtp_sasl_mechanisms },
    { "8BITMIME", NULL, NULL, NULL },
    { "ENHANCEDSTATUSCODES", NULL, NULL, NULL },
    { "HELP", NULL, NULL, NULL },
    { NULL, NULL, NULL, NULL }
};

void smtp_verbs_put_capabilities(smtp_dialogue_t *d, const smtp_reply_t *greet)
{
    enum { GREET_MAX = 200 }; /* there must be room for the rest */
    char text[SMTP_REPLY_LINE_MAX + SMTP_DOMAIN_MAX];
    const smtp_reply_t reply = { 250, "", text };
    const char *words = greet ? greet->text : "";
    apr_size_t length = strcspn(words, "\n");
    apr_size_t n = apr_snprintf(text, sizeof(text), "%s%s%.*s", d->offer->hostname,
                                greet ? " " : "", (int)(length < GREET_MAX ? length : GREET_MAX),
                                words);
    const capability_t *row;

    for (row = capabilities; d->extended && row->keyword; row++) {
        if (row->when && !row->when(d)) {
            continue;
        }
        n += apr_snprintf(text + n, sizeof(text) - n, "\n%s", row->keyword);
        if (row->number) {
            n += apr_snprintf(text + n, sizeof(text) - n, " %" APR_INT64_T_FMT, row->number(d));
        }
        if (row->words) {
            n += apr_snprintf(text + n, sizeof(text) - n, " %s", row->words);
        }
    }
    smtp_reply_put(d->out, &reply);
}
