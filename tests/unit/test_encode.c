/* smtp/encode.c: base64, hex and quoted-printable both ways, by tables (RFC 4648 10, RFC 2045 6.7),
 * for each octet alone and for all of them, and what every encoded text must be like. Inputs are
 * copied to memory of their own size, so that ASan sees a look beyond it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <apr_general.h>

#include "smtp/encode.h"

#define ROWS(table) (sizeof(table) / sizeof *(table))
#define S(literal) literal, sizeof(literal) - 1

#define TEN "0123456789"
#define SEVENTY TEN TEN TEN TEN TEN TEN TEN

static apr_pool_t *pool;

static int set_up(void **state)
{
    (void)state;
    apr_initialize();
    apr_pool_create(&pool, NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    apr_pool_destroy(pool);
    apr_terminate();
    return 0;
}

static apr_status_t run(smtp_encode_f *f, const char *in, apr_size_t n, const char **out,
                        apr_size_t *outlen)
{
    char *copy = malloc(n ? n : 1);
    apr_status_t rv;

    memcpy(copy, in, n);
    *out = "untouched";
    rv = f(pool, copy, n, out, outlen);
    free(copy);
    return rv;
}

static void check(smtp_encode_f *f, const char *in, apr_size_t n, const char *want,
                  apr_size_t want_n)
{
    const char *out;
    apr_size_t outlen;

    assert_int_equal(run(f, in, n, &out, &outlen), APR_SUCCESS);
    assert_int_equal(outlen, want_n);
    assert_memory_equal(out, want, want_n);
}

typedef struct pair_t {
    const char *type, *plain;
    apr_size_t n;
    const char *coded;
    apr_size_t coded_n;
} pair_t;

/* Both ways */
static const pair_t pairs[] = {
    { "base64", S(""), S("") },
    { "base64", S("f"), S("Zg==") },
    { "base64", S("fo"), S("Zm8=") },
    { "base64", S("foo"), S("Zm9v") },
    { "base64", S("foob"), S("Zm9vYg==") },
    { "base64", S("fooba"), S("Zm9vYmE=") },
    { "base64", S("foobar"), S("Zm9vYmFy") },
    { "base64", S("\0"), S("AA==") },
    { "base64", S("\0\0\0"), S("AAAA") },
    { "base64", S("\xff\xfe\xfd"), S("//79") },
    { "base64", S("\x80\0\xfb\xf0"), S("gAD78A==") },
    { "base64", S(SEVENTY), S("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3"
                              "ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OQ==") },
    { "hex", S(""), S("") },
    { "hex", S("\0"), S("00") },
    { "hex", S("\0a"), S("0061") },
    { "hex", S("foobar"), S("666F6F626172") },
    { "hex", S("\x80\xab\xff"), S("80ABFF") },
    { "qprint", S(""), S("") },
    { "qprint", S("plain text, all of it: !\"#$%&'()*+-./;<>?@[]^_`{|}~"),
      S("plain text, all of it: !\"#$%&'()*+-./;<>?@[]^_`{|}~") },
    { "qprint", S("a=b"), S("a=3Db") },
    { "qprint", S("=3D"), S("=3D3D") },
    { "qprint", S("\0"), S("=00") },
    { "qprint", S("\x7f\x80\xe4\xff"), S("=7F=80=E4=FF") },
    { "qprint", S("a\r\nb\r\n"), S("a\r\nb\r\n") },
    { "qprint", S("\r\n\r\n"), S("\r\n\r\n") },
    { "qprint", S("a\nb"), S("a=0Ab") },
    { "qprint", S("a\rb"), S("a=0Db") },
    { "qprint", S("\r"), S("=0D") },
    { "qprint", S("\n\r"), S("=0A=0D") },
    { "qprint", S("\r\r\n\n"), S("=0D\r\n=0A") },
    { "qprint", S("a\tb\t"), S("a=09b=09") },
    { "qprint", S(" "), S("=20") },
    { "qprint", S(" a "), S(" a=20") },
    { "qprint", S("a  \r\nb \r\n"), S("a =20\r\nb=20\r\n") },
    { "qprint", S("a \n"), S("a =0A") },
    /* 76 octets fill a line, one more breaks it, and a code is never cut */
    { "qprint", S(SEVENTY "123456"), S(SEVENTY "123456") },
    { "qprint", S(SEVENTY "123456\r\n"), S(SEVENTY "123456\r\n") },
    { "qprint", S(SEVENTY "1234567"), S(SEVENTY "12345=\r\n67") },
    { "qprint", S(SEVENTY "123="), S(SEVENTY "123=3D") },
    { "qprint", S(SEVENTY "1234="), S(SEVENTY "1234=\r\n=3D") },
    { "qprint", S(SEVENTY "12=x"), S(SEVENTY "12=3Dx") },
    { "qprint", S(SEVENTY "12=xy"), S(SEVENTY "12=3D=\r\nxy") },
    { "qprint", S(SEVENTY "123=x"), S(SEVENTY "123=\r\n=3Dx") },
    { "qprint", S(SEVENTY "123 "), S(SEVENTY "123=20") },
    { "qprint", S(SEVENTY "12345 x"), S(SEVENTY "12345=\r\n x") },
    { "qprint", S(SEVENTY "1234 xx"), S(SEVENTY "1234 =\r\nxx") },
    { "qprint", S(SEVENTY "123456\r\n" SEVENTY), S(SEVENTY "123456\r\n" SEVENTY) },
    { "qprint", S(SEVENTY SEVENTY), S(SEVENTY "01234=\r\n56789" TEN TEN TEN TEN TEN TEN) },
    { "qprint", S(SEVENTY "01234" SEVENTY "01234567"),
      S(SEVENTY "01234=\r\n" SEVENTY "01234=\r\n567") },
};

