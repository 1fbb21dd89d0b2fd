/* One command line, its CRLF already cut off, split into its verb and arguments.
 * Knows no verb: the table is verbs.c's.
 */
#ifndef SMTP_COMMAND_H
#define SMTP_COMMAND_H

#include "smtp/chars.h"

typedef struct smtp_command_t {
    smtp_span_t verb; /* letters as sent; n == 0: the first word is something else */
    smtp_span_t args; /* behind the blanks, without trailing blanks; without a verb the
                       * whole line; both are empty after SMTP_BAD */
} smtp_command_t;

/* Splits the line. SMTP_BAD: it holds NUL, a bare CR or a bare LF, which no
 * command may (RFC 5321 2.3.8, 4.1.1): the caller answers 500 5.5.2. 8-bit and
 * other control octets are the arguments' parsers' to refuse. A verb ends at a
 * blank or at the end of the line: whole words only. */
smtp_parse_e smtp_command_parse(smtp_command_t *cmd, smtp_span_t line);

/* Takes a keyword such as "FROM:" in any case at *at; 1 if it stood there. */
int smtp_command_take(const char **at, const char *end, const char *keyword);

#endif
