/* The header section of the mail in hand, read and changed by scripts and scanners. An
 * untouched message stays as it came, octet for octet; a touched one changes only there.
 */
#ifndef NSSMTPD_FIELDS_H
#define NSSMTPD_FIELDS_H

#include "server/transaction.h"

/* The fields as they stand now, of nssmtpd_field_t, in their order. Values are unfolded.
 * Lives as long as the mail. */
const apr_array_header_t *nssmtpd_fields_list(nssmtpd_mail_t *mail);

/* Changes; NULL, or what is wrong with name or value. */
const char *nssmtpd_fields_add(nssmtpd_mail_t *mail, const char *name, const char *value);
const char *nssmtpd_fields_set(nssmtpd_mail_t *mail, const char *name, const char *value);
const char *nssmtpd_fields_delete(nssmtpd_mail_t *mail, const char *name);

/* Appends the message to bb as it stands now, without our Received. *body is where its body
 * begins, *size its octets. */
apr_status_t nssmtpd_fields_message(nssmtpd_mail_t *mail, apr_bucket_brigade *bb, apr_off_t *body,
                                    apr_off_t *size);

#endif
