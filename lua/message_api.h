/* The message's octets, for methods of the session handle.
 */
#ifndef NSSMTPD_MESSAGE_API_H
#define NSSMTPD_MESSAGE_API_H

#include "mod_nssmtpd.h"

/* The message as it stands now, behind *bb. It lives as long as the call. NULL, or why not. */
const char *nssmtpd_message_api_open(nssmtpd_call_t *call, apr_bucket_brigade **bb,
                                     apr_off_t *body, apr_off_t *size);

/* Copies the brigade to n octets at buf, and empties it. NULL, or why not. */
const char *nssmtpd_message_api_read(apr_bucket_brigade *bb, char *buf, apr_size_t n);

#endif
