/* The automata of the message data: dots taken away and line ends watched on reading,
 * dots added and line ends made canonical on writing (RFC 5321 4.5.2, 2.3.8).
 * Not a buffer: nothing is copied or kept but a state of a few octets.
 * Called by the dialogue for what a client sends, and by whoever sends a message on.
 * Whole lines that need no change pass as one run, found with memchr: this is where
 * every octet of every mail goes through.
 */
#include <string.h>

#include "smtp/dot.h"

enum {
    MIDDLE,    /* of a line, nothing held back */
    BEHIND_CR, /* which was given already */
    LINE,      /* at the start of one */
    DOT,       /* a leading dot was taken and held back (reading only) */
    DOT_CR,    /* and a CR behind it (reading only) */
    ENDED      /* the end of data was taken (reading only) */
};

/* How far the writer looks for a LF at a time: any legal line of RFC 5322 2.1.1, and little
 * enough that a message of nothing but CRs does not take quadratic time. */
#define STUFF_REACH 1000

static void give(smtp_span_t *out, const char *constant)
{
    out->p = constant;
    out->n = strlen(constant);
}

void smtp_dot_init(smtp_dot_t *d, int normalize)
{
    memset(d, 0, sizeof(*d));
    d->normalize = normalize != 0;
    d->state = LINE;
}

static void note_bare_cr(smtp_dot_t *d, const char *p, const char *end)
{
    if (!d->bare_cr && p < end && memchr(p, '\r', end - p)) {
        d->bare_cr = 1;
    }
}

static void start_line(smtp_dot_t *d, int bare_lf)
{
    d->state = LINE;
    d->lf_line = bare_lf;
    if (bare_lf) {
        d->bare_lf = 1;
    }
}

/* A dot that is alone on its line and yet no end of data. */
static void keep_lone_dot(smtp_dot_t *d, int bare_lf, smtp_span_t *out)
{
    give(out, ".\r\n");
    d->unstuffed = 1;
    start_line(d, bare_lf);
}

/* The three states below look at one octet and return whether they took it. */
static int at_line(smtp_dot_t *d, char ch)
{
    if (ch == '.' && d->lf_line && !d->normalize) {
        d->unstuffed = 1;
    }
    else if (ch == '.') {
        d->state = DOT;
        return 1;
    }
    d->state = MIDDLE;
    return 0;
}

static int at_dot(smtp_dot_t *d, char ch, smtp_span_t *out)
{
    if (ch == '\r') {
        d->state = DOT_CR;
        return 1;
    }
    if (ch == '\n' && d->normalize) {
        keep_lone_dot(d, 1, out);
        return 1;
    }
    if (ch == '.') {
        d->unstuffed = 1;
    }
    d->state = MIDDLE; /* RFC 5321 4.5.2: more on the line, so the dot goes */
    return 0;
}

static int at_dot_cr(smtp_dot_t *d, char ch, smtp_span_t *out)
{
    if (ch != '\n') {
        give(out, "\r");
        d->bare_cr = 1;
        d->state = MIDDLE;
        return 0;
    }
    if (d->lf_line) { /* RFC 5321 4.1.1.4: LF.CRLF must not end the data */
        keep_lone_dot(d, 0, out);
    }
    else {
        d->state = ENDED;
    }
    return 1;
}

static int take_leading(smtp_dot_t *d, char ch, smtp_span_t *out)
{
    switch (d->state) {
    case LINE:
        return at_line(d, ch);
    case DOT:
        return at_dot(d, ch, out);
    default:
        return at_dot_cr(d, ch, out);
    }
}

/* The input ends within a line. */
static const char *take_rest(smtp_dot_t *d, const char *p, const char *end)
{
    int cr = end[-1] == '\r';

    note_bare_cr(d, p, end - cr);
    d->state = cr ? BEHIND_CR : MIDDLE;
    return end;
}

/* The longest run that is content as it stands, from the middle of a line on; returns where it
 * ends: at a dot that may have to go, at a LF to be repaired, or with the input. */
