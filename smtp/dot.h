/* The message data of DATA (RFC 5321 4.5.2) in both directions, as automata that
 * may be fed any pieces: the result never depends on where the input was cut.
 * They copy nothing: what they give are spans of the input or of constants.
 * Only CRLF.CRLF ends data; everything else that looks like an end is content.
 */
#ifndef SMTP_DOT_H
#define SMTP_DOT_H

#include "smtp/chars.h"

/* Reading: from the wire to the message's own octets. */
typedef struct smtp_dot_t {
    unsigned char state;
    unsigned normalize : 1; /* make bare LF CRLF, instead of only noting it */
    unsigned bare_lf : 1;   /* one was seen */
    unsigned bare_cr : 1;   /* one was seen; never repaired */
    unsigned unstuffed : 1; /* some line begins with a dot: sending it needs stuffing */
    unsigned lf_line : 1;   /* of the automaton: this line was begun by a bare LF */
} smtp_dot_t;

/* Starts at the first octet behind DATA's CRLF. */
void smtp_dot_init(smtp_dot_t *d, int normalize);

/* Takes input from *at on and gives one run of content in *out (out->n may be 0).
 * SMTP_MORE: call again while *at < end. SMTP_OK: the end of data was taken, *at
 * stands behind its LF and out may hold a last run. Never SMTP_BAD: whoever sends
 * bare newlines is answered at the real end of the data (flags above).
 * A bare LF neither starts nor ends a line for the end of data. Without normalize
 * it and what follows it are given as they are. With normalize it becomes CRLF, and
 * a dot behind it is unstuffed; only a dot alone on a line that a bare LF begins or
 * ends stays, since it ended nothing. Content without bare CR and, unless normalized,
 * without bare LF is canonical: where it is not unstuffed either, it may go to the
 * wire as it is. After SMTP_OK no more input is taken: SMTP_OK again. */
smtp_parse_e smtp_dot_next(smtp_dot_t *d, const char **at, const char *end, smtp_span_t *out);

/* Writing: from a message's octets to the wire. */
typedef struct smtp_stuff_t {
    unsigned char state;
} smtp_stuff_t;

void smtp_stuff_init(smtp_stuff_t *s);

/* Takes message octets from *at on and gives one run for the wire in *out; call
 * while *at < end. Leading dots are doubled; a bare CR or LF, which a filter may
 * have made, becomes CRLF: the wire never carries one. Send what out says, not what
 * *at moved over: a doubled dot ends one run and begins the next, and some runs are
 * constants in static storage. */
void smtp_stuff_next(smtp_stuff_t *s, const char **at, const char *end, smtp_span_t *out);

/* Octets from p to end went to the wire as they stand: canonical, no line of them with a
 * leading dot. What comes next is taken as what follows them. */
void smtp_stuff_skip(smtp_stuff_t *s, const char *p, const char *end);

/* What ends the data after all of it was given: ".CRLF", with a CRLF (or the LF
 * of one) before it where the message did not end with one. Static storage. */
smtp_span_t smtp_stuff_end(const smtp_stuff_t *s);

#endif
