/* The octets of one message while they arrive: in memory up to SmtpdSpool memory=, beyond
 * that in a file that has no name any more. Knows octets, not mail.
 */
#ifndef NSSMTPD_SPOOL_H
#define NSSMTPD_SPOOL_H

#include <apr_buckets.h>

#include "smtp/chars.h"
#include <apr_file_io.h>

typedef struct nssmtpd_spool_t {
    apr_pool_t *p;
    const char *directory;
    apr_size_t memory_max;
    apr_bucket_brigade *memory; /* what is not in the file yet */
    apr_size_t memory_len;
    apr_file_t *file;
    apr_off_t file_len;
    apr_off_t length;           /* of all that was written, or passed by */
    unsigned is_8bit : 1;       /* an octet above 127 is in it, or in a field added since */
} nssmtpd_spool_t;

/* The spool lives in p, its memory comes from ba; the file is made when it is needed. */
nssmtpd_spool_t *nssmtpd_spool_create(apr_pool_t *p, apr_bucket_alloc_t *ba,
                                      const char *directory, apr_size_t memory_max);

/* Appends n octets, which are copied. An error is the file system's; the spool is of no
 * use after it. */
apr_status_t nssmtpd_spool_write(nssmtpd_spool_t *spool, const char *data, apr_size_t n);

/* Appends buckets with the whole content to bb. They refer to the spool's own memory and
 * file and live as long as p. May be called again. */
apr_status_t nssmtpd_spool_read(nssmtpd_spool_t *spool, apr_bucket_brigade *bb);

/* All in memory, and n octets that never were in it, have gone elsewhere: it is forgotten but
 * for the length. Only while there is no file. */
void nssmtpd_spool_pass_by(nssmtpd_spool_t *spool, apr_size_t n);

/* The whole message as one piece, in memory or mapped; it stays with the spool's pool. A
 * message that is in a file is in it wholly afterwards. */
apr_status_t nssmtpd_spool_map(nssmtpd_spool_t *spool, smtp_span_t *octets);

/* Frees memory and file. */
void nssmtpd_spool_close(nssmtpd_spool_t *spool);

#endif
