/* The client's side of an SMTP session (RFC 5321) without any I/O: commands are put
 * into a brigade, replies are read from octets, and a reply to a step is judged: what
 * does our own client get to hear? The relay is hostile input like any other. The
 * order of steps is the caller's (relay/upstream.c).
 */
#ifndef SMTP_CLIENT_H
#define SMTP_CLIENT_H

#include <apr_buckets.h>
#include <apr_pools.h>

#include "smtp/limits.h"
#include "smtp/reply.h"

typedef enum smtp_step_e {
    SMTP_STEP_GREETING,
    SMTP_STEP_EHLO,
    SMTP_STEP_HELO,
    SMTP_STEP_STARTTLS,
    SMTP_STEP_AUTH,
    SMTP_STEP_LOGIN,
    SMTP_STEP_LOGIN_USER,
    SMTP_STEP_LOGIN_PASSWORD,
    SMTP_STEP_RSET,
    SMTP_STEP_MAIL,
    SMTP_STEP_RCPT,
    SMTP_STEP_DATA,
    SMTP_STEP_DOT,
    SMTP_STEP_QUIT,
    SMTP_STEP_COUNT
} smtp_step_e;

typedef enum smtp_wait_e { SMTP_WAIT_CONNECT, SMTP_WAIT_RELAY, SMTP_WAIT_DOT } smtp_wait_e;

/* A row of the table of steps, in client.c. */
typedef struct smtp_step_t {
    const char *name;    /* for the log */
    const char *command; /* with %s for the argument; NULL: nothing is sent */
    int expect;          /* first digit of the code that lets us go on */
    smtp_wait_e wait;    /* which deadline its reply has */
    unsigned ours : 1;   /* a 5yz is a fault between us and the relay, not about the mail */
    unsigned secret : 1; /* neither it nor its reply's text may be logged */
} smtp_step_t;

const smtp_step_t *smtp_step(smtp_step_e step);

/* What a relay announced. */
enum {
    SMTP_CAN_PIPELINING = 0x01,
    SMTP_CAN_SIZE = 0x02,
    SMTP_CAN_8BITMIME = 0x04,
    SMTP_CAN_STARTTLS = 0x08,
    SMTP_CAN_AUTH_PLAIN = 0x10,
    SMTP_CAN_AUTH_LOGIN = 0x20
};

/* One connection to a relay; zeroed is a new one. */
typedef struct smtp_client_t {
    unsigned capabilities;
    int code;                       /* of the reply being read; 0 before its first line */
    int lines;
    apr_size_t line_len, text_len, text_size;
    char *text;                     /* its text so far, in the pool given to read */
    char line[SMTP_RELAY_LINE_MAX];
} smtp_client_t;

typedef enum smtp_verdict_e {
    SMTP_VERDICT_TAKEN,   /* as expected: go on */
    SMTP_VERDICT_REFUSED, /* the relay's word about this mail, for the client */
    SMTP_VERDICT_FAULT    /* between us and the relay: log it as an error */
} smtp_verdict_e;

/* Appends the step's command. arg is a path without brackets, or our name; it must
 * hold no CR or LF. */
void smtp_client_put(apr_bucket_brigade *bb, smtp_step_e step, const char *arg);

/* Appends MAIL with what the relay announced of SIZE (size < 0: unknown) and BODY. */
void smtp_client_put_mail(const smtp_client_t *cl, apr_bucket_brigade *bb, const char *from,
                          apr_int64_t size, int body_8bit);

/* Reads one reply from *at on. SMTP_OK: *reply is complete, its text printable and in
 * p, its enhanced code split off ("x.0.0" where the relay gave none that fits).
 * SMTP_MORE: call again with more, and the same p. SMTP_BAD: this is no SMTP. */
smtp_parse_e smtp_client_read(smtp_client_t *cl, apr_pool_t *p, const char **at, const char *end,
                              smtp_reply_t *reply);

/* Takes over what the reply to EHLO announces; NULL (HELO): nothing. */
void smtp_client_take_capabilities(smtp_client_t *cl, const smtp_reply_t *reply);

/* Judges a reply to a step. *to_client is what the client hears: the relay's word or
 * one of ours for a fault; allocated from p or static. */
smtp_verdict_e smtp_client_judge(smtp_step_e step, const smtp_reply_t *reply, apr_pool_t *p,
                                 const smtp_reply_t **to_client);

#endif
