/* Replies of an SMTP server (RFC 5321 4.2) with enhanced codes (RFC 2034, 3463).
 * The table in reply.c holds every sentence we can say; replies of a relay or a
 * script are structures of the same kind. Who says which one is not decided here.
 */
#ifndef SMTP_REPLY_H
#define SMTP_REPLY_H

#include <apr_buckets.h>
#include <apr_pools.h>

#include "smtp/chars.h"

typedef struct smtp_reply_t {
    int code;             /* 200..599 */
    const char *enhanced; /* "2.1.5", or "" where none may stand: greeting, EHLO, 3yz */
    const char *text;     /* printable ASCII; lines separated by '\n' */
} smtp_reply_t;

typedef enum smtp_reply_e {
    SMTP_REPLY_BYE,
    SMTP_REPLY_OK,
    SMTP_REPLY_RESET,
    SMTP_REPLY_SENDER_OK,
    SMTP_REPLY_RECIPIENT_OK,
    SMTP_REPLY_START_DATA,
    SMTP_REPLY_ACCEPTED,
    SMTP_REPLY_CANNOT_VERIFY,
    SMTP_REPLY_START_TLS,
    SMTP_REPLY_AUTHENTICATED,
    SMTP_REPLY_UNKNOWN_COMMAND,
    SMTP_REPLY_NOT_OFFERED,
    SMTP_REPLY_LINE_TOO_LONG,
    SMTP_REPLY_BAD_OCTET,
    SMTP_REPLY_HELO_SYNTAX,
    SMTP_REPLY_MAIL_SYNTAX,
    SMTP_REPLY_RCPT_SYNTAX,
    SMTP_REPLY_NO_ARGUMENT,
    SMTP_REPLY_ARGUMENT_MISSING,
    SMTP_REPLY_PARAM_VALUE,
    SMTP_REPLY_PARAM_UNKNOWN,
    SMTP_REPLY_BAD_SENDER,
    SMTP_REPLY_BAD_RECIPIENT,
    SMTP_REPLY_SENDER_DOMAIN,
    SMTP_REPLY_BARRED,
    SMTP_REPLY_NEED_HELO,
    SMTP_REPLY_NEED_MAIL,
    SMTP_REPLY_NEED_RCPT,
    SMTP_REPLY_NESTED_MAIL,
    SMTP_REPLY_NO_VALID_RCPT,
    SMTP_REPLY_TLS_ACTIVE,
    SMTP_REPLY_AUTH_DONE,
    SMTP_REPLY_NEED_TLS,
    SMTP_REPLY_NEED_TLS_FOR_AUTH,
    SMTP_REPLY_NEED_AUTH,
    SMTP_REPLY_BEHIND_STARTTLS,
    SMTP_REPLY_UNKNOWN_MECHANISM,
    SMTP_REPLY_BAD_BASE64,
    SMTP_REPLY_AUTH_LINE_TOO_LONG,
    SMTP_REPLY_AUTH_CANCELLED,
    SMTP_REPLY_BAD_CREDENTIALS,
    SMTP_REPLY_AUTH_FAULT,
    SMTP_REPLY_AUTH_DELAYED,
    SMTP_REPLY_TOO_MANY_FAILURES,
    SMTP_REPLY_NOT_AUTHORIZED,
    SMTP_REPLY_RELAY_DENIED,
    SMTP_REPLY_TOO_BIG,
    SMTP_REPLY_TOO_MANY_RCPTS,
    SMTP_REPLY_OTHER_ROUTE,
    SMTP_REPLY_BARE_NEWLINE,
    SMTP_REPLY_HTTP_VERB,
    SMTP_REPLY_TOO_MANY_ERRORS,
    SMTP_REPLY_TOO_MANY_COMMANDS,
    SMTP_REPLY_TOO_MANY_CONNECTIONS,
    SMTP_REPLY_TIMEOUT,
    SMTP_REPLY_SHUTDOWN,
    SMTP_REPLY_BUSY,
    SMTP_REPLY_NEED_7BIT,
    SMTP_REPLY_RELAY_UNREACHABLE,
    SMTP_REPLY_RELAY_LOST,
    SMTP_REPLY_RELAY_FAULT,
    SMTP_REPLY_RELAY_CHANGED,
    SMTP_REPLY_RELAY_INSECURE,
    SMTP_REPLY_RELAY_CREDENTIALS,
    SMTP_REPLY_NO_NAME,
    SMTP_REPLY_DNS_FAULT,
    SMTP_REPLY_DNS_FAULT_CLOSE,
    SMTP_REPLY_NO_RCPT_LEFT,
    SMTP_REPLY_LOOP,
    SMTP_REPLY_VIRUS,
    SMTP_REPLY_SPAM,
    SMTP_REPLY_TOO_BIG_TO_SCAN,
    SMTP_REPLY_SCAN_LATER,
    SMTP_REPLY_SCAN_FAULT,
    SMTP_REPLY_LOCAL_FAULT,
    SMTP_REPLY_CLIENT_GONE,
    SMTP_REPLY_ABORTED,
    SMTP_REPLY_COUNT
} smtp_reply_e;

/* The row of the table. Static storage. */
const smtp_reply_t *smtp_reply(smtp_reply_e id);

/* A reply with the row's codes and other text, which is copied to p. */
const smtp_reply_t *smtp_reply_reword(apr_pool_t *p, smtp_reply_e id, const char *text);

/* Appends the reply as it goes over the wire: code, '-' or ' ', enhanced code,
 * text, CRLF on every line. Lines are cut to SMTP_REPLY_LINE_MAX octets, replies
 * to SMTP_REPLY_LINES_MAX lines. The octets are copied into the brigade. */
void smtp_reply_put(apr_bucket_brigade *bb, const smtp_reply_t *reply);

/* The first line for a log: "250 2.1.5 Recipient ok", allocated from p. */
const char *smtp_reply_line(apr_pool_t *p, const smtp_reply_t *reply);

/* Finds an enhanced code such as "5.7.1" at the beginning of text whose class
 * fits code's. Returns its length, 0 where there is none. */
apr_size_t smtp_reply_find_enhanced(const char *text, int code);

/* Reads a reply as a script writes it: a code from 200 to 599, maybe an enhanced code of its
 * class, and a text; more lines with or without the codes. Octets that no reply may have
 * become '?'. Without an enhanced code it gets x.7.1, a policy's, or 2.0.0. Copied to p. */
smtp_parse_e smtp_reply_parse(apr_pool_t *p, smtp_span_t text, smtp_reply_t *reply);

#define smtp_reply_is_positive(reply) ((reply)->code < 400)

#endif
