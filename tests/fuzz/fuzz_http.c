/* libFuzzer target for filters/http.c: what is made of an answer that comes octet by octet is what is
 * made of all of it at once, whatever stands behind.
 */
#include <stdint.h>
#include <stdlib.h>

#include <apr_general.h>

#include "filters/http.c"

#define LONGEST 2048 /* each of its beginnings is parsed */
#define CHECK(condition) ((condition) ? (void)0 : abort())

static apr_pool_t *pool;

static smtp_parse_e parse(const char *text, size_t n, int is_over, nssmtpd_http_answer_t *answer)
{
    smtp_parse_e rc;
    char *copy = malloc(n + !n); /* so that a sanitizer sees the end */

    memcpy(copy, text, n);
    *answer = (nssmtpd_http_answer_t){ 0 };
    rc = nssmtpd_http_parse(pool, (smtp_span_t){ copy, n }, is_over, answer);
    if (rc == SMTP_OK) {
        CHECK(answer->status >= 100 && answer->status <= 599 && answer->body.n <= n);
        answer->body.p = apr_pmemdup(pool, answer->body.p, answer->body.n);
    }
    free(copy);
    return rc;
}

static void check_same(const nssmtpd_http_answer_t *a, const nssmtpd_http_answer_t *b)
{
    CHECK(a->status == b->status && strcmp(a->server, b->server) == 0);
    CHECK(a->body.n == b->body.n && memcmp(a->body.p, b->body.p, a->body.n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    nssmtpd_http_answer_t first, whole;
    smtp_parse_e rc = SMTP_MORE;
    size_t n;

    if (size > LONGEST) {
        return 0;
    }
    if (!pool) { /* the first input */
        apr_initialize();
        apr_pool_create(&pool, NULL);
    }
    for (n = 0; n <= size && rc == SMTP_MORE; n++) {
        rc = parse(text, n, 0, &first);
    }
    if (rc != SMTP_MORE) {
        CHECK(parse(text, size, 1, &whole) == rc);
    }
    if (rc == SMTP_OK) {
        check_same(&first, &whole);
    }
    apr_pool_clear(pool);
    return 0;
}