/* Decoding only */
static const pair_t decoded[] = {
    { "base64", S("foobar"), S(" Zm9v\r\n\tYm Fy\n") },
    { "base64", S("f"), S("Z\ng=\r\n=  ") },
    { "base64", S(""), S(" \r\n") },
    { "hex", S("\xab\xcd\xef"), S("abCDeF") },
    { "qprint", S("\xab\xcd\xef"), S("=ab=Cd=eF") },
    { "qprint", S("ab"), S("a=\r\nb") },
    { "qprint", S("ab"), S("a=\nb") },
    { "qprint", S("ab"), S("a= \t\r\nb") },
    { "qprint", S("a b"), S("a =\r\nb") },
    { "qprint", S("ab"), S("a=\r\n=\r\nb") },
    { "qprint", S("a"), S("a=") },
    { "qprint", S("a"), S("a=\r\n") },
    { "qprint", S("a\r\nb\nc"), S("a  \r\nb\t \nc \t") },
    { "qprint", S("a \r\n"), S("a=20\r\n") },
    { "qprint", S("a \r\n"), S("a=20  \r\n") },
    { "qprint", S("a=\r\n"), S("a=3D\r\n") },
    { "qprint", S(""), S("  ") },
    { "qprint", S("=zz"), S("=zz") },
    { "qprint", S("=4"), S("=4") },
    { "qprint", S("=4\r\nx"), S("=4\r\nx") },
    { "qprint", S("=4zA"), S("=4z=41") },
    { "qprint", S("==A"), S("===41") },
    { "qprint", S("= x"), S("= x") },
    { "qprint", S("=g0=0g=/0=:0=@0=`0"), S("=g0=0g=/0=:0=@0=`0") },
    { "qprint", S("=\rx"), S("=\rx") },
    { "qprint", S("a\rb\r\r\n"), S("a\rb\r\r\n") },
    { "qprint", S("\0=\0\xff_"), S("\0=\0\xff_") },
    { "qprint", S("=\0""0"), S("=\0""0") },
    { "qprint", S("u_v w"), S("u_v w") },
};

static const pair_t refused[] = {
    { "base64", NULL, 0, S("Z") },
    { "base64", NULL, 0, S("Zg") },
    { "base64", NULL, 0, S("Zg=") },
    { "base64", NULL, 0, S("Zm8") },
    { "base64", NULL, 0, S("Zg===") },
    { "base64", NULL, 0, S("Z===") },
    { "base64", NULL, 0, S("====") },
    { "base64", NULL, 0, S("=Zg=") },
    { "base64", NULL, 0, S("Zg==Zg==") },
    { "base64", NULL, 0, S("Zg==Zm9v") },
    { "base64", NULL, 0, S("Zg==\r\nx") },
    { "base64", NULL, 0, S("Zm9v====") },
    { "base64", NULL, 0, S("Zm9*") },
    { "base64", NULL, 0, S("-_-_") },
    { "base64", NULL, 0, S("Zm9\0") },
    { "base64", NULL, 0, S("Zm9v\0\0\0\0") },
    { "base64", NULL, 0, S("Zm9\xff") },
    { "base64", NULL, 0, S("Zm9v\v") },
    { "hex", NULL, 0, S("0") },
    { "hex", NULL, 0, S("000") },
    { "hex", NULL, 0, S("0g") },
    { "hex", NULL, 0, S("00 00") },
    { "hex", NULL, 0, S("00\r\n") },
    { "hex", NULL, 0, S("0x00") },
    { "hex", NULL, 0, S("00:0") },
    { "hex", NULL, 0, S("0\0") },
    { "hex", NULL, 0, S("\xff\xff") },
};

static void test_pairs(void **state)
{
    (void)state;
    for (apr_size_t i = 0; i < ROWS(pairs); i++) {
        const pair_t *row = &pairs[i];
        const smtp_encoding_t *type = smtp_encode_find(row->type);

        check(type->encode, row->plain, row->n, row->coded, row->coded_n);
        check(type->decode, row->coded, row->coded_n, row->plain, row->n);
    }
}

