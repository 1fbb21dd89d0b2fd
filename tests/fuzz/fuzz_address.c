/* Fuzz target: a path as it stands behind "MAIL FROM:". What was taken for an address
 * must be clean, must parse to itself in every other form, and must unquote into the
 * room that the contract names. Covers smtp/address.c.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/address.h"
#include "smtp/limits.h"

/* Not assert(): it must hold in a build with NDEBUG too. */
#define HOLDS(condition) ((condition) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int same(smtp_span_t a, smtp_span_t b)
{
    return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

static void within(smtp_span_t span, const char *start, const char *end)
{
    HOLDS(span.p && span.p >= start && span.p <= end && span.n <= (size_t)(end - span.p));
}

static void check_clean(smtp_span_t text)
{
    const char *at = text.p;

    HOLDS(smtp_chars_skip(&at, text.p + text.n, SMTP_CHAR_TEXT) == text.n);
    HOLDS(text.n <= SMTP_PATH_MAX - 2);
}

/* text is local, or local "@" domain, without an octet more. */
static void check_parts(const smtp_address_t *a)
{
    HOLDS(a->local.p == a->text.p);
    if (a->domain.n == 0) {
        HOLDS(a->text.n == a->local.n);
        HOLDS(a->text.n == 0 || smtp_span_is(a->text, "postmaster"));
        return;
    }
    HOLDS(a->local.n > 0 && a->domain.p[-1] == '@');
    HOLDS(a->text.n == a->local.n + 1 + a->domain.n);
    HOLDS(a->domain.p == a->local.p + a->local.n + 1);
    HOLDS(a->domain.n <= SMTP_DOMAIN_MAX && a->domain.p[a->domain.n - 1] != '.');
    HOLDS(smtp_address_check_domain(a->domain) == SMTP_OK);
}

static void check_same(const smtp_address_t *a, const smtp_address_t *b)
{
    HOLDS(same(a->text, b->text) && same(a->local, b->local) && same(a->domain, b->domain));
}

/* As it is written to a relay, with a parameter behind it. */
static void check_again(const smtp_address_t *a)
{
    char path[SMTP_PATH_MAX + 2];
    const char *at = path;
    const char *behind = path + a->text.n + 3;
    smtp_address_t again;

    path[0] = '<';
    memcpy(path + 1, a->text.p, a->text.n);
    memcpy(path + 1 + a->text.n, "> X", 3);
    HOLDS(smtp_address_parse(&again, &at, behind + 1) == SMTP_OK && at == behind);
    check_same(a, &again);
    if (a->domain.n > 0) {
        HOLDS(smtp_address_parse_mailbox(&again, a->text) == SMTP_OK);
        check_same(a, &again);
    }
}

static void check_unquote(const smtp_address_t *a)
{
    char whole[SMTP_PATH_MAX], part[SMTP_PATH_MAX];
    size_t n = smtp_address_unquote(a, whole, sizeof whole);
    size_t room, got;

    HOLDS(n <= a->local.n && whole[n] == '\0' && strlen(whole) == n);
    for (room = 1; room <= n + 1; room += 1 + room / 2) {
        got = smtp_address_unquote(a, part, room);
        HOLDS(got == (n < room ? n : room - 1));
        HOLDS(memcmp(part, whole, got) == 0 && part[got] == '\0');
    }
    if (strpbrk(whole, "%!@")) {
        HOLDS(smtp_address_is_routed(a));
    }
}

static void check_path(const char *start, const char *end)
{
    const char *at = start;
    smtp_address_t a;
    smtp_parse_e result = smtp_address_parse(&a, &at, end);

    HOLDS(result != SMTP_MORE && at >= start && at <= end);
    within(a.text, start, at);
    within(a.local, start, at);
    within(a.domain, start, at);
    if (result == SMTP_BAD) {
        HOLDS(a.text.n == 0 && a.local.n == 0 && a.domain.n == 0);
        return;
    }
    HOLDS(at == end || smtp_char_is_blank(at[-1]));
    check_clean(a.text);
    check_parts(&a);
    check_again(&a);
    check_unquote(&a);
}

static void check_whole(smtp_span_t text)
{
    smtp_address_t a;

    if (smtp_address_parse_mailbox(&a, text) == SMTP_OK) {
        HOLDS(a.domain.n > 0 && text.n - a.text.n <= 1); /* but for a final dot */
        check_clean(a.text);
        check_parts(&a);
        check_again(&a);
    }
    if (smtp_address_check_domain(text) == SMTP_OK) {
        const char *at = text.p;

        HOLDS(text.n > 0 && text.n <= SMTP_DOMAIN_MAX + 1);
        HOLDS(smtp_chars_skip(&at, text.p + text.n, SMTP_CHAR_TEXT) == text.n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    smtp_span_t text = {size ? (const char *)data : "", size};

    check_path(text.p, text.p + text.n);
    check_whole(text);
    return 0;
}
