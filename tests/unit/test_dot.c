/* smtp/dot.c: reading and writing message data. Every vector runs whole, byte by byte, and cut
 * at every one and every two places; pieces are copied, so that ASan sees a look beyond them.
 * The tables say what must come out; dot_model.h must agree with them. RFC 5321 4.5.2.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "smtp/dot.h"
#include "tests/unit/dot_model.h"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))
#define TEXT(literal) literal, sizeof(literal) - 1

enum { LF = 1, CR = 2, DOTS = 4 }; /* bare_lf, bare_cr, unstuffed */

typedef struct read_row_t {
    const char *wire;
    size_t n;
    const char *text[2]; /* the content: as it is, normalized; NULL: the same */
    size_t text_n[2];
    int flags[2];
} read_row_t;

#define SAME(wire, text, flags) { TEXT(wire), { text, 0 }, { sizeof(text) - 1, 0 }, { flags, 0 } }
#define BOTH(wire, raw, f0, fixed, f1) \
    { TEXT(wire), { raw, fixed }, { sizeof(raw) - 1, sizeof(fixed) - 1 }, { f0, f1 } }

static const read_row_t reads[] = {
    SAME(".\r\n", "", 0),
    SAME("\r\n.\r\n", "\r\n", 0),
    SAME("a\r\n.\r\n", "a\r\n", 0),
    SAME("a\r\n\r\nb\r\n.\r\n", "a\r\n\r\nb\r\n", 0),
    SAME("..\r\n.\r\n", ".\r\n", DOTS),
    SAME("...\r\n.\r\n", "..\r\n", DOTS),
    SAME(".x\r\n.\r\n", "x\r\n", 0),
    SAME("a\r\n..b\r\n.c\r\n.\r\n", "a\r\n.b\r\nc\r\n", DOTS),
    SAME("a..b.\r\n.\r\n", "a..b.\r\n", 0),
    SAME("a\0b\xff\r\n.\r\n", "a\0b\xff\r\n", 0),
    SAME("\r\r\n.\r\n", "\r\r\n", CR),
    SAME("a\rb\r\n.\r\n", "a\rb\r\n", CR),
    SAME("a\r\r\n.\r\n", "a\r\r\n", CR),
    SAME(".\rx\r\n.\r\n", "\rx\r\n", CR),
    SAME(".\r\r\n.\r\n", "\r\r\n", CR),
    SAME(".\r.\r\n.\r\n", "\r.\r\n", CR),
    SAME("..\rx\r\n.\r\n", ".\rx\r\n", CR | DOTS),
    BOTH("a\nb\r\n.\r\n", "a\nb\r\n", LF, "a\r\nb\r\n", LF),
    BOTH("\n\n\r\n.\r\n", "\n\n\r\n", LF, "\r\n\r\n\r\n", LF),
    BOTH("a\n.b\r\n.\r\n", "a\n.b\r\n", LF | DOTS, "a\r\nb\r\n", LF),
    BOTH("a\n..b\r\n.\r\n", "a\n..b\r\n", LF | DOTS, "a\r\n.b\r\n", LF | DOTS),
    BOTH("a\n..\nb\r\n.\r\n", "a\n..\nb\r\n", LF | DOTS, "a\r\n.\r\nb\r\n", LF | DOTS),
    BOTH("a\n.\n.\n.\r\n.\r\n", "a\n.\n.\n.\r\n", LF | DOTS, "a\r\n.\r\n.\r\n.\r\n", LF | DOTS),
    BOTH(".\nb\r\n.\r\n", "\nb\r\n", LF, ".\r\nb\r\n", LF | DOTS),
    BOTH("a\n.\rb\r\n.\r\n", "a\n.\rb\r\n", LF | CR | DOTS, "a\r\n\rb\r\n", LF | CR),
};

/* What lenient servers took for the end of data. Behind each stands what would be a smuggled
 * command; it has to come out as content, here as it is and normalized. */
