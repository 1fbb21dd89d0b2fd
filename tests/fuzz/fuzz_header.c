/* libFuzzer target for smtp/header.c. The first six octets say where the rest is cut. Fields and
 * body must be the same in these pieces and whole, and must lie in the message as smtp/header.h
 * says: fields end to end, each with its name and colon, then the empty line and the body.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/header.h"

#define CUTS 6
#define FIELDS_MAX 2000 /* the input is short: more cannot be checked, and need not be */
#define CHECK(condition) ((condition) ? (void)0 : abort())

typedef struct scan_t {
    const char *text;
    size_t n, fields, end;
    smtp_field_t field[FIELDS_MAX];
    smtp_header_t h;
} scan_t;

static int is_crlf(const scan_t *scan, size_t at)
{
    return at + 2 <= scan->n && memcmp(scan->text + at, "\r\n", 2) == 0;
}

/* No line of a field may begin anything but the field or a folding. */
static void check_folding(const scan_t *scan, const smtp_field_t *f)
{
    for (size_t i = f->value; i + 2 < f->end; i++) {
        if (is_crlf(scan, i)) {
            CHECK(scan->text[i + 2] == ' ' || scan->text[i + 2] == '\t');
        }
    }
}

static void check_field(void *baton, const smtp_field_t *f)
{
    scan_t *scan = baton;

    CHECK(f->start == scan->end && f->start < f->value && f->value <= f->end && f->end <= scan->n);
    CHECK(f->name.n > 0 && f->name.n <= SMTP_FIELD_NAME_MAX);
    CHECK(f->name.n < f->value - f->start && scan->text[f->value - 1] == ':');
    CHECK(memcmp(f->name.p, scan->text + f->start, f->name.n) == 0);
    CHECK(!memchr(f->name.p, ':', f->name.n) && !memchr(f->name.p, ' ', f->name.n));
    CHECK(f->end == scan->n || is_crlf(scan, f->end - 2));
    check_folding(scan, f);
    scan->end = f->end;
    if (scan->fields < FIELDS_MAX) {
        scan->field[scan->fields] = *f;
        scan->field[scan->fields].name.p = scan->text + f->start;
    }
    scan->fields++;
}

/* The next cut: a few octets on, or for large numbers a share of the rest. */
static size_t cut_length(uint8_t cut, size_t rest)
{
    size_t n = cut < 128 ? cut : rest * (cut - 127) / 128;

    return n < rest ? n : rest;
}

static void feed_copy(smtp_header_t *h, const char *p, size_t n)
{
    char *piece = malloc(n ? n : 1);

    memcpy(piece, p, n);
    smtp_header_feed(h, piece, n);
    free(piece);
}

static scan_t *scan_all(const char *p, size_t n, const uint8_t *cuts, int pieces)
{
    scan_t *scan = calloc(1, sizeof(*scan));

    scan->text = p;
    scan->n = n;
    smtp_header_init(&scan->h, check_field, scan);
    for (int i = 0; i <= pieces; i++) {
        size_t k = i < pieces ? cut_length(cuts[i], n) : n;

        feed_copy(&scan->h, p, k);
        p += k;
        n -= k;
    }
    smtp_header_finish(&scan->h);
    return scan;
}

static void check_body(const scan_t *scan)
{
    const smtp_header_t *h = &scan->h;

    CHECK(h->done && h->body <= scan->n);
    if (h->malformed) {
        CHECK(h->body == scan->end && h->body < scan->n);
    }
    else if (h->body != scan->end) {
        CHECK(h->body == scan->end + 2 && is_crlf(scan, scan->end));
    }
    else {
        CHECK(h->body == scan->n);
    }
}

static void check_same(const scan_t *a, const scan_t *b)
{
    CHECK(a->fields == b->fields && a->h.body == b->h.body);
    CHECK(a->h.malformed == b->h.malformed && a->h.offset == b->h.offset);
    for (size_t i = 0; i < a->fields && i < FIELDS_MAX; i++) {
        CHECK(memcmp(&a->field[i], &b->field[i], sizeof(a->field[i])) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size >= CUTS) {
        const char *p = (const char *)data + CUTS;
        scan_t *whole = scan_all(p, size - CUTS, data, 0);
        scan_t *cut = scan_all(p, size - CUTS, data, CUTS);

        check_body(whole);
        check_same(whole, cut);
        free(whole);
        free(cut);
    }
    return 0;
}
