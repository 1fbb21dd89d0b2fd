/* base64 and hex by APR, which checks the alphabet; what it lets pass beyond RFC 4648 4 is refused
 * here. Quoted-printable is ours, RFC 2045 6.7: its rules have the numbers they have there.
 */
#include "smtp/encode.h"

#include <apr_encode.h>
#include <apr_errno.h>
#include <string.h>
#include <strings.h>

#include "smtp/chars.h"

#define LINE_MAX_OCTETS 76

static apr_status_t conclude(const void *octets, const char **out)
{
    *out = octets;
    return octets ? APR_SUCCESS : APR_EINVAL;
}

static apr_status_t encode_base64(apr_pool_t *p, const char *in, apr_size_t len, const char **out,
                                  apr_size_t *outlen)
{
    return conclude(apr_pencode_base64_binary(p, (const unsigned char *)in, (apr_ssize_t)len,
                                              APR_ENCODE_NONE, outlen), out);
}

/* Copies the text without blanks and line breaks; NULL: it has octets of base64url (RFC 4648 5),
 * which APR does not tell apart. */
static const char *strip_blanks(apr_pool_t *p, const char *in, apr_size_t len, apr_size_t *n)
{
    char *text = apr_palloc(p, len + 1), *to = text;
    apr_size_t i;

    for (i = 0; i < len; i++) {
        if (in[i] == '-' || in[i] == '_') {
            return NULL;
        }
        if (!smtp_char_is_blank(in[i]) && in[i] != '\r' && in[i] != '\n') {
            *to++ = in[i];
        }
    }
    *n = to - text;
    return text;
}

static apr_status_t decode_base64(apr_pool_t *p, const char *in, apr_size_t len, const char **out,
                                  apr_size_t *outlen)
{
    apr_size_t n;
    const char *text = strip_blanks(p, in, len, &n);

    if (!text || n % 4 != 0) { /* RFC 4648 3.2; APR would do without the padding */
        return conclude(NULL, out);
    }
    return conclude(apr_pdecode_base64_binary(p, text, (apr_ssize_t)n, APR_ENCODE_NONE, outlen),
                    out);
}

static apr_status_t encode_hex(apr_pool_t *p, const char *in, apr_size_t len, const char **out,
                               apr_size_t *outlen)
{
    return conclude(apr_pencode_base16_binary(p, (const unsigned char *)in, (apr_ssize_t)len,
                                              APR_ENCODE_NONE, outlen), out);
}

static apr_status_t decode_hex(apr_pool_t *p, const char *in, apr_size_t len, const char **out,
                               apr_size_t *outlen)
{
    return conclude(apr_pdecode_base16_binary(p, in, (apr_ssize_t)len, APR_ENCODE_NONE, outlen),
                    out);
}

/* What is encoded; without memory it is only counted. */
typedef struct output_t {
    char *to; /* NULL: count */
    apr_size_t n;
    apr_size_t column;
} output_t;

static void put(output_t *o, const char *text, apr_size_t n)
{
    if (o->to) {
        memcpy(o->to + o->n, text, n);
    }
    o->n += n;
    o->column += n;
}

static void end_line(output_t *o, const char *text)
{
    put(o, text, strlen(text));
    o->column = 0;
}

static int is_crlf(const char *at, const char *end)
{
    return end - at >= 2 && at[0] == '\r' && at[1] == '\n';
}

/* Rules 1 to 3: a blank at the end of a line gets lost on the way, a tab may become blanks. */
static int is_literal(char ch, int ends_line)
{
    return ch > ' ' ? ch < 127 && ch != '=' : ch == ' ' && !ends_line;
}

static void encode_octet(output_t *o, char ch, int ends_line)
{
    static const char digits[] = "0123456789ABCDEF";
    char coded[3] = { '=', digits[(unsigned char)ch >> 4], digits[ch & 15] };
    int literal = is_literal(ch, ends_line);
    apr_size_t n = literal ? 1 : sizeof(coded);

    if (o->column + n > LINE_MAX_OCTETS - !ends_line) { /* rule 5: the last place is for "=" */
        end_line(o, "=\r\n");
    }
    put(o, literal ? &ch : coded, n);
}

static apr_size_t encode_text(char *to, const char *at, const char *end)
{
    output_t o = { to, 0, 0 };

    while (at < end) {
        if (is_crlf(at, end)) { /* rule 4 */
            end_line(&o, "\r\n");
            at += 2;
        }
        else {
            encode_octet(&o, *at, at + 1 == end || is_crlf(at + 1, end));
            at++;
        }
    }
    return o.n;
}

static apr_status_t encode_qprint(apr_pool_t *p, const char *in, apr_size_t len, const char **out,
                                  apr_size_t *outlen)
{
    char *to;

    *outlen = encode_text(NULL, in, in + len);
    to = apr_palloc(p, *outlen + 1); /* never none, which means failure */
    encode_text(to, in, in + len);
    return conclude(to, out);
}

static int hex_digit(char ch)
{
    static const char digits[] = "0123456789ABCDEFabcdef";
    const char *found = memchr(digits, ch, sizeof(digits) - 1);
    int n = found ? (int)(found - digits) : -1;

    return n < 16 ? n : n - 6;
}

/* -1: these are no two digits. */
static int hex_octet(const char *at)
{
    int high = hex_digit(at[0]), low = hex_digit(at[1]);

    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Decodes a line without its end; returns 1 if a soft break ends it. */
static int decode_line(char **to, const char *at, const char *end)
{
    for (; at < end; at++) {
        if (*at == '=' && at + 1 == end) {
            return 1;
        }
        if (*at == '=' && end - at > 2 && hex_octet(at + 1) >= 0) {
            *(*to)++ = (char)hex_octet(at + 1);
            at += 2;
        }
        else {
            *(*to)++ = *at;
        }
    }
    return 0;
}

/* The end of a line's text: blanks there were added on the way (rule 3). */
static const char *end_of_text(const char *start, const char *end)
{
    while (end > start && smtp_char_is_blank(end[-1])) {
        end--;
    }
    return end;
}

static apr_status_t decode_qprint(apr_pool_t *p, const char *in, apr_size_t len, const char **out,
                                  apr_size_t *outlen)
{
    char *text = apr_palloc(p, len + 1), *to = text;
    const char *at = in, *end = in + len;

    while (at < end) {
        const char *newline = memchr(at, '\n', end - at);
        const char *next = newline ? newline + 1 : end;
        const char *stop = newline ? newline : end;

        if (newline && stop > at && stop[-1] == '\r') {
            stop--;
        }
        if (!decode_line(&to, at, end_of_text(at, stop))) {
            memcpy(to, stop, next - stop);
            to += next - stop;
        }
        at = next;
    }
    *outlen = to - text;
    return conclude(text, out);
}

const smtp_encoding_t smtp_encodings[] = {
    { "base64", encode_base64, decode_base64 },
    { "hex", encode_hex, decode_hex },
    { "qprint", encode_qprint, decode_qprint },
    { NULL, NULL, NULL }
};

const smtp_encoding_t *smtp_encode_find(const char *name)
{
    const smtp_encoding_t *row;

    for (row = smtp_encodings; row->name; row++) {
        if (strcasecmp(row->name, name) == 0) {
            return row;
        }
    }
    return NULL;
}