#define SMUGGLED "MAIL\r\n.\r\n"
#define LENIENT(end, raw, f0, fixed, f1) \
    BOTH("a" end SMUGGLED, "a" raw "MAIL\r\n", f0, "a" fixed "MAIL\r\n", f1)

static const read_row_t lenient[] = {
    LENIENT("\n.\n", "\n.\n", LF | DOTS, "\r\n.\r\n", LF | DOTS),
    LENIENT("\n.\r\n", "\n.\r\n", LF | DOTS, "\r\n.\r\n", LF | DOTS),
    LENIENT("\n.\r", "\n.\r", LF | CR | DOTS, "\r\n\r", LF | CR),
    LENIENT("\r\n.\n", "\r\n\n", LF, "\r\n.\r\n", LF | DOTS),
    LENIENT("\r\n.\r", "\r\n\r", CR, "\r\n\r", CR),
    LENIENT("\r.\r\n", "\r.\r\n", CR, "\r.\r\n", CR),
    LENIENT("\r.\n", "\r.\n", LF | CR, "\r.\r\n", LF | CR),
    LENIENT("\r.\r", "\r.\r", CR, "\r.\r", CR),
    LENIENT("\r\n.\r\r\n", "\r\n\r\r\n", CR, "\r\n\r\r\n", CR),
    LENIENT("\r\n\0.\r\n", "\r\n\0.\r\n", 0, "\r\n\0.\r\n", 0),
    LENIENT("\r\n.\0\r\n", "\r\n\0\r\n", 0, "\r\n\0\r\n", 0),
    LENIENT("\r\n.\r\0\n", "\r\n\r\0\n", LF | CR, "\r\n\r\0\r\n", LF | CR),
    LENIENT("\r\0\n.\r\n", "\r\0\n.\r\n", LF | CR | DOTS, "\r\0\r\n.\r\n", LF | CR | DOTS),
    LENIENT("\n\0.\0\n", "\n\0.\0\n", LF, "\r\n\0.\0\r\n", LF),
    LENIENT("\r\n. \r\n", "\r\n \r\n", 0, "\r\n \r\n", 0),
    LENIENT("\n\r.\n\r", "\n\r.\n\r", LF | CR, "\r\n\r.\r\n\r", LF | CR),
};

typedef struct write_row_t {
    const char *text;
    size_t n;
    const char *wire;
    size_t wire_n;
} write_row_t;

static const write_row_t writes[] = {
    { TEXT(""), TEXT(".\r\n") },
    { TEXT("a"), TEXT("a\r\n.\r\n") },
    { TEXT("a\r\n"), TEXT("a\r\n.\r\n") },
    { TEXT("a\r"), TEXT("a\r\n.\r\n") },
    { TEXT("a\n"), TEXT("a\r\n.\r\n") },
    { TEXT("\r"), TEXT("\r\n.\r\n") },
    { TEXT("\n"), TEXT("\r\n.\r\n") },
    { TEXT("."), TEXT("..\r\n.\r\n") },
    { TEXT("..a\r\n.\r\n"), TEXT("...a\r\n..\r\n.\r\n") },
    { TEXT("a.b\r\nc."), TEXT("a.b\r\nc.\r\n.\r\n") },
    { TEXT("a\n.\nb"), TEXT("a\r\n..\r\nb\r\n.\r\n") },
    { TEXT("a\r.\rb"), TEXT("a\r\n..\r\nb\r\n.\r\n") },
    { TEXT("\r\r\n\n\r"), TEXT("\r\n\r\n\r\n\r\n.\r\n") },
    { TEXT("a\n\rb"), TEXT("a\r\n\r\nb\r\n.\r\n") },
    { TEXT("\0.\xff\r\n.\0"), TEXT("\0.\xff\r\n..\0\r\n.\r\n") },
};

