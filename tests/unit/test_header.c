/* smtp/header.c: the fields and the body of a message, by offsets. Every vector runs whole, byte
 * by byte, and cut at every one and every two places. RFC 5322 2.2 and 4.5.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "smtp/header.h"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))
#define TEXT(literal) literal, sizeof(literal) - 1
#define FIELDS_MAX 4

typedef struct place_t {
    const char *name;
    size_t start, value, end;
} place_t;

typedef struct row_t {
    const char *text;
    size_t n;
    place_t fields[FIELDS_MAX];
    size_t body;
    int malformed;
} row_t;

#define X13 "XXXXXXXXXXXXX"
#define X78 X13 X13 X13 X13 X13 X13

static const row_t rows[] = {
    /* the end of the section: an empty line, or the end of the message */
    { TEXT(""), { { 0 } }, 0, 0 },
    { TEXT("\r\n"), { { 0 } }, 2, 0 },
    { TEXT("\r\nA: b\r\n"), { { 0 } }, 2, 0 },
    { TEXT("A: b\r\n\r\n"), { { "A", 0, 2, 6 } }, 8, 0 },
    { TEXT("A: b\r\n\r\nC: d\r\n\r\n"), { { "A", 0, 2, 6 } }, 8, 0 },
    { TEXT("A: b\r\nCc:d\r\n\r\nx"), { { "A", 0, 2, 6 }, { "Cc", 6, 9, 12 } }, 14, 0 },
    { TEXT("A: b\r\n"), { { "A", 0, 2, 6 } }, 6, 0 },
    { TEXT("A: b"), { { "A", 0, 2, 4 } }, 4, 0 },
    { TEXT("A: b\r"), { { "A", 0, 2, 5 } }, 5, 0 },
    { TEXT("A:"), { { "A", 0, 2, 2 } }, 2, 0 },
    { TEXT("A:\r\nB:\r\n\r\n"), { { "A", 0, 2, 4 }, { "B", 4, 6, 8 } }, 10, 0 },
    /* folding, also with lines of white space only */
    { TEXT("A: b\r\n c\r\n\td\r\n\r\n"), { { "A", 0, 2, 14 } }, 16, 0 },
    { TEXT("A:\r\n \r\n\r\n"), { { "A", 0, 2, 7 } }, 9, 0 },
    { TEXT("A:\r\n b\r\nC:d\r\n"), { { "A", 0, 2, 8 }, { "C", 8, 10, 13 } }, 13, 0 },
    { TEXT("A: b\r\n c: d"), { { "A", 0, 2, 11 } }, 11, 0 },
    { TEXT(" A: b\r\n\r\n"), { { 0 } }, 0, 1 },
    { TEXT("\tA: b\r\n\r\n"), { { 0 } }, 0, 1 },
    /* names */
    { TEXT("A \t: b\r\n\r\n"), { { "A", 0, 4, 8 } }, 10, 0 },
    { TEXT("!~: b\r\n\r\n"), { { "!~", 0, 3, 7 } }, 9, 0 },
    { TEXT(X78 ": b\r\n\r\n"), { { X78, 0, 79, 83 } }, 85, 0 },
    { TEXT("A:b\r\n" X78 "X: b\r\n\r\n"), { { "A", 0, 2, 5 } }, 5, 1 },
    { TEXT(": b\r\n\r\n"), { { 0 } }, 0, 1 },
    { TEXT("A:b\r\n: c\r\n\r\n"), { { "A", 0, 2, 5 } }, 5, 1 },
    { TEXT("From a@b Thu\r\nA: b\r\n\r\n"), { { 0 } }, 0, 1 },
    { TEXT("A: b\r\nno field\r\nC: d\r\n\r\n"), { { "A", 0, 2, 6 } }, 6, 1 },
    { TEXT("A\r\n\r\n"), { { 0 } }, 0, 1 },
    { TEXT("A\0: b\r\n\r\n"), { { 0 } }, 0, 1 },
    { TEXT("A\xff: b\r\n\r\n"), { { 0 } }, 0, 1 },
    { TEXT("A: b\r\nSubj"), { { "A", 0, 2, 6 } }, 6, 1 },
    { TEXT("A: b\r\nB "), { { "A", 0, 2, 6 } }, 6, 1 },
    /* values hold anything, and only CRLF ends a line */
    { TEXT("A: \0\xff:\r\n\r\n"), { { "A", 0, 2, 8 } }, 10, 0 },
    { TEXT("A: b\nC: d\n\nbody"), { { "A", 0, 2, 15 } }, 15, 0 },
    { TEXT("A: b\rC: d\r\r\n\r\n"), { { "A", 0, 2, 12 } }, 14, 0 },
    { TEXT("A:\r\r\r\nB:\n\n\r\n\r\n"), { { "A", 0, 2, 6 }, { "B", 6, 8, 12 } }, 14, 0 },
    { TEXT("A: b\r\n\rC: d\r\n\r\n"), { { "A", 0, 2, 6 } }, 6, 1 },
    { TEXT("A: b\r\n\r"), { { "A", 0, 2, 6 } }, 6, 1 },
    { TEXT("A: b\r\n\n"), { { "A", 0, 2, 6 } }, 6, 1 },
    { TEXT("A: b\r\n\r\r\n"), { { "A", 0, 2, 6 } }, 6, 1 },
};

typedef struct seen_t {
    const row_t *row;
    size_t n;
} seen_t;

static void check_field(void *baton, const smtp_field_t *f)
{
    seen_t *seen = baton;
    const place_t *want;

    assert_true(seen->n < FIELDS_MAX);
    want = &seen->row->fields[seen->n++];
    assert_non_null(want->name);
    assert_int_equal(f->name.n, strlen(want->name));
    assert_memory_equal(f->name.p, want->name, f->name.n);
    assert_int_equal(f->start, want->start);
    assert_int_equal(f->value, want->value);
    assert_int_equal(f->end, want->end);
}

