/* libFuzzer target for smtp/dot.c. The first octet is normalize, the next six say where the rest
 * is cut. Read and written in these pieces and whole, the rest must come out as dot_model.h says;
 * what is written must hold nothing that any server takes for an early end of data.
 */
#include <stddef.h>
#include <stdint.h>

#include "smtp/dot.h"
#include "tests/unit/dot_model.h"

#define CUTS 6
#define CHECK(condition) ((condition) ? (void)0 : abort())

typedef struct output_t {
    char *text;
    size_t n, taken;
    smtp_parse_e rv;
} output_t;

static void keep(output_t *o, smtp_span_t out)
{
    model_t m = { .text = o->text, .n = o->n };

    model_add(&m, out.p, out.n);
    o->n = m.n;
}

static void read_piece(output_t *o, smtp_dot_t *d, const char *p, size_t n)
{
    char *piece = malloc(n ? n : 1);
    const char *at = piece;
    smtp_span_t out;

    memcpy(piece, p, n);
    while (at < piece + n && o->rv == SMTP_MORE) {
        o->rv = smtp_dot_next(d, &at, piece + n, &out);
        keep(o, out);
    }
    o->taken += at - piece;
    free(piece);
}

static void write_piece(output_t *o, smtp_stuff_t *s, const char *p, size_t n)
{
    char *piece = malloc(n ? n : 1);
    const char *at = piece;
    smtp_span_t out;

    memcpy(piece, p, n);
    while (at < piece + n) {
        smtp_stuff_next(s, &at, piece + n, &out);
        CHECK(out.n > 0);
        keep(o, out);
    }
    free(piece);
}

/* The next cut: a few octets on, or for large numbers a share of the rest. */
static size_t cut_length(uint8_t cut, size_t rest)
{
    size_t n = cut < 128 ? cut : rest * (cut - 127) / 128;

    return n < rest ? n : rest;
}

static output_t read_all(smtp_dot_t *d, const char *p, size_t n, const uint8_t *cuts, int pieces)
{
    output_t o = { .text = malloc(3 * n + 8), .rv = SMTP_MORE };

    for (int i = 0; i <= pieces; i++) {
        size_t k = i < pieces ? cut_length(cuts[i], n) : n;

        read_piece(&o, d, p, k);
        p += k;
        n -= k;
    }
    return o;
}

static output_t write_all(const char *p, size_t n, const uint8_t *cuts, int pieces)
{
    output_t o = { .text = malloc(3 * n + 8) };
    smtp_stuff_t s;

    smtp_stuff_init(&s);
    for (int i = 0; i <= pieces; i++) {
        size_t k = i < pieces ? cut_length(cuts[i], n) : n;

        write_piece(&o, &s, p, k);
        p += k;
        n -= k;
    }
    keep(&o, smtp_stuff_end(&s));
    return o;
}

static void check_same(const output_t *o, const char *text, size_t n)
{
    CHECK(o->n == n);
    CHECK(n == 0 || memcmp(o->text, text, n) == 0);
}

/* Whole and in pieces alike, even where the data never ends. */
static void check_cuts(const char *p, size_t n, int normalize, const uint8_t *cuts)
{
    smtp_dot_t d, e;

    smtp_dot_init(&d, normalize);
    smtp_dot_init(&e, normalize);
    output_t whole = read_all(&d, p, n, cuts, 0), cut = read_all(&e, p, n, cuts, CUTS);

    check_same(&cut, whole.text, whole.n);
    CHECK(whole.rv == cut.rv && whole.taken == cut.taken && d.state == e.state);
    CHECK(d.bare_lf == e.bare_lf && d.bare_cr == e.bare_cr && d.unstuffed == e.unstuffed);
    free(whole.text);
    free(cut.text);
}

static void check_read(const char *p, size_t n, int normalize, const uint8_t *cuts)
{
    char *wire = malloc(n + 5);
    smtp_dot_t d;

    memcpy(wire, p, n);
    memcpy(wire + n, "\r\n.\r\n", 5);
    smtp_dot_init(&d, normalize);
    model_t m = model_read(wire, n + 5, normalize);
    output_t o = read_all(&d, wire, n + 5, cuts, CUTS);

    check_same(&o, m.text, m.n);
    CHECK(m.ended && o.rv == SMTP_OK && o.taken == m.taken);
    CHECK(d.bare_lf == m.bare_lf && d.bare_cr == m.bare_cr && d.unstuffed == m.unstuffed);
    free(wire);
    free(m.text);
    free(o.text);
}

/* No bare newline, so that no lenient terminator is possible, and one end only. */
static void check_wire(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        CHECK(p[i] != '\r' || (i + 1 < n && p[i + 1] == '\n'));
        CHECK(p[i] != '\n' || (i > 0 && p[i - 1] == '\r'));
    }
    CHECK(model_end(p, n) == n - 3);
}

static void check_write(const char *p, size_t n, const uint8_t *cuts)
{
    model_t wire = model_stuff(p, n), canonical = model_canonical(p, n);
    output_t whole = write_all(p, n, cuts, 0), cut = write_all(p, n, cuts, CUTS), back;
    smtp_dot_t d;

    check_same(&whole, wire.text, wire.n);
    check_same(&cut, wire.text, wire.n);
    check_wire(cut.text, cut.n);
    smtp_dot_init(&d, 0);
    back = read_all(&d, cut.text, cut.n, cuts, CUTS);
    check_same(&back, canonical.text, canonical.n);
    CHECK(back.rv == SMTP_OK && back.taken == cut.n && !d.bare_lf && !d.bare_cr);
    free(wire.text);
    free(canonical.text);
    free(whole.text);
    free(cut.text);
    free(back.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *cuts = data + 1;
    const char *p = (const char *)data + 1 + CUTS;
    size_t n = size - 1 - CUTS;

    if (size < 1 + CUTS) {
        return 0;
    }
    check_cuts(p, n, data[0] & 1, cuts);
    check_read(p, n, data[0] & 1, cuts);
    check_write(p, n, cuts);
    return 0;
}
