/* Lines of a text made the lines of a message (RFC 5321 2.3.8): CRLF and nothing else ends
 * one. An automaton like those of dot.h, which may be fed any pieces: the result never depends
 * on where the text was cut, and what it gives are spans of the text or of constants.
 */
#ifndef SMTP_LINES_H
#define SMTP_LINES_H

#include "smtp/chars.h"

typedef struct smtp_lines_t {
    unsigned char state;
    unsigned is_8bit : 1; /* an octet above 127 was seen */
    apr_size_t dots;      /* lines that begin with a dot: the wire needs one octet more for each */
} smtp_lines_t;

void smtp_lines_init(smtp_lines_t *l);

/* Takes octets of the text from *at on and gives one run of the message in *out; call while
 * *at < end. A bare LF and a bare CR become CRLF, everything else stays. Canonical text comes
 * out as one run for each piece. */
void smtp_lines_next(smtp_lines_t *l, const char **at, const char *end, smtp_span_t *out);

/* What ends the last line after all of the text was given: nothing, where it has its CRLF or
 * where there was no octet at all. Static storage. */
smtp_span_t smtp_lines_end(const smtp_lines_t *l);

#endif
