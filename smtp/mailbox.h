/* RFC 5322 3.4 address lists, as header fields and people write them: display names, comments,
 * groups, folding. Only the first mailbox is looked for; nothing is guessed from rubbish.
 */
#ifndef SMTP_MAILBOX_H
#define SMTP_MAILBOX_H

#include "smtp/chars.h"
#include "smtp/limits.h"

/* The first mailbox of the list as local@domain, without blanks, comments, names and source
 * route, in the sender's letters and with the quotes of its local part. Written to buf, which
 * holds SMTP_PATH_MAX octets, and NUL terminated. SMTP_BAD: the list begins with something
 * else, or has no mailbox. */
smtp_parse_e smtp_mailbox_first(smtp_span_t list, char *buf);

#endif
