/* The table of character classes and what works directly on it.
 * A character's row is the only place that says where it may stand; the parsers of
 * paths, parameters, replies and header fields ask the table through smtp_char_is().
 * ASCII only and without a locale: what Lua's os.setlocale() does must not change
 * what a command means (RFC 5321 2.4).
 */
#include <string.h>

#include "smtp/chars.h"

/* Classes that nearly every visible character is in. */
#define VISIBLE                                                                                    \
    (SMTP_CHAR_QTEXT | SMTP_CHAR_DTEXT | SMTP_CHAR_VALUE | SMTP_CHAR_FTEXT | SMTP_CHAR_TEXT)
#define ATOM (VISIBLE | SMTP_CHAR_ATEXT)
#define WORD (ATOM | SMTP_CHAR_LDH | SMTP_CHAR_KEY)

const unsigned char smtp_char_class[256] = {
    [' '] = SMTP_CHAR_QTEXT | SMTP_CHAR_TEXT,
    ['!'] = ATOM,
    ['"'] = VISIBLE & ~SMTP_CHAR_QTEXT,
    ['#' ... '\''] = ATOM, /* # $ % & ' */
    ['(' ... ')'] = VISIBLE,
    ['*' ... '+'] = ATOM,
    [','] = VISIBLE,
    ['-'] = WORD,
    ['.'] = VISIBLE,
    ['/'] = ATOM,
    ['0' ... '9'] = WORD,
    [':'] = VISIBLE & ~SMTP_CHAR_FTEXT,
    [';' ... '<'] = VISIBLE,
    ['='] = ATOM & ~SMTP_CHAR_VALUE,
    ['>'] = VISIBLE,
    ['?'] = ATOM,
    ['@'] = VISIBLE,
    ['A' ... 'Z'] = WORD,
    ['['] = VISIBLE & ~SMTP_CHAR_DTEXT,
    ['\\'] = VISIBLE & ~(SMTP_CHAR_DTEXT | SMTP_CHAR_QTEXT),
    [']'] = VISIBLE & ~SMTP_CHAR_DTEXT,
    ['^'] = ATOM,
    ['_'] = ATOM | SMTP_CHAR_LDH,
    ['`'] = ATOM,
    ['a' ... 'z'] = WORD,
    ['{' ... '~'] = ATOM, /* { | } ~ */
};

apr_size_t smtp_chars_skip(const char **at, const char *end, int classes)
{
    const char *start = *at;

    while (*at < end && smtp_char_is(**at, classes)) {
        ++*at;
    }
    return (apr_size_t)(*at - start);
}

void smtp_chars_skip_blanks(const char **at, const char *end)
{
    while (*at < end && smtp_char_is_blank(**at)) {
        ++*at;
    }
}

static char lower(char ch)
{
    return ch >= 'A' && ch <= 'Z' ? (char)(ch + ('a' - 'A')) : ch;
}

/* Not apr_cstr_casecmpn(): it takes two spans for equal that differ behind a NUL. */
int smtp_span_equal(smtp_span_t a, smtp_span_t b)
{
    apr_size_t i;

    if (a.n != b.n) {
        return 0;
    }
    for (i = 0; i < a.n; ++i) {
        if (lower(a.p[i]) != lower(b.p[i])) {
            return 0;
        }
    }
    return 1;
}

int smtp_span_is(smtp_span_t span, const char *word)
{
    return smtp_span_equal(span, (smtp_span_t){word, strlen(word)});
}

void smtp_chars_make_printable(char *text, apr_size_t n)
{
    apr_size_t i;

    for (i = 0; i < n; ++i) {
        if (!smtp_char_is(text[i], SMTP_CHAR_TEXT)) {
            text[i] = '?';
        }
    }
}

int smtp_span_is_ascii(smtp_span_t span)
{
    apr_size_t i = 0;

    while (i < span.n && !(span.p[i] & 0x80)) {
        i++;
    }
    return i == span.n;
}