/* Where the input is cut, ascending; as many octets as there are behind the last cut. */
typedef struct cuts_t {
    size_t at[2];
    int each; /* every octet alone */
} cuts_t;

typedef struct result_t {
    char *text;
    size_t n, taken;
    int ended;
    smtp_dot_t d;
} result_t;

static size_t piece_end(const cuts_t *cuts, size_t from, size_t n)
{
    if (cuts->each) {
        return from + 1;
    }
    for (int i = 0; i < 2; i++) {
        if (cuts->at[i] > from) {
            return cuts->at[i];
        }
    }
    return n;
}

static void keep(result_t *r, smtp_span_t out)
{
    memcpy(r->text + r->n, out.p, out.n);
    r->n += out.n;
}

static void read_piece(result_t *r, const char *p, size_t n)
{
    char *piece = malloc(n);
    const char *at = piece;
    smtp_span_t out;

    memcpy(piece, p, n);
    while (at < piece + n && !r->ended) {
        r->ended = smtp_dot_next(&r->d, &at, piece + n, &out) == SMTP_OK;
        keep(r, out);
    }
    r->taken += at - piece;
    free(piece);
}

static result_t read_cut(const char *wire, size_t n, int normalize, const cuts_t *cuts)
{
    result_t r = { .text = malloc(3 * n + 8) };

    smtp_dot_init(&r.d, normalize);
    for (size_t from = 0, next; from < n && !r.ended; from = next) {
        next = piece_end(cuts, from, n);
        read_piece(&r, wire + from, next - from);
    }
    return r;
}

static void write_piece(result_t *r, smtp_stuff_t *s, const char *p, size_t n)
{
    char *piece = malloc(n);
    const char *at = piece;
    smtp_span_t out;

    memcpy(piece, p, n);
    while (at < piece + n) {
        smtp_stuff_next(s, &at, piece + n, &out);
        assert_true(out.n > 0);
        keep(r, out);
    }
    free(piece);
}

static result_t write_cut(const char *text, size_t n, const cuts_t *cuts)
{
    result_t r = { .text = malloc(3 * n + 8) };
    smtp_stuff_t s;

    smtp_stuff_init(&s);
    for (size_t from = 0, next; from < n; from = next) {
        next = piece_end(cuts, from, n);
        write_piece(&r, &s, text + from, next - from);
    }
    keep(&r, smtp_stuff_end(&s));
    return r;
}

static int flags_of(const smtp_dot_t *d)
{
    return (d->bare_lf ? LF : 0) | (d->bare_cr ? CR : 0) | (d->unstuffed ? DOTS : 0);
}

static void check_read(const read_row_t *row, int normalize, const cuts_t *cuts)
{
    int column = normalize && row->text[1];
    result_t r = read_cut(row->wire, row->n, normalize, cuts);

    assert_true(r.ended);
    assert_int_equal(r.taken, row->n);
    assert_int_equal(r.n, row->text_n[column]);
    assert_memory_equal(r.text, row->text[column], r.n);
    assert_int_equal(flags_of(&r.d), row->flags[column]);
    free(r.text);
}

static void check_write(const write_row_t *row, const cuts_t *cuts)
{
    result_t r = write_cut(row->text, row->n, cuts);

    assert_int_equal(r.n, row->wire_n);
    assert_memory_equal(r.text, row->wire, r.n);
    free(r.text);
}

/* Whole is the pair of cuts (n, n), one cut is (i, n). */
#define FOR_ALL_CUTS(length, call)                                       \
    do {                                                                 \
        cuts_t cuts = { { 0, 0 }, 1 };                                   \
        call;                                                            \
        cuts.each = 0;                                                   \
        for (cuts.at[0] = 1; cuts.at[0] <= (length); cuts.at[0]++) {     \
            for (cuts.at[1] = cuts.at[0]; cuts.at[1] <= (length); cuts.at[1]++) { \
                call;                                                    \
            }                                                            \
        }                                                                \
    } while (0)

