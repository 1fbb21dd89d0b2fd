/* The verbs: one row each, with the states in which it is in order and what
 * answers it. Only dialogue.c uses this; the rows are in verbs.c.
 */
#ifndef SMTP_VERBS_H
#define SMTP_VERBS_H

#include "smtp/dialogue.h"

/* What of a verb is more than its handler. */
enum {
    SMTP_VERB_BARE = 0x01, /* an argument is an error */
    SMTP_VERB_IDLE = 0x02, /* brings no mail nearer; too many of them are errors */
    SMTP_VERB_FATAL = 0x04, /* ends the session, even on a line that is too long */
    SMTP_VERB_CLEAR = 0x08, /* taken without TLS even where TLS is required */
    SMTP_VERB_ASCII = 0x10  /* nothing reads its argument, so 8-bit octets are looked for */
};

struct smtp_verb_t {
    const char *name;
    unsigned char states; /* in which it may come */
    unsigned char flags;
    /* Looks at d->argument; returns the reply, or NULL after setting d->event for
     * a decision from outside. */
    const smtp_reply_t *(*handler)(smtp_dialogue_t *d);
};

/* The row of a word; NULL: no such verb. */
const smtp_verb_t *smtp_verbs_find(smtp_span_t word);

/* The usual answer to EHLO or HELO, appended to d->out; greet may have a text for it. */
void smtp_verbs_put_capabilities(smtp_dialogue_t *d, const smtp_reply_t *greet);

#endif
