/* An HTTP answer of a daemon that is not believed: lengths are checked before they are used,
 * and whatever two readers could read in two ways is no HTTP here. RFC 9112 2 to 7. Called by
 * rspamd.c.
 */
#include "filters/http.h"

#include <apr_strings.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum {
    HEAD_MAX = 16384,
    SIZE_DIGITS = 8 /* of a length, or hexadecimal of a chunk: more than any answer has */
};

typedef struct head_t {
    apr_int64_t length; /* -1: up to the end */
    int is_chunked;
} head_t;

/* "HTTP/1.1 200 OK" */
static int read_status(const char *line, int *status)
{
    int at = 0;

    return sscanf(line, "HTTP/1.%*1[01] %3d%n", status, &at) == 1 && *status >= 100
           && *status <= 599 && (line[at] == ' ' || !line[at]);
}

static int read_length(const char *value, head_t *head)
{
    apr_size_t n = strspn(value, "0123456789");

    if (n == 0 || n > SIZE_DIGITS || value[n] || head->length >= 0) {
        return 0; /* two lengths are none, RFC 9112 6.3 */
    }
    head->length = apr_atoi64(value);
    return 1;
}

static int read_field(char *line, head_t *head, nssmtpd_http_answer_t *answer)
{
    char *value = strchr(line, ':');

    if (!value || value == line) {
        return 0;
    }
    *value++ = '\0';
    value += strspn(value, " \t");
    if (strcasecmp(line, "Content-Length") == 0) {
        return read_length(value, head);
    }
    if (strcasecmp(line, "Transfer-Encoding") == 0) {
        head->is_chunked = strcasecmp(value, "chunked") == 0;
        return head->is_chunked;
    }
    if (strcasecmp(line, "Content-Encoding") == 0) {
        return strcasecmp(value, "identity") == 0; /* we have asked for none */
    }
    if (strcasecmp(line, "Server") == 0) {
        apr_cpystrn(answer->server, value, sizeof(answer->server));
    }
    return 1;
}

static smtp_parse_e read_head(const char *text, apr_size_t n, head_t *head,
                              nssmtpd_http_answer_t *answer)
{
    char copy[HEAD_MAX + 1], *rest, *line;

    *head = (head_t){ .length = -1 };
    memcpy(copy, text, n);
    copy[n] = '\0';
    line = strlen(copy) == n ? apr_strtok(copy, "\r\n", &rest) : NULL;
    if (!line || !read_status(line, &answer->status)) {
        return SMTP_BAD;
    }
    while ((line = apr_strtok(NULL, "\r\n", &rest))) {
        if (!read_field(line, head, answer)) {
            return SMTP_BAD;
        }
    }
    return head->is_chunked && head->length >= 0 ? SMTP_BAD : SMTP_OK; /* RFC 9112 6.1 */
}

/* A chunk's size with its line end; *at behind it. -1: not all of it is there; -2: it is none. */
static long take_size(const char **at, const char *end)
{
    const char *line = memchr(*at, '\n', end - *at);
    char digits[SIZE_DIGITS + 1] = "";
    apr_size_t n = 0;
    unsigned size;

    while (*at + n < end && n < SIZE_DIGITS && strchr("0123456789abcdefABCDEF", (*at)[n])
           && (*at)[n]) {
        digits[n] = (*at)[n];
        n++;
    }
    if (*at + n < end && (n == 0 || !strchr("; \t\r", (*at)[n]) || !(*at)[n])) {
        return -2;
    }
    if (!line) {
        return end - *at > HEAD_MAX ? -2 : -1;
    }
    *at = line + 1;
    return sscanf(digits, "%x", &size) == 1 ? (long)size : -2;
}

/* RFC 9112 7.1. Copies the chunks' octets behind each other, or only counts them where `joined`
 * is NULL. What stands behind the last chunk is of no interest. */
static smtp_parse_e join_chunks(const char *at, const char *end, char *joined, apr_size_t *n)
{
    for (*n = 0; at < end; at += 2) {
        long size = take_size(&at, end);

        if (size <= 0) {
            return size == 0 ? SMTP_OK : size == -1 ? SMTP_MORE : SMTP_BAD;
        }
        if (end - at < size + 2) {
            return SMTP_MORE;
        }
        if (joined) {
            memcpy(joined + *n, at, size);
        }
        *n += size;
        at += size;
        if (at[0] != '\r' || at[1] != '\n') {
            return SMTP_BAD;
        }
    }
    return SMTP_MORE;
}

static smtp_parse_e read_chunks(apr_pool_t *p, const char *at, const char *end, int is_over,
                                smtp_span_t *body)
{
    int may_be_whole = is_over || (end - at >= 5 && memcmp(end - 5, "0\r\n\r\n", 5) == 0);
    smtp_parse_e rc = may_be_whole ? join_chunks(at, end, NULL, &body->n) : SMTP_MORE;

    if (rc == SMTP_OK) {
        char *joined = apr_palloc(p, body->n + 1);

        body->p = joined;
        join_chunks(at, end, joined, &body->n);
    }
    return rc;
}

static smtp_parse_e read_body(apr_pool_t *p, const head_t *head, const char *at, const char *end,
                              int is_over, smtp_span_t *body)
{
    *body = (smtp_span_t){ at, end - at };
    if (head->is_chunked) {
        return read_chunks(p, at, end, is_over, body);
    }
    if (head->length < 0) {
        return is_over ? SMTP_OK : SMTP_MORE;
    }
    if ((apr_int64_t)body->n < head->length) {
        return SMTP_MORE;
    }
    body->n = head->length;
    return SMTP_OK;
}

smtp_parse_e nssmtpd_http_parse(apr_pool_t *p, smtp_span_t got, int is_over,
                                nssmtpd_http_answer_t *answer)
{
    static const char protocol[] = "HTTP/1.";
    apr_size_t known = got.n < sizeof(protocol) - 1 ? got.n : sizeof(protocol) - 1;
    const char *end = memmem(got.p, got.n, "\r\n\r\n", 4);
    head_t head;
    smtp_parse_e rc;

    if (memcmp(got.p, protocol, known) != 0 || (end ? end - got.p : (long)got.n) > HEAD_MAX) {
        return SMTP_BAD;
    }
    if (!end) {
        return SMTP_MORE;
    }
    rc = read_head(got.p, end - got.p, &head, answer);
    return rc == SMTP_OK ? read_body(p, &head, end + 4, got.p + got.n, is_over, &answer->body) : rc;
}

const char *nssmtpd_http_value(apr_pool_t *p, const char *text, apr_size_t max)
{
    char *value = apr_pstrndup(p, text, max), *at;

    for (at = value; *at; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            *at = '?';
        }
    }
    return value;
}
