/* ESMTP parameters and their numbers by the rows of two tables. Covers smtp/params.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp/params.h"

#define IN(literal) literal, sizeof(literal) - 1
#define COUNT(table) (sizeof(table) / sizeof *(table))

/* What came out is written down as "[key]" or "[key=value]" for each parameter. */
static const struct {
    const char *in;
    size_t n;
    const char *out;
    smtp_parse_e last;
    size_t at;
} lists[] = {
    {IN(""), "", SMTP_MORE, 0},
    {IN(" \t "), "", SMTP_MORE, 3},
    {IN("SIZE=1000"), "[SIZE=1000]", SMTP_MORE, 9},
    {IN("size=1 body=8BITMIME"), "[size=1][body=8BITMIME]", SMTP_MORE, 20},
    {IN("  A\tB=c  "), "[A][B=c]", SMTP_MORE, 9},
    {IN("AUTH=<>"), "[AUTH=<>]", SMTP_MORE, 7},
    {IN("AUTH=e+3Dmc2@example.com"), "[AUTH=e+3Dmc2@example.com]", SMTP_MORE, 24},
    {IN("8BIT X-A-=!~"), "[8BIT][X-A-=!~]", SMTP_MORE, 12},
    {IN("SIZE="), "", SMTP_BAD, 5},
    {IN("SIZE= 1"), "", SMTP_BAD, 5},
    {IN("A SIZE =1"), "[A][SIZE]", SMTP_BAD, 7},
    {IN("A=b=c"), "", SMTP_BAD, 3},
    {IN("=x"), "", SMTP_BAD, 0},
    {IN("-A=x"), "", SMTP_BAD, 0},
    {IN("A_B=x"), "", SMTP_BAD, 1},
    {IN("A=x >"), "[A=x]", SMTP_BAD, 4},
    {IN("A,B"), "", SMTP_BAD, 1},
    {IN("A=\xc3\xa4"), "", SMTP_BAD, 2},
    {IN("A=x\x7f"), "", SMTP_BAD, 3},
    {IN("A=x\0"), "", SMTP_BAD, 3},
    {IN("A\0=x"), "", SMTP_BAD, 1},
    {IN("A=x\rB"), "", SMTP_BAD, 3},
};

static const struct {
    const char *in;
    size_t n;
    smtp_parse_e result;
    apr_int64_t number;
} numbers[] = {
    {IN("0"), SMTP_OK, 0},
    {IN("10240000"), SMTP_OK, 10240000},
    {IN("00000000000000000007"), SMTP_OK, 7},
    {IN("9223372036854775806"), SMTP_OK, APR_INT64_MAX - 1},
    {IN("9223372036854775807"), SMTP_OK, APR_INT64_MAX},
    {IN("9223372036854775808"), SMTP_OK, APR_INT64_MAX},
    {IN("18446744073709551616"), SMTP_OK, APR_INT64_MAX},
    {IN("18446744073709552116"), SMTP_OK, APR_INT64_MAX},
    {IN("99999999999999999999"), SMTP_OK, APR_INT64_MAX},
    {IN("000000000000000000007"), SMTP_BAD, 0},
    {IN(""), SMTP_BAD, 0},
    {IN("-1"), SMTP_BAD, 0},
    {IN("+1"), SMTP_BAD, 0},
    {IN("1k"), SMTP_BAD, 0},
    {IN("0x10"), SMTP_BAD, 0},
    {IN("1:"), SMTP_BAD, 0},
    {IN("/1"), SMTP_BAD, 0},
    {IN("1\0"), SMTP_BAD, 0},
    {IN("\xb1"), SMTP_BAD, 0},
};

/* The octets in an allocation of exactly their size. */
static char *exact(const char *in, size_t n)
{
    char *copy = malloc(n);

    assert_non_null(copy);
    return memcpy(copy, in, n);
}

static void write_down(char *out, size_t room, const smtp_param_t *param)
{
    size_t n = strlen(out);

    snprintf(out + n, room - n, "[%.*s%s%.*s]", (int)param->key.n, param->key.p,
             param->value.p ? "=" : "", (int)param->value.n, param->value.p ? param->value.p : "");
}

static void check_list(size_t row)
{
    char *in = exact(lists[row].in, lists[row].n);
    const char *at = in;
    char out[256] = "";
    smtp_param_t param;
    smtp_parse_e result;

    while ((result = smtp_params_next(&param, &at, in + lists[row].n)) == SMTP_OK) {
        write_down(out, sizeof out, &param);
    }
    if (result != lists[row].last || (size_t)(at - in) != lists[row].at
        || strcmp(out, lists[row].out)) {
        fail_msg("\"%s\" gave %s and %d at %d", lists[row].in, out, result, (int)(at - in));
    }
    free(in);
}

static void test_lists(void **state)
{
    size_t row;

    (void)state;
    for (row = 0; row < COUNT(lists); ++row) {
        check_list(row);
    }
}

static void test_no_value_is_null(void **state)
{
    const char in[] = "A B=c";
    const char *at = in;
    smtp_param_t param;

    (void)state;
    assert_int_equal(smtp_params_next(&param, &at, in + 5), SMTP_OK);
    assert_null(param.value.p);
    assert_int_equal(smtp_params_next(&param, &at, in + 5), SMTP_OK);
    assert_ptr_equal(param.value.p, in + 4);
    assert_int_equal(param.value.n, 1);
}

static void test_numbers(void **state)
{
    size_t row;

    (void)state;
    for (row = 0; row < COUNT(numbers); ++row) {
        char *in = exact(numbers[row].in, numbers[row].n);
        apr_int64_t number = 0;
        smtp_parse_e result = smtp_params_number((smtp_span_t){in, numbers[row].n}, &number);

        if (result != numbers[row].result || number != numbers[row].number) {
            fail_msg("\"%s\" gave %d, %lld", numbers[row].in, result, (long long)number);
        }
        free(in);
    }
    assert_int_equal(smtp_params_number((smtp_span_t){NULL, 0}, &(apr_int64_t){0}), SMTP_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_no_value_is_null),
        cmocka_unit_test(test_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
