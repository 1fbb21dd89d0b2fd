/* Recursive descent over the grammar of RFC 5321 4.1.2 and 4.1.3: a function per
 * production, each taking its part at *at or leaving *at at the octet that does not
 * fit. Not the judge of who may mail where, and no DNS: form only.
 * Called for MAIL and RCPT, for the name in EHLO, and for addresses of configuration
 * and scripts. Lenient where real senders need it and no harm comes of it, strict
 * about octets: nothing but printable ASCII gets through.
 */
#include <arpa/inet.h>
#include <string.h>

#include "smtp/address.h"
#include "smtp/limits.h"

static int stands(const char *at, const char *end, char ch)
{
    return at < end && *at == ch;
}

static smtp_parse_e bad(const char **at, const char *where)
{
    *at = where;
    return SMTP_BAD;
}

static smtp_span_t span_to(const char *start, const char *end)
{
    return (smtp_span_t){start, (apr_size_t)(end - start)};
}

/* A hyphen at either end is refused: such a name could pass for an option when a
 * program is called with it. */
static smtp_parse_e take_label(const char **at, const char *end)
{
    const char *start = *at;
    apr_size_t n = smtp_chars_skip(at, end, SMTP_CHAR_LDH);

    if (n == 0) {
        return SMTP_BAD;
    }
    if (n > SMTP_LABEL_MAX) {
        return bad(at, start + SMTP_LABEL_MAX);
    }
    if (*start == '-') {
        return bad(at, start);
    }
    return (*at)[-1] == '-' ? bad(at, *at - 1) : SMTP_OK;
}

/* Takes a final dot too, but leaves it out of *domain: it names the same host. */
static smtp_parse_e take_name(smtp_span_t *domain, const char **at, const char *end)
{
    const char *start = *at;
    const char *behind;

    do {
        if (take_label(at, end) != SMTP_OK) {
            return SMTP_BAD;
        }
        behind = *at;
        if (!stands(*at, end, '.')) {
            break;
        }
        ++*at;
    } while (*at < end && smtp_char_is(**at, SMTP_CHAR_LDH));

    *domain = span_to(start, behind);
    return domain->n > SMTP_DOMAIN_MAX ? bad(at, start + SMTP_DOMAIN_MAX) : SMTP_OK;
}

/* The text holds no NUL: take_literal() let only dtext through. */
static int is_ip(int family, smtp_span_t text)
{
    unsigned char address[sizeof(struct in6_addr)];
    char copy[INET6_ADDRSTRLEN];

    if (text.n >= sizeof copy) {
        return 0;
    }
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    return inet_pton(family, copy, address) == 1;
}

/* RFC 5321 4.1.3: a tag must be registered, and no other ever was. */
static int is_literal(smtp_span_t inside)
{
    const char *colon = memchr(inside.p, ':', inside.n);

    if (!colon) {
        return is_ip(AF_INET, inside);
    }
    return smtp_span_is(span_to(inside.p, colon), "IPv6")
           && is_ip(AF_INET6, span_to(colon + 1, inside.p + inside.n));
}

static smtp_parse_e take_literal(smtp_span_t *domain, const char **at, const char *end)
{
    const char *start = (*at)++;

    smtp_chars_skip(at, end, SMTP_CHAR_DTEXT);
    if (!stands(*at, end, ']')) {
        return SMTP_BAD;
    }
    if (!is_literal(span_to(start + 1, *at))) {
        return bad(at, start + 1);
    }
    ++*at;
    *domain = span_to(start, *at);
    return domain->n > SMTP_DOMAIN_MAX ? bad(at, start + SMTP_DOMAIN_MAX) : SMTP_OK;
}

static smtp_parse_e take_domain(smtp_span_t *domain, const char **at, const char *end)
{
    return stands(*at, end, '[') ? take_literal(domain, at, end) : take_name(domain, at, end);
}

/* Dots may stand anywhere, against RFC 5321's Dot-string: addresses like "a..b" and
 * "a." were given out by Japanese mobile providers and are still in use. */
static smtp_parse_e take_dot_string(const char **at, const char *end)
{
    const char *start = *at;

    while (smtp_chars_skip(at, end, SMTP_CHAR_ATEXT) > 0 || stands(*at, end, '.')) {
        if (stands(*at, end, '.')) {
            ++*at;
        }
    }
    return *at > start ? SMTP_OK : SMTP_BAD;
}

static smtp_parse_e take_quoted_string(const char **at, const char *end)
{
    for (++*at; !stands(*at, end, '"'); ++*at) {
        int classes = SMTP_CHAR_QTEXT;

        if (stands(*at, end, '\\')) {
            ++*at;
            classes = SMTP_CHAR_TEXT; /* quoted-pairSMTP: any of 32..126 */
        }
        if (*at == end || !smtp_char_is(**at, classes)) {
            return SMTP_BAD;
        }
    }
    ++*at;
    return SMTP_OK;
}

/* Nothing but numbers is no domain (RFC 3696 2) but an address without its brackets, and
 * "2130706433" or "127.1" is one to a resolver that takes it for such. */
static int is_number(smtp_span_t domain)
{
    apr_size_t i;

    for (i = 0; i < domain.n; i++) {
        if (domain.p[i] != '.' && (domain.p[i] < '0' || domain.p[i] > '9')) {
            return 0;
        }
    }
    return 1;
}

