/* RFC 5321 4.1.2 paths: what stands behind MAIL FROM: and RCPT TO:.
 * Parses in place, allocates nothing and resolves nothing.
 */
#ifndef SMTP_ADDRESS_H
#define SMTP_ADDRESS_H

#include "smtp/chars.h"

typedef struct smtp_address_t {
    smtp_span_t text;   /* local@domain as sent, without brackets, source route or a final
                         * dot of the domain; empty for the null path; the bare local part
                         * for <postmaster> */
    smtp_span_t local;  /* as sent, quotes included */
    smtp_span_t domain; /* as sent, without a final dot, a literal with its brackets;
                         * n == 0: none */
} smtp_address_t;       /* p is never NULL after a parse, all are empty after SMTP_BAD */

/* Parses the path at *at: <> or <[@route,...:]local@domain> or the same without
 * brackets, as old senders write it; <postmaster> in any case stands without a
 * domain. A source route is checked and dropped (RFC 5321 appendix C). A leading
 * and trailing run of blanks is skipped.
 * SMTP_OK: *at stands behind the path and behind blanks; what follows must be
 * parameters. SMTP_BAD: *at stands at the octet that does not fit.
 * The path may have SMTP_USUAL_PATH_MAX octets, where brackets that are missing and a
 * route that is dropped count too, and SMTP_PATH_MAX if the local part has no more than
 * SMTP_LOCAL_MIN; its domain SMTP_DOMAIN_MAX, a label SMTP_LABEL_MAX. A longer local part
 * is no error: VERP and SRS senders have them. A domain is no mere number. */
smtp_parse_e smtp_address_parse(smtp_address_t *a, const char **at, const char *end);

/* The same for one bare "local@domain", which must fill the span to its end: no
 * blanks, brackets or route, and no postmaster without a domain. */
smtp_parse_e smtp_address_parse_mailbox(smtp_address_t *a, smtp_span_t text);

/* Checks a domain or address literal that fills the span: labels, lengths,
 * [1.2.3.4] and [IPv6:..] literals (RFC 5321 4.1.3). SMTP_OK or SMTP_BAD.
 * One final dot of a name is let pass; whoever compares names cuts it off. */
smtp_parse_e smtp_address_check_domain(smtp_span_t domain);

/* 1 if the local part routes mail on: an unquoted or quoted %, ! or @ inside.
 * Strangers may not use one, see the relay rules. */
int smtp_address_is_routed(const smtp_address_t *a);

/* The local part without quotes and backslashes, written to buf (NUL terminated,
 * SMTP_PATH_MAX octets suffice; what does not fit is cut off). Returns its length. It
 * may be any printable text: empty, "..", with slashes or blanks. */
apr_size_t smtp_address_unquote(const smtp_address_t *a, char *buf, apr_size_t size);

#endif