static void test_decoded(void **state)
{
    (void)state;
    for (apr_size_t i = 0; i < ROWS(decoded); i++) {
        const pair_t *row = &decoded[i];

        check(smtp_encode_find(row->type)->decode, row->coded, row->coded_n, row->plain, row->n);
    }
}

static void test_refused(void **state)
{
    const char *out;
    apr_size_t n;

    (void)state;
    for (apr_size_t i = 0; i < ROWS(refused); i++) {
        assert_int_equal(run(smtp_encode_find(refused[i].type)->decode, refused[i].coded,
                             refused[i].coded_n, &out, &n), APR_EINVAL);
        assert_null(out);
    }
}

/* No octet alone is part of base64's or hex's alphabet but those that are. */
static void test_alphabets(void **state)
{
    static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char hex[] = "0123456789ABCDEFabcdef", blanks[] = " \t\r\n";
    const char *out;
    apr_size_t n;

    (void)state;
    for (int ch = 0; ch < 256; ch++) {
        char four[4] = { 'A', 'A', 'A', (char)ch }, two[2] = { (char)ch, '0' };
        char five[5] = { 'A', 'A', (char)ch, 'A', 'A' };

        assert_int_equal(run(smtp_encode_find("base64")->decode, four, 4, &out, &n) == APR_SUCCESS,
                         memchr(base64, ch, 64) || ch == '=');
        assert_int_equal(run(smtp_encode_find("base64")->decode, five, 5, &out, &n) == APR_SUCCESS,
                         memchr(blanks, ch, 4) != NULL);
        assert_int_equal(run(smtp_encode_find("hex")->decode, two, 2, &out, &n) == APR_SUCCESS,
                         memchr(hex, ch, 22) != NULL);
    }
}

/* What may stand in the encoded text, and where. */
static void check_form(const smtp_encoding_t *type, const char *text, apr_size_t n)
{
    apr_size_t line = 0;

    if (strcmp(type->name, "qprint") != 0) {
        for (apr_size_t i = 0; i < n; i++) {
            assert_true(text[i] > ' ' && text[i] < 127);
        }
        return;
    }
    for (apr_size_t i = 0; i < n; i++) {
        if (text[i] == '\r' && i + 1 < n && text[i + 1] == '\n') {
            assert_true(i == line || text[i - 1] != ' ');
            line = ++i + 1;
            continue;
        }
        assert_true(text[i] >= ' ' && text[i] < 127);
        assert_true(i - line < 76);
    }
    assert_true(n == 0 || text[n - 1] != ' ');
}

static void check_round(const char *plain, apr_size_t n)
{
    for (const smtp_encoding_t *type = smtp_encodings; type->name; type++) {
        const char *coded;
        apr_size_t coded_n;

        assert_int_equal(run(type->encode, plain, n, &coded, &coded_n), APR_SUCCESS);
        check_form(type, coded, coded_n);
        check(type->decode, coded, coded_n, plain, n);
    }
}

static void test_every_octet(void **state)
{
    char all[512];

    (void)state;
    for (int i = 0; i < 256; i++) {
        char one = (char)i, two[2] = { (char)i, (char)(255 - i) };

        all[i] = (char)i;
        all[511 - i] = (char)i;
        check_round(&one, 1);
        check_round(two, 2);
    }
    check_round(all, 256);
    check_round(all, 512);
}

/* Every text of eight pieces that matter to quoted-printable, at every place of a line's end. */
static void test_line_ends(void **state)
{
    static const char *const pieces[] = { "\r", "\n", "\r\n", " ", "=", "x", "\t", "\xc3" };
    char text[128];

    (void)state;
    for (int fill = 70; fill < 78; fill++) {
        for (int i = 0; i < 4096; i++) {
            memset(text, 'a', fill);
            text[fill] = '\0';
            for (int k = i, left = 4; left > 0; k /= 8, left--) {
                strcat(text, pieces[k % 8]);
            }
            check_round(text, strlen(text));
        }
        apr_pool_clear(pool);
    }
}

static void test_large(void **state)
{
    apr_size_t n = 3 << 20;
    char *text = malloc(n);

    (void)state;
    for (apr_size_t i = 0; i < n; i++) {
        text[i] = (char)(i * 2654435761u >> 13);
    }
    check_round(text, n);
    memset(text, 0, n);
    check_round(text, n);
    free(text);
    apr_pool_clear(pool);
}

static void test_find(void **state)
{
    (void)state;
    assert_string_equal(smtp_encode_find("base64")->name, "base64");
    assert_string_equal(smtp_encode_find("QPrint")->name, "qprint");
    assert_string_equal(smtp_encode_find("HEX")->name, "hex");
    assert_null(smtp_encode_find(""));
    assert_null(smtp_encode_find("base"));
    assert_null(smtp_encode_find("base64 "));
    assert_null(smtp_encode_find("uuencode"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),       cmocka_unit_test(test_decoded),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_alphabets),
        cmocka_unit_test(test_every_octet), cmocka_unit_test(test_line_ends),
        cmocka_unit_test(test_large),       cmocka_unit_test(test_find),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
