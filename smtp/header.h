/* Scanner over the header section of a message (RFC 5322 2.2), fed in any pieces
 * as the octets arrive. It gives each field's name and its place in the message,
 * not its value: who wants the value reads it from the spool by offset.
 * Only CRLF ends a line here: bare newlines are refused or normalized before.
 */
#ifndef SMTP_HEADER_H
#define SMTP_HEADER_H

#include <apr.h>

#include "smtp/chars.h"
#include "smtp/limits.h"

/* A field; offsets count from the first octet of the message. */
typedef struct smtp_field_t {
    smtp_span_t name;     /* valid during the call only */
    apr_size_t start;     /* its first octet */
    apr_size_t value;     /* the octet behind the colon */
    apr_size_t end;       /* behind the CRLF of its last line, or the message's end */
} smtp_field_t;

typedef struct smtp_header_t {
    void (*field)(void *baton, const smtp_field_t *field); /* called for each field */
    void *baton;
    smtp_field_t current; /* of the scanner; its value is 0 while no field is open */
    apr_size_t offset;    /* octets taken; no more are once done */
    apr_size_t body;      /* where the body begins, once done */
    unsigned char state;
    unsigned done : 1;    /* the section has ended */
    unsigned malformed : 1; /* it ended at a line that is no field, not at an empty line:
                             * that line is already body (body == its offset) */
    unsigned char name_len;
    char name[SMTP_FIELD_NAME_MAX];
} smtp_header_t;

void smtp_header_init(smtp_header_t *h, void (*field)(void *, const smtp_field_t *), void *baton);

/* Takes n octets of the message. Cheap once h->done. White space between name and
 * colon is allowed and belongs to neither (RFC 5322 4.5). A section longer than
 * SMTP_HEADER_MAX ends malformed, with the field that does not fit as its body. */
void smtp_header_feed(smtp_header_t *h, const char *data, apr_size_t n);

/* The message has ended: closes a field or a section that was still open. A message
 * of fields alone is well formed; one that stops inside a name is malformed. */
void smtp_header_finish(smtp_header_t *h);

#endif