static const char *take_run(smtp_dot_t *d, const char *p, const char *end)
{
    int cr = d->state == BEHIND_CR;

    if (cr && *p != '\n') {
        d->bare_cr = 1;
    }
    d->state = MIDDLE;
    while (p < end && !(d->state == LINE && *p == '.')) {
        const char *lf = memchr(p, '\n', end - p);

        if (!lf) {
            return take_rest(d, p, end);
        }
        if (lf > p) {
            cr = lf[-1] == '\r';
            note_bare_cr(d, p, lf - cr);
        }
        if (!cr && d->normalize) {
            d->state = MIDDLE;
            return lf;
        }
        start_line(d, !cr);
        cr = 0;
        p = lf + 1;
    }
    return p;
}

smtp_parse_e smtp_dot_next(smtp_dot_t *d, const char **at, const char *end, smtp_span_t *out)
{
    out->p = *at;
    out->n = 0;
    while (*at < end && out->n == 0 && d->state >= LINE && d->state < ENDED) {
        *at += take_leading(d, **at, out);
    }
    if (d->state == ENDED) {
        return SMTP_OK;
    }
    if (*at < end && out->n == 0) {
        out->p = *at;
        *at = take_run(d, *at, end);
        out->n = *at - out->p;
        if (out->n == 0) { /* stopped at once, so at a bare LF */
            give(out, "\r\n");
            start_line(d, 1);
            ++*at;
        }
    }
    return SMTP_MORE;
}

void smtp_stuff_init(smtp_stuff_t *s)
{
    s->state = LINE;
}

/* The first line end at or behind p, but no further than STUFF_REACH: returns behind it, and the
 * state there. A bare CR is included and leaves BEHIND_CR, a bare LF is not included. */
static const char *pass_line(smtp_stuff_t *s, const char *p, const char *end)
{
    apr_size_t reach = end - p < STUFF_REACH ? end - p : STUFF_REACH;
    const char *lf = memchr(p, '\n', reach);
    const char *stop = lf ? lf : p + reach;
    const char *cr = memchr(p, '\r', stop - p);

    if (cr && cr + 1 < end && cr[1] == '\n') {
        s->state = LINE;
        return cr + 2;
    }
    s->state = cr ? BEHIND_CR : MIDDLE;
    return cr ? cr + 1 : stop;
}

/* The longest run that may go out as it stands: returns where it ends, which is the input's end,
 * a leading dot, a bare LF, or behind a bare CR. */
static const char *pass_run(smtp_stuff_t *s, const char *p, const char *end)
{
    while (p < end && s->state != BEHIND_CR && !(s->state == LINE && *p == '.')) {
        if (*p == '\n') {
            return p;
        }
        p = pass_line(s, p, end);
    }
    return p;
}

void smtp_stuff_next(smtp_stuff_t *s, const char **at, const char *end, smtp_span_t *out)
{
    const char *p = *at;

    out->p = p;
    out->n = 0;
    if (p == end) {
        return;
    }
    if (s->state == BEHIND_CR) {
        s->state = LINE;
        if (*p != '\n') {
            give(out, "\n");
            return;
        }
        p++;
    }
    *at = p = pass_run(s, p, end);
    if (p < end && s->state == LINE && *p == '.') {
        s->state = MIDDLE; /* given here, and again at the start of the next run */
        p++;
    }
    out->n = p - out->p;
    if (out->n == 0) { /* stopped at once, so at a bare LF */
        give(out, "\r\n");
        s->state = LINE;
        ++*at;
    }
}

void smtp_stuff_skip(smtp_stuff_t *s, const char *p, const char *end)
{
    const char *at = end - p > 1 ? end - 2 : p; /* all that a line's end is */
    smtp_span_t out;

    s->state = at > p ? MIDDLE : s->state;
    while (at < end) {
        smtp_stuff_next(s, &at, end, &out);
    }
}

smtp_span_t smtp_stuff_end(const smtp_stuff_t *s)
{
    smtp_span_t out;

    switch (s->state) {
    case LINE:
        give(&out, ".\r\n");
        break;
    case BEHIND_CR:
        give(&out, "\n.\r\n");
        break;
    default:
        give(&out, "\r\n.\r\n");
    }
    return out;
}
