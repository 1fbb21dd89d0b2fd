/* What smtp/dot.h promises, written as plainly as possible: on whole messages, line by line,
 * with copies and no states. The unit test and the fuzz target of the dot automata compare
 * against it (RFC 5321 4.5.2). Not part of the module.
 */
#ifndef TESTS_UNIT_DOT_MODEL_H
#define TESTS_UNIT_DOT_MODEL_H

#include <stdlib.h>
#include <string.h>

typedef struct model_t {
    char *text;   /* malloc'ed */
    size_t n;
    size_t taken; /* reading: octets up to and with the end of data */
    int ended, bare_lf, bare_cr, unstuffed;
} model_t;

static inline void model_add(model_t *m, const char *p, size_t n)
{
    if (n) {
        memcpy(m->text + m->n, p, n);
        m->n += n;
    }
}

/* Behind the next line end at or after at; a LF alone is one if lf_too. *body is the line's
 * length without it. Without any line end: n. */
static inline size_t model_line(const char *p, size_t at, size_t n, int lf_too, size_t *body)
{
    for (size_t i = at; i < n; i++) {
        int crlf = p[i] == '\n' && i > at && p[i - 1] == '\r';

        if (crlf || (p[i] == '\n' && lf_too)) {
            *body = i - at - crlf;
            return i + 1;
        }
    }
    *body = n - at;
    return n;
}

/* How many octets come before the final ".CRLF"; n when there is none. */
static inline size_t model_end(const char *p, size_t n)
{
    for (size_t i = 0; i + 3 <= n; i++) {
        if (!memcmp(p + i, ".\r\n", 3) && (i == 0 || (i > 1 && !memcmp(p + i - 2, "\r\n", 2)))) {
            return i;
        }
    }
    return n;
}

static inline void model_flags(model_t *m, const char *p)
{
    for (size_t i = 0; i < m->taken; i++) {
        m->bare_lf |= p[i] == '\n' && !(i > 0 && p[i - 1] == '\r');
        m->bare_cr |= p[i] == '\r' && !(i + 1 < m->taken && p[i + 1] == '\n');
    }
    for (size_t i = 0; i < m->n; i++) {
        m->unstuffed |= m->text[i] == '.' && (i == 0 || m->text[i - 1] == '\n');
    }
}

/* Content and flags of wire data. Only right where the data ends (m.ended). */
static inline model_t model_read(const char *p, size_t n, int normalize)
{
    model_t m = { .text = malloc(2 * n + 1) };
    size_t data = model_end(p, n), body;

    m.ended = data < n;
    m.taken = m.ended ? data + 3 : n;
    for (size_t at = 0, next; at < data; at = next) {
        next = model_line(p, at, data, normalize, &body);
        int lone = body == 1; /* no end of data, so a bare LF is before or behind it */
        int drop = body > 0 && p[at] == '.' && !(normalize && lone);

        model_add(&m, p + at + drop, body - drop);
        model_add(&m, "\r\n", 2);
    }
    model_flags(&m, p);
    return m;
}

/* The message with CRLF for every bare CR and LF, and at its end; empty stays empty. */
static inline model_t model_canonical(const char *p, size_t n)
{
    model_t m = { .text = malloc(2 * n + 3) };

    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\n' && i > 0 && p[i - 1] == '\r') {
            continue;
        }
        if (p[i] == '\r' || p[i] == '\n') {
            model_add(&m, "\r\n", 2);
        }
        else {
            model_add(&m, p + i, 1);
        }
    }
    if (m.n > 0 && m.text[m.n - 1] != '\n') {
        model_add(&m, "\r\n", 2);
    }
    return m;
}

/* The message as it must stand on the wire, end of data included. */
static inline model_t model_stuff(const char *p, size_t n)
{
    model_t c = model_canonical(p, n);
    model_t m = { .text = malloc(2 * c.n + 4) };

    for (size_t i = 0; i < c.n; i++) {
        if (c.text[i] == '.' && (i == 0 || c.text[i - 1] == '\n')) {
            model_add(&m, ".", 1);
        }
        model_add(&m, c.text + i, 1);
    }
    model_add(&m, ".\r\n", 3);
    free(c.text);
    return m;
}

#endif