static void check_reads(const read_row_t *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        FOR_ALL_CUTS(rows[i].n, check_read(&rows[i], 0, &cuts));
        FOR_ALL_CUTS(rows[i].n, check_read(&rows[i], 1, &cuts));
    }
}

static void test_read(void **state)
{
    (void)state;
    check_reads(reads, ROWS(reads));
}

static void test_lenient_terminators_end_nothing(void **state)
{
    (void)state;
    assert_int_equal(ROWS(lenient), 16);
    check_reads(lenient, ROWS(lenient));
}

/* The same terminators with nothing behind them: the data goes on. */
static void test_lenient_terminators_alone(void **state)
{
    cuts_t cuts = { { 0, 0 }, 1 };

    (void)state;
    for (size_t i = 0; i < ROWS(lenient); i++) {
        for (int normalize = 0; normalize < 2; normalize++) {
            size_t n = lenient[i].n - strlen(SMUGGLED);
            result_t r = read_cut(lenient[i].wire, n, normalize, &cuts);

            assert_false(r.ended);
            assert_int_equal(r.taken, n);
            free(r.text);
        }
    }
}

static void test_read_stops_behind_the_end(void **state)
{
    static const char wire[] = "a\r\n.\r\nQUIT\r\n.\r\n";
    const char *at = wire, *end = wire + sizeof(wire) - 1;
    smtp_parse_e rv = SMTP_MORE;
    smtp_span_t out;
    smtp_dot_t d;

    (void)state;
    smtp_dot_init(&d, 0);
    while (rv == SMTP_MORE && at < end) {
        rv = smtp_dot_next(&d, &at, end, &out);
    }
    assert_int_equal(rv, SMTP_OK);
    assert_ptr_equal(at, wire + 6);
    assert_int_equal(smtp_dot_next(&d, &at, end, &out), SMTP_OK);
    assert_int_equal(out.n, 0);
    assert_ptr_equal(at, wire + 6);
}

/* Speed depends on it: a message without dots and bare newlines is one run per buffer. */
static void test_plain_text_is_one_run(void **state)
{
    static const char text[] = "From: a\r\n\r\none\r\ntwo\r\n\r\nthree. \r\n";
    const char *end = text + sizeof(text) - 1, *at = text;
    smtp_stuff_t s;
    smtp_span_t out;
    smtp_dot_t d;

    (void)state;
    smtp_dot_init(&d, 1);
    assert_int_equal(smtp_dot_next(&d, &at, end, &out), SMTP_MORE);
    assert_ptr_equal(out.p, text);
    assert_int_equal(out.n, sizeof(text) - 1);
    at = text;
    smtp_stuff_init(&s);
    smtp_stuff_next(&s, &at, end, &out);
    assert_ptr_equal(out.p, text);
    assert_int_equal(out.n, sizeof(text) - 1);
}

static void test_write(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROWS(writes); i++) {
        FOR_ALL_CUTS(writes[i].n, check_write(&writes[i], &cuts));
    }
}

/* Octets that were sent past the automaton leave it where sending them through it would. */
static void test_skip(void **state)
{
    static const char text[] = "a: b\r\n\r\nc\r\n\r\n", rest[] = ".d\r\n", lf[] = "\n";
    size_t n = sizeof(text) - 1;

    (void)state;
    for (size_t first = 0; first <= n; first++) {
        for (size_t second = first; second <= n; second++) {
            result_t through = { .text = malloc(64) }, past = { .text = malloc(64) };
            smtp_stuff_t s, t;

            smtp_stuff_init(&s);
            write_piece(&through, &s, text, second);
            smtp_stuff_init(&t);
            smtp_stuff_skip(&t, text, text + first);
            smtp_stuff_skip(&t, text + first, text + second);
            through.n = 0;
            write_piece(&through, &s, rest, sizeof(rest) - 1);
            write_piece(&past, &t, rest, sizeof(rest) - 1);
            write_piece(&through, &s, lf, 1);
            write_piece(&past, &t, lf, 1);
            assert_int_equal(past.n, through.n);
            assert_memory_equal(past.text, through.text, past.n);
            free(through.text);
            free(past.text);
        }
    }
}

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void fill(char *text, size_t n, uint32_t *seed)
{
    static const char alphabet[] = { '\r', '\n', '.', 'a', '\0', '\xff' };

    for (size_t i = 0; i < n; i++) {
        text[i] = alphabet[next_random(seed) % sizeof(alphabet)];
    }
}

