/* The parts of a MIME message (RFC 2045, 2046), one after the other. Needs memory for the
 * depth of nesting only, whatever the message holds. Fields are understood and contents
 * decoded by GMime.
 */
#ifndef NSSMTPD_MIME_H
#define NSSMTPD_MIME_H

#include "smtp/chars.h"

#define NSSMTPD_MIME_DEPTH 20      /* a multipart or message deeper down is a part as it is */
#define NSSMTPD_MIME_PARTS 10000   /* all behind as many is one part as it is; long fields count,
                                    * too */
#define NSSMTPD_MIME_LOOKED (128 * 1024 * 1024) /* octets, again for each message they are in: a
                                    * message behind as many is a part as it is */
#define NSSMTPD_MIME_BOUNDARY 256  /* a longer one separates nothing; RFC 2046 has 70 */

typedef struct nssmtpd_part_t {
    char type[128];     /* "text/plain", lower case; longer ones are cut */
    char name[1024];    /* of the file, UTF-8; "": none */
    smtp_span_t octets; /* as they stand in the message */
    int encoding;       /* GMime's */
} nssmtpd_part_t;

/* A multipart that the cursor is in, or a message in a message. */
typedef struct nssmtpd_mime_level_t {
    apr_size_t n;       /* of the boundary; 0: a message, which its surroundings end */
    int is_digest;
    char boundary[NSSMTPD_MIME_BOUNDARY];
} nssmtpd_mime_level_t;

typedef struct nssmtpd_mime_t {
    const char *at, *end;
    int depth, parts;
    apr_size_t looked;  /* octets of messages in messages */
    apr_size_t shortest; /* of the boundaries, or less */
    int is_outside;     /* of any part: in what precedes or follows them */
    nssmtpd_mime_level_t level[NSSMTPD_MIME_DEPTH];
} nssmtpd_mime_t;

/* Begins with a message, whose octets must last as long. */
void nssmtpd_mime_begin(nssmtpd_mime_t *mime, smtp_span_t message);

/* The next part that is no multipart; a message in a message is one, and then its own parts
 * follow. 0: there is none. Any thread. */
int nssmtpd_mime_next(nssmtpd_mime_t *mime, nssmtpd_part_t *part);

/* Writes the decoded content to buf, unless it is NULL; returns its octets. */
apr_size_t nssmtpd_mime_decode(const nssmtpd_part_t *part, char *buf);

#endif
