/* The header scanner: an automaton over lines that finds where fields and the body begin
 * (RFC 5322 2.2, and 4.5 for white space before the colon). Not a parser of values.
 * Fed by the server's body reader as data arrives, and by who builds messages.
 * Each state is a function in a table that takes some of the input and says how much.
 */
#include <string.h>

#include "smtp/header.h"

enum {
    LINE,     /* at the start of one; current.end is its offset until the next line end */
    LINE_CR,  /* behind a CR that starts one */
    NAME,     /* in a field's name */
    GAP,      /* behind it, before the colon */
    VALUE,    /* behind the colon, or on a continuation line */
    VALUE_CR  /* behind a CR there */
};

static int is_blank(char ch)
{
    return ch == ' ' || ch == '\t';
}

static void end_section(smtp_header_t *h, apr_size_t body, int malformed)
{
    h->done = 1;
    h->malformed = malformed;
    h->body = body;
}

/* The line that was begun is no field; taken is what was still good of it. */
static apr_size_t refuse_line(smtp_header_t *h, apr_size_t taken)
{
    end_section(h, h->current.end, 1);
    return taken;
}

static apr_size_t end_line(smtp_header_t *h, apr_size_t taken)
{
    h->current.end = h->offset + taken;
    h->state = LINE;
    return taken;
}

static void close_field(smtp_header_t *h)
{
    if (h->current.value) {
        h->current.name.p = h->name;
        h->current.name.n = h->name_len;
        h->field(h->baton, &h->current);
        h->current.value = 0;
    }
}

static apr_size_t begin_value(smtp_header_t *h, apr_size_t taken)
{
    h->current.value = h->offset + taken;
    h->state = VALUE;
    return taken;
}

static apr_size_t at_line(smtp_header_t *h, const char *p, apr_size_t n)
{
    (void)n;
    if (is_blank(*p)) {
        h->state = VALUE;
        return h->current.value ? 1 : refuse_line(h, 0);
    }
    close_field(h);
    if (*p == '\r') {
        h->state = LINE_CR;
        return 1;
    }
    h->current.start = h->offset;
    h->name_len = 0;
    h->state = NAME;
    return 0;
}

static apr_size_t at_line_cr(smtp_header_t *h, const char *p, apr_size_t n)
{
    (void)n;
    if (*p != '\n') {
        return refuse_line(h, 0);
    }
    end_section(h, h->offset + 1, 0);
    return 1;
}

static apr_size_t in_name(smtp_header_t *h, const char *p, apr_size_t n)
{
    apr_size_t k = 0;

    while (k < n && smtp_char_is(p[k], SMTP_CHAR_FTEXT)) {
        if (h->name_len == SMTP_FIELD_NAME_MAX) {
            return refuse_line(h, k);
        }
        h->name[h->name_len++] = p[k++];
    }
    if (k == n) {
        return n;
    }
    if (h->name_len && p[k] == ':') {
        return begin_value(h, k + 1);
    }
    if (is_blank(p[k])) { /* not the first: that would be folding */
        h->state = GAP;
        return k + 1;
    }
    return refuse_line(h, k);
}

static apr_size_t in_gap(smtp_header_t *h, const char *p, apr_size_t n)
{
    (void)n;
    if (*p == ':') {
        return begin_value(h, 1);
    }
    return is_blank(*p) ? 1 : refuse_line(h, 0);
}

static apr_size_t in_value(smtp_header_t *h, const char *p, apr_size_t n)
{
    const char *lf = memchr(p, '\n', n);

    if (!lf) {
        h->state = p[n - 1] == '\r' ? VALUE_CR : VALUE;
        return n;
    }
    if (lf > p && lf[-1] == '\r') {
        return end_line(h, lf + 1 - p);
    }
    return lf + 1 - p;
}

static apr_size_t at_value_cr(smtp_header_t *h, const char *p, apr_size_t n)
{
    (void)n;
    if (*p == '\n') {
        return end_line(h, 1);
    }
    h->state = VALUE;
    return 0;
}

static apr_size_t (*const steps[])(smtp_header_t *h, const char *p, apr_size_t n) = {
    [LINE] = at_line, [LINE_CR] = at_line_cr, [NAME] = in_name,
    [GAP] = in_gap,   [VALUE] = in_value,     [VALUE_CR] = at_value_cr,
};

void smtp_header_init(smtp_header_t *h, void (*field)(void *, const smtp_field_t *), void *baton)
{
    memset(h, 0, sizeof(*h));
    h->field = field;
    h->baton = baton;
    h->state = LINE;
}

void smtp_header_feed(smtp_header_t *h, const char *data, apr_size_t n)
{
    apr_size_t room = SMTP_HEADER_MAX - h->offset;
    const char *end = data + (n < room ? n : room);

    while (data < end && !h->done) {
        apr_size_t taken = steps[h->state](h, data, end - data);

        data += taken;
        h->offset += taken;
    }
    if (!h->done && n > room) {
        end_section(h, h->current.value ? h->current.start : h->current.end, 1);
    }
}

void smtp_header_finish(smtp_header_t *h)
{
    if (h->done) {
        return;
    }
    if (h->state == LINE_CR || h->state == NAME || h->state == GAP) {
        refuse_line(h, 0);
        return;
    }
    h->current.end = h->offset;
    close_field(h);
    end_section(h, h->offset, 0);
}
