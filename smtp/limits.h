/* The sizes that bound what the language layer takes in, in one place.
 * RFC 5321 4.5.3.1 gives the minima that must be accepted; the maxima beyond
 * them are ours. What an administrator may change is a directive instead.
 */
#ifndef SMTP_LIMITS_H
#define SMTP_LIMITS_H

#define SMTP_LOCAL_MIN 64                /* taken with any domain, RFC 5321 4.5.3.1.1 */
#define SMTP_DOMAIN_MAX 255              /* RFC 5321 4.5.3.1.2 */
#define SMTP_USUAL_PATH_MAX 256          /* with its angle brackets, RFC 5321 4.5.3.1.3 */
#define SMTP_PATH_MAX (SMTP_LOCAL_MIN + SMTP_DOMAIN_MAX + 3) /* which those two exceed */
#define SMTP_LABEL_MAX 63                /* RFC 1035 2.3.4 */
#define SMTP_AUTH_LINE_MAX 12288         /* without CRLF, RFC 4954 4 */
#define SMTP_PARAMS_MAX 16               /* ESMTP parameters of one command */
#define SMTP_REPLY_LINE_MAX 512          /* a line we send, with CRLF, RFC 5321 4.5.3.1.5 */
#define SMTP_REPLY_LINES_MAX 100         /* lines of one reply of ours */
#define SMTP_RELAY_LINE_MAX 2048         /* a line a relay may send us */
#define SMTP_RELAY_LINES_MAX 1000        /* lines of its reply; beyond our 100 unread, but heard */
#define SMTP_HEADER_MAX (256 * 1024)     /* octets of a message read as its header section */
#define SMTP_FIELD_NAME_MAX 78           /* a longer name is no header field, RFC 5322 2.1.1 */
#define SMTP_HOPS_MAX 100                /* Received: fields, RFC 5321 6.3 */

#endif
