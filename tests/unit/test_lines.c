/* smtp/lines.c: text made the lines of a message. Every vector runs whole, byte by byte, and cut
 * at every one and every two places; pieces are copied, so that ASan sees a look beyond them.
 * Random text must come out as dot_model.h, which knows nothing of pieces, has it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "smtp/lines.h"
#include "tests/unit/dot_model.h"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))
#define TEXT(literal) literal, sizeof(literal) - 1

typedef struct row_t {
    const char *text;
    size_t n;
    const char *message;
    size_t message_n;
    size_t dots;
    int is_8bit;
} row_t;

static const row_t rows[] = {
    { TEXT(""), TEXT(""), 0, 0 },
    { TEXT("\r\n"), TEXT("\r\n"), 0, 0 },
    { TEXT("\n"), TEXT("\r\n"), 0, 0 },
    { TEXT("\r"), TEXT("\r\n"), 0, 0 },
    { TEXT("a"), TEXT("a\r\n"), 0, 0 },
    { TEXT("a\n"), TEXT("a\r\n"), 0, 0 },
    { TEXT("a\r"), TEXT("a\r\n"), 0, 0 },
    { TEXT("a\r\nb\r\n"), TEXT("a\r\nb\r\n"), 0, 0 },
    { TEXT("a\r\nb"), TEXT("a\r\nb\r\n"), 0, 0 },
    { TEXT("a\nb\nc"), TEXT("a\r\nb\r\nc\r\n"), 0, 0 },
    { TEXT("\n\n\n"), TEXT("\r\n\r\n\r\n"), 0, 0 },
    { TEXT("\r\r\r"), TEXT("\r\n\r\n\r\n"), 0, 0 },
    { TEXT("\n\r"), TEXT("\r\n\r\n"), 0, 0 },
    { TEXT("\r\r\n"), TEXT("\r\n\r\n"), 0, 0 },
    { TEXT("\r\n\r"), TEXT("\r\n\r\n"), 0, 0 },
    { TEXT("\r\n\n"), TEXT("\r\n\r\n"), 0, 0 },
    { TEXT("a\rb\nc\r\nd"), TEXT("a\r\nb\r\nc\r\nd\r\n"), 0, 0 },
    { TEXT(".\n..\na.\n"), TEXT(".\r\n..\r\na.\r\n"), 2, 0 },
    { TEXT("a\r.b\n.c\r\n.d"), TEXT("a\r\n.b\r\n.c\r\n.d\r\n"), 3, 0 },
    { TEXT("a\r\n.\r\nMAIL"), TEXT("a\r\n.\r\nMAIL\r\n"), 1, 0 },
    { TEXT("a\0b\n"), TEXT("a\0b\r\n"), 0, 0 },
    { TEXT("\x7f\x01\n"), TEXT("\x7f\x01\r\n"), 0, 0 },
    { TEXT("a\nb\x80"), TEXT("a\r\nb\x80\r\n"), 0, 1 },
    { TEXT("\xff\r\nb\r\n"), TEXT("\xff\r\nb\r\n"), 0, 1 },
};

/* Where the text is cut: at two places, or (each) behind every octet. */
typedef struct cuts_t {
    size_t at[2];
    int each;
} cuts_t;

typedef struct result_t {
    smtp_lines_t l;
    char *text;
    size_t n;
    int runs;
} result_t;

static void keep(result_t *r, smtp_span_t out)
{
    model_t m = { .text = r->text, .n = r->n };

    model_add(&m, out.p, out.n);
    r->n = m.n;
    r->runs++;
}

static void take_piece(result_t *r, const char *p, size_t n)
{
    char *piece = malloc(n);
    const char *at = piece;
    smtp_span_t out;

    memcpy(piece, p, n);
    while (at < piece + n) {
        smtp_lines_next(&r->l, &at, piece + n, &out);
        assert_true(out.n > 0);
        keep(r, out);
    }
    free(piece);
}

static size_t piece_end(const cuts_t *cuts, size_t from, size_t n)
{
    if (cuts->each) {
        return from + 1;
    }
    for (int i = 0; i < 2; i++) {
        if (cuts->at[i] > from && cuts->at[i] < n) {
            return cuts->at[i];
        }
    }
    return n;
}

static result_t take_cut(const char *text, size_t n, const cuts_t *cuts)
{
    result_t r = { .text = malloc(2 * n + 2) };

    smtp_lines_init(&r.l);
    for (size_t from = 0, next; from < n; from = next) {
        next = piece_end(cuts, from, n);
        take_piece(&r, text + from, next - from);
    }
    keep(&r, smtp_lines_end(&r.l));
    return r;
}

static void check_row(const row_t *row, const cuts_t *cuts)
{
    result_t r = take_cut(row->text, row->n, cuts);

    assert_int_equal(r.n, row->message_n);
    assert_memory_equal(r.text, row->message, r.n);
    assert_int_equal(r.l.dots, row->dots);
    assert_int_equal(r.l.is_8bit, row->is_8bit);
    free(r.text);
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        cuts_t cuts = { { 0, 0 }, 1 };

        check_row(&rows[i], &cuts);
        cuts.each = 0;
        for (cuts.at[0] = 0; cuts.at[0] <= rows[i].n; cuts.at[0]++) {
            for (cuts.at[1] = cuts.at[0]; cuts.at[1] <= rows[i].n; cuts.at[1]++) {
                check_row(&rows[i], &cuts);
            }
        }
    }
}

/* What is canonical already is given as it stands, in one piece: nothing has to be copied. */
static void test_canonical_text_is_one_run(void **state)
{
    static const char text[] = "Subject: x\r\n\r\n.one\r\n\r\ntwo\r\n";
    const char *at = text, *end = text + sizeof(text) - 1;
    smtp_lines_t l;
    smtp_span_t out;

    (void)state;
    smtp_lines_init(&l);
    smtp_lines_next(&l, &at, end, &out);
    assert_ptr_equal(at, end);
    assert_ptr_equal(out.p, text);
    assert_int_equal(out.n, sizeof(text) - 1);
    assert_int_equal(smtp_lines_end(&l).n, 0);
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

static void check_model(const char *text, size_t n, const cuts_t *cuts)
{
    model_t m = model_canonical(text, n);
    result_t r = take_cut(text, n, cuts);
    size_t dots = 0;

    for (size_t i = 0; i < m.n; i++) {
        dots += m.text[i] == '.' && (i == 0 || m.text[i - 1] == '\n');
    }
    assert_int_equal(r.n, m.n);
    assert_memory_equal(r.text, m.text, m.n);
    assert_int_equal(r.l.dots, dots);
    assert_int_equal(r.l.is_8bit, n && memchr(text, '\xff', n) != NULL);
    free(m.text);
    free(r.text);
}

static void test_random_text(void **state)
{
    char text[64];

    (void)state;
    for (uint32_t i = 1; i <= 20000; i++) {
        uint32_t seed = i;
        size_t n = next_random(&seed) % sizeof(text);
        cuts_t cuts = { { n ? next_random(&seed) % n : 0, n }, (int)(next_random(&seed) % 2) };

        fill(text, n, &seed);
        check_model(text, n, &cuts);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_canonical_text_is_one_run),
        cmocka_unit_test(test_random_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
