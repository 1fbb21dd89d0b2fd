/* AUTH exchanges: a mechanism is a row with its challenges and what makes user and
 * password of the responses. RFC 4954 4 (334, "*", "="), RFC 4616 (PLAIN); LOGIN is not
 * in an RFC, its challenges are what clients expect. Called by dialogue.c and verbs.c.
 */
#include "smtp/sasl.h"

#include <apr_base64.h>
#include <string.h>

#include "smtp/chars.h"

/* Credentials longer than this are nobody's; NUL ends them. */
#define CREDENTIAL_MAX 1024

struct smtp_sasl_mechanism_t {
    const char *name;
    smtp_reply_t challenges[2]; /* before the first and the second response; code 0: none */
    /* Takes the n octets of a decoded response. NULL: fine so far. */
    const smtp_reply_t *(*take)(smtp_sasl_t *sasl, char *octets, apr_size_t n,
                                apr_bucket_alloc_t *ba);
};

const char smtp_sasl_mechanisms[] = "PLAIN LOGIN";

static char *copy(const char *octets, apr_size_t n, apr_bucket_alloc_t *ba, apr_size_t *size)
{
    char *text = apr_bucket_alloc(n + 1, ba);

    memcpy(text, octets, n);
    text[n] = '\0';
    *size = n + 1;
    return text;
}

/* RFC 4616: [authzid] NUL authcid NUL passwd. Acting for another user is not offered. */
static const smtp_reply_t *take_plain(smtp_sasl_t *sasl, char *octets, apr_size_t n,
                                      apr_bucket_alloc_t *ba)
{
    const char *user = memchr(octets, '\0', n), *end = octets + n, *password;
    apr_size_t authzid = user ? user - octets : 0;

    if (!user || !(password = memchr(user + 1, '\0', end - user - 1))
        || memchr(password + 1, '\0', end - password - 1)) {
        return smtp_reply(SMTP_REPLY_BAD_BASE64);
    }
    user++;
    password++;
    sasl->is_nobody = authzid && (authzid != (apr_size_t)(password - 1 - user)
                                  || memcmp(octets, user, authzid) != 0);
    sasl->user = copy(user, password - 1 - user, ba, &sasl->user_size);
    sasl->password = copy(password, end - password, ba, &sasl->password_size);
    return NULL;
}

static const smtp_reply_t *take_login(smtp_sasl_t *sasl, char *octets, apr_size_t n,
                                      apr_bucket_alloc_t *ba)
{
    if (memchr(octets, '\0', n)) {
        return smtp_reply(SMTP_REPLY_BAD_BASE64);
    }
    if (!sasl->user) {
        sasl->user = copy(octets, n, ba, &sasl->user_size);
    }
    else {
        sasl->password = copy(octets, n, ba, &sasl->password_size);
    }
    return NULL;
}

static const smtp_sasl_mechanism_t mechanisms[] = {
    { "PLAIN", { { 334, "", "" }, { 0, NULL, NULL } }, take_plain },
    { "LOGIN", { { 334, "", "VXNlcm5hbWU6" }, { 334, "", "UGFzc3dvcmQ6" } }, take_login },
    { NULL, { { 0, NULL, NULL }, { 0, NULL, NULL } }, NULL }
};

static void wipe(char **text, apr_size_t size)
{
    if (*text) {
        explicit_bzero(*text, size);
        apr_bucket_free(*text);
        *text = NULL;
    }
}

void smtp_sasl_end(smtp_sasl_t *sasl)
{
    wipe(&sasl->user, sasl->user_size);
    wipe(&sasl->password, sasl->password_size);
    sasl->mechanism = NULL;
    sasl->step = 0;
    sasl->is_nobody = 0;
}

static apr_size_t count_padding(smtp_span_t text)
{
    apr_size_t n = 0;

    while (n < 2 && n < text.n && text.p[text.n - 1 - n] == '=') {
        n++;
    }
    return n;
}

char *smtp_sasl_decode(smtp_span_t text, apr_bucket_alloc_t *ba, apr_size_t *n)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                   "abcdefghijklmnopqrstuvwxyz0123456789+/";
    apr_size_t i, padding = count_padding(text);
    char *coded, *octets;

    if (text.n % 4 != 0) {
        return NULL;
    }
    for (i = 0; i < text.n - padding; i++) {
        if (!text.p[i] || !strchr(alphabet, text.p[i])) {
            return NULL;
        }
    }
    coded = copy(text.p, text.n, ba, &i);
    octets = apr_bucket_alloc(text.n + 1, ba);
    *n = apr_base64_decode_binary((unsigned char *)octets, coded);
    octets[*n] = '\0';
    wipe(&coded, i);
    return octets;
}

static const smtp_reply_t *fail(smtp_sasl_t *sasl, smtp_reply_e reply)
{
    smtp_sasl_end(sasl);
    return smtp_reply(reply);
}

static const smtp_reply_t *take(smtp_sasl_t *sasl, smtp_span_t text, apr_bucket_alloc_t *ba)
{
    apr_size_t n;
    char *octets = smtp_sasl_decode(text, ba, &n);
    const smtp_reply_t *refusal;

    if (!octets) {
        return fail(sasl, SMTP_REPLY_BAD_BASE64);
    }
    refusal = sasl->mechanism->take(sasl, octets, n, ba);
    wipe(&octets, n + 1);
    if (refusal) {
        smtp_sasl_end(sasl);
        return refusal;
    }
    sasl->step++;
    if (!sasl->password) {
        return &sasl->mechanism->challenges[sasl->step];
    }
    if (sasl->user_size == 1 || sasl->password_size == 1 || sasl->user_size > CREDENTIAL_MAX
        || sasl->password_size > CREDENTIAL_MAX) { /* an empty password may mean "anonymous" */
        sasl->is_nobody = 1;
    }
    return NULL;
}

const smtp_reply_t *smtp_sasl_start(smtp_sasl_t *sasl, smtp_span_t arguments,
                                    apr_bucket_alloc_t *ba)
{
    const char *at = arguments.p, *end = at + arguments.n;
    const smtp_sasl_mechanism_t *row = mechanisms;
    smtp_span_t name = { at, 0 };

    while (at < end && !smtp_char_is_blank(*at)) {
        at++;
    }
    name.n = at - name.p;
    while (row->name && !smtp_span_is(name, row->name)) {
        row++;
    }
    if (!row->name) {
        return smtp_reply(SMTP_REPLY_UNKNOWN_MECHANISM);
    }
    sasl->mechanism = row;
    smtp_chars_skip_blanks(&at, end);
    if (at == end) {
        return &row->challenges[0];
    }
    if (end - at == 1 && *at == '=') { /* RFC 4954 4: an empty first response */
        at = end;
    }
    return take(sasl, (smtp_span_t){ at, end - at }, ba);
}

const smtp_reply_t *smtp_sasl_respond(smtp_sasl_t *sasl, smtp_span_t line, apr_bucket_alloc_t *ba)
{
    if (line.n == 1 && *line.p == '*') {
        return fail(sasl, SMTP_REPLY_AUTH_CANCELLED);
    }
    return take(sasl, line, ba);
}

const smtp_reply_t *smtp_sasl_answer(smtp_sasl_t *sasl, const smtp_reply_t *answer)
{
    answer = answer ? answer : smtp_reply(SMTP_REPLY_AUTHENTICATED);
    if (sasl->is_nobody && smtp_reply_is_positive(answer)) {
        answer = smtp_reply(SMTP_REPLY_BAD_CREDENTIALS);
    }
    smtp_sasl_end(sasl);
    return answer;
}
