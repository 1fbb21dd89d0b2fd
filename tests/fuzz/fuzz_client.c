/* Fuzz target: what a relay sends. The first octet seeds the cuts, the rest is read as replies,
 * whole, cut at random and octet by octet, with the same result; each reply is judged for every
 * step, and what the client would hear is checked. Covers smtp/client.c.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <apr_general.h>
#include <apr_strings.h>

#include "smtp/client.h"

/* Not assert(): it must hold in a build with NDEBUG too. */
#define HOLDS(condition) ((condition) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct session_t {
    smtp_client_t cl;
    apr_pool_t *p;
    apr_bucket_brigade *seen; /* the replies as we would say them */
    smtp_parse_e last;
} session_t;

static void check_text(const char *text)
{
    int lines = 1;

    for (; *text; text++) {
        HOLDS(*text == '\n' || smtp_char_is(*text, SMTP_CHAR_TEXT));
        lines += *text == '\n';
    }
    HOLDS(lines <= SMTP_REPLY_LINES_MAX);
}

static void check_reply(const smtp_reply_t *reply)
{
    HOLDS(reply->code >= 200 && reply->code <= 599);
    HOLDS((reply->code / 100 == 3) == (*reply->enhanced == '\0'));
    HOLDS(!*reply->enhanced
          || smtp_reply_find_enhanced(reply->enhanced, reply->code) == strlen(reply->enhanced));
    check_text(reply->text);
}

/* RFC 5321 4.2.1, and our own promise: no fault of a relay's is anything but 4yz. */
static void check_judgement(const smtp_reply_t *reply, smtp_step_e step, apr_pool_t *p)
{
    const smtp_reply_t *heard = NULL;
    smtp_verdict_e verdict = smtp_client_judge(step, reply, p, &heard);

    HOLDS(heard);
    check_reply(heard);
    if (verdict == SMTP_VERDICT_TAKEN) {
        HOLDS(reply->code / 100 == smtp_step(step)->expect);
        return;
    }
    HOLDS(reply->code / 100 != smtp_step(step)->expect);
    HOLDS(heard->code >= 400 && heard->code != 421);
    HOLDS(verdict == SMTP_VERDICT_REFUSED || heard->code == 451);
    HOLDS(verdict == SMTP_VERDICT_FAULT || heard->code / 100 == reply->code / 100);
    HOLDS(heard->code < 500 || !smtp_step(step)->ours);
}

static void take_reply(session_t *s, const smtp_reply_t *reply)
{
    smtp_step_e step;

    check_reply(reply);
    for (step = 0; step < SMTP_STEP_COUNT; step++) {
        check_judgement(reply, step, s->p);
    }
    smtp_client_take_capabilities(&s->cl, reply);
    apr_brigade_printf(s->seen, NULL, NULL, "%u ", s->cl.capabilities);
    smtp_reply_put(s->seen, reply);
}

/* The piece is copied, so that a look at what is gone shows. */
static void feed(session_t *s, const uint8_t *data, size_t n)
{
    char *piece = malloc(n);
    const char *at = piece;
    smtp_reply_t reply;

    HOLDS(piece);
    memcpy(piece, data, n);
    do {
        const char *before = at;

        s->last = smtp_client_read(&s->cl, s->p, &at, piece + n, &reply);
        HOLDS(at >= before && at <= piece + n);
        HOLDS(s->cl.line_len <= SMTP_RELAY_LINE_MAX && s->cl.lines <= SMTP_REPLY_LINES_MAX + 1);
        if (s->last == SMTP_OK) {
            HOLDS(at > before);
            take_reply(s, &reply);
        }
    } while (s->last == SMTP_OK);
    HOLDS(s->last == SMTP_BAD || at == piece + n);
    free(piece);
}

/* Pieces of 1 to most octets, until something is no SMTP. Returns all replies read. */
static char *run(apr_pool_t *p, const uint8_t *data, size_t size, size_t most)
{
    session_t s;
    uint32_t cuts = data[0];
    size_t at, n;
    char *seen;
    apr_size_t seen_n;

    memset(&s, 0, sizeof(s));
    s.p = p;
    s.seen = apr_brigade_create(p, apr_bucket_alloc_create(p));
    for (at = 1; at < size && s.last != SMTP_BAD; at += n) {
        cuts = cuts * 1664525u + 1013904223u;
        n = 1 + (cuts >> 16) % most;
        n = most == size || n > size - at ? size - at : n;
        feed(&s, data + at, n);
    }
    apr_brigade_printf(s.seen, NULL, NULL, "%d", s.last == SMTP_BAD);
    HOLDS(apr_brigade_pflatten(s.seen, &seen, &seen_n, p) == APR_SUCCESS);
    return apr_pstrmemdup(p, seen, seen_n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int initialized;
    apr_pool_t *p;
    char *whole;

    if (size < 1) {
        return 0;
    }
    if (!initialized) {
        initialized = apr_initialize() == APR_SUCCESS;
    }
    apr_pool_create(&p, NULL);
    whole = run(p, data, size, size);
    HOLDS(strcmp(run(p, data, size, 60), whole) == 0);
    HOLDS(strcmp(run(p, data, size, 1), whole) == 0);
    apr_pool_destroy(p);
    return 0;
}
