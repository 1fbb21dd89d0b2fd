/* smtp/sasl.c: whole AUTH exchanges by a table (RFC 4954 4, RFC 4616), and strict base64 (RFC 4648
 * 4 and 10). Every input is copied to memory of its own size, so that ASan sees a look beyond it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <apr_encode.h>
#include <apr_general.h>
#include <apr_strings.h>

#include "smtp/sasl.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define IN(literal) literal, sizeof(literal) - 1

static apr_pool_t *pool;
static apr_bucket_alloc_t *ba;

/* Exchanges */

enum { DONE = 0, NOBODY = 1, USER = 3341, PASSWORD = 3342, EMPTY = 3340 };

typedef struct exchange_t {
    const char *lines[4];   /* arguments of AUTH, then responses; NULL ends them */
    int ends;               /* DONE, NOBODY, a row of smtp_reply_e, or the challenge it stops at */
    const char *user, *password;
} exchange_t;

#define REFUSED(reply) (-(int)SMTP_REPLY_##reply)

static const exchange_t exchanges[] = {
    /* PLAIN, with a first response and without */
    { { "PLAIN AHVzZXIAcGFzcw==" }, DONE, "user", "pass" },
    { { "plain AHVzZXIAcGFzcw==" }, DONE, "user", "pass" },
    { { "PLAIN   AHVzZXIAcGFzcw==" }, DONE, "user", "pass" },
    { { "PLAIN" }, EMPTY, NULL, NULL },
    { { "PLAIN", "AHVzZXIAcGFzcw==" }, DONE, "user", "pass" },
    { { "PLAIN", "AGEAYiBjAA==" }, REFUSED(BAD_BASE64), NULL, NULL },    /* a third NUL */
    { { "PLAIN", "AGEAYiBj" }, DONE, "a", "b c" },
    { { "PLAIN", "AMO8AP8=" }, DONE, "\xc3\xbc", "\xff" },
    /* authzid: the user's own name or none */
    { { "PLAIN dXNlcgB1c2VyAHBhc3M=" }, DONE, "user", "pass" },
    { { "PLAIN cm9vdAB1c2VyAHBhc3M=" }, NOBODY, "user", "pass" },
    { { "PLAIN dXNlAHVzZXIAcGFzcw==" }, NOBODY, "user", "pass" },               /* "use" */
    { { "PLAIN dXNlcnMAdXNlcgBwYXNz" }, NOBODY, "user", "pass" },               /* "users" */
    /* too few and too many NULs, empty parts */
    { { "PLAIN =" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN", "" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN", "=" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN dXNlcg==" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN AHVzZXI=" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN AA==" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN AAA=" }, NOBODY, "", "" },
    { { "PLAIN AHVzZXIA" }, NOBODY, "user", "" },                           /* no password */
    { { "PLAIN AABwYXNz" }, NOBODY, "", "pass" },                           /* no user */
    { { "PLAIN AHUAcAAA" }, REFUSED(BAD_BASE64), NULL, NULL },
    /* what is no base64 */
    { { "PLAIN AHVzZXIAcGFzcw=" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN AHVzZXIAcGFzcw" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN AHVz!XIAcGFzcw==" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN AHVzZXIAcGFzcw== x" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN AHVz ZXIAcGFzcw==" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN", " AHVzZXIAcGFzcw==" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN", "AHVzZXIAcGFzcw== " }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN", "user pass" }, REFUSED(BAD_BASE64), NULL, NULL },
    /* LOGIN */
    { { "LOGIN" }, USER, NULL, NULL },
    { { "LOGIN", "dXNlcg==" }, PASSWORD, NULL, NULL },
    { { "LOGIN dXNlcg==" }, PASSWORD, NULL, NULL },
    { { "LOGIN", "dXNlcg==", "cGFzcw==" }, DONE, "user", "pass" },
    { { "LOGIN dXNlcg==", "cGFzcw==" }, DONE, "user", "pass" },
    { { "login", "dXNlcg==", "Kg==" }, DONE, "user", "*" },
    { { "LOGIN =" }, PASSWORD, NULL, NULL },
    { { "LOGIN =", "cGFzcw==" }, NOBODY, "", "pass" },
    { { "LOGIN", "", "cGFzcw==" }, NOBODY, "", "pass" },
    { { "LOGIN", "dXNlcg==", "" }, NOBODY, "user", "" },
    { { "LOGIN", "dXNlcgA=" }, REFUSED(BAD_BASE64), NULL, NULL },         /* NUL in the user */
    { { "LOGIN", "dXNlcg==", "cGEAc3M=" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "LOGIN", "user?" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "LOGIN", "dXNlcg==", "pass?" }, REFUSED(BAD_BASE64), NULL, NULL },
    /* cancelled */
    { { "PLAIN", "*" }, REFUSED(AUTH_CANCELLED), NULL, NULL },
    { { "LOGIN", "*" }, REFUSED(AUTH_CANCELLED), NULL, NULL },
    { { "LOGIN", "dXNlcg==", "*" }, REFUSED(AUTH_CANCELLED), NULL, NULL },
    { { "PLAIN *" }, REFUSED(BAD_BASE64), NULL, NULL },                   /* not a response */
    { { "PLAIN", "**" }, REFUSED(BAD_BASE64), NULL, NULL },
    { { "PLAIN", "* " }, REFUSED(BAD_BASE64), NULL, NULL },
    /* other mechanisms */
    { { "CRAM-MD5" }, REFUSED(UNKNOWN_MECHANISM), NULL, NULL },
    { { "PLAINX AHVzZXIAcGFzcw==" }, REFUSED(UNKNOWN_MECHANISM), NULL, NULL },
    { { "PLAI" }, REFUSED(UNKNOWN_MECHANISM), NULL, NULL },
    { { "PLAIN=AHVzZXIAcGFzcw==" }, REFUSED(UNKNOWN_MECHANISM), NULL, NULL },
    { { "" }, REFUSED(UNKNOWN_MECHANISM), NULL, NULL },
    { { " PLAIN" }, REFUSED(UNKNOWN_MECHANISM), NULL, NULL },
};

static smtp_span_t copy_of(const char *text, size_t n)
{
    char *p = malloc(n ? n : 1);

    assert_non_null(p);
    return (smtp_span_t){ memcpy(p, text, n), n };
}

static const smtp_reply_t *say(smtp_sasl_t *sasl, const char *line, size_t n, int is_first)
{
    smtp_span_t span = copy_of(line, n);
    const smtp_reply_t *reply = is_first ? smtp_sasl_start(sasl, span, ba)
                                         : smtp_sasl_respond(sasl, span, ba);

    free((char *)span.p);
    return reply;
}

static void check_end(const smtp_sasl_t *sasl, const smtp_reply_t *reply, const exchange_t *row)
{
    static const char *const challenges[] = { "", "VXNlcm5hbWU6", "UGFzc3dvcmQ6" };

    if (row->ends == DONE || row->ends == NOBODY) {
        assert_null(reply);
        assert_int_equal(sasl->is_nobody, row->ends == NOBODY);
        assert_string_equal(sasl->user, row->user);
        assert_string_equal(sasl->password, row->password);
        return;
    }
    if (row->ends < 0) {
        assert_ptr_equal(reply, smtp_reply(-row->ends));
        assert_null(sasl->mechanism);
        assert_true(!sasl->user && !sasl->password);
        return;
    }
    assert_non_null(reply);
    assert_int_equal(reply->code, 334);
    assert_string_equal(reply->enhanced, ""); /* RFC 2034: none on a 3yz */
    assert_string_equal(reply->text, challenges[row->ends - EMPTY]);
    assert_non_null(sasl->mechanism);
}

static void test_exchanges(void **state)
{
    size_t i;
    int j;

    (void)state;
    for (i = 0; i < COUNT(exchanges); i++) {
        const exchange_t *row = &exchanges[i];
        const smtp_reply_t *reply = NULL;
        smtp_sasl_t sasl = { 0 };

        for (j = 0; row->lines[j]; j++) {
            assert_true(j == 0 || (reply && reply->code == 334)); /* each line was asked for */
            reply = say(&sasl, row->lines[j], strlen(row->lines[j]), j == 0);
        }
        check_end(&sasl, reply, row);
        smtp_sasl_end(&sasl);
        smtp_sasl_end(&sasl);
        assert_true(!sasl.mechanism && !sasl.user && !sasl.password && !sasl.step);
        assert_false(sasl.is_nobody);
    }
}

/* One exchange after another in the same structure: nothing of the first is left. */
static void test_again(void **state)
{
    smtp_sasl_t sasl = { 0 };

    (void)state;
    assert_int_equal(say(&sasl, IN("LOGIN dXNlcg=="), 1)->code, 334);
    assert_int_equal(say(&sasl, IN("*"), 0)->code, 501);
    assert_int_equal(say(&sasl, IN("LOGIN"), 1)->code, 334);
    assert_int_equal(say(&sasl, IN("b3RoZXI="), 0)->code, 334);
    assert_null(say(&sasl, IN("c2VjcmV0"), 0));
    assert_string_equal(sasl.user, "other");
    assert_string_equal(sasl.password, "secret");
    smtp_sasl_end(&sasl);
}

/* A response of so many octets of user and of password. */
static const smtp_reply_t *say_long(smtp_sasl_t *sasl, size_t user, size_t password)
{
    size_t n = user + password + 2;
    char *octets = apr_palloc(pool, n);
    const char *line;

    memset(octets, 'x', n);
    octets[0] = octets[user + 1] = '\0';
    line = apr_pstrcat(pool, "PLAIN ", apr_pencode_base64_binary(pool, (unsigned char *)octets, n,
                                                                 0, NULL), NULL);
    return say(sasl, line, strlen(line), 1);
}

static void test_long(void **state)
{
    static const struct {
        size_t user, password;
        int fits;
    } lengths[] = {
        { 1, 1, 1 },     { 1023, 1, 1 },    { 1, 1023, 1 },    { 1023, 1023, 1 },
        { 1024, 1, 0 },  { 1, 1024, 0 },    { 4000, 4000, 0 },
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(lengths); i++) {
        smtp_sasl_t sasl = { 0 };
        const smtp_reply_t *reply = say_long(&sasl, lengths[i].user, lengths[i].password);

        assert_null(reply);
        assert_int_equal(sasl.is_nobody, !lengths[i].fits);
        assert_int_equal(strlen(sasl.user), lengths[i].user);
        assert_int_equal(strlen(sasl.password), lengths[i].password);
        smtp_sasl_end(&sasl);
    }
}

/* base64 */

static const struct {
    const char *text;
    size_t text_n;
    const char *octets; /* NULL: it is none */
    size_t n;
} codes[] = {
    /* RFC 4648 10 */
    { IN(""), IN("") },
    { IN("Zg=="), IN("f") },
    { IN("Zm8="), IN("fo") },
    { IN("Zm9v"), IN("foo") },
    { IN("Zm9vYg=="), IN("foob") },
    { IN("Zm9vYmE="), IN("fooba") },
    { IN("Zm9vYmFy"), IN("foobar") },
    { IN("AAAA"), IN("\0\0\0") },
    { IN("+/+/"), IN("\xfb\xff\xbf") },
    { IN("Zm=="), IN("f") }, /* RFC 4648 3.5: bits beyond the last octet may be refused, are not */
    { IN("Z"), NULL, 0 },
    { IN("Zg"), NULL, 0 },
    { IN("Zg="), NULL, 0 },
    { IN("Zm8"), NULL, 0 },
    { IN("Zg==="), NULL, 0 },
    { IN("Zm9v="), NULL, 0 },
    { IN("Zm9v===="), NULL, 0 },
    { IN("="), NULL, 0 },
    { IN("=="), NULL, 0 },
    { IN("===="), NULL, 0 },
    { IN("Z==="), NULL, 0 },
    { IN("Zg==Zg=="), NULL, 0 },
    { IN("Zg=v"), NULL, 0 },
    { IN("=m9v"), NULL, 0 },
    { IN("Zm9v\r\n"), NULL, 0 },
    { IN("Zm9v\r\nZm9v"), NULL, 0 },
    { IN("Zm 9"), NULL, 0 },
    { IN(" Zm9"), NULL, 0 },
    { IN("Zm9\0"), NULL, 0 },
    { IN("\0\0\0\0"), NULL, 0 },
    { IN("Zm-_"), NULL, 0 }, /* that is base64url */
};

static char *decode(const char *text, size_t n, apr_size_t *length)
{
    smtp_span_t span = copy_of(text, n);
    char *octets = smtp_sasl_decode(span, ba, length);

    free((char *)span.p);
    return octets;
}

static void test_decode(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT(codes); i++) {
        apr_size_t n = 0;
        char *octets = decode(codes[i].text, codes[i].text_n, &n);

        if (!octets != !codes[i].octets) {
            fail_msg("\"%s\" was %s", codes[i].text, octets ? "decoded" : "refused");
        }
        if (octets) {
            assert_int_equal(n, codes[i].n);
            assert_memory_equal(octets, codes[i].octets, n);
            assert_int_equal(octets[n], '\0');
            apr_bucket_free(octets);
        }
    }
}

