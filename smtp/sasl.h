/* The server's side of AUTH PLAIN and LOGIN (RFC 4954, RFC 4616) without any I/O: takes
 * base64 responses, gives challenges and, at the end, a user and a password. Who checks
 * them is decided elsewhere. Passwords are wiped as soon as they are of no use.
 */
#ifndef SMTP_SASL_H
#define SMTP_SASL_H

#include <apr_buckets.h>

#include "smtp/reply.h"

typedef struct smtp_sasl_mechanism_t smtp_sasl_mechanism_t;

/* One exchange; zeroed is none. */
typedef struct smtp_sasl_t {
    const smtp_sasl_mechanism_t *mechanism; /* NULL: no exchange */
    int step;                               /* responses taken */
    char *user;                             /* NUL terminated */
    char *password;
    apr_size_t user_size, password_size;    /* of the memory, for wiping */
    unsigned is_nobody : 1;                 /* no user has these: empty, too long, or for another */
} smtp_sasl_t;

/* The mechanisms, a blank between, as EHLO announces them. */
extern const char smtp_sasl_mechanisms[];

/* Starts an exchange with the arguments of AUTH: mechanism and maybe a first response.
 * Returns the reply to it, a 334 challenge among them, or NULL: user and password are set
 * and must be answered for; by a refusal if is_nobody. Memory comes from ba. */
const smtp_reply_t *smtp_sasl_start(smtp_sasl_t *sasl, smtp_span_t arguments,
                                    apr_bucket_alloc_t *ba);

/* Takes a response line; "*" cancels. Returns as smtp_sasl_start(). */
const smtp_reply_t *smtp_sasl_respond(smtp_sasl_t *sasl, smtp_span_t line,
                                      apr_bucket_alloc_t *ba);

/* Ends the exchange with the answer to user and password, NULL for success. Returns what the
 * client is told: nobody's are never a success. */
const smtp_reply_t *smtp_sasl_answer(smtp_sasl_t *sasl, const smtp_reply_t *answer);

/* Ends the exchange: wipes and frees what it holds. May be called at any time. */
void smtp_sasl_end(smtp_sasl_t *sasl);

/* Decodes strict base64 (RFC 4648 4: padded, nothing else inside) to memory of ba, NUL
 * terminated; *n is its length. NULL: it is none. The caller frees with apr_bucket_free(). */
char *smtp_sasl_decode(smtp_span_t text, apr_bucket_alloc_t *ba, apr_size_t *n);

#endif