/* Mailbox, or the one local part that may stand alone (RFC 5321 4.1.1.3). */
static smtp_parse_e take_mailbox(smtp_address_t *a, const char **at, const char *end)
{
    const char *start = *at;
    smtp_parse_e taken;

    taken = stands(*at, end, '"') ? take_quoted_string(at, end) : take_dot_string(at, end);
    if (taken != SMTP_OK) {
        return SMTP_BAD;
    }
    a->text = a->local = span_to(start, *at);
    a->domain = span_to(*at, *at);
    if (!stands(*at, end, '@')) {
        return smtp_span_is(a->local, "postmaster") ? SMTP_OK : SMTP_BAD;
    }
    ++*at;
    if (take_domain(&a->domain, at, end) != SMTP_OK) {
        return SMTP_BAD;
    }
    if (is_number(a->domain)) {
        return bad(at, a->domain.p);
    }
    a->text = span_to(start, a->domain.p + a->domain.n);
    return SMTP_OK;
}

/* A-d-l ":", which is checked and forgotten (RFC 5321 appendix C). */
static smtp_parse_e take_route(const char **at, const char *end)
{
    smtp_span_t hop;

    while (stands(*at, end, '@')) {
        ++*at;
        if (take_domain(&hop, at, end) != SMTP_OK) {
            return SMTP_BAD;
        }
        if (stands(*at, end, ':')) {
            ++*at;
            return SMTP_OK;
        }
        if (!stands(*at, end, ',')) {
            return SMTP_BAD;
        }
        ++*at;
    }
    return SMTP_BAD;
}

static smtp_parse_e take_inside(smtp_address_t *a, const char **at, const char *end)
{
    if (stands(*at, end, '@') && take_route(at, end) != SMTP_OK) {
        return SMTP_BAD;
    }
    return take_mailbox(a, at, end);
}

/* The parsers see no octet beyond the limit, so a longer path ends too early for its
 * bracket, or for the blank that must follow, and the cursor stands at the limit. */
static const char *limit(const char *at, const char *end, apr_size_t max)
{
    return (apr_size_t)(end - at) > max ? at + max : end;
}

static smtp_parse_e take_bracketed(smtp_address_t *a, const char **at, const char *end)
{
    end = limit(*at, end, SMTP_PATH_MAX);
    ++*at;
    if (!stands(*at, end, '>') && take_inside(a, at, end) != SMTP_OK) {
        return SMTP_BAD;
    }
    if (!stands(*at, end, '>')) {
        return SMTP_BAD;
    }
    ++*at;
    return SMTP_OK;
}

/* It must still fit when it is passed on within brackets. */
static smtp_parse_e take_bare(smtp_address_t *a, const char **at, const char *end)
{
    return take_inside(a, at, limit(*at, end, SMTP_PATH_MAX - 2));
}

/* In a path of that many octets. Only with a local part of the length that must be taken may
 * it be as long as that and any domain make it. */
static int is_too_long(const smtp_address_t *a, apr_size_t path)
{
    return path > SMTP_USUAL_PATH_MAX && a->local.n > SMTP_LOCAL_MIN;
}

static void clear(smtp_address_t *a, const char *at)
{
    a->text = a->local = a->domain = span_to(at, at);
}

smtp_parse_e smtp_address_parse(smtp_address_t *a, const char **at, const char *end)
{
    smtp_parse_e taken;
    apr_size_t brackets;
    const char *start;

    smtp_chars_skip_blanks(at, end);
    start = *at;
    clear(a, start);
    brackets = stands(*at, end, '<') ? 0 : strlen("<>");
    taken = brackets ? take_bare(a, at, end) : take_bracketed(a, at, end);
    if (taken == SMTP_OK && is_too_long(a, *at - start + brackets)) {
        *at = start + SMTP_USUAL_PATH_MAX - brackets;
        taken = SMTP_BAD;
    }
    if (taken != SMTP_OK || (*at < end && !smtp_char_is_blank(**at))) {
        clear(a, *at);
        return SMTP_BAD;
    }
    smtp_chars_skip_blanks(at, end);
    return SMTP_OK;
}

smtp_parse_e smtp_address_parse_mailbox(smtp_address_t *a, smtp_span_t text)
{
    const char *at = text.p;
    const char *end = text.p + text.n;

    clear(a, at);
    if (text.n <= SMTP_PATH_MAX - 2 && take_mailbox(a, &at, end) == SMTP_OK && at == end
        && a->domain.n > 0 && !is_too_long(a, text.n + strlen("<>"))) {
        return SMTP_OK;
    }
    clear(a, text.p);
    return SMTP_BAD;
}

smtp_parse_e smtp_address_check_domain(smtp_span_t domain)
{
    const char *at = domain.p;
    const char *end = domain.p + domain.n;
    smtp_span_t name;

    return take_domain(&name, &at, end) == SMTP_OK && at == end ? SMTP_OK : SMTP_BAD;
}

int smtp_address_is_routed(const smtp_address_t *a)
{
    apr_size_t i;

    for (i = 0; i < a->local.n; ++i) {
        if (a->local.p[i] == '%' || a->local.p[i] == '!' || a->local.p[i] == '@') {
            return 1;
        }
    }
    return 0;
}

apr_size_t smtp_address_unquote(const smtp_address_t *a, char *buf, apr_size_t size)
{
    const char *at = a->local.p;
    const char *end = at + a->local.n;
    int quoted = a->local.n >= 2 && *at == '"';
    apr_size_t n = 0;

    if (size == 0) {
        return 0;
    }
    if (quoted) {
        ++at;
        --end;
    }
    for (; at < end && n < size - 1; ++at) {
        if (quoted && *at == '\\' && at + 1 < end) {
            ++at;
        }
        buf[n++] = *at;
    }
    buf[n] = '\0';
    return n;
}
