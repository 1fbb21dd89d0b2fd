/* The automaton that makes line ends canonical (RFC 5321 2.3.8). Not a buffer: it copies
 * nothing and keeps only where in a line it stands. Called by who builds messages of text that
 * was never on the wire; what comes from the wire is dot.c's.
 */
#include "smtp/lines.h"

enum {
    LINE,     /* at the start of one */
    MIDDLE,   /* of a line */
    BEHIND_CR /* which was given already */
};

static const char crlf[] = "\r\n";

void smtp_lines_init(smtp_lines_t *l)
{
    l->state = LINE;
    l->is_8bit = 0;
    l->dots = 0;
}

static void give(smtp_span_t *out, const char *constant, apr_size_t n)
{
    out->p = constant;
    out->n = n;
}

/* Takes the rest of a line; returns where it ends: behind its CRLF, at a bare LF, behind a CR
 * that may be bare, or with the input. */
static const char *take_line(smtp_lines_t *l, const char *p, const char *end)
{
    unsigned char all = 0;

    l->dots += l->state == LINE && *p == '.';
    l->state = MIDDLE;
    while (p < end && *p != '\r' && *p != '\n') {
        all |= (unsigned char)*p++;
    }
    l->is_8bit |= all >> 7;
    if (p < end && *p == '\r') {
        p++;
        l->state = p < end && *p == '\n' ? LINE : BEHIND_CR;
        p += l->state == LINE;
    }
    return p;
}

/* The longest run that is canonical as it stands; returns where it ends. */
static const char *take_run(smtp_lines_t *l, const char *p, const char *end)
{
    while (p < end && *p != '\n' && l->state != BEHIND_CR) {
        p = take_line(l, p, end);
    }
    return p;
}

void smtp_lines_next(smtp_lines_t *l, const char **at, const char *end, smtp_span_t *out)
{
    const char *p = *at;

    give(out, p, 0);
    if (p == end) {
        return;
    }
    if (l->state == BEHIND_CR) {
        l->state = LINE;
        if (*p != '\n') {
            give(out, crlf + 1, 1);
            return;
        }
        p++;
    }
    p = take_run(l, p, end);
    if (p == *at) { /* stopped at once, so at a bare LF */
        l->state = LINE;
        give(out, crlf, 2);
        ++*at;
        return;
    }
    out->n = p - *at;
    *at = p;
}

smtp_span_t smtp_lines_end(const smtp_lines_t *l)
{
    int given = l->state == BEHIND_CR;
    smtp_span_t out;

    give(&out, crlf + given, l->state == LINE ? 0 : 2 - given);
    return out;
}
