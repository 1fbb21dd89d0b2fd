/* libFuzzer target for smtp/mailbox.c. What it finds in a list is an address by the rules of the
 * envelope, finds itself again, and is found as well with a name, a comment, folding and others
 * around it.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "smtp/address.h"
#include "smtp/mailbox.h"

#define CHECK(condition) ((condition) ? (void)0 : abort())

/* Where a mailbox may stand; none of them changes what it is. */
static const char *const lists[] = {
    "%s", "<%s>", "A. Name <%s>", "\"a\\\"@b, <c>;\" <%s>", " (a (nested \\) <x@y>) comment) %s (b)",
    "\r\n %s\r\n\t", ",, , %s, (unclosed", "group: %s, c@d.test;", "group:; , <%s>", "x <@a.test,@b.test:%s>"
};

static void check_same(const char *list, const char *mailbox)
{
    char text[2 * SMTP_PATH_MAX], found[SMTP_PATH_MAX];
    int n = snprintf(text, sizeof(text), list, mailbox);

    memset(found, 'x', sizeof(found));
    CHECK(n > 0 && n < (int)sizeof(text));
    CHECK(smtp_mailbox_first((smtp_span_t){ text, n }, found) == SMTP_OK);
    CHECK(strcmp(found, mailbox) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size ? size : 1); /* so that reading behind it shows */
    char mailbox[SMTP_PATH_MAX];
    smtp_address_t address;
    smtp_span_t text = { mailbox, 0 };

    memcpy(copy, data, size);
    if (smtp_mailbox_first((smtp_span_t){ copy, size }, mailbox) == SMTP_OK) {
        text.n = strnlen(mailbox, sizeof(mailbox));
        CHECK(text.n < sizeof(mailbox));
        CHECK(smtp_address_parse_mailbox(&address, text) == SMTP_OK && address.domain.n);
        for (size_t i = 0; i < sizeof(lists) / sizeof(*lists) && text.n < 200; i++) {
            check_same(lists[i], mailbox);
        }
    }
    free(copy);
    return 0;
}