/* A piece of its own for ASan; n may be 0. */
static void feed_copy(smtp_header_t *h, const char *p, size_t n)
{
    char *piece = malloc(n ? n : 1);

    memcpy(piece, p, n);
    smtp_header_feed(h, piece, n);
    free(piece);
}

static void check_end(smtp_header_t *h, const seen_t *seen)
{
    smtp_header_finish(h);
    assert_true(h->done);
    assert_int_equal(h->malformed, seen->row->malformed);
    assert_int_equal(h->body, seen->row->body);
    assert_true(seen->n == FIELDS_MAX || !seen->row->fields[seen->n].name);
}

static void check_cut(const row_t *row, size_t first, size_t second)
{
    seen_t seen = { .row = row };
    smtp_header_t h;

    smtp_header_init(&h, check_field, &seen);
    feed_copy(&h, row->text, first);
    feed_copy(&h, row->text + first, second - first);
    feed_copy(&h, row->text + second, row->n - second);
    check_end(&h, &seen);
}

static void check_bytes(const row_t *row)
{
    seen_t seen = { .row = row };
    smtp_header_t h;

    smtp_header_init(&h, check_field, &seen);
    for (size_t i = 0; i < row->n; i++) {
        feed_copy(&h, row->text + i, 1);
    }
    check_end(&h, &seen);
}

static void test_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        check_bytes(&rows[i]);
        for (size_t first = 0; first <= rows[i].n; first++) {
            for (size_t second = first; second <= rows[i].n; second++) {
                check_cut(&rows[i], first, second);
            }
        }
    }
}

/* The section is known to have ended with the octet that ends it, not later. */
static void test_done_at_once(void **state)
{
    static const row_t row = { TEXT("A: b\r\n\r\n"), { { "A", 0, 2, 6 } }, 8, 0 };
    seen_t seen = { .row = &row };
    smtp_header_t h;

    (void)state;
    smtp_header_init(&h, check_field, &seen);
    smtp_header_feed(&h, row.text, 7);
    assert_false(h.done);
    assert_int_equal(seen.n, 1);
    smtp_header_feed(&h, row.text + 7, 1);
    assert_true(h.done);
    smtp_header_feed(&h, row.text, row.n);
    assert_int_equal(h.offset, 8);
    check_end(&h, &seen);
}

/* What was taken of a line that is no field does not depend on the cuts either. */
static void test_offset_of_malformed(void **state)
{
    static const row_t row = { TEXT("A: b\r\nab;\0c"), { { "A", 0, 2, 6 } }, 6, 1 };

    (void)state;
    for (size_t cut = 0; cut <= row.n; cut++) {
        seen_t seen = { .row = &row };
        smtp_header_t h;

        smtp_header_init(&h, check_field, &seen);
        feed_copy(&h, row.text, cut);
        feed_copy(&h, row.text + cut, row.n - cut);
        assert_int_equal(h.offset, 9);
        check_end(&h, &seen);
    }
}

/* A small field, then one that fills the section up to the given number of octets, with its CRLF
 * and the empty line; then a body. In pieces of the given size. */
static void check_limit(size_t octets, size_t piece, const row_t *want)
{
    size_t n = octets + 10;
    char *text = malloc(n);
    seen_t seen = { .row = want };
    smtp_header_t h;

    memset(text, 'x', n);
    memcpy(text, "A: b\r\nB:", 8);
    memcpy(text + octets - 4, "\r\n\r\n", 4);
    smtp_header_init(&h, check_field, &seen);
    for (size_t at = 0; at < n; at += piece) {
        feed_copy(&h, text + at, piece < n - at ? piece : n - at);
    }
    assert_true(h.offset <= SMTP_HEADER_MAX);
    check_end(&h, &seen);
    free(text);
}

static void test_limit(void **state)
{
    static const size_t pieces[] = { 1, 7, 4096, SMTP_HEADER_MAX, SMTP_HEADER_MAX + 100 };
    const size_t max = SMTP_HEADER_MAX;
    const row_t fits = { "", 0, { { "A", 0, 2, 6 }, { "B", 6, 8, max - 2 } }, max, 0 };
    /* known to be complete, since the octet behind it is no folding */
    const row_t by_one = { "", 0, { { "A", 0, 2, 6 }, { "B", 6, 8, max - 1 } }, max - 1, 1 };
    const row_t by_two = { "", 0, { { "A", 0, 2, 6 } }, 6, 1 };

    (void)state;
    for (size_t i = 0; i < ROWS(pieces); i++) {
        check_limit(max, pieces[i], &fits);
        check_limit(max + 1, pieces[i], &by_one);
        check_limit(max + 2, pieces[i], &by_two);
        check_limit(max + 1000, pieces[i], &by_two);
    }
}

/* As many octets as are allowed and no empty line: the message may end there. */
static void test_limit_reached_by_the_message(void **state)
{
    const size_t max = SMTP_HEADER_MAX;
    const row_t want = { "", 0, { { "A", 0, 2, max } }, max, 0 };
    char *text = malloc(max);
    seen_t seen = { .row = &want };
    smtp_header_t h;

    (void)state;
    memset(text, 'x', max);
    memcpy(text, "A:", 2);
    smtp_header_init(&h, check_field, &seen);
    feed_copy(&h, text, max);
    smtp_header_feed(&h, "", 0);
    assert_false(h.done);
    check_end(&h, &seen);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_done_at_once),
        cmocka_unit_test(test_offset_of_malformed),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_limit_reached_by_the_message),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
