/* libFuzzer target for smtp/encode.c. What is encoded must be of its form and decode to the same;
 * any text may be given to the decoders, and what they make of it must survive a round trip.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <apr_general.h>

#include "smtp/encode.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())

typedef struct text_t {
    const char *p;
    apr_size_t n;
} text_t;

static int is_same(text_t a, text_t b)
{
    return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

/* Lines of quoted-printable: 76 printable octets at most, no blank last (RFC 2045 6.7). */
static void check_lines(text_t text)
{
    apr_size_t line = 0;

    for (apr_size_t i = 0; i <= text.n; i++) {
        if (i == text.n || (text.p[i] == '\r' && i + 1 < text.n && text.p[i + 1] == '\n')) {
            CHECK(i - line <= 76 && (i == line || text.p[i - 1] != ' '));
            line = ++i + 1;
        }
        else {
            CHECK(text.p[i] >= ' ' && text.p[i] < 127);
        }
    }
}

static void check_encode(apr_pool_t *p, const smtp_encoding_t *type, text_t plain)
{
    text_t coded, again;

    CHECK(type->encode(p, plain.p, plain.n, &coded.p, &coded.n) == APR_SUCCESS);
    CHECK(type->decode(p, coded.p, coded.n, &again.p, &again.n) == APR_SUCCESS);
    CHECK(is_same(plain, again));
    if (strcmp(type->name, "qprint") == 0) {
        check_lines(coded);
    }
}

static void check_decode(apr_pool_t *p, const smtp_encoding_t *type, text_t text)
{
    text_t plain, coded, again;
    apr_status_t rv = type->decode(p, text.p, text.n, &plain.p, &plain.n);

    CHECK(plain.p ? rv == APR_SUCCESS && plain.n <= text.n : rv == APR_EINVAL);
    if (plain.p) {
        CHECK(type->encode(p, plain.p, plain.n, &coded.p, &coded.n) == APR_SUCCESS);
        CHECK(type->decode(p, coded.p, coded.n, &again.p, &again.n) == APR_SUCCESS);
        CHECK(is_same(plain, again));
    }
    else {
        CHECK(strcmp(type->name, "qprint") != 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    text_t text = { (const char *)data, size };
    apr_pool_t *p;

    apr_initialize();
    apr_pool_create(&p, NULL);
    for (const smtp_encoding_t *type = smtp_encodings; type->name; type++) {
        check_encode(p, type, text);
        check_decode(p, type, text);
    }
    apr_pool_destroy(p);
    apr_terminate();
    return 0;
}
