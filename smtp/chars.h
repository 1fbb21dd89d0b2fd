/* Character classes of RFC 5321/5322 as one table, and the two structures every
 * parser here shares: a span of octets and the result of a parse.
 * Not a string library: what APR has is APR's.
 */
#ifndef SMTP_CHARS_H
#define SMTP_CHARS_H

#include <apr.h>

/* Octets that belong to somebody else; never NUL terminated. A span into a
 * command line is valid until the next line is read. An empty one still points
 * somewhere, unless a contract speaks of NULL. */
typedef struct smtp_span_t {
    const char *p;
    apr_size_t n;
} smtp_span_t;

typedef enum smtp_parse_e {
    SMTP_OK,   /* complete; the cursor stands behind what was taken */
    SMTP_MORE, /* all input taken, more is needed */
    SMTP_BAD   /* malformed; the cursor stands at the offending octet */
} smtp_parse_e;

/* Class bits for smtp_char_is(); the table is in chars.c. */
enum {
    SMTP_CHAR_ATEXT = 0x01, /* RFC 5322 3.2.3 */
    SMTP_CHAR_QTEXT = 0x02, /* qtextSMTP, RFC 5321 4.1.2 */
    SMTP_CHAR_DTEXT = 0x04, /* dcontent, RFC 5321 4.1.3 */
    SMTP_CHAR_LDH = 0x08,   /* letter, digit, hyphen, and the underscore that hosts use */
    SMTP_CHAR_KEY = 0x10,   /* esmtp-keyword: letter, digit, hyphen */
    SMTP_CHAR_VALUE = 0x20, /* esmtp-value: 33..126 but '=' */
    SMTP_CHAR_FTEXT = 0x40, /* header field name: 33..126 but ':' */
    SMTP_CHAR_TEXT = 0x80   /* printable ASCII and space: what a reply may hold */
};

extern const unsigned char smtp_char_class[256];

static inline int smtp_char_is(char ch, int classes)
{
    return smtp_char_class[(unsigned char)ch] & classes;
}

/* What separates words of a command: space, and the tab that some clients send. */
static inline int smtp_char_is_blank(char ch)
{
    return ch == ' ' || ch == '\t';
}

/* Moves *at over octets of the given classes, at most to end; returns how many. */
apr_size_t smtp_chars_skip(const char **at, const char *end, int classes);

/* Moves *at over blanks, at most to end. */
void smtp_chars_skip_blanks(const char **at, const char *end);

/* 1 if the span is the NUL-terminated ASCII word, in any case of letters. */
int smtp_span_is(smtp_span_t span, const char *word);

/* 1 if both spans hold the same octets, ASCII letters in any case. */
int smtp_span_equal(smtp_span_t a, smtp_span_t b);

/* Overwrites what is not printable ASCII with '?', so that text of a peer can
 * stand in a reply. Works in place on n octets. */
void smtp_chars_make_printable(char *text, apr_size_t n);

/* 1 if no octet is above 127. */
int smtp_span_is_ascii(smtp_span_t span);

#endif