static void check_round_trip(const char *text, size_t n, const cuts_t *out, const cuts_t *in)
{
    model_t canonical = model_canonical(text, n), wire = model_stuff(text, n);
    result_t w = write_cut(text, n, out), r;

    assert_int_equal(w.n, wire.n);
    assert_memory_equal(w.text, wire.text, w.n);
    r = read_cut(w.text, w.n, 0, in);
    assert_true(r.ended);
    assert_int_equal(r.taken, w.n);
    assert_int_equal(r.n, canonical.n);
    assert_memory_equal(r.text, canonical.text, r.n);
    assert_false(r.d.bare_lf || r.d.bare_cr);
    free(canonical.text);
    free(wire.text);
    free(w.text);
    free(r.text);
}

static void test_round_trips(void **state)
{
    char text[64];

    (void)state;
    for (uint32_t i = 1; i <= 20000; i++) {
        uint32_t seed = i;
        size_t n = next_random(&seed) % sizeof(text);
        size_t cut = n ? next_random(&seed) % n : 0;
        cuts_t some = { { cut, n }, 0 }, each = { { 0, 0 }, 1 };

        fill(text, n, &seed);
        check_round_trip(text, n, &some, &each);
        check_round_trip(text, n, &each, &some);
    }
}

/* Random wire data, with an end put behind it, read as the model reads it. */
static void test_random_wire(void **state)
{
    char wire[64];

    (void)state;
    for (uint32_t i = 1; i <= 40000; i++) {
        uint32_t seed = i;
        size_t n = next_random(&seed) % (sizeof(wire) - 5);
        cuts_t cuts = { { n / 3, n }, (int)(next_random(&seed) % 2) };
        int normalize = next_random(&seed) % 2;

        fill(wire, n, &seed);
        memcpy(wire + n, "\r\n.\r\n", 5);
        model_t m = model_read(wire, n + 5, normalize);
        result_t r = read_cut(wire, n + 5, normalize, &cuts);

        assert_true(m.ended && r.ended);
        assert_int_equal(r.taken, m.taken);
        assert_int_equal(r.n, m.n);
        assert_memory_equal(r.text, m.text, r.n);
        assert_int_equal(flags_of(&r.d), (m.bare_lf ? LF : 0) | (m.bare_cr ? CR : 0)
                                             | (m.unstuffed ? DOTS : 0));
        free(m.text);
        free(r.text);
    }
}

/* Lines longer than the writer looks ahead, with the line end at every place around it. */
static void test_write_long_lines(void **state)
{
    cuts_t whole = { { 0, 0 }, 0 };
    char text[2100];

    (void)state;
    for (size_t n = 990; n < 1010; n++) {
        memset(text, 'a', sizeof(text));
        memcpy(text + n, "\r\n.\n.\r.\r\n", 9);
        check_round_trip(text, sizeof(text), &whole, &whole);
        check_round_trip(text, n + 1, &whole, &whole);
        check_round_trip(text, n + 2, &whole, &whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_lenient_terminators_end_nothing),
        cmocka_unit_test(test_lenient_terminators_alone),
        cmocka_unit_test(test_read_stops_behind_the_end),
        cmocka_unit_test(test_plain_text_is_one_run),
        cmocka_unit_test(test_write),
        cmocka_unit_test(test_skip),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_random_wire),
        cmocka_unit_test(test_write_long_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