/* Each octet at each of the four places: only the alphabet, and '=' at the end. */
static void test_every_octet(void **state)
{
    int octet, place;

    (void)state;
    for (octet = 0; octet < 256; octet++) {
        int is_letter = (octet >= 'A' && octet <= 'Z') || (octet >= 'a' && octet <= 'z')
                        || (octet >= '0' && octet <= '9') || octet == '+' || octet == '/';

        for (place = 0; place < 4; place++) {
            char text[] = "AAAA";
            apr_size_t n;
            char *octets;

            text[place] = (char)octet;
            octets = decode(text, 4, &n);
            assert_int_equal(octets != NULL, is_letter || (octet == '=' && place == 3));
            if (octets) {
                apr_bucket_free(octets);
            }
        }
    }
}

/* All octets, at all lengths up to 256, come back. */
static void test_round_trip(void **state)
{
    unsigned char all[256];
    size_t n, i;

    (void)state;
    for (i = 0; i < sizeof(all); i++) {
        all[i] = (unsigned char)(255 - i);
    }
    for (n = 0; n <= sizeof(all); n++) {
        const char *text = n ? apr_pencode_base64_binary(pool, all, n, 0, NULL) : "";
        apr_size_t length;
        char *octets = decode(text, strlen(text), &length);

        assert_non_null(octets);
        assert_int_equal(length, n);
        assert_memory_equal(octets, all, n);
        apr_bucket_free(octets);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchanges),   cmocka_unit_test(test_again),
        cmocka_unit_test(test_long),        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_every_octet), cmocka_unit_test(test_round_trip),
    };
    int failed;

    apr_initialize();
    apr_pool_create(&pool, NULL);
    ba = apr_bucket_alloc_create(pool);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    apr_pool_destroy(pool);
    apr_terminate();
    return failed;
}
